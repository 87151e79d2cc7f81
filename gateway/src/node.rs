//! What all shards of a gateway share: configuration, counters, and how full the node is.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use shared::app::{App, AppId, Apps};
use shared::protocol::CloseCode;
use shared::serve::admin::Health;
use shared::serve::http::Routes;
use shared::serve::listener::AcceptPolicy;
use tokio::sync::{Notify, Semaphore};

use crate::capacity::addresses::{AddressPermit, Addresses};
use crate::capacity::quota::AppPlaces;
use crate::config::Server;
use crate::fallback::peers::Peers;
use crate::fallback::{self, body_bytes_max};
use crate::limits::{LARGE_BODIES_BYTES_MAX, SESSIONS_PER_ADDRESS_SHARE};
use crate::metrics::Metrics;
use crate::reject::Farewell;
use crate::relay::Relay;
use crate::transport::Transport;
use crate::websocket::handshake::WarningLimit;

/// A shard whose timer has not fired for this long counts as stalled.
const STALL: Duration = Duration::from_secs(10);

/// One running gateway.
pub(crate) struct Node {
    pub(crate) server: Server,
    /// Who is let in at the public listener.
    pub(crate) accept_policy: AcceptPolicy,
    pub(crate) apps: Apps,
    pub(crate) metrics: Metrics,
    pub(crate) relay: Arc<Relay>,
    pub(crate) routes: Option<Arc<dyn Routes>>,
    pub(crate) connections_max: usize,
    sockets_max: usize,
    /// Connections by client address.
    pub(crate) addresses: Arc<Addresses>,
    /// Bytes of large request bodies that may still be kept.
    pub(crate) large_bodies: Semaphore,
    /// The largest request body that is discarded before a refusal is sent, in bytes.
    pub(crate) body_bytes_max: u64,
    pub(crate) handshake_warnings: WarningLimit,
    /// Sessions of the HTTP transports.
    pub(crate) fallback: fallback::Registry,
    /// Other nodes, in a cluster.
    pub(crate) peers: Option<Peers>,
    pub(crate) occupants: Occupants,
    started: Instant,
    /// By shard: when its timer fired last, in milliseconds after `started`.
    heartbeats_ms: Box<[AtomicU64]>,
    /// By shard: its open TCP connections, HTTP included.
    loads: Box<[AtomicUsize]>,
    /// Requests of the HTTP API that are under way.
    requests: AtomicUsize,
    serving: AtomicBool,
    draining: AtomicBool,
}

/// Open connections of clients, of all apps and of each.
pub(crate) struct Occupants {
    all: AtomicUsize,
    pub(crate) by_app: HashMap<AppId, AppPlaces>,
    /// Notified when a count has changed that the roster must learn of.
    pub(crate) changed: Notify,
    /// Apps whose queue of handshakes is to be served.
    unserved: Mutex<Vec<Arc<App>>>,
    /// Notified when there is one.
    pub(crate) queued: Notify,
}

impl Occupants {
    pub(crate) fn unserved(&self) -> MutexGuard<'_, Vec<Arc<App>>> {
        // A panic under this lock leaves a list that is whole.
        self.unserved.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How much a node holds.
#[derive(Clone, Copy)]
pub(crate) struct Capacity {
    /// Open connections of clients, at most.
    pub(crate) connections_max: usize,
    /// Open TCP connections to the public listener, at most.
    pub(crate) sockets_max: usize,
    /// Threads that hold them.
    pub(crate) shards: usize,
}

impl Node {
    pub(crate) fn new(
        server: Server,
        accept_policy: AcceptPolicy,
        apps: Apps,
        metrics: Metrics,
        relay: Arc<Relay>,
        capacity: Capacity,
    ) -> Self {
        let Capacity { connections_max, sockets_max, shards } = capacity;
        let sessions_max = match server.fallback_sessions_per_address {
            0 => 0,
            wanted => wanted.min(connections_max / SESSIONS_PER_ADDRESS_SHARE).max(1),
        };
        let addresses = Addresses::new(server.connections_per_address, sessions_max);
        let body_bytes_max = apps.iter().map(|app| body_bytes_max(app)).max().unwrap_or_default() as u64;
        let by_app = apps.iter().map(|app| (app.id.clone(), AppPlaces::default())).collect();
        Self {
            server,
            accept_policy,
            apps,
            metrics,
            relay,
            routes: None,
            connections_max,
            sockets_max,
            addresses,
            large_bodies: Semaphore::new(LARGE_BODIES_BYTES_MAX),
            body_bytes_max,
            handshake_warnings: WarningLimit::default(),
            fallback: fallback::Registry::default(),
            peers: None,
            occupants: Occupants {
                all: AtomicUsize::new(0),
                by_app,
                changed: Notify::new(),
                unserved: Mutex::default(),
                queued: Notify::new(),
            },
            started: Instant::now(),
            heartbeats_ms: (0..shards).map(|_| AtomicU64::new(0)).collect(),
            loads: (0..shards).map(|_| AtomicUsize::new(0)).collect(),
            requests: AtomicUsize::new(0),
            serving: AtomicBool::new(false),
            draining: AtomicBool::new(false),
        }
    }

    /// Whether other nodes share the roster, and so the quotas of apps.
    pub(crate) fn is_clustered(&self) -> bool {
        self.peers.is_some()
    }

    /// Takes a place among those of this node, whatever the app's quota.
    pub(crate) fn take_place(self: &Arc<Self>, app: &Arc<App>, transport: Transport) -> Result<Admission, Farewell> {
        self.places(&app.id).add();
        self.admit_counted(app, transport)
    }

