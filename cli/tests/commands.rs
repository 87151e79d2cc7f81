//! Tests of the commands: their output and their exit codes.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use client::{Client, ClientError, Options, ServerUrl};

fn carillon(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_carillon"));
    command.args(args);
    command
}

fn output(args: &[&str]) -> Output {
    carillon(args).output().expect("the binary runs")
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A running `carillon up`, killed when dropped.
struct Up {
    child: Child,
    stdout: Option<BufReader<ChildStdout>>,
    public: String,
    admin: String,
}

impl Up {
    fn start(more: &[&str]) -> Self {
        let mut command = carillon(&["up", "--port", "0", "--admin-port", "0"]);
        let child = command.args(more).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = child.expect("the binary runs");
        let mut stdout = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let (mut public, mut admin) = (String::new(), String::new());
        while admin.is_empty() {
            let mut line = String::new();
            assert!(stdout.read_line(&mut line).expect("stdout is text") > 0, "up ended before its banner");
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.as_slice() {
                ["public", url, ..] => public = (*url).to_owned(),
                ["admin", url, ..] => admin = (*url).to_owned(),
                _ => {}
            }
        }
        Self { child, stdout: Some(stdout), public, admin }
    }

    fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().expect("sh runs").success());
    }

    /// Waits for the end of the process. Returns its exit code and its log.
    fn wait(&mut self) -> (Option<i32>, String) {
        let code = self.child.wait().expect("the process can be awaited").code();
        let mut log = String::new();
        self.child.stderr.take().expect("stderr is piped").read_to_string(&mut log).expect("logs are text");
        (code, log)
    }

    async fn client(&self) -> Client {
        let url: ServerUrl = self.public.parse().expect("the banner shows a URL");
        Client::connect(&url, "app-key", &Options::default()).await.expect("the demo app accepts connections")
    }

    fn get(&self, url: &str) -> String {
        let url: ServerUrl = url.parse().expect("a URL");
        let mut stream =
            std::net::TcpStream::connect((url.host(), url.port())).expect("the server accepts connections");
        let request = format!("GET {} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", url.prefix());
        std::io::Write::write_all(&mut stream, request.as_bytes()).expect("the server reads the request");
        let mut response = String::new();
        stream.read_to_string(&mut response).expect("the server responds");
        response
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn wrong_usage_exits_with_2_and_is_named() {
    for (args, complaint) in [
        (&["up", "--prot", "1"][..], "unexpected argument '--prot'"),
        (&["check-config", "--config", "/nowhere"], "carillon: cannot read /nowhere (--config): No such file"),
        (&["up", "--host", "0.0.0.0"], "carillon: server.host: expected 127.0.0.1 or another loopback address"),
        (&["trigger", "--url", "ftp://x", "c", "e", "d"], "expected http://, https://, ws:// or wss://, not ftp://"),
        (&["trigger", "--ca", "/nowhere", "c", "e", "d"], "carillon: --ca: cannot use /nowhere: No such file"),
        (&["listen", "--ca", "/dev/null", "c"], "carillon: --ca: cannot use /dev/null: the file is empty"),
    ] {
        let output = output(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(stderr(&output).contains(complaint), "{args:?}: {}", stderr(&output));
    }
}

#[test]
fn the_environment_overrides_the_file_and_flags_override_the_environment() {
    let print = |args: &[&str], variables: &[(&str, &str)]| {
        stdout(&carillon(args).envs(variables.iter().copied()).output().expect("the binary runs"))
    };
    let port = [("CARILLON_SERVER__PORT", "7001")];
    assert!(print(&["print-config"], &port).contains("\nport = 7001\n"));
    assert!(print(&["print-config", "--port", "7002"], &port).contains("\nport = 7002\n"));
    let app = [("REVERB_APP_ID", "shop"), ("REVERB_APP_KEY", "k"), ("REVERB_APP_SECRET", "hush")];
    let printed = print(&["print-config"], &app);
    assert!(printed.contains("id = \"shop\"") && !printed.contains("hush"), "{printed}");
    let checked = print(&["check-config"], &app);
    assert_eq!(checked, "configuration is valid: 1 app (shop), listening on 0.0.0.0 port 8080\n");
}

#[test]
fn an_unknown_variable_stops_the_start() {
    let output = carillon(&["up"]).env("CARILLON_SERVER__PROT", "1").output().expect("the binary runs");
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("prot") && stderr(&output).contains("environment"), "{}", stderr(&output));
}

#[test]
fn a_port_in_use_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let port = taken.local_addr().expect("the listener is bound").port().to_string();
    for (args, keys) in [
        (["up", "--port", &port, "--admin-port", "0"], "(server.host, server.port)"),
        (["up", "--port", "0", "--admin-port", &port], "(admin.host, admin.port)"),
    ] {
        let output = output(&args);
        assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(1), ""));
        let expected = format!("carillon: cannot listen on 127.0.0.1 port {port} {keys}: Address already in use");
        assert!(stderr(&output).starts_with(&expected), "{}", stderr(&output));
    }
}

