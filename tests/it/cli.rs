//! The commands of the command line.

use shared::app::App;
use std::path::Path;
use std::process::Stdio;

use tempfile::TempDir;
use tests::command::{Finished, carillon, run};
use tests::setup::{self, APP_SECRET, Setup};
use tests::{Server, within};
use tokio::io::AsyncReadExt;

fn folder_with(name: &str, text: &str) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join(name), text).expect("a file in it");
    folder
}

async fn check_config(text: &str) -> Finished {
    let folder = folder_with("carillon.toml", text);
    run(folder.path(), &["check-config", "--config", "carillon.toml"], &[]).await
}

#[tokio::test]
async fn a_valid_configuration_is_reported_as_valid() {
    let finished = check_config(&Setup::default().server("port = 6001").toml()).await;
    assert_eq!(finished.code, 0, "{finished:?}");
    assert!(finished.stdout.contains("valid") && finished.stdout.contains("6001"), "{finished:?}");
    assert_eq!(finished.stderr, "");
}

#[tokio::test]
async fn a_mistake_is_reported_with_its_key_its_source_and_the_expected_value() {
    let app = "[[apps]]\nid = \"a\"\nkey = \"b\"\nsecret = \"very-secret-text\"\n";
    for (text, words) in [
        ("[server]\nprot = 8080\n".to_owned(), vec!["server.prot", "carillon.toml", "expected"]),
        ("[server]\nport = \"many\"\n".into(), vec!["server.port", "carillon.toml", "expected u16"]),
        ("[server]\nport = 70000\n".into(), vec!["server.port", "carillon.toml", "expected u16"]),
        (
            "[server]\nactivity_timeout = \"0s\"\n".into(),
            vec!["server.activity_timeout", "expected at least 1s, not 0s", "carillon.toml"],
        ),
        ("[server]\npath_prefix = \"ws/\"\n".into(), vec!["server.path_prefix", "expected", "carillon.toml"]),
        ("[nonsense]\n".into(), vec!["nonsense", "carillon.toml", "expected"]),
        ("[server\n".into(), vec!["carillon.toml", "line 1"]),
        ("[log]\nlevel = \"lo=ud=x\"\n".into(), vec!["log.level", "expected", "carillon.toml"]),
        (
            format!("{app}limits = {{ batch = 0 }}\n"),
            vec!["apps.0.limits.batch", "expected at least 1", "carillon.toml"],
        ),
        (format!("{app}event_count = 3\n"), vec!["event_count", "carillon.toml", "expected"]),
        (format!("{app}{app}"), vec!["apps", "unique"]),
        ("[[apps]]\nid = \"a\"\nkey = \"b\"\n".into(), vec!["apps.0.secret", "expected"]),
        ("[[apps]]\nid = \"a b\"\nkey = \"b\"\nsecret = \"very-secret-text\"\n".into(), vec!["apps.0.id", "expected"]),
        (
            "[[apps]]\nid = \"a\"\nkey = \"b\"\nsecret = [\"very-secret-text\"]\n".into(),
            vec!["secret", "carillon.toml"],
        ),
    ] {
        let finished = check_config(&text).await;
        assert_eq!((finished.code, finished.stdout.as_str()), (2, ""), "{text}: {finished:?}");
        for word in words {
            assert!(finished.stderr.contains(word), "{word:?} is not in the response to {text}: {}", finished.stderr);
        }
        assert!(!finished.stderr.contains("very-secret-text"), "{}", finished.stderr);
        assert!(finished.stderr.lines().all(|line| line.starts_with("carillon: ")), "{}", finished.stderr);
    }
}

#[tokio::test]
async fn a_configuration_is_checked_and_printed_for_the_given_role() {
    let folder = tempfile::tempdir().expect("a folder");
    let command = async |args: &[&str]| run(folder.path(), args, &[]).await;
    // Without an app and without Redis, `up` serves the demo app. The other roles do not start.
    for role in ["gateway", "publisher"] {
        for name in ["check-config", "print-config"] {
            let finished = command(&[name, "--role", role]).await;
            assert_eq!((finished.code, finished.stdout.as_str()), (2, ""), "{finished:?}");
            assert!(finished.stderr.contains("apps: ") && finished.stderr.contains("redis.url: "), "{finished:?}");
        }
    }
    assert_eq!(command(&["check-config", "--role", "up"]).await.code, 0);
    assert_eq!(command(&["check-config", "--role", "other"]).await.code, 2);
    std::fs::write(folder.path().join("carillon.toml"), Setup::default().toml()).expect("the file can be written");
    let with = ["--config", "carillon.toml", "--redis", "redis://127.0.0.1:1", "--role"];
    for (role, port) in [("up", 8080), ("gateway", 8080), ("publisher", 8081)] {
        let finished = command(&[&["check-config"][..], &with, &[role]].concat()).await;
        assert_eq!(finished.code, 0, "{finished:?}");
        assert!(finished.stdout.contains(&format!("port {port}")), "{finished:?}");
        let finished = command(&[&["print-config"][..], &with, &[role]].concat()).await;
        assert!(finished.stdout.contains(&format!("port = {port}")), "{finished:?}");
    }
}

