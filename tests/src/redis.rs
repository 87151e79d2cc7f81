//! A real redis-server. Tests can kill it, restart it empty, pause it and send any command.

pub mod filter;
pub mod tls;

use std::path::{Path, PathBuf};
use std::process::Stdio;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, FromRedisValue, RedisResult};
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::{DEADLINE, POLL, command, ports, within};
use tls::Certificates;

/// The user of [`Access::Password`].
pub const USER: &str = "carillon-user";
/// Its password. It is unusual enough to be searched for in logs.
pub const PASSWORD: &str = "never-print-this-7c1e04";

/// The access that a Redis allows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Access {
    /// Any client can connect without a password.
    #[default]
    Open,
    /// Only [`USER`] can connect, with [`PASSWORD`].
    Password,
    /// Like `Password`, and only over TLS with a certificate of a private authority.
    Tls,
    /// Like `Tls`, with a self-signed certificate.
    SelfSigned,
    /// Like `Tls`, and only with a client certificate of the same authority.
    MutualTls,
}

impl Access {
    fn is_tls(self) -> bool {
        matches!(self, Self::Tls | Self::SelfSigned | Self::MutualTls)
    }
}

/// A redis-server with its own port and socket. It stores nothing on disk and ends when
/// dropped.
pub struct Redis {
    process: Option<Child>,
    /// The port, whether the server runs or not.
    pub port: u16,
    access: Access,
    is_clustered: bool,
    certificates: Option<Certificates>,
    /// The client certificate and its key.
    client: Option<(PathBuf, PathBuf)>,
    control: Client,
    folder: TempDir,
    /// Whether it logs every write to disk. Then it has its data after a restart.
    is_durable: bool,
}

impl Redis {
    /// Starts a server without a password and waits until it answers.
    ///
    /// # Panics
    /// Panics if Debian's `redis-server` is not installed.
    pub async fn start() -> Self {
        Self::with(Access::Open).await
    }

    /// Starts a server and waits until it answers.
    ///
    /// # Panics
    /// Panics if Debian's `redis-server`, or for TLS `openssl`, is not installed.
    pub async fn with(access: Access) -> Self {
        Self::absent(access).begin().await
    }

    /// Starts a server that is the only node of a Redis Cluster and has no slots.
    ///
    /// # Panics
    /// Panics if Debian's `redis-server` is not installed.
    pub async fn clustered() -> Self {
        Self { is_clustered: true, ..Self::absent(Access::Open) }.begin().await
    }

    async fn begin(mut self) -> Self {
        let redis = &mut self;
        let started = async {
            while !redis.try_start().await {
                // Another process has taken the port. No client uses it yet.
                redis.port = ports::free();
            }
        };
        within("Redis to start", started).await;
        self
    }

    /// Prepares a server without starting it.
    ///
    /// # Panics
    /// Panics like [`Redis::with`].
    pub fn absent(access: Access) -> Self {
        let folder = tempfile::tempdir().expect("a folder for Redis");
        let certificates = match access {
            Access::Open | Access::Password => None,
            Access::SelfSigned => Some(Certificates::self_signed(folder.path())),
            Access::Tls | Access::MutualTls => Some(Certificates::make(folder.path())),
        };
        let client = certificates.as_ref().filter(|_| access == Access::MutualTls).map(Certificates::client);
        let control = match access {
            Access::Open => format!("redis+unix://{}", socket_in(folder.path()).display()),
            _ => format!("redis+unix://{}?user={USER}&pass={PASSWORD}", socket_in(folder.path()).display()),
        };
        let control = Client::open(control).expect("the URL of a socket is valid");
        Self {
            process: None,
            port: ports::free(),
            access,
            certificates,
            client,
            control,
            folder,
            is_durable: false,
            is_clustered: false,
        }
    }

    /// Returns the URL for nodes.
    pub fn url(&self) -> String {
        self.url_at(self.port)
    }

    /// Returns the URL for nodes that connect through a proxy on another port.
    pub fn url_at(&self, port: u16) -> String {
        match self.access {
            Access::Open => format!("redis://127.0.0.1:{port}"),
            Access::Password => format!("redis://{USER}:{PASSWORD}@127.0.0.1:{port}"),
            // The certificate is for the host name, not for the address.
            Access::Tls | Access::SelfSigned | Access::MutualTls => {
                format!("rediss://{USER}:{PASSWORD}@localhost:{port}")
            }
        }
    }

    /// Returns the URL of the socket, for nodes on this machine.
    pub fn socket_url(&self) -> String {
        format!("redis+unix://{}", socket_in(self.folder.path()).display())
    }

    /// Returns the file of the authority that signed its certificate, as PEM.
    ///
    /// # Panics
    /// Panics if it has none.
    pub fn ca_file(&self) -> &Path {
        &self.certificates.as_ref().expect("it was started with TLS").authority
    }

    /// Returns the lines of `[redis]` for the certificates, if it needs some.
    pub fn tls_lines(&self) -> String {
        let mut lines = String::new();
        if self.access.is_tls() {
            lines += &format!("ca_file = {:?}\n", self.ca_file());
        }
        if let Some((certificate, key)) = &self.client {
            lines += &format!("cert_file = {certificate:?}\nkey_file = {key:?}\n");
        }
        lines
    }

    /// Makes new certificates in the same files.
    ///
    /// # Panics
    /// Panics if the server has none.
    pub fn renew_certificates(&mut self) {
        assert!(self.access.is_tls(), "it was started with TLS");
        let folder = self.folder.path();
        let certificates = if self.access == Access::SelfSigned {
            Certificates::self_signed(folder)
        } else {
            Certificates::make(folder)
        };
        if self.client.is_some() {
            self.client = Some(certificates.client());
        }
        self.certificates = Some(certificates);
    }

