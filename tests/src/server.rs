//! One running server.

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

/// A server in a process of its own, on ports of its own. [`Server::stop`] must be called at the end; a test that panics
/// before that kills it.
pub struct Server {
    /// What it runs as.
    pub role: Role,
    process: Child,
    /// Where clients connect, with the path prefix.
    pub url: ServerUrl,
    /// What precedes `/app` and `/pusher` in every path; empty for nothing.
    pub prefix: String,
    /// The public listener.
    pub public: SocketAddr,
    /// The admin listener.
    pub admin: SocketAddr,
    /// What it printed when it started.
    pub banner: String,
    /// The app that clients and [`Server::publish`] use.
    pub app: App,
    stderr: Arc<Mutex<String>>,
    stderr_ended: Option<JoinHandle<()>>,
    stopped: bool,
    _folder: TempDir,
}

/// What a process is started as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Everything in one process.
    Up,
    /// Sockets only.
    Gateway,
    /// The HTTP API only.
    Publisher,
}

impl Role {
    /// The command.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Gateway => "gateway",
            Self::Publisher => "publisher",
        }
    }
}

/// How a process is to be started: on free ports, with nothing from the environment.
pub struct Launch {
    /// The binary.
    pub program: PathBuf,
    /// As what.
    pub role: Role,
    /// On which port; 0 takes any free one.
    pub port: u16,
    /// In which folder, if not one of its own.
    pub place: Option<PathBuf>,
    /// What is in its configuration file; none at all when this is `None`.
    pub configuration: Option<String>,
    /// Further arguments.
    pub args: Vec<String>,
    /// A listening socket that it is started with, and the name of it.
    pub socket: Option<(std::net::TcpListener, String)>,
    /// The app of its configuration that clients and senders use.
    pub app: App,
}

impl Launch {
    /// The binary under test, without a configuration.
    pub fn new(role: Role) -> Self {
        Self::of(command::binary(), role)
    }

    /// Another binary.
    pub fn of(program: PathBuf, role: Role) -> Self {
        Self {
            program,
            role,
            port: 0,
            place: None,
            configuration: None,
            args: Vec::new(),
            socket: None,
            app: setup::app(),
        }
    }

    /// With this configuration and its flags, on the loopback interface.
    pub fn setup(self, setup: &Setup) -> Self {
        let launch = Self { configuration: Some(setup.toml()), ..self };
        launch.args(&["--host", "127.0.0.1"]).args(&setup.flags)
    }

    /// On this port.
    pub fn port(self, port: u16) -> Self {
        Self { port, ..self }
    }

    /// With a listening socket, as systemd passes it.
    pub fn socket(self, socket: std::net::TcpListener, name: &str) -> Self {
        Self { socket: Some((socket, name.to_owned())), ..self }
    }