#[tokio::test]
async fn the_advertised_address_is_a_host_and_a_port() {
    for (address, is_valid) in [
        ("10.0.0.7:8082", true),
        ("node-1.example:8082", true),
        ("[::1]:8082", true),
        ("10.0.0.7", false),
        ("10.0.0.7:", false),
        ("10.0.0.7:0", false),
        ("10.0.0.7:70000", false),
        (":8082", false),
        ("a b:8082", false),
        ("user@10.0.0.7:8082", false),
        ("http://10.0.0.7:8082", false),
        ("10.0.0.7:8082/x", false),
    ] {
        let finished = check_config(&format!("{}[peers]\nadvertise = {address:?}\n", Setup::default().toml())).await;
        assert_eq!(finished.code, if is_valid { 0 } else { 2 }, "{address}: {finished:?}");
        assert_eq!(finished.stderr.contains("peers.advertise"), !is_valid, "{address}: {finished:?}");
    }
}

#[tokio::test]
async fn a_mistake_in_a_variable_names_the_environment() {
    let folder = tempfile::tempdir().expect("a folder");
    let finished = run(folder.path(), &["check-config"], &[("CARILLON_SERVER__PROT", "1")]).await;
    assert_eq!(finished.code, 2);
    assert!(finished.stderr.contains("server.prot") && finished.stderr.contains("environment"), "{}", finished.stderr);
    for (variable, complaint) in [
        (("CARILLON_SERVER__PONG_TIMEOUT", "0s"), "server.pong_timeout: expected at least 1s, not 0s"),
        (("REVERB_SERVER_PORT", "high"), "REVERB_SERVER_PORT: expected a port, not \"high\""),
    ] {
        let finished = run(folder.path(), &["check-config"], &[variable]).await;
        let expected = format!("carillon: {complaint} (from the environment)\n");
        assert_eq!((finished.code, finished.stderr), (2, expected));
    }
    let finished = run(folder.path(), &["check-config", "--config", "missing.toml"], &[]).await;
    assert_eq!(finished.code, 2);
    assert!(finished.stderr.contains("missing.toml"), "{}", finished.stderr);
    let finished = run(folder.path(), &["check-config"], &[("REVERB_APP_ID", "1")]).await;
    assert_eq!(finished.code, 2);
    assert!(finished.stderr.contains("REVERB_APP_KEY"), "{}", finished.stderr);
}

#[tokio::test]
async fn the_printed_configuration_masks_secrets_and_shows_effective_values() {
    let folder = folder_with("carillon.toml", &Setup::default().server("port = 1").toml());
    let args = ["print-config", "--config", "carillon.toml", "--port", "3"];
    let variables = [("CARILLON_SERVER__PORT", "2"), ("CARILLON_SERVER__HOST", "127.0.0.9")];
    let finished = run(folder.path(), &args, &variables).await;
    assert_eq!(finished.code, 0, "{finished:?}");
    assert!(!finished.stdout.contains(APP_SECRET) && finished.stdout.contains("***"), "{}", finished.stdout);
    let printed: toml::Table = finished.stdout.parse().expect("it is TOML");
    assert_eq!(
        printed["server"]["port"].as_integer(),
        Some(3),
        "flags override variables, and variables override the file"
    );
    assert_eq!(printed["server"]["host"].as_str(), Some("127.0.0.9"));
    assert_eq!(printed["apps"][0]["secret"].as_str(), Some("***"));
    let again = folder_with("again.toml", &finished.stdout);
    let finished = run(again.path(), &["check-config", "--config", "again.toml"], &[]).await;
    assert_eq!(finished.code, 0, "the printed configuration can be parsed: {finished:?}");
}