    /// Kills the server with SIGKILL.
    ///
    /// # Panics
    /// Panics if it is not running.
    pub async fn kill(&mut self) {
        let mut process = self.process.take().expect("Redis runs");
        process.kill().await.expect("Redis can be killed");
    }

    /// Starts the server, empty, on the same port, and waits until it answers.
    ///
    /// # Panics
    /// Panics if it does not answer, or is already running.
    pub async fn start_again(&mut self) {
        assert!(self.process.is_none(), "Redis is already running");
        let started = async {
            while !self.try_start().await {
                tokio::time::sleep(POLL).await;
            }
        };
        within("Redis to start", started).await;
    }

    /// Makes the server log every write to disk from now on. It then has its data after a restart.
    ///
    /// # Panics
    /// Panics if it is not running.
    pub async fn become_durable(&mut self) {
        self.is_durable = true;
        self.run::<()>("CONFIG SET appendfsync always").await;
        self.run::<()>("CONFIG SET appendonly yes").await;
        let has_started = async || {
            let info: String = self.run("INFO persistence").await;
            info.contains("aof_rewrite_in_progress:0") && info.contains("aof_rewrite_scheduled:0")
        };
        crate::eventually("the log of writes has started", has_started).await;
    }

    /// Pauses the process.
    ///
    /// # Panics
    /// Panics if it is not running.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Resumes a paused process.
    ///
    /// # Panics
    /// Panics if it is not running.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// Runs one command, whose words are separated by single spaces.
    ///
    /// # Panics
    /// Panics if Redis returns an error or a value of another type.
    pub async fn run<T: FromRedisValue>(&self, words: &str) -> T {
        self.query(&words.split(' ').collect::<Vec<_>>()).await
    }

    /// Runs one command.
    ///
    /// # Panics
    /// Panics if Redis returns an error or a value of another type.
    pub async fn query<T: FromRedisValue>(&self, words: &[impl AsRef<[u8]>]) -> T {
        let mut command = Cmd::new();
        for word in words {
            command.arg(word.as_ref());
        }
        let mut connection = within("connecting to Redis", self.connect()).await.expect("Redis accepts connections");
        let shown: Vec<_> = words.iter().map(|word| String::from_utf8_lossy(word.as_ref())).collect();
        let answer = within("Redis to answer", command.query_async(&mut connection)).await;
        answer.unwrap_or_else(|error| panic!("{shown:?}: {error}"))
    }

    /// Publishes one message unchanged. Returns the number of connections that received it.
    pub async fn publish(&self, topic: &str, message: &[u8]) -> u64 {
        self.query(&[b"PUBLISH".as_slice(), topic.as_bytes(), message]).await
    }

    /// Returns all keys that match a pattern, sorted.
    pub async fn keys(&self, pattern: &str) -> Vec<String> {
        let mut keys: Vec<String> = self.query(&["KEYS", pattern]).await;
        keys.sort();
        keys
    }

    /// Opens a new connection over the socket.
    ///
    /// # Errors
    /// Panics if Redis does not accept it.
    pub async fn connect(&self) -> RedisResult<MultiplexedConnection> {
        let config = AsyncConnectionConfig::new().set_connection_timeout(Some(DEADLINE)).set_response_timeout(None);
        self.control.get_multiplexed_async_connection_with_config(&config).await
    }

    async fn try_start(&mut self) -> bool {
        let mut process = self.command().spawn().expect("redis-server is installed");
        loop {
            if process.try_wait().expect("it can be waited for").is_some() {
                return false;
            }
            if self.answers().await {
                self.process = Some(process);
                return true;
            }
            tokio::time::sleep(POLL).await;
        }
    }

    async fn answers(&self) -> bool {
        let ping = async { redis::cmd("PING").exec_async(&mut self.connect().await?).await };
        ping.await.is_ok()
    }

    fn command(&self) -> Command {
        let folder = self.folder.path();
        let socket = socket_in(folder);
        // The file of a killed server would look like that of a running one.
        let _ = std::fs::remove_file(&socket);
        let mut command = command::tied("redis-server".as_ref());
        command.current_dir(folder).stdin(Stdio::null()).stdout(Stdio::null());
        command.args(["--daemonize", "no", "--bind", "127.0.0.1", "--save", ""]);
        command.args(["--appendonly", if self.is_durable { "yes" } else { "no" }, "--appendfsync", "always"]);
        command.arg("--dir").arg(folder).arg("--unixsocket").arg(socket);
        let port = self.port.to_string();
        match &self.certificates {
            Some(certificates) => {
                let asks = if self.client.is_some() { "yes" } else { "no" };
                command.args(["--port", "0", "--tls-port", &port, "--tls-auth-clients", asks]);
                command.arg("--tls-ca-cert-file").arg(&certificates.authority);
                command.arg("--tls-cert-file").arg(&certificates.certificate);
                command.arg("--tls-key-file").arg(&certificates.key);
            }
            None => {
                command.args(["--port", &port]);
            }
        }
        if self.is_clustered {
            command.args(["--cluster-enabled", "yes"]);
        }
        if self.access != Access::Open {
            command.args(["--user", "default", "off"]);
            command.args(["--user", USER, "on", &format!(">{PASSWORD}"), "~*", "&*", "+@all"]);
        }
        command
    }

    fn signal(&self, signal: Signal) {
        let process = self.process.as_ref().expect("Redis runs");
        command::signal(process, signal);
    }
}

fn socket_in(folder: &Path) -> PathBuf {
    folder.join("redis.sock")
}
