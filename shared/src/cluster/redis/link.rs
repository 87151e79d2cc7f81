//! The link to Redis: runs commands with a timeout and counts them.
//!
//! One runtime makes all connections. A connection ends with its runtime, and a shard may end before other users of
//! Redis.

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
use super::primary_state::{Generation, PrimaryState};
use super::state::State;
use super::{Config, ConfigError, Keys};
use crate::limits::{PIPELINE_DEPTH, POOL_SIZE};

pub use super::error::{LinkError, Refusal};

/// The connections of a node to one primary. Clones share them.
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
    /// The publishing connection.
    publishing: Mutex<Publishing>,
}

/// The state of the connection that publishes events.
#[derive(Default)]
struct Publishing {
    connected: Option<Connected>,
    /// The time of the last failed attempt to connect.
    failed: Option<Instant>,
}

impl Link {
    /// Creates a link with connections on `runtime`. It connects on the first command.
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
        // Creating and recycling a connection have their own timeouts.
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

    /// Returns the metrics of this primary.
    pub fn metrics(&self) -> &Metrics {
        &self.shared.metrics
    }

    /// Returns the keys of this cluster.
    pub fn keys(&self) -> &Keys {
        &self.shared.keys
    }

    /// Returns the state of the primary.
    pub fn primary(&self) -> &PrimaryState {
        &self.shared.primary
    }

    /// Returns the runtime of the connections.
    pub(crate) fn runtime(&self) -> &Handle {
        &self.shared.dialer.runtime
    }

    /// Returns the local address of the route to Redis, without sending anything.
    ///
    /// # Errors
    /// If the host name of Redis does not resolve, or there is no route.
    pub async fn local_address(&self) -> io::Result<IpAddr> {
        let (host, port) = match self.shared.dialer.connector.address() {
            ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => (host.as_str(), *port),
            // All users of a Unix socket run on this host.
            _ => ("127.0.0.1", 1),
        };
        let mut reason = io::Error::new(io::ErrorKind::NotFound, "the host name of redis does not resolve");
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

    /// Runs a command on a pooled connection and counts it under `name`.
    ///
    /// # Errors
    /// [`LinkError`]. Fails at once while the server must not be used.
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
                // Removes the failed connection from the pool.
                drop(pool::Connection::take(pooled));
            }
            result.map_err(|error| shared.classify(error, generation))
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

    /// Whether events may be published. After the start, the call waits for the first reply of the server, up to the
    /// command timeout, because the node accepts requests before that.
    pub(crate) async fn accepts_events(&self) -> bool {
        // Events are rejected if the time passes without a reply.
        let _ = tokio::time::timeout(self.shared.dialer.command_timeout, self.shared.primary.verdict_known()).await;
        self.shared.primary.accepts_events()
    }

    /// Runs a command on the publishing connection and counts it under `name`.
    ///
    /// # Errors
    /// [`LinkError`]. Fails at once while the server must not be used.
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
            let error = self.shared.classify(error, connected.generation);
            if error.ends_connection() {
                connected.discard();
            }
            error
        })
    }

    /// Returns the publishing connection. Connects if necessary, in any state of the server.
    pub(crate) async fn publishing(&self) -> Result<Connected, LinkError> {
        let called = Instant::now();
        let mut publishing = self.shared.publishing.lock().await;
        match &publishing.connected {
            Some(connected) if connected.is_usable(&self.shared.primary) => return Ok(connected.clone()),
            _ => publishing.connected = None,
        }
        // An attempt failed while this call waited for the lock. Waiting calls share its result instead of retrying in
        // turn.
        if publishing.failed.is_some_and(|failed| failed >= called) {
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

    /// Makes a connection for the caller alone.
    pub(crate) async fn connect(
        &self,
        config: AsyncConnectionConfig,
    ) -> Result<(MultiplexedConnection, Generation), LinkError> {
        self.shared.dialer.dial_beside(config).await
    }

    /// Updates the state of the primary after an error on a connection of this generation. Returns the classified
    /// error.
    pub(crate) fn classify(&self, error: LinkError, generation: Generation) -> LinkError {
        self.shared.classify(error, generation)
    }

    /// Fails while the server must not be connected to. Only the probe connects then, because thousands of waiting
    /// subscriptions would overload the server with connections.
    fn admit(&self) -> Result<(), LinkError> {
        match self.shared.primary.state() {
            State::Refusing(refusal) if refusal.ends_connections() => Err(LinkError::Refused(refusal)),
            _ => Ok(()),
        }
    }
}

impl Shared {
    /// Updates the state of the primary after an error, and returns the classified error.
    fn classify(&self, error: LinkError, generation: Generation) -> LinkError {
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