    /// Takes a place among those of this node for a connection that its app has counted already.
    pub(crate) fn admit_counted(self: &Arc<Self>, app: &Arc<App>, transport: Transport) -> Result<Admission, Farewell> {
        let places = self.places(&app.id);
        let all = self.occupants.all.fetch_add(1, Ordering::AcqRel);
        if all >= self.connections_max {
            self.occupants.all.fetch_sub(1, Ordering::AcqRel);
            places.remove();
            self.count_changed(&app.id, places);
            return Err(Farewell::new(CloseCode::OverCapacity, "The server is over capacity, try again later"));
        }
        self.metrics.app(&app.id).connections(transport).inc();
        self.count_changed(&app.id, places);
        Ok(Admission { node: self.clone(), app: app.clone(), transport, is_counted: Cell::new(true), address: None })
    }

    /// Open connections of clients.
    pub(crate) fn connections(&self) -> usize {
        self.occupants.all.load(Ordering::Acquire)
    }

    /// The connections of an app on this node.
    pub(crate) fn places(&self, app: &AppId) -> &AppPlaces {
        self.occupants.by_app.get(app).expect("every configured app is counted")
    }

    /// Says that a shard's timer fired.
    pub(crate) fn heartbeat(&self, shard: usize) {
        let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.heartbeats_ms[shard].store(now, Ordering::Relaxed);
    }

    /// Counts a TCP connection on a shard for as long as the answer lives.
    pub(crate) fn load(self: &Arc<Self>, shard: usize) -> Load {
        self.loads[shard].fetch_add(1, Ordering::Relaxed);
        Load { node: self.clone(), shard }
    }

    /// The number of shards.
    pub(crate) fn shards(&self) -> usize {
        self.loads.len()
    }

    /// Counts a request of the HTTP API for as long as the answer lives.
    pub(crate) fn begin_request(&self) -> RequestGuard<'_> {
        self.requests.fetch_add(1, Ordering::AcqRel);
        RequestGuard { node: self }
    }

    /// Resolves when no request of the HTTP API is under way, or after `limit`.
    pub(crate) async fn requests_done(&self, limit: Duration) {
        const LOOK_INTERVAL: Duration = Duration::from_millis(5);
        let until = Instant::now() + limit;
        while self.requests.load(Ordering::Acquire) > 0 && Instant::now() < until {
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    /// Whether there is a descriptor for one more TCP connection.
    pub(crate) fn has_room_for_socket(&self) -> bool {
        self.loads.iter().map(|load| load.load(Ordering::Relaxed)).sum::<usize>() < self.sockets_max
    }

    /// The shard with the fewest TCP connections.
    pub(crate) fn least_loaded_shard(&self) -> usize {
        let loads = self.loads.iter().map(|load| load.load(Ordering::Relaxed));
        loads.enumerate().min_by_key(|(_, load)| *load).map_or(0, |(shard, _)| shard)
    }

    /// Seconds since the node began.
    pub(crate) fn age_s(&self) -> u64 {
        self.started.elapsed().as_secs()
    }

    pub(crate) fn start_serving(&self) {
        self.serving.store(true, Ordering::Release);
    }

    pub(crate) fn start_draining(&self) {
        self.draining.store(true, Ordering::Release);
        self.metrics.draining.set(1);
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }
}

/// A connection's place among those of its app and of the node; given back when dropped.
pub(crate) struct Admission {
    node: Arc<Node>,
    pub(crate) app: Arc<App>,
    pub(crate) transport: Transport,
    address: Option<Box<AddressPermit>>,
    /// Whether its app still counts it.
    is_counted: Cell<bool>,
}

impl Admission {
    /// The same admission, which also counts for the client's address.
    pub(crate) fn counted_for(mut self, address: Option<Box<AddressPermit>>) -> Self {
        self.address = address;
        self
    }

    /// Gives the place in the app's quota back: the connection is closing. The node's own place is given back with the
    /// socket.
    pub(crate) fn leave_app(&self) {
        if self.is_counted.replace(false) {
            let places = self.node.places(&self.app.id);
            places.remove();
            self.node.count_changed(&self.app.id, places);
        }
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.leave_app();
        self.node.occupants.all.fetch_sub(1, Ordering::AcqRel);
        self.node.metrics.app(&self.app.id).connections(self.transport).dec();
    }
}

/// A request of the HTTP API that is under way until dropped.
pub(crate) struct RequestGuard<'a> {
    node: &'a Node,
}

impl Drop for RequestGuard<'_> {
    fn drop(&mut self) {
        self.node.requests.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A TCP connection that counts on its shard until dropped.
pub(crate) struct Load {
    node: Arc<Node>,
    shard: usize,
}

impl Drop for Load {
    fn drop(&mut self) {
        self.node.loads[self.shard].fetch_sub(1, Ordering::Relaxed);
    }
}

impl Health for Node {
    fn live(&self) -> Result<(), String> {
        let now = self.started.elapsed();
        for (shard, heartbeat) in self.heartbeats_ms.iter().enumerate() {
            let silence = now.saturating_sub(Duration::from_millis(heartbeat.load(Ordering::Relaxed)));
            if silence > STALL {
                return Err(format!("shard {shard} has not turned for {} s", silence.as_secs()));
            }
        }
        Ok(())
    }

    fn ready(&self) -> Result<(), String> {
        if self.is_draining() {
            return Err("draining".into());
        }
        if !self.serving.load(Ordering::Acquire) {
            return Err("starting".into());
        }
        Ok(())
    }
}
