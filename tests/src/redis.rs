//! A real redis-server, which can be killed, started again empty, paused and asked anything.

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
/// Its password; long and odd enough to be looked for in logs.
pub const PASSWORD: &str = "never-print-this-7c1e04";

/// How nodes may talk to a Redis.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Access {
    /// Anyone may.
    #[default]
    Open,
    /// Only [`USER`], with [`PASSWORD`].
    Password,
    /// As with a password, and only over TLS with a certificate of an authority of its own.
    Tls,
    /// As with TLS, with a certificate that is its own authority.
    SelfSigned,
    /// As with TLS, and only with a client certificate of the same authority.
    MutualTls,
}

impl Access {
    fn is_tls(self) -> bool {
        matches!(self, Self::Tls | Self::SelfSigned | Self::MutualTls)
    }
}

/// A redis-server on a port of its own, and on a socket in a folder of its own; it keeps nothing on disk and ends when
/// dropped.
pub struct Redis {
    process: Option<Child>,
    /// Where it listens, whether it runs or not.
    pub port: u16,
    access: Access,
    is_clustered: bool,
    certificates: Option<Certificates>,
    /// The client certificate and its key.
    client: Option<(PathBuf, PathBuf)>,
    control: Client,
    folder: TempDir,
    /// Whether it logs every write to disk, and so has its data when it is started again.
    is_durable: bool,
}

impl Redis {
    /// Starts a server that anyone may talk to, and waits until it answers.
    ///
    /// # Panics
    /// When Debian's `redis-server` is not installed.
    pub async fn start() -> Self {
        Self::with(Access::Open).await
    }

    /// Starts a server and waits until it answers.
    ///
    /// # Panics
    /// When Debian's `redis-server`, or for TLS `openssl`, is not installed.
    pub async fn with(access: Access) -> Self {
        Self::absent(access).begin().await
    }

    /// Starts a server that is a node of a Redis Cluster without any other, and without slots.
    ///
    /// # Panics
    /// When Debian's `redis-server` is not installed.
    pub async fn clustered() -> Self {
        Self { is_clustered: true, ..Self::absent(Access::Open) }.begin().await
    }

    async fn begin(mut self) -> Self {
        let redis = &mut self;
        let started = async {
            while !redis.try_start().await {
                // Somebody took the port; nobody has been told of it yet.
                redis.port = ports::free();
            }
        };
        within("Redis to start", started).await;
        self
    }

    /// A server that does not run yet.
    ///
    /// # Panics
    /// As [`Redis::with`].
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

    /// Where nodes find it.
    pub fn url(&self) -> String {
        self.url_at(self.port)
    }

    /// Where nodes find it behind a proxy on another port.
    pub fn url_at(&self, port: u16) -> String {
        match self.access {
            Access::Open => format!("redis://127.0.0.1:{port}"),
            Access::Password => format!("redis://{USER}:{PASSWORD}@127.0.0.1:{port}"),
            // The certificate names the host, not the address.
            Access::Tls | Access::SelfSigned | Access::MutualTls => {
                format!("rediss://{USER}:{PASSWORD}@localhost:{port}")
            }
        }
    }

    /// Where nodes on this machine find it.
    pub fn socket_url(&self) -> String {
        format!("redis+unix://{}", socket_in(self.folder.path()).display())
    }

    /// The authority that signed its certificate, as PEM.
    ///
    /// # Panics
    /// When it has none.
    pub fn ca_file(&self) -> &Path {
        &self.certificates.as_ref().expect("it was started with TLS").authority
    }

    /// The lines of `[redis]` that name the certificates, if it needs some.
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
    /// When the server has none.
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
    /// When it does not run.
    pub async fn kill(&mut self) {
        let mut process = self.process.take().expect("Redis runs");
        process.kill().await.expect("Redis can be killed");
    }

    /// Starts the server, empty, where it was before; waits until it answers.
    ///
    /// # Panics
    /// When it does not, or runs already.
    pub async fn start_again(&mut self) {
        assert!(self.process.is_none(), "Redis runs already");
        let started = async {
            while !self.try_start().await {
                tokio::time::sleep(POLL).await;
            }
        };
        within("Redis to start", started).await;
    }

    /// Lets the server log every write to disk from now on: it has its data when it is started again.
    ///
    /// # Panics
    /// When it does not run.
    pub async fn become_durable(&mut self) {
        self.is_durable = true;
        self.run::<()>("CONFIG SET appendfsync always").await;
        self.run::<()>("CONFIG SET appendonly yes").await;
        let has_begun = async || {
            let info: String = self.run("INFO persistence").await;
            info.contains("aof_rewrite_in_progress:0") && info.contains("aof_rewrite_scheduled:0")
        };
        crate::eventually("the log of writes has begun", has_begun).await;
    }

    /// Stops the process without ending it.
    ///
    /// # Panics
    /// When it does not run.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Ends a pause.
    ///
    /// # Panics
    /// When it does not run.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// Sends one command, its words separated by single spaces.
    ///
    /// # Panics
    /// When Redis refuses it, or answers something else.
    pub async fn run<T: FromRedisValue>(&self, words: &str) -> T {
        self.query(&words.split(' ').collect::<Vec<_>>()).await
    }

    /// Sends one command.
    ///
    /// # Panics
    /// When Redis refuses it, or answers something else.
    pub async fn query<T: FromRedisValue>(&self, words: &[impl AsRef<[u8]>]) -> T {
        let mut command = Cmd::new();
        for word in words {
            command.arg(word.as_ref());
        }
        let mut connection = within("connecting to Redis", self.connect()).await.expect("Redis takes connections");
        let shown: Vec<_> = words.iter().map(|word| String::from_utf8_lossy(word.as_ref())).collect();
        let answer = within("Redis to answer", command.query_async(&mut connection)).await;
        answer.unwrap_or_else(|error| panic!("{shown:?}: {error}"))
    }

    /// Publishes one message as it is; returns how many connections got it.
    pub async fn publish(&self, topic: &str, message: &[u8]) -> u64 {
        self.query(&[b"PUBLISH".as_slice(), topic.as_bytes(), message]).await
    }

    /// All keys that fit a pattern, sorted.
    pub async fn keys(&self, pattern: &str) -> Vec<String> {
        let mut keys: Vec<String> = self.query(&["KEYS", pattern]).await;
        keys.sort();
        keys
    }

    /// A connection of the caller's own, over the socket.
    ///
    /// # Errors
    /// When Redis does not take it.
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
        // What a killed server left would be taken for a running one.
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
