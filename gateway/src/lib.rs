//! The WebSocket node: holds the connections, hears the bus, fans out.
//!
//! One thread per core, each a shard that owns its connections for life; the public listener hands new
//! sockets out. Gateway and publisher know nothing of each other: they meet in `shared::cluster::bus` and `shared::cluster::roster`.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use prometheus::Registry;
use shared::app::Apps;
use shared::cluster::bus::{Bus, Listener};
use shared::cluster::redis::Directory;
use shared::cluster::roster::Roster;
use shared::serve::admin::Health;
use shared::serve::descriptors::{self, LimitError};
use shared::serve::http::Routes;
use shared::serve::listener::{AcceptPolicy, BoundListener, Inherited};
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
use inbox::{DrainPlan, InboxReceiver, Room, ShardMessage, inbox};
use metrics::Metrics;
use node::Node;
use relay::Relay;
use shard::Shard;

/// How long after the last close the departures may take to reach the cluster: longer than a hiccup of Redis, and short
/// enough for any grace period. If a node ends earlier, the others remove its members.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long after the last close HTTP requests that are under way may take.
const REQUEST_GRACE: Duration = Duration::from_secs(2);

/// A node whose clients have nowhere else to go closes its connections only when its HTTP requests are answered, or after
/// this time. Until then it serves as before.
const QUIESCE_TIMEOUT: Duration = Duration::from_secs(1);

/// Such a node ends when its clients have answered the close frames, or after this time. What is not delivered by then is
/// left to the kernel: clients reconnect a second after the close, and the next process must listen by then.
const FAREWELL_TIMEOUT: Duration = Duration::from_millis(300);

/// How long HTTP connections are still listened to when nobody new is let in: longer than a request is on its way on one
/// that its balancer took for open. Not where nobody has to notice that the node leaves.
const LINGER: Duration = Duration::from_secs(1);

/// What a gateway works with.
pub struct Deps {
    /// The tenants.
    pub apps: Apps,
    /// Carries events; [`Gateway::listener`] must be made its listener before [`Gateway::run`].
    pub bus: Arc<dyn Bus>,
    /// Knows members, occupancy and last events.
    pub roster: Arc<dyn Roster>,
    /// Answers HTTP requests that are no WebSockets; without it they get 404.
    pub routes: Option<Arc<dyn Routes>>,
    /// Knows which node has which session of the HTTP transports; `None` for a process that is the whole cluster.
    pub directory: Option<Directory>,
    /// Who is let in at the public listener.
    pub accept_policy: AcceptPolicy,
    /// Where metrics are registered.
    pub registry: Registry,
    /// Sockets that the process was started with.
    pub sockets: Inherited,
    /// Open descriptors that this process may have; the ceiling of connections follows from it.
    pub descriptors_max: u64,
}