#[tokio::test]
async fn fresh_credentials_are_a_configuration_and_an_env_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let finished = run(folder.path(), &["app", "new"], &[]).await;
    assert_eq!(finished.code, 0, "{finished:?}");
    let (configuration, env) = finished.stdout.split_once("\n\n").expect("two parts");
    let table: toml::Table = configuration.parse().expect("the first part is TOML");
    let text = |name: &str| table["apps"][0][name].as_str().expect("a text").to_owned();
    let app = App::with_defaults(&text("id"), &text("key"), &text("secret"));
    assert!(app.secret.reveal().len() >= 32);
    let other = run(folder.path(), &["app", "new"], &[]).await;
    assert!(!other.stdout.contains(app.secret.reveal()), "every call creates a new app");

    std::fs::write(folder.path().join("carillon.toml"), configuration).expect("a file");
    std::fs::write(folder.path().join(".env"), env).expect("a file");
    for args in [["--config", "carillon.toml"], ["--env-file", ".env"]] {
        let args = [&args[..], &["--host", "127.0.0.1"]].concat();
        let server = Server::start_with(folder.path(), &args, app.clone()).await;
        let mut client = server.client().await;
        client.subscribe("private-room").await;
        server.publish("private-room", "hello", "1").await;
        client.expect_event("private-room", "hello", "1").await;
        server.stop().await;
    }
}

#[tokio::test]
async fn a_laravel_env_file_is_served_unchanged() {
    let env = "APP_NAME=\"My Shop\"\nDB_PASSWORD='a # b'\n\nBROADCAST_CONNECTION=reverb\nREVERB_APP_ID=123456\n\
               REVERB_APP_KEY=laravel-key\nREVERB_APP_SECRET=\"laravel secret\"\nREVERB_HOST=\"localhost\"\n\
               REVERB_PORT=8080\nREVERB_SCHEME=http\nREVERB_SERVER_HOST=127.0.0.1\nVITE_KEY=\"${REVERB_APP_KEY}\"\n";
    let folder = folder_with(".env", env);
    let app = App::with_defaults("123456", "laravel-key", "laravel secret");
    let server = Server::start_with(folder.path(), &["--env-file", ".env"], app).await;
    assert!(server.public.ip().is_loopback(), "REVERB_SERVER_HOST is applied: {}", server.public);
    let mut client = server.client().await;
    client.join("presence-room", "1").await;
    server.publish("presence-room", "hello", "1").await;
    client.expect_event("presence-room", "hello", "1").await;
    server.stop().await;
}

#[tokio::test]
async fn trigger_and_listen_work_with_a_running_server() {
    let server = Server::plain().await;
    let url = server.url.to_string();
    let target = ["--url", &url, "--app-id", setup::APP_ID, "--key", setup::APP_KEY, "--secret", APP_SECRET];
    let folder = tempfile::tempdir().expect("a folder");
    let channels = ["news", "private-room", "presence-room"];
    let listen =
        [&["listen"], &target[..], &["--user-id", "ear", "--count", "3", "--timeout", "15s"], &channels].concat();
    let mut listener = carillon(&listen, &[])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary can be started");
    server.metric_reaches("carillon_subscriptions", 3.0).await;
    assert_eq!(server.get("/channels/presence-room/users").await["users"][0]["id"], "ear");
    for channel in channels {
        let trigger = [&["trigger"], &target[..], &[channel, "App\\Events\\Hello", "{\"n\":1}"]].concat();
        let finished = run(folder.path(), &trigger, &[]).await;
        assert_eq!((finished.code, finished.stdout.as_str()), (0, "published\n"), "{finished:?}");
    }
    let mut printed = String::new();
    let stdout = listener.stdout.as_mut().expect("stdout is a pipe");
    within("the received events", stdout.read_to_string(&mut printed)).await.expect("it is UTF-8");
    let expected: String =
        channels.iter().map(|channel| format!("{channel} App\\Events\\Hello {{\"n\":1}}\n")).collect();
    assert_eq!(printed, expected);
    let status = within("the end of listen", listener.wait()).await.expect("waiting succeeds");
    assert_eq!(status.code(), Some(0));

    let wrong = [
        "trigger",
        "--url",
        &url,
        "--app-id",
        setup::APP_ID,
        "--key",
        setup::APP_KEY,
        "--secret",
        "wrong-one",
        "news",
        "a",
        "1",
    ];
    let refused = run(folder.path(), &wrong, &[]).await;
    assert_eq!((refused.code, refused.stdout.as_str()), (1, ""));
    assert!(refused.stderr.contains("401") && !refused.stderr.contains("wrong-one"), "{}", refused.stderr);
    server.stop().await;
    let unreachable = run(folder.path(), &[&["trigger"], &target[..], &["news", "a", "1"]].concat(), &[]).await;
    assert_eq!(unreachable.code, 1);
    assert!(unreachable.stderr.contains("cannot connect"), "{}", unreachable.stderr);
}

