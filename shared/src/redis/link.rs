//! Commands to Redis, each with a deadline.
//!
//! Connections are made on one runtime, whoever asks: a connection dies with the runtime that made it, and shards end
//! while others still need Redis.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ConnectionAddr, PushInfo, PushKind, RedisError};
use tokio::runtime::Handle;
use tokio::sync::Mutex;

use super::pool::{self, Manager, Pool, Timeouts};
use super::{Config, ConfigError, Connector, Keys};

/// Commands in flight on one connection before callers wait; the library's 50 would hold up a stream of publishes.
const PIPELINE_DEPTH: usize = 1024;

/// Commands of the roster are short; more connections would only queue in Redis.
const POOL_SIZE: usize = 4;

/// How to reach one Redis.
#[derive(Clone)]
pub struct Link {
    shared: Arc<Shared>,
}

struct Shared {
    connector: Connector,
    pool: Pool,
    keys: Keys,
    runtime: Handle,
    connect_timeout: Duration,
    command_timeout: Duration,
    /// Kept over many publishes.
    publishing: Mutex<Publishing>,
    /// Whether the last command was answered.
    answers: AtomicBool,
    has_answered: AtomicBool,
}

/// The connection that events go out on.
#[derive(Default)]
struct Publishing {
    connection: Option<MultiplexedConnection>,
    /// Set when the connection ends by itself.
    lost: Arc<AtomicBool>,
    /// When connecting failed last.
    failed: Option<Instant>,
}

/// A command that was not answered; it may have run all the same.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// Nothing came in time.
    #[error("redis did not answer in time")]
    Timeout,
    /// No connection could be had.
    #[error("redis cannot be reached")]
    Connect(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Redis, or the connection, said no.
    #[error("redis refused a command")]
    Command(#[from] RedisError),
    /// The process is ending.
    #[error("the runtime has ended")]
    Ended,
}

impl LinkError {
    /// The error as a metric label.
    pub fn cause_label(&self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Connect(_) => "connect",
            Self::Command(_) if self.is_answer() => "refused",
            Self::Command(_) => "io",
            Self::Ended => "ended",
        }
    }

    /// Whether Redis itself said so.
    pub fn is_answer(&self) -> bool {
        match self {
            Self::Command(error) => !(error.is_io_error() || error.is_connection_dropped() || error.is_timeout()),
            _ => false,
        }
    }
}

