//! A running server.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use client::{ApiClient, Options, Reply, ServerUrl};
use rustix::process::Signal;
use serde_json::Value;
use shared::app::App;
use shared::protocol::SocketId;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::Child;
use tokio::task::JoinHandle;

use crate::client::TestClient;
use crate::metrics::Metrics;
use crate::raw::{HttpReply, Raw};
use crate::setup::{self, Setup};
use crate::{command, eventually, within};

/// A server process with its own ports. A test must call [`Server::stop`] at its end. If the test panics earlier, the
/// process is killed.
pub struct Server {
    /// The role of the process.
    pub role: Role,
    process: Child,
    /// The URL for clients, with the path prefix.
    pub url: ServerUrl,
    /// The prefix of `/app` and `/pusher` in every path. It can be empty.
    pub prefix: String,
    /// The address of the public listener.
    pub public: SocketAddr,
    /// The address of the admin listener.
    pub admin: SocketAddr,
    /// The banner that it printed at its start.
    pub banner: String,
    /// The app that clients and [`Server::publish`] use.
    pub app: App,
    stderr: Arc<Mutex<String>>,
    stderr_ended: Option<JoinHandle<()>>,
    stopped: bool,
    _folder: TempDir,
}

/// The role of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Gateway and publisher in one process.
    Up,
    /// A gateway.
    Gateway,
    /// A publisher.
    Publisher,
}

impl Role {
    /// Returns the command of the role.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Gateway => "gateway",
            Self::Publisher => "publisher",
        }
    }
}

/// The way to start a process: on free ports, without variables of the environment.
pub struct Launch {
    /// The binary.
    pub program: PathBuf,
    /// The role.
    pub role: Role,
    /// The port. If it is 0, the process takes any free port.
    pub port: u16,
    /// The working directory, if it is not a temporary folder.
    pub folder: Option<PathBuf>,
    /// The content of the configuration file. `None` means no file.
    pub configuration: Option<String>,
    /// Further arguments.
    pub args: Vec<String>,
    /// An inherited listening socket, and its name.
    pub socket: Option<(std::net::TcpListener, String)>,
    /// The configured app that clients use.
    pub app: App,
}

impl Launch {
    /// Starts the binary under test without a configuration.
    pub fn new(role: Role) -> Self {
        Self::of(command::binary(), role)
    }

    /// Uses another binary.
    pub fn of(program: PathBuf, role: Role) -> Self {
        Self {
            program,
            role,
            port: 0,
            folder: None,
            configuration: None,
            args: Vec::new(),
            socket: None,
            app: setup::app(),
        }
    }

    /// Uses this configuration and its flags, on the loopback interface.
    pub fn setup(self, setup: &Setup) -> Self {
        let launch = Self { configuration: Some(setup.toml()), ..self };
        launch.args(&["--host", "127.0.0.1"]).args(&setup.flags)
    }

    /// Uses this port.
    pub fn port(self, port: u16) -> Self {
        Self { port, ..self }
    }

    /// Passes a listening socket like systemd.
    pub fn socket(self, socket: std::net::TcpListener, name: &str) -> Self {
        Self { socket: Some((socket, name.to_owned())), ..self }
    }

