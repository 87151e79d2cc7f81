//! Commands to Redis, each with a deadline.
//!
//! Connections are made on one runtime, whoever asks: a connection dies with the runtime that made it, and shards end
//! while others still need Redis.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ConnectionAddr, RedisError};
use tokio::runtime::Handle;
use tokio::sync::Mutex;

use super::command::Command;
use super::dialer::{Connected, Dialer};
use super::error::Verdict;
use super::metrics::Metrics;
use super::pool::{self, Manager, Pool, PoolError, Timeouts};
use super::primary_state::{Generation, PrimaryState, State};
use super::{Config, ConfigError, Keys};
use crate::limits::{PIPELINE_DEPTH, POOL_SIZE};

pub use super::error::{LinkError, Refusal};

/// How to reach one primary.
#[derive(Clone)]
pub struct Link {
    shared: Arc<Shared>,
}

struct Shared {
    dialer: Dialer,
    pool: Pool,
    keys: Keys,
    primary: Arc<PrimaryState>,
    metrics: Metrics,
    /// Kept over many publishes.
    publishing: Mutex<Publishing>,
}

/// The connection that events go out on.
#[derive(Default)]
struct Publishing {
    connected: Option<Connected>,
    /// When connecting failed last.
    failed: Option<Instant>,
}

impl Link {
    /// A link whose connections live on `runtime`. Connects with the first command, and reports to `metrics`.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn new(config: &Config, runtime: Handle, metrics: Metrics) -> Result<Self, ConfigError> {
        let primary = Arc::new(PrimaryState::new(metrics.clone()));
        let dialer = Dialer {
            connector: config.connector()?,
            runtime,
            connect_timeout: config.connect_timeout,
            command_timeout: config.command_timeout,
            primary: primary.clone(),
        };
        // Making and checking a connection have deadlines of their own.
        let timeouts = Timeouts { wait: Some(config.command_timeout), create: None, recycle: None };
        let pool = Pool::builder(Manager::new(dialer.clone())?)
            .max_size(POOL_SIZE)
            .timeouts(timeouts)
            .runtime(pool::Runtime::Tokio1)
            .build()
            .expect("a pool with a runtime can be built");
        let keys = Keys::new(&config.prefix, config.partitions);
        Ok(Self { shared: Arc::new(Shared { dialer, pool, keys, primary, metrics, publishing: Mutex::default() }) })
    }

    /// The metrics of this Redis.
    pub fn metrics(&self) -> &Metrics {
        &self.shared.metrics
    }

    /// The keys of this cluster.
    pub fn keys(&self) -> &Keys {
        &self.shared.keys
    }

    /// The state of the primary.
    pub fn primary(&self) -> &PrimaryState {
        &self.shared.primary
    }

    /// The runtime that connections live on.
    pub(crate) fn runtime(&self) -> &Handle {
        &self.shared.dialer.runtime
    }

    /// This machine's own address on the way to Redis. Nothing is sent for it.
    ///
    /// # Errors
    /// When the name of Redis has no address, or there is no way to it.
    pub async fn local_address(&self) -> io::Result<IpAddr> {
        let (host, port) = match self.shared.dialer.connector.address() {
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

    /// Runs a command on a connection of the pool, and counts it as `name`.
    ///
    /// # Errors
    /// [`LinkError`]; at once while the server must not be used.
    pub async fn run<T: Send + 'static>(&self, name: &str, command: impl Command<T> + 'static) -> Result<T, LinkError> {
        let began = Instant::now();
        let result = self.run_pooled(command).await;
        self.count(name, began, result)
    }

    async fn run_pooled<T: Send + 'static>(&self, command: impl Command<T> + 'static) -> Result<T, LinkError> {
        self.admit()?;
        let shared = self.shared.clone();
        let ran = self.runtime().spawn(async move {
            let pooled = shared.pool.get().await.map_err(link_error)?;
            let (mut connection, generation) = (pooled.connection.clone(), pooled.generation);
            let result = within(shared.dialer.command_timeout, command.send(&mut connection)).await;
            if let Err(LinkError::Timeout | LinkError::Command(_)) = &result {
                // A connection that failed once is not given to the next command.
                drop(pool::Connection::take(pooled));
            }
            result.map_err(|error| shared.sort(error, generation))
        });
        ran.await.unwrap_or(Err(LinkError::Ended))
    }

    fn count<T>(&self, name: &str, began: Instant, result: Result<T, LinkError>) -> Result<T, LinkError> {
        match &result {
            Ok(_) => self.shared.metrics.answered(name, began.elapsed()),
            Err(error) => self.shared.metrics.failed(error.cause_label()),
        }
        result
    }

    /// Whether events may be published. A node that has just started waits for the first answer of the server, for as long
    /// as a command may take: its listener is open before that.
    pub(crate) async fn accepts_events(&self) -> bool {
        // Without an answer in that time, events are refused.
        let _ = tokio::time::timeout(self.shared.dialer.command_timeout, self.shared.primary.verdict_known()).await;
        self.shared.primary.accepts_events()
    }

    /// Runs a command on the connection that events go out on, and counts it as `name`.
    ///
    /// # Errors
    /// [`LinkError`]; at once while the server must not be used.
    pub async fn publish<T>(&self, name: &str, command: &impl Command<T>) -> Result<T, LinkError> {
        let began = Instant::now();
        let result = self.publish_uncounted(command).await;
        self.count(name, began, result)
    }

    /// Runs a command like [`Link::publish`] without counting it.
    pub(crate) async fn publish_uncounted<T>(&self, command: &impl Command<T>) -> Result<T, LinkError> {
        self.admit()?;
        let connected = self.publishing().await?;
        self.publish_on(&connected, command).await
    }

    /// Runs a command on a connection that [`Link::publishing`] returned, without counting it.
    pub(crate) async fn publish_on<T>(&self, connected: &Connected, command: &impl Command<T>) -> Result<T, LinkError> {
        let mut connection = connected.connection.clone();
        let result = within(self.shared.dialer.command_timeout, command.send(&mut connection)).await;
        result.map_err(|error| {
            let error = self.shared.sort(error, connected.generation);
            if error.ends_connection() {
                connected.give_up();
            }
            error
        })
    }

    /// The connection that events go out on, whatever the state of the server.
    pub(crate) async fn publishing(&self) -> Result<Connected, LinkError> {
        let asked = Instant::now();
        let mut publishing = self.shared.publishing.lock().await;
        match &publishing.connected {
            Some(connected) if connected.is_usable(&self.shared.primary) => return Ok(connected.clone()),
            _ => publishing.connected = None,
        }
        // Whoever waited here while another tried in vain has its answer; else each would wait for all before it.
        if publishing.failed.is_some_and(|failed| failed >= asked) {
            return Err(LinkError::Timeout);
        }
        let config = AsyncConnectionConfig::new().set_pipeline_buffer_size(PIPELINE_DEPTH);
        match self.shared.dialer.dial_for_events(config).await {
            Ok(connected) => {
                publishing.connected = Some(connected.clone());
                Ok(connected)
            }
            Err(error) => {
                publishing.failed = Some(Instant::now());
                Err(error)
            }
        }
    }

    /// A connection of the caller's own.
    pub(crate) async fn connect(
        &self,
        config: AsyncConnectionConfig,
    ) -> Result<(MultiplexedConnection, Generation), LinkError> {
        self.shared.dialer.dial_beside(config).await
    }

    /// Reports what an error on a connection of this generation says of the server as a whole.
    pub(crate) fn sort(&self, error: LinkError, generation: Generation) -> LinkError {
        self.shared.sort(error, generation)
    }

    /// Fails while a server that the connections of the node have left is all that answers. The probe alone goes on
    /// connecting then: thousands of waiting subscriptions would keep that server busy with it.
    fn admit(&self) -> Result<(), LinkError> {
        match self.shared.primary.state() {
            State::Refusing(refusal) if refusal.ends_connections() => Err(LinkError::Refused(refusal)),
            _ => Ok(()),
        }
    }
}