    /// With further arguments.
    pub fn args(mut self, args: &[impl AsRef<str>]) -> Self {
        self.args.extend(args.iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Starts the process and waits for its banner.
    ///
    /// # Panics
    /// When it does not come up.
    pub async fn start(self) -> Server {
        let folder = tempfile::tempdir().expect("a folder for the configuration");
        let (mut command, stdin) = match self.socket {
            None => (command::tied(&self.program), Stdio::null()),
            Some((socket, name)) => (command::activated(&self.program, &name), Stdio::from(OwnedFd::from(socket))),
        };
        command.arg(self.role.as_str()).args(["--port", &self.port.to_string(), "--admin-port", "0"]);
        if let Some(text) = &self.configuration {
            let file = folder.path().join("carillon.toml");
            std::fs::write(&file, text).expect("the configuration can be written");
            command.arg("--config").arg(file);
        }
        command.args(&self.args).env_clear().current_dir(self.place.as_deref().unwrap_or(folder.path()));
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
            _folder: folder,
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
    /// When it does not come up.
    pub async fn start(setup: Setup) -> Self {
        Launch::new(Role::Up).setup(&setup).start().await
    }

    /// Starts `up` with these arguments in the folder `place`, on free ports; `app` is the one that it will serve.
    ///
    /// # Panics
    /// When it does not come up.
    pub async fn start_with(place: &Path, args: &[&str], app: App) -> Self {
        Launch { place: Some(place.to_owned()), app, ..Launch::new(Role::Up) }.args(args).start().await
    }

    /// A connected client.
    pub async fn client(&self) -> TestClient {
        self.client_with(&Options::default()).await
    }

    /// A connected client with options.
    pub async fn client_with(&self, options: &Options) -> TestClient {
        TestClient::connect(&self.url, &self.app, options).await
    }

    /// A WebSocket below the level of messages, with its `connection_established` taken.
    pub async fn raw(&self) -> Raw {
        Raw::established(self.public, &self.app).await
    }

    /// A TCP connection to the public listener.
    pub async fn tcp(&self) -> Raw {
        Raw::connect(self.public).await
    }

    /// One plain HTTP request to the public listener, over a connection of its own.
    pub async fn http(&self, request: &str) -> HttpReply {
        self.tcp().await.exchange(request.as_bytes()).await
    }

    /// A sender of signed requests.
    pub fn api_client(&self) -> ApiClient {
        ApiClient::new(self.url.clone(), self.app.clone())
    }

    /// Publishes one event.
    ///
    /// # Panics
    /// When the server does not answer 200.
    pub async fn publish(&self, channel: &str, event: &str, data: &str) {
        self.publish_except(channel, event, data, None).await;
    }

    /// Publishes one event to all but one connection.
    ///
    /// # Panics
    /// When the server does not answer 200.
    pub async fn publish_except(&self, channel: &str, event: &str, data: &str, except: Option<SocketId>) {
        let mut api = self.api_client();
        let reply = within("a publish", api.trigger(&[channel], event, data, except)).await;
        let reply = reply.expect("the server answers");
        assert_eq!((reply.status.as_u16(), reply.body.as_str()), (200, "{}"), "publishing {event} on {channel}");
    }

    /// A signed GET below `/apps/ID`, with its parameters behind a `?`, that must succeed.
    ///
    /// # Panics
    /// When the server does not answer 200 with JSON.
    pub async fn get(&self, path: &str) -> Value {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let params: Vec<(&str, &str)> = query.split('&').filter_map(|pair| pair.split_once('=')).collect();
        let reply = within("a GET", self.api_client().get(path, &params)).await.expect("the server answers");
        assert_eq!(reply.status.as_u16(), 200, "GET {path}: {}", reply.body);
        serde_json::from_str(&reply.body).expect("the answer is JSON")
    }

    /// A signed POST below `/apps/ID`.
    ///
    /// # Panics
    /// When there is no answer.
    pub async fn post(&self, path: &str, body: &Value) -> Reply {
        within("a POST", self.api_client().post(path, body)).await.expect("the server answers")
    }

    /// A GET of the admin listener.
    pub async fn admin_get(&self, path: &str) -> HttpReply {
        let request = format!("GET {path} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n");
        Raw::connect(self.admin).await.exchange(request.as_bytes()).await
    }

    /// All metrics.
    ///
    /// # Panics
    /// When they cannot be had, or a line of them is not valid.
    pub async fn metrics(&self) -> Metrics {
        let reply = self.admin_get("/metrics").await;
        assert_eq!(reply.status, 200, "/metrics: {}", reply.body);
        Metrics::parse(&reply.body)
    }

    /// The sum of all series of one name, or the one series of `name{label="value"}`; 0 when there is none.
    pub async fn metric(&self, series: &str) -> f64 {
        self.metrics().await.value(series)
    }

    /// Waits until a metric has this value.
    ///
    /// # Panics
    /// When it does not come to that.
    pub async fn metric_reaches(&self, series: &str, value: f64) {
        eventually(&format!("{series} = {value}"), async || self.metric(series).await == value).await;
    }

    /// Resident memory of the process, in bytes.
    ///
    /// # Panics
    /// When the system does not tell.
    pub fn resident_bytes(&self) -> u64 {
        let id = self.process.id().expect("the process lives");
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).expect("the process lives");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it has resident memory");
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number of KiB");
        kib * 1024
    }

    /// Processor time that the process has taken, of all its threads.
    ///
    /// # Panics
    /// When the system does not tell.
    pub fn processor_time(&self) -> Duration {
        const TICKS_PER_SECOND: u64 = 100;
        let id = self.process.id().expect("the process lives");
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).expect("the process lives");
        // The name, in parentheses, may have spaces; the eleventh field behind the state is user time, then comes system time.
        let fields = stat.rsplit_once(')').expect("a name").1.split_whitespace();
        let ticks: u64 = fields.skip(11).take(2).map(|ticks| ticks.parse::<u64>().expect("ticks")).sum();
        Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND)
    }

    /// What was written to standard error so far.
    pub fn log(&self) -> String {
        self.stderr.lock().expect("nobody panics with the log").clone()
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// When the process is gone.
    pub fn signal(&self, signal: Signal) {
        command::signal(&self.process, signal);
    }

    /// Waits until it says that it is ready.
    ///
    /// # Panics
    /// When it does not come to that.
    pub async fn ready(&self) {
        eventually("ready", async || self.admin_get("/readyz").await.status == 200).await;
    }

    /// Whether it says that it is ready: the status, and the reason if it is not.
    pub async fn readiness(&self) -> (u16, String) {
        let reply = self.admin_get("/readyz").await;
        (reply.status, reply.body.trim_end().to_owned())
    }

    /// Kills the process with SIGKILL; returns all that was written to standard error.
    ///
    /// # Panics
    /// When it cannot be killed.
    pub async fn kill(mut self) -> String {
        self.stopped = true;
        within("the end of the process", self.process.kill()).await.expect("the process lives");
        self.whole_log().await
    }

    /// Sends SIGTERM and waits for the end; returns all that was written to standard error.
    ///
    /// # Panics
    /// When the exit code is not 0.
    pub async fn stop(self) -> String {
        self.signal(Signal::TERM);
        self.ended().await
    }

    /// Waits for the end after a signal; returns all that was written to standard error.
    ///
    /// # Panics
    /// When the exit code is not 0.
    pub async fn ended(self) -> String {
        self.ended_with(0).await
    }

    /// Waits for the end; returns all that was written to standard error.
    ///
    /// # Panics
    /// When the exit code is another.
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
            assert!(self.stopped, "a test must stop its server: that checks its exit code");
        }
    }
}

/// The banner ends with an empty line after the addresses; the rest of stdout stays unread but open.
async fn read_banner(mut stdout: BufReader<tokio::process::ChildStdout>, stderr: &Mutex<String>) -> String {
    let mut banner = String::new();
    loop {
        let count = stdout.read_line(&mut banner).await.expect("stdout is UTF-8");
        if count == 0 {
            let log = stderr.lock().expect("nobody panics with the log").clone();
            panic!("the server did not start: {banner}\n{log}");
        }
        if banner.contains("  apps  ") {
            break;
        }
    }
    // What follows is for people. Closing the pipe would do the server no harm, but that is not the matter here.
    tokio::spawn(async move {
        let mut rest = Vec::new();
        let _ = stdout.read_to_end(&mut rest).await;
    });
    banner
}

/// `  public  http://127.0.0.1:8080/ws   …`: the address and the path.
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
        into.lock().expect("nobody panics with the log").push_str(&String::from_utf8_lossy(&chunk[..count]));
    }
}