    /// Adds arguments.
    pub fn args(mut self, args: &[impl AsRef<str>]) -> Self {
        self.args.extend(args.iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Starts the process and waits for its banner.
    ///
    /// # Panics
    /// Panics if the server does not start.
    pub async fn start(self) -> Server {
        let temporary = tempfile::tempdir().expect("a folder for the configuration");
        let (mut command, stdin) = match self.socket {
            None => (command::tied(&self.program), Stdio::null()),
            Some((socket, name)) => (command::activated(&self.program, &name), Stdio::from(OwnedFd::from(socket))),
        };
        command.arg(self.role.as_str()).args(["--port", &self.port.to_string(), "--admin-port", "0"]);
        if let Some(text) = &self.configuration {
            let file = temporary.path().join("carillon.toml");
            std::fs::write(&file, text).expect("the configuration can be written");
            command.arg("--config").arg(file);
        }
        command.args(&self.args).env_clear().current_dir(self.folder.as_deref().unwrap_or(temporary.path()));
        command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = command.spawn().expect("the binary can be started");
        let stderr = Arc::new(Mutex::new(String::new()));
        let stderr_ended = tokio::spawn(collect(process.stderr.take().expect("stderr is a pipe"), stderr.clone()));
        let stdout = BufReader::new(process.stdout.take().expect("stdout is a pipe"));
        let banner = within("the banner", read_banner(stdout, &stderr)).await;
        let (public, prefix) = address(&banner, "public");
        let (admin, _) = address(&banner, "admin");
        Server {
            role: self.role,
            process,
            url: ServerUrl::new(&public.ip().to_string(), public.port(), &prefix),
            prefix,
            public,
            admin,
            banner,
            app: self.app,
            stderr,
            stderr_ended: Some(stderr_ended),
            stopped: false,
            _folder: temporary,
        }
    }
}

impl Server {
    /// Starts a server with the defaults and one app.
    pub async fn plain() -> Self {
        Self::start(Setup::default()).await
    }

    /// Starts a server and waits for its banner.
    ///
    /// # Panics
    /// Panics if the server does not start.
    pub async fn start(setup: Setup) -> Self {
        Launch::new(Role::Up).setup(&setup).start().await
    }

    /// Starts `up` with these arguments in `folder`, on free ports. `app` must be the app that it will serve.
    ///
    /// # Panics
    /// Panics if the server does not start.
    pub async fn start_with(folder: &Path, args: &[&str], app: App) -> Self {
        Launch { folder: Some(folder.to_owned()), app, ..Launch::new(Role::Up) }.args(args).start().await
    }

    /// Connects a client.
    pub async fn client(&self) -> TestClient {
        self.client_with(&Options::default()).await
    }

    /// Connects a client with options.
    pub async fn client_with(&self, options: &Options) -> TestClient {
        TestClient::connect(&self.url, &self.app, options).await
    }

    /// Connects a raw WebSocket and reads its `connection_established`.
    pub async fn raw(&self) -> Raw {
        Raw::established(self.public, &self.app).await
    }

    /// Opens a TCP connection to the public listener.
    pub async fn tcp(&self) -> Raw {
        Raw::connect(self.public).await
    }

    /// Sends one plain HTTP request to the public listener, over a new connection.
    pub async fn http(&self, request: &str) -> HttpReply {
        self.tcp().await.exchange(request.as_bytes()).await
    }

    /// Returns an API client with the key of the app.
    pub fn api_client(&self) -> ApiClient {
        ApiClient::new(self.url.clone(), self.app.clone())
    }

    /// Publishes one event.
    ///
    /// # Panics
    /// Panics if the server does not answer 200.
    pub async fn publish(&self, channel: &str, event: &str, data: &str) {
        self.publish_except(channel, event, data, None).await;
    }

    /// Publishes one event to all connections except one.
    ///
    /// # Panics
    /// Panics if the server does not answer 200.
    pub async fn publish_except(&self, channel: &str, event: &str, data: &str, except: Option<SocketId>) {
        let mut api = self.api_client();
        let reply = within("a publish", api.trigger(&[channel], event, data, except)).await;
        let reply = reply.expect("the server answers");
        assert_eq!((reply.status.as_u16(), reply.body.as_str()), (200, "{}"), "publishing {event} on {channel}");
    }

    /// Sends a signed GET below `/apps/ID`, which must succeed. `path` can have parameters after a `?`.
    ///
    /// # Panics
    /// Panics if the server does not answer 200 with JSON.
    pub async fn get(&self, path: &str) -> Value {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let params: Vec<(&str, &str)> = query.split('&').filter_map(|pair| pair.split_once('=')).collect();
        let reply = within("a GET", self.api_client().get(path, &params)).await.expect("the server answers");
        assert_eq!(reply.status.as_u16(), 200, "GET {path}: {}", reply.body);
        serde_json::from_str(&reply.body).expect("the response is JSON")
    }

    /// Sends a signed POST below `/apps/ID`.
    ///
    /// # Panics
    /// Panics if there is no response.
    pub async fn post(&self, path: &str, body: &Value) -> Reply {
        within("a POST", self.api_client().post(path, body)).await.expect("the server answers")
    }

    /// Sends a GET to the admin listener.
    pub async fn admin_get(&self, path: &str) -> HttpReply {
        let request = format!("GET {path} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n");
        Raw::connect(self.admin).await.exchange(request.as_bytes()).await
    }

    /// Returns all metrics.
    ///
    /// # Panics
    /// Panics if they are unavailable, or if a line is not valid.
    pub async fn metrics(&self) -> Metrics {
        let reply = self.admin_get("/metrics").await;
        assert_eq!(reply.status, 200, "/metrics: {}", reply.body);
        Metrics::parse(&reply.body)
    }

    /// Returns the sum of all series of one name, or the one series of `name{label="value"}`. Returns 0 if there is none.
    pub async fn metric(&self, series: &str) -> f64 {
        self.metrics().await.value(series)
    }

    /// Waits until a metric has this value.
    ///
    /// # Panics
    /// Panics if it does not within the deadline.
    pub async fn metric_reaches(&self, series: &str, value: f64) {
        eventually(&format!("{series} = {value}"), async || self.metric(series).await == value).await;
    }

    /// Returns the resident memory of the process in bytes.
    ///
    /// # Panics
    /// Panics if the system does not provide it.
    pub fn resident_bytes(&self) -> u64 {
        let id = self.process.id().expect("the process is running");
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).expect("the process is running");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it has resident memory");
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number of KiB");
        kib * 1024
    }

    /// Returns the processor time of all threads of the process.
    ///
    /// # Panics
    /// Panics if the system does not provide it.
    pub fn processor_time(&self) -> Duration {
        const TICKS_PER_SECOND: u64 = 100;
        let id = self.process.id().expect("the process is running");
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).expect("the process is running");
        // The name, in parentheses, can contain spaces. User time is the eleventh field after the state, before system time.
        let fields = stat.rsplit_once(')').expect("a name").1.split_whitespace();
        let ticks: u64 = fields.skip(11).take(2).map(|ticks| ticks.parse::<u64>().expect("ticks")).sum();
        Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND)
    }

    /// Returns the standard error so far.
    pub fn log(&self) -> String {
        self.stderr.lock().expect("the lock is not poisoned").clone()
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// Panics if the process has exited.
    pub fn signal(&self, signal: Signal) {
        command::signal(&self.process, signal);
    }

    /// Waits until the server is ready.
    ///
    /// # Panics
    /// Panics if it does not become ready.
    pub async fn ready(&self) {
        eventually("ready", async || self.admin_get("/readyz").await.status == 200).await;
    }

    /// Returns the status of the readiness check, and the reason if it is not ready.
    pub async fn readiness(&self) -> (u16, String) {
        let reply = self.admin_get("/readyz").await;
        (reply.status, reply.body.trim_end().to_owned())
    }

    /// Kills the process with SIGKILL and returns its standard error.
    ///
    /// # Panics
    /// Panics if it cannot be killed.
    pub async fn kill(mut self) -> String {
        self.stopped = true;
        within("the end of the process", self.process.kill()).await.expect("the process is running");
        self.whole_log().await
    }

    /// Sends SIGTERM, waits for the exit and returns the standard error.
    ///
    /// # Panics
    /// Panics if the exit code is not 0.
    pub async fn stop(self) -> String {
        self.signal(Signal::TERM);
        self.ended().await
    }

    /// Waits for the exit after a signal and returns the standard error.
    ///
    /// # Panics
    /// Panics if the exit code is not 0.
    pub async fn ended(self) -> String {
        self.ended_with(0).await
    }

    /// Waits for the exit with this code and returns the standard error.
    ///
    /// # Panics
    /// Panics if the exit code is another.
    pub async fn ended_with(mut self, code: i32) -> String {
        self.stopped = true;
        let status = within("the end of the process", self.process.wait()).await.expect("it can be waited for");
        let log = self.whole_log().await;
        assert_eq!(status.code(), Some(code), "exit code; log:\n{log}");
        assert!(!log.contains("panicked"), "the server panicked:\n{log}");
        log
    }

    async fn whole_log(&mut self) -> String {
        if let Some(ended) = self.stderr_ended.take() {
            within("the end of stderr", ended).await.expect("reading stderr does not panic");
        }
        self.log()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- log of {} on {} ---\n{}", self.role.as_str(), self.public, self.log());
        } else {
            assert!(self.stopped, "a test must stop its server, which checks the exit code");
        }
    }
}