impl Link {
    /// A link whose connections live on `runtime`. Connects with the first command.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn new(config: &Config, runtime: Handle) -> Result<Self, ConfigError> {
        let connector = config.connector()?;
        let pool = Pool::builder(Manager::new(connector.clone()))
            .max_size(POOL_SIZE)
            .timeouts(Timeouts {
                wait: Some(config.command_timeout),
                create: Some(config.connect_timeout),
                recycle: Some(Duration::from_millis(500)),
            })
            .runtime(pool::Runtime::Tokio1)
            .build()
            .expect("a pool with timeouts has a runtime");
        Ok(Self {
            shared: Arc::new(Shared {
                connector,
                pool,
                keys: Keys::new(&config.prefix, config.partitions),
                runtime,
                connect_timeout: config.connect_timeout,
                command_timeout: config.command_timeout,
                publishing: Mutex::default(),
                answers: AtomicBool::new(false),
                has_answered: AtomicBool::new(false),
            }),
        })
    }

    /// The keys of this cluster.
    pub fn keys(&self) -> &Keys {
        &self.shared.keys
    }

    /// The runtime that connections live on.
    pub(crate) fn runtime(&self) -> &Handle {
        &self.shared.runtime
    }

    /// Whether Redis answered the last command, be it with a refusal.
    pub fn answers(&self) -> bool {
        self.shared.answers.load(Ordering::Relaxed)
    }

    /// Whether Redis has ever answered.
    pub fn has_answered(&self) -> bool {
        self.shared.has_answered.load(Ordering::Relaxed)
    }

    /// This machine's own address on the way to Redis. Nothing is sent for it.
    ///
    /// # Errors
    /// When the name of Redis has no address, or there is no way to it.
    pub async fn local_address(&self) -> io::Result<IpAddr> {
        let (host, port) = match self.shared.connector.address() {
            ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => (host.as_str(), *port),
            // A socket in the file system: everyone who uses it is on this machine.
            _ => ("127.0.0.1", 1),
        };
        let mut reason = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in tokio::net::lookup_host((host, port)).await? {
            let any: SocketAddr =
                if address.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
            let socket = UdpSocket::bind(any)?;
            match socket.connect(address).and_then(|()| socket.local_addr()) {
                Ok(local) => return Ok(local.ip()),
                Err(error) => reason = error,
            }
        }
        Err(reason)
    }

    /// Runs a command on a connection of the pool.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn run<T, F>(&self, command: F) -> Result<T, LinkError>
    where
        T: Send + 'static,
        F: FnOnce(MultiplexedConnection) -> BoxFuture<'static, Result<T, RedisError>> + Send + 'static,
    {
        let shared = self.shared.clone();
        let ran = self.shared.runtime.spawn(async move {
            let connection = shared.pool.get().await.map_err(|error| LinkError::Connect(error.into()))?;
            let result = within(shared.command_timeout, command(MultiplexedConnection::clone(&connection))).await;
            if let Err(LinkError::Timeout | LinkError::Command(_)) = &result {
                // A connection that failed once is not given to the next; a refusal may mean a demoted master.
                drop(pool::Connection::take(connection));
            }
            result
        });
        let result = ran.await.unwrap_or(Err(LinkError::Ended));
        self.note(&result);
        result
    }

    /// Runs a command on the connection that events go out on.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn publish<T>(
        &self,
        command: impl AsyncFnOnce(MultiplexedConnection) -> Result<T, RedisError>,
    ) -> Result<T, LinkError> {
        let result = self.publish_on(command).await;
        self.note(&result);
        result
    }

    async fn publish_on<T>(
        &self,
        command: impl AsyncFnOnce(MultiplexedConnection) -> Result<T, RedisError>,
    ) -> Result<T, LinkError> {
        let connection = self.publishing().await?;
        let (connection, lost) = connection;
        let result = within(self.shared.command_timeout, command(connection)).await;
        if result.as_ref().is_err_and(|error| !error.is_answer()) {
            lost.store(true, Ordering::Release);
        }
        result
    }

    /// The connection, and what to set when it is of no more use.
    async fn publishing(&self) -> Result<(MultiplexedConnection, Arc<AtomicBool>), LinkError> {
        let asked = Instant::now();
        let mut publishing = self.shared.publishing.lock().await;
        match &publishing.connection {
            Some(connection) if !publishing.lost.load(Ordering::Acquire) => {
                return Ok((connection.clone(), publishing.lost.clone()));
            }
            _ => publishing.connection = None,
        }
        // Whoever waited here while another tried in vain has its answer; else each would wait for all before it.
        if publishing.failed.is_some_and(|failed| failed >= asked) {
            return Err(LinkError::Timeout);
        }
        let lost = Arc::new(AtomicBool::new(false));
        let config = AsyncConnectionConfig::new()
            .set_pipeline_buffer_size(PIPELINE_DEPTH)
            .set_push_sender(note_loss(lost.clone()));
        match self.connect(config).await {
            Ok(connection) => {
                publishing.connection = Some(connection.clone());
                publishing.lost = lost.clone();
                Ok((connection, lost))
            }
            Err(error) => {
                publishing.failed = Some(Instant::now());
                Err(error)
            }
        }
    }

    /// A connection of the caller's own.
    pub(crate) async fn connect(&self, config: AsyncConnectionConfig) -> Result<MultiplexedConnection, LinkError> {
        let shared = self.shared.clone();
        let connected = self.shared.runtime.spawn(async move {
            let connecting = shared.connector.connect(config);
            // Twice: once for the socket, once for the greeting.
            match tokio::time::timeout(shared.connect_timeout * 2, connecting).await {
                Ok(Ok(connection)) => Ok(connection),
                Ok(Err(error)) => Err(LinkError::Connect(error.into())),
                Err(_) => Err(LinkError::Timeout),
            }
        });
        let connected = connected.await.unwrap_or(Err(LinkError::Ended));
        if connected.is_err() {
            self.note(&connected);
        }
        connected
    }

    /// Gives up the connection that events go out on; the next one is made anew, to whatever the address then means.
    pub(crate) async fn forget_publishing(&self) {
        self.shared.publishing.lock().await.connection = None;
    }

    fn note<T>(&self, result: &Result<T, LinkError>) {
        let answered = match result {
            Ok(_) => true,
            Err(error) => error.is_answer(),
        };
        self.shared.answers.store(answered, Ordering::Relaxed);
        if answered && !self.has_answered() {
            self.shared.has_answered.store(true, Ordering::Relaxed);
        }
    }
}

/// Notes the end of a connection, which would otherwise show only with the next command, and fail it.
fn note_loss(lost: Arc<AtomicBool>) -> impl Fn(PushInfo) -> Result<(), Infallible> + Send + Sync + 'static {
    move |push| {
        if push.kind == PushKind::Disconnection {
            lost.store(true, Ordering::Release);
        }
        Ok(())
    }
}

async fn within<T>(timeout: Duration, command: impl Future<Output = Result<T, RedisError>>) -> Result<T, LinkError> {
    match tokio::time::timeout(timeout, command).await {
        Ok(result) => result.map_err(LinkError::Command),
        Err(_) => Err(LinkError::Timeout),
    }
}