#[test]
fn up_reports_its_health() {
    let up = Up::start(&[]);
    assert!(up.get(&format!("{}/up", up.public)).ends_with(r#"{"health":"OK"}"#));
    for path in ["livez", "readyz"] {
        assert!(up.get(&format!("{}/{path}", up.admin)).ends_with("\r\n\r\nok"), "{path}");
    }
    let metrics = up.get(&format!("{}/metrics", up.admin));
    assert!(metrics.contains("carillon_build_info") && metrics.contains("process_open_fds"), "{metrics}");
}

#[tokio::test]
async fn a_signal_closes_connections_with_4100_and_exits_with_0() {
    for signal in ["INT", "TERM"] {
        let mut up = Up::start(&[]);
        let mut client = up.client().await;
        up.signal(signal);
        let end = loop {
            if let Err(end) = client.next_message().await {
                break end;
            }
        };
        assert!(matches!(end, ClientError::Closed { code: Some(4100), .. }), "{end}");
        assert_eq!(up.wait().0, Some(0));
    }
}

#[test]
fn a_second_signal_exits_at_once_with_130() {
    let dir = tempfile::tempdir().expect("a directory can be created");
    let file = dir.path().join("carillon.toml");
    std::fs::write(&file, "[drain]\naccept = \"1h\"\n").expect("the file can be written");
    let mut up = Up::start(&["--config", file.to_str().expect("the path is text")]);
    up.signal("TERM");
    let mut log = BufReader::new(up.child.stderr.take().expect("stderr is piped"));
    let mut line = String::new();
    log.read_line(&mut line).expect("logs are text");
    assert!(line.contains("shutting down"), "{line}");
    up.signal("INT");
    assert_eq!(up.child.wait().expect("the process can be awaited").code(), Some(130));
}

#[tokio::test]
async fn up_continues_without_standard_output() {
    let mut up = Up::start(&[]);
    drop(up.stdout.take());
    let mut client = up.client().await;
    client.subscribe("news").await.expect("public channels are open");
    client.close().await.expect("the server answers a close");
}

#[tokio::test]
async fn activity_is_logged_only_with_debug() {
    for (args, is_logged) in [(&[][..], false), (&["--debug"], true)] {
        let mut up = Up::start(args);
        let mut client = up.client().await;
        client.subscribe("news").await.expect("public channels are open");
        let sent = output(&["trigger", "--url", &up.public, "news", r"App\Events\OrderShipped", "{}"]);
        assert_eq!(stdout(&sent), "published\n");
        client.close().await.expect("the server answers a close");
        up.signal("INT");
        let (_, log) = up.wait();
        assert_eq!(log.contains(r"Event published app.id="), is_logged, "{log}");
        assert_eq!(log.contains("DEBUG Subscribed socket.id="), is_logged, "{log}");
    }
}

#[test]
fn listen_receives_events_of_trigger_on_every_kind_of_channel() {
    let up = Up::start(&[]);
    let channels = ["news", "cache-news", "private-a", "private-encrypted-a", "presence-a", "#server-to-user-7"];
    let count = channels.len().to_string();
    let mut listen = carillon(&["listen", "--url", &up.public, "--count", &count, "--timeout", "30s"]);
    let listen = listen.args(["--user-info", r#"{"name":"Ana"}"#]).args(channels);
    let mut child = listen.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary runs");
    let mut ready = String::new();
    let mut stderr = BufReader::new(child.stderr.take().expect("stderr is piped"));
    stderr.read_line(&mut ready).expect("it is text");
    assert!(ready.starts_with("carillon: listening on news, "), "{ready}");
    let mut expected = String::from("cache-news pusher:cache_miss {}\n");
    // The line of the cache channel is the miss.
    for channel in channels.iter().filter(|channel| **channel != "cache-news") {
        let sent = output(&["trigger", "--url", &up.public, channel, "shipped", r#"{"id":1}"#]);
        assert_eq!(stdout(&sent), "published\n");
        expected.push_str(&format!("{channel} shipped {{\"id\":1}}\n"));
    }
    let listened = child.wait_with_output().expect("the process can be awaited");
    assert_eq!((listened.status.code(), stdout(&listened)), (Some(0), expected));
}

#[test]
fn trigger_and_listen_exit_with_1_and_the_refusal_of_the_server() {
    let up = Up::start(&[]);
    let url = ["--url", &up.public];
    for (args, complaint) in [
        (&["trigger", "--secret", "wrong", "news", "e", "d"][..], "the server refused: 401 Unauthorized: Invalid"),
        (&["trigger", "bad channel", "e", "d"], "the server refused: 400 Bad Request: "),
        (&["listen", "--key", "wrong", "news"], "the server refused: App key wrong not in this cluster."),
        (&["listen", "--secret", "wrong", "private-a"], "cannot subscribe to private-a: the server refused: Invalid"),
        (&["listen", "--count", "1", "--timeout", "10ms", "news"], "--count 1 was not reached within 10ms"),
    ] {
        let output = carillon(&args[..1]).args(url).args(&args[1..]).output().expect("the binary runs");
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        assert!(stderr(&output).contains(complaint), "{args:?}: {}", stderr(&output));
    }
}