/// Why a gateway cannot be bound.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The public listener's address cannot be had.
    #[error("the public listener")]
    Public(#[source] io::Error),
    /// The address for other nodes cannot be had.
    #[error("the listener for other nodes")]
    Peers(#[source] io::Error),
    /// No descriptors are left for clients.
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
            wanted if wanted > ceiling => {
                let descriptors = deps.descriptors_max;
                tracing::warn!(wanted, ceiling, descriptors, "descriptors do not suffice for server.connections_max");
                ceiling
            }
            wanted => wanted,
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

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Most WebSockets that this node will hold.
    pub fn connections_max(&self) -> usize {
        self.node.capacity.connections_max()
    }

    /// Where other nodes pass requests on to; `None` for a process that is the whole cluster.
    pub fn peers_address(&self) -> Option<SocketAddr> {
        self.sessions.peers()?.bound().ok()
    }

    /// What the bus delivers to.
    pub fn listener(&self) -> Arc<dyn Listener> {
        self.relay.clone()
    }

    /// What the admin listener asks.
    pub fn health(&self) -> Arc<dyn Health> {
        self.node.clone()
    }

    /// Serves until `shutdown` resolves, then drains. Returns when the last connection is closed and the cluster has been
    /// notified, or when either takes too long: then the shards end with the process.
    ///
    /// Where other nodes can take the clients over, connections are closed with 4200 at the pace of `drain`. A node without
    /// a cluster closes all connections with 4100 at once, last of all.
    ///
    /// # Errors
    /// When a shard cannot be started, or ends before it was drained.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> io::Result<()> {
        let Self { config, listener, node, relay, sessions, receivers, .. } = self;
        let shards: Vec<RunningShard> = receivers
            .into_iter()
            .enumerate()
            .map(|(index, receiver)| RunningShard::start(index, node.clone(), sessions.clone(), receiver))
            .collect::<io::Result<_>>()?;
        node.start_serving();
        let (ends, threads): (Vec<_>, Vec<_>) = shards.into_iter().map(|shard| (shard.ended, shard.thread)).unzip();
        let mut ended = futures_util::future::select_all(ends);
        let (stop, draining) = oneshot::channel::<()>();
        let leaving = async {
            shutdown.await;
            node.start_draining();
            drop(stop);
            tokio::time::sleep(config.drain.accept).await;
            if !node.capacity.is_clustered() {
                node.requests_done(QUIESCE_TIMEOUT).await;
            }
        };
        let serve = async {
            tokio::select! {
                () = listener.while_accepting(http::accept::accept(&listener, &node, &relay), async { drop(draining.await) }) => {}
                () = leaving => {}
                (_, index, _) = &mut ended => {
                    return Err(io::Error::other(format!("shard {index} ended before it was told to")));
                }
            }
            shared::serve::listener::close(listener, |stream, peer| {
                if let Ok(stream) = http::accept::prepare(stream) {
                    http::accept::assign(stream, peer, &node, &relay);
                }
            });
            let plan = if node.capacity.is_clustered() {
                let window = config.drain.duration(node.capacity.connections());
                DrainPlan { window, linger: config.drain.accept.min(LINGER), grace: REQUEST_GRACE }
            } else {
                DrainPlan { window: Duration::ZERO, linger: Duration::ZERO, grace: FAREWELL_TIMEOUT }
            };
            for index in 0..threads.len() {
                relay.send_to_shard(index, ShardMessage::Drain(plan));
            }
            // A shard ends when its last connection is closed and the cluster has been notified. Joining the threads waits
            // for the rest.
            let gone = async {
                let (_, _, others) = ended.await;
                futures_util::future::join_all(others).await;
            };
            let patience = if node.capacity.is_clustered() { LEAVE_TIMEOUT } else { FAREWELL_TIMEOUT };
            if tokio::time::timeout(plan.window + patience, gone).await.is_err() {
                if node.capacity.is_clustered() {
                    tracing::warn!("shut down before Redis confirmed all departures; other nodes will clean up");
                }
                return Ok(());
            }
            for thread in threads {
                thread.join().map_err(|_| io::Error::other("a shard panicked while it ended"))?;
            }
            Ok(())
        };
        let (all_gone, ended) = oneshot::channel::<()>();
        let serve = async {
            let served = serve.await;
            drop(all_gone);
            served
        };
        let serve_peers = fallback::peer_server::serve(&sessions, async { drop(ended.await) });
        tokio::select! {
            (served, ()) = futures_util::future::join(serve, serve_peers) => served,
            never = tick(&relay, &sessions) => match never {},
            // Apart from what waits for the cluster.
            never = relay.send_late_notifications() => match never {},
            // Not with the timer of what is done each second: the cluster's answers make that late.
            never = node.metrics.event_loop_lag.keep() => match never {},
            never = sessions.keep_renewed() => match never {},
            never = node.capacity.report_connections() => match never {},
            never = node.capacity.serve_queues() => match never {},
            never = relay.keep_synchronized() => match never {},
        }
    }
}

/// A thread that runs a shard.
struct RunningShard {
    thread: thread::JoinHandle<()>,
    /// Resolves, with an error, when the thread drops its end.
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

/// Runs `work` on this thread; what it left undone is dropped.
fn run_to_end(runtime: Runtime, work: impl Future<Output = ()>) {
    let local = LocalSet::new();
    local.block_on(&runtime, work);
    drop(local);
    // Dropped it would wait for what still blocks, as the look-up of a name that no server answers.
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
