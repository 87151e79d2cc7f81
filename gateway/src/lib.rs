//! The gateway: serves WebSockets and fallback sessions, receives events from the bus and delivers them to subscribers.
//!
//! Each core runs one thread, a shard, which owns its connections until they end. The public listener assigns new
//! sockets to shards. The gateway and the publisher do not depend on each other. They exchange data through
//! `shared::cluster::bus` and `shared::cluster::roster`.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use futures_util::future::{SelectAll, join_all, select_all};
use shared::app::Apps;
use shared::cluster::bus::{Bus, EnvelopeSink};
use shared::cluster::directory::Directory;
use shared::cluster::roster::Roster;
use shared::serve::admin::Health;
use shared::serve::descriptors::{self, LimitError};
use shared::serve::http::Routes;
use shared::serve::listener::{AcceptPolicy, BoundListener, Inherited};
use shared::serve::telemetry::metrics::Registry;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::task::LocalSet;

#[cfg(feature = "benchmark")]
pub mod benchmark;
mod capacity;
mod carrier;
pub mod config;
mod connection;
mod fallback;
mod http;
mod inbox;
mod limits;
mod metrics;
mod node;
mod outbox;
mod reject;
mod relay;
mod routes;
mod session;
mod shard;
mod transport;
pub mod websocket;

pub use config::Config;

use capacity::{Capacity, CapacityLimits};
use fallback::Fallback;
use fallback::peers::Peers;
use fallback::registry::Registry as SessionRegistry;
use http::accept;
use inbox::{DrainPlan, InboxReceiver, Room, ShardMessage, inbox};
use metrics::Metrics;
use node::Node;
use relay::Relay;
use shard::Shard;

/// How long a drain waits, after the last close, for Redis to confirm that members left and connections ended. It is
/// longer than a short failure of Redis and shorter than common grace periods. After it, other nodes remove the
/// members.
const DEPARTURE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long HTTP requests in progress may take after the last close.
const REQUEST_GRACE: Duration = Duration::from_secs(2);

/// How long a node without a cluster waits for its HTTP requests before it closes connections. Until then it serves as
/// before.
const REQUESTS_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a node without a cluster waits for the answers to its close frames. The kernel sends what is still queued.
/// Clients reconnect a second after the close, and the next process must listen before that.
const FAREWELL_TIMEOUT: Duration = Duration::from_millis(300);

/// How long a drain waits for requests on open HTTP connections, if `drain.accept` is at least as long. A balancer may
/// send a request before it notices that the connection is being closed.
const LINGER: Duration = Duration::from_secs(1);

/// The dependencies of a gateway.
pub struct Deps {
    /// The configured apps.
    pub apps: Apps,
    /// Delivers events. [`Gateway::envelope_sink`] must be registered with it before [`Gateway::run`].
    pub bus: Arc<dyn Bus>,
    /// Stores members, occupancy and cached events.
    pub roster: Arc<dyn Roster>,
    /// Answers HTTP requests that do not open a WebSocket or use a fallback transport; if `None`, they get 404.
    pub routes: Option<Arc<dyn Routes>>,
    /// Stores which node has which fallback session; `None` without a cluster.
    pub directory: Option<Arc<dyn Directory>>,
    /// The access rules of the public listener.
    pub accept_policy: AcceptPolicy,
    /// The registry of metrics.
    pub registry: Registry,
    /// The sockets that the process was started with.
    pub sockets: Inherited,
    /// The maximum number of open descriptors of this process. It limits the number of connections.
    pub descriptors_max: u64,
}