#[tokio::test]
async fn without_an_app_the_demo_app_is_served_on_loopback_only() {
    let folder = tempfile::tempdir().expect("a folder");
    let app = App::with_defaults("app-id", "app-key", "app-secret");
    let server = Server::start_with(folder.path(), &[], app).await;
    assert!(server.public.ip().is_loopback(), "{}", server.banner);
    assert!(server.banner.contains("demo"), "{}", server.banner);
    let mut client = server.client().await;
    client.subscribe("private-room").await;
    server.publish("private-room", "hello", "1").await;
    client.expect_event("private-room", "hello", "1").await;
    server.stop().await;
    for host in ["0.0.0.0", "::", "192.0.2.1", "example.com"] {
        let finished = run(folder.path(), &["up", "--port", "0", "--admin-port", "0", "--host", host], &[]).await;
        assert_eq!((finished.code, finished.stdout.as_str()), (2, ""), "{host}: {finished:?}");
        assert!(finished.stderr.contains("server.host") && finished.stderr.contains("app new"), "{}", finished.stderr);
    }
}

#[tokio::test]
async fn unknown_flags_and_commands_exit_2() {
    let folder = tempfile::tempdir().expect("a folder");
    for args in [&["up", "--unknown"][..], &["fly"], &[], &["up", "--port", "99999"], &["listen"]] {
        let finished = run(folder.path(), args, &[]).await;
        assert_eq!((finished.code, finished.stdout.as_str()), (2, ""), "{args:?}: {finished:?}");
        assert!(!finished.stderr.is_empty());
    }
    let help = run(folder.path(), &["--help"], &[]).await;
    assert_eq!(help.code, 0);
    for command in ["up", "check-config", "print-config", "app", "trigger", "listen"] {
        assert!(help.stdout.contains(command), "{command} is not in the help:\n{}", help.stdout);
    }
}

#[tokio::test]
async fn a_port_in_use_is_reported_as_such() {
    let folder = folder_with("carillon.toml", &Setup::default().toml());
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = taken.local_addr().expect("an address").port().to_string();
    let up = ["up", "--config", "carillon.toml", "--host", "127.0.0.1"];
    for (public, admin, key) in [(port.as_str(), "0", "server.port"), ("0", port.as_str(), "admin.port")] {
        let args = [&up[..], &["--port", public, "--admin-port", admin]].concat();
        let finished = run(folder.path(), &args, &[]).await;
        assert_eq!((finished.code, finished.stdout.as_str()), (1, ""), "{finished:?}");
        for word in ["cannot listen on 127.0.0.1", &port, key, "in use"] {
            assert!(finished.stderr.contains(word), "{word:?}: {}", finished.stderr);
        }
    }
}

async fn some_use(server: &Server) {
    let mut client = server.client().await;
    client.subscribe("private-orders.1").await;
    server.publish("private-orders.1", "App\\Events\\OrderShipped", "{}").await;
    client.expect("App\\Events\\OrderShipped").await;
    client.send("not json");
    client.expect_error().await;
    drop(client);
    server.metric_reaches("carillon_connections", 0.0).await;
}

#[tokio::test]
async fn debug_logs_each_connection_subscription_and_broadcast() {
    let server = Server::start(Setup::default().flag("--debug")).await;
    some_use(&server).await;
    let log = server.stop().await;
    for line in [
        "Connection opened",
        "Event published app.id=shop event.name=App\\Events\\OrderShipped channel.name=private-orders.1",
        "Connection closed",
    ] {
        assert!(log.contains(line), "{line:?} is not in the log:\n{log}");
    }
    let subscribed =
        |line: &str| line.contains("Subscribed socket.id=") && line.ends_with("channel.name=private-orders.1");
    assert!(log.lines().any(subscribed), "{log}");
}

#[tokio::test]
async fn without_debug_the_log_is_quiet() {
    let server = Server::plain().await;
    some_use(&server).await;
    assert_eq!(server.log(), "");
    server.stop().await;
}

#[tokio::test]
async fn secrets_are_read_from_files() {
    let folder = tempfile::tempdir().expect("a folder");
    let secret: &Path = &folder.path().join("secret");
    std::fs::write(secret, "from-a-file\n").expect("a file");
    let text = format!("[[apps]]\nid = \"a\"\nkey = \"b\"\nsecret_file = \"{}\"\n", secret.display());
    std::fs::write(folder.path().join("carillon.toml"), text).expect("a file");
    let app = App::with_defaults("a", "b", "from-a-file");
    let args = ["--config", "carillon.toml", "--host", "127.0.0.1"];
    let server = Server::start_with(folder.path(), &args, app).await;
    server.client().await.subscribe("private-room").await;
    server.stop().await;
}