/// Reads the banner, which ends with an empty line after the addresses. The rest of stdout stays unread, and the pipe open.
async fn read_banner(mut stdout: BufReader<tokio::process::ChildStdout>, stderr: &Mutex<String>) -> String {
    let mut banner = String::new();
    loop {
        let count = stdout.read_line(&mut banner).await.expect("stdout is UTF-8");
        if count == 0 {
            let log = stderr.lock().expect("the lock is not poisoned").clone();
            panic!("the server did not start: {banner}\n{log}");
        }
        if banner.contains("  apps  ") {
            break;
        }
    }
    // The lines that follow are hints. The pipe stays open, although closing it would not harm the server.
    tokio::spawn(async move {
        let mut rest = Vec::new();
        let _ = stdout.read_to_end(&mut rest).await;
    });
    banner
}

/// Returns the address and the path of a line like `  public  http://127.0.0.1:8080/ws   …`.
fn address(banner: &str, label: &str) -> (SocketAddr, String) {
    let url = banner
        .lines()
        .filter_map(|line| line.trim().strip_prefix(label))
        .filter_map(|rest| rest.split_whitespace().next()?.strip_prefix("http://"))
        .next()
        .unwrap_or_else(|| panic!("no {label} address in the banner:\n{banner}"));
    let (address, path) = url.find('/').map_or((url, ""), |start| url.split_at(start));
    (address.parse().expect("the banner has a socket address"), path.to_owned())
}

async fn collect(mut stderr: tokio::process::ChildStderr, into: Arc<Mutex<String>>) {
    let mut chunk = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = stderr.read(&mut chunk).await {
        into.lock().expect("the lock is not poisoned").push_str(&String::from_utf8_lossy(&chunk[..count]));
    }
}