impl Shared {
    /// Reports what an error says of the server as a whole.
    fn sort(&self, error: LinkError, generation: Generation) -> LinkError {
        let LinkError::Command(cause) = &error else {
            if matches!(error, LinkError::Timeout) {
                self.primary.unanswered();
            }
            return error;
        };
        match Verdict::of(cause) {
            Verdict::Refused(refusal) => {
                self.primary.refused(refusal, generation, &cause.to_string());
                LinkError::Refused(refusal)
            }
            Verdict::Loading => {
                self.primary.unanswered();
                LinkError::Loading
            }
            Verdict::Lost => {
                self.primary.unanswered();
                error
            }
            Verdict::Damaged | Verdict::Forbidden | Verdict::Unavailable => error,
        }
    }
}

fn link_error(error: PoolError) -> LinkError {
    match error {
        PoolError::Backend(error) => error,
        PoolError::Timeout(_) => LinkError::Timeout,
        error => LinkError::Connect(error.to_string().into()),
    }
}

async fn within<T>(timeout: Duration, command: impl Future<Output = Result<T, RedisError>>) -> Result<T, LinkError> {
    match tokio::time::timeout(timeout, command).await {
        Ok(result) => result.map_err(LinkError::Command),
        Err(_) => Err(LinkError::Timeout),
    }
}