/// Why a gateway cannot be bound.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The address of the public listener is not available.
    #[error("cannot bind the public listener")]
    Public(#[source] io::Error),
    /// The address of the listener for other nodes is not available.
    #[error("cannot bind the listener for other nodes")]
    Peers(#[source] io::Error),
    /// The descriptor limit leaves none for clients.
    #[error(transparent)]
    Descriptors(#[from] LimitError),
}

/// A bound gateway.
pub struct Gateway {
    config: Config,
    listener: BoundListener,
    address: SocketAddr,
    node: Arc<Node>,
    relay: Arc<Relay>,
    sessions: Arc<SessionRegistry>,
    receivers: Vec<InboxReceiver>,
}

impl Gateway {
    /// Binds the public listener.
    ///
    /// # Errors
    /// [`BindError`].
    pub async fn bind(config: Config, deps: Deps) -> Result<Self, BindError> {
        let Inherited { public, peers, .. } = deps.sockets;
        let listener = shared::serve::listener::listen(&config.server.host, config.server.port, public).await;
        let listener = listener.map_err(BindError::Public)?;
        let address = listener.local_addr().map_err(BindError::Public)?;
        let (shards, with_tls) = (config.server.shard_count(), deps.accept_policy.tls.is_some());
        let ceiling = descriptors::connections_max(deps.descriptors_max, shards, with_tls)?;
        let sockets_max = descriptors::sockets_max(deps.descriptors_max, shards, with_tls);
        let connections_max = match config.server.connections_max {
            0 => ceiling,
            configured if configured > ceiling => {
                let descriptors = deps.descriptors_max;
                tracing::warn!(
                    configured,
                    ceiling,
                    descriptors,
                    "the descriptor limit is too low for server.connections_max; admitting fewer connections"
                );
                ceiling
            }
            configured => configured,
        };
        let room = Arc::new(Room::default());
        let (inboxes, receivers) = (0..shards).map(|_| inbox(room.clone())).unzip();
        let metrics = Metrics::new(&deps.registry, &deps.apps, connections_max, deps.descriptors_max);
        let relay = Arc::new(Relay::new(deps.bus, deps.roster.clone(), inboxes, room, metrics.presence.clone()));
        let limits = CapacityLimits { connections_max, sockets_max, shards, is_clustered: deps.directory.is_some() };
        let recounts = relay.recounts().clone();
        let capacity = Capacity::new(limits, &config.server, &deps.apps, deps.roster, metrics.clone(), recounts);
        let mut node =
            Node::new(config.server.clone(), deps.accept_policy, deps.apps, metrics, relay.clone(), capacity);
        if let Some(routes) = &deps.routes {
            node.body_bytes_max = node.body_bytes_max.max(routes.body_bytes_max());
        }
        node.routes = deps.routes;
        let node = Arc::new(node);
        let peers = match deps.directory {
            Some(directory) => Some(Peers::bind(&config.peers, directory, peers).await.map_err(BindError::Peers)?),
            None => None,
        };
        let sessions = SessionRegistry::new(node.clone(), peers);
        Ok(Self { config, listener, address, node, relay, sessions, receivers })
    }

    /// Returns the address of the public listener.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the maximum number of client connections.
    pub fn connections_max(&self) -> usize {
        self.node.capacity.connections_max()
    }

    /// Returns the address of the listener for other nodes, or `None` without a cluster.
    pub fn peers_address(&self) -> Option<SocketAddr> {
        self.sessions.peers()?.bound().ok()
    }

    /// Returns the receiver of events from the bus.
    pub fn envelope_sink(&self) -> Arc<dyn EnvelopeSink> {
        self.relay.clone()
    }

    /// Returns the health checks for the admin listener.
    pub fn health(&self) -> Arc<dyn Health> {
        self.node.clone()
    }

    /// Serves until `shutdown` resolves, then drains. Returns when the last connection is closed and the cluster is
    /// notified. If that takes too long, the shards end with the process.
    ///
    /// In a cluster, connections are closed with 4200 at the pace of `drain`, and other nodes take the clients over. A
    /// node without a cluster completes its HTTP requests first, then closes all connections with 4100 at once.
    ///
    /// # Errors
    /// If a shard cannot be started, or ends before it is drained.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) -> io::Result<()> {
        let shards = self.start_shards()?;
        self.node.start_serving();
        let (node, relay, sessions) = (self.node.clone(), self.relay.clone(), self.sessions.clone());
        let (all_closed, closed) = oneshot::channel::<()>();
        let serve = async {
            let served = self.serve_clients(shards, shutdown).await;
            drop(all_closed);
            served
        };
        let serve_peers = fallback::peer_server::serve(&sessions, async { drop(closed.await) });
        tokio::select! {
            (served, ()) = futures_util::future::join(serve, serve_peers) => served,
            never = tick(&relay, &sessions) => match never {},
            // Not part of `tick`, because it waits for the cluster.
            never = relay.send_late_notifications() => match never {},
            // Has a separate timer, because responses of the cluster delay `tick`.
            never = node.metrics.event_loop_lag.keep() => match never {},
            never = sessions.keep_renewed() => match never {},
            never = node.capacity.report_connections() => match never {},
            never = node.capacity.serve_queues() => match never {},
            never = relay.keep_synchronized() => match never {},
        }
    }

    fn start_shards(&mut self) -> io::Result<Vec<RunningShard>> {
        let receivers = std::mem::take(&mut self.receivers).into_iter().enumerate();
        receivers
            .map(|(index, receiver)| RunningShard::start(index, self.node.clone(), self.sessions.clone(), receiver))
            .collect()
    }

    /// Accepts connections until `shutdown` resolves, then drains the shards.
    async fn serve_clients(self, shards: Vec<RunningShard>, shutdown: impl Future<Output = ()>) -> io::Result<()> {
        let Self { config, listener, node, relay, .. } = self;
        let (ends, threads): (Vec<_>, Vec<_>) = shards.into_iter().map(|shard| (shard.ended, shard.thread)).unzip();
        let mut ended = select_all(ends);
        let (stop, draining) = oneshot::channel::<()>();
        let accept = accept::accept(&listener, &node, &relay);
        let accept = listener.while_accepting(accept, async { drop(draining.await) });
        let until_closed = async {
            shutdown.await;
            node.start_draining();
            drop(stop);
            tokio::time::sleep(config.drain.accept).await;
            if !node.capacity.is_clustered() {
                node.requests_done(REQUESTS_TIMEOUT).await;
            }
        };
        tokio::select! {
            () = accept => {}
            () = until_closed => {}
            (_, index, _) = &mut ended => {
                return Err(io::Error::other(format!("shard {index} ended before it was drained")));
            }
        }
        shared::serve::listener::close(listener, |stream, peer| {
            if let Ok(stream) = accept::prepare(stream) {
                accept::assign(stream, peer, &node, &relay);
            }
        });
        drain(&config.drain, &node, &relay, ended, threads).await
    }
}

/// Drains all shards and waits for their threads.
async fn drain(
    config: &config::Drain,
    node: &Node,
    relay: &Relay,
    ended: SelectAll<oneshot::Receiver<()>>,
    threads: Vec<thread::JoinHandle<()>>,
) -> io::Result<()> {
    let (plan, departure_timeout) = if node.capacity.is_clustered() {
        let window = config.duration(node.capacity.connections());
        let plan = DrainPlan { window, linger: config.accept.min(LINGER), grace: REQUEST_GRACE };
        (plan, DEPARTURE_TIMEOUT)
    } else {
        let plan = DrainPlan { window: Duration::ZERO, linger: Duration::ZERO, grace: FAREWELL_TIMEOUT };
        (plan, FAREWELL_TIMEOUT)
    };
    for index in 0..threads.len() {
        relay.send_to_shard(index, ShardMessage::Drain(plan));
    }
    // A shard ends when its last connection is closed and the cluster is notified.
    let all_ended = async {
        let (_, _, others) = ended.await;
        join_all(others).await;
    };
    if tokio::time::timeout(plan.window + departure_timeout, all_ended).await.is_err() {
        if node.capacity.is_clustered() {
            tracing::warn!("shut down before Redis confirmed all departures; other nodes will clean up");
        }
        return Ok(());
    }
    for thread in threads {
        thread.join().map_err(|_| io::Error::other("a shard panicked during the drain"))?;
    }
    Ok(())
}

/// A thread that runs a shard.
struct RunningShard {
    thread: thread::JoinHandle<()>,
    /// Resolves with an error when the thread ends.
    ended: oneshot::Receiver<()>,
}

impl RunningShard {
    fn start(index: usize, node: Arc<Node>, sessions: Arc<SessionRegistry>, inbox: InboxReceiver) -> io::Result<Self> {
        let (alive, ended) = oneshot::channel::<()>();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = thread::Builder::new().name(format!("shard-{index}")).spawn(move || {
            let _alive = alive;
            let fallback = Rc::new(Fallback::new(sessions, index));
            let serve = move |shard, stream, peer, permit| routes::serve(fallback.clone(), shard, stream, peer, permit);
            run_to_end(runtime, Shard::run(index, node, inbox, serve));
        })?;
        Ok(Self { thread, ended })
    }
}

/// Runs `work` on this thread. Tasks that have not ended with it are dropped.
fn run_to_end(runtime: Runtime, work: impl Future<Output = ()>) {
    let local = LocalSet::new();
    local.block_on(&runtime, work);
    drop(local);
    // Dropping the runtime would wait for blocking tasks, such as a DNS lookup without an answer.
    runtime.shutdown_background();
}

/// Runs the periodic work of the relay and of the session registry, once a second.
async fn tick(relay: &Relay, sessions: &SessionRegistry) -> Infallible {
    let mut second = tokio::time::interval(Duration::from_secs(1));
    loop {
        second.tick().await;
        relay.tick().await;
        sessions.remove_expired();
    }
}

#[cfg(test)]
mod tests;
