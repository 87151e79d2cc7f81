//! How many connections a gateway can have: limits, counters, and the admission of clients.

pub(crate) mod addresses;
mod quota;
mod recounts;

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use hashbrown::HashMap;
use shared::app::{App, AppId, Apps};
use shared::cluster::roster::Roster;
use shared::protocol::CloseCode;
use shared::sync::lock;
use tokio::sync::Notify;

use crate::config::Server;
use crate::limits::SESSIONS_PER_ADDRESS_SHARE;
use crate::metrics::Metrics;
use crate::reject::Farewell;
use crate::transport::Transport;
use addresses::{AddressPermit, Addresses};
use quota::AppConnections;
pub(crate) use recounts::RecountRequests;

/// The limits of a [`Capacity`].
#[derive(Clone, Copy)]
pub(crate) struct CapacityLimits {
    /// The maximum number of open client connections.
    pub(crate) connections_max: usize,
    /// The maximum number of open TCP connections to the public listener.
    pub(crate) sockets_max: usize,
    /// The number of threads that serve them.
    pub(crate) shards: usize,
    /// Whether other nodes share the roster, and with it the quotas of apps.
    pub(crate) is_clustered: bool,
}

/// The open connections of a node and their limits.
pub(crate) struct Capacity {
    limits: CapacityLimits,
    roster: Arc<dyn Roster>,
    metrics: Metrics,
    recounts: Arc<RecountRequests>,
    /// Connections by client address.
    pub(crate) addresses: Arc<Addresses>,
    /// Open client connections of all apps.
    connections: AtomicUsize,
    by_app: HashMap<AppId, AppConnections>,
    /// Notified when a count must be reported to the roster.
    report_due: Notify,
    /// Apps with a queue of handshakes that no task serves yet.
    unserved: Mutex<Vec<Arc<App>>>,
    /// Notified when an app is added to `unserved`.
    queued: Notify,
    /// By shard: its open TCP connections, including HTTP connections.
    sockets: Box<[AtomicUsize]>,
}

impl Capacity {
    pub(crate) fn new(
        limits: CapacityLimits,
        server: &Server,
        apps: &Apps,
        roster: Arc<dyn Roster>,
        metrics: Metrics,
        recounts: Arc<RecountRequests>,
    ) -> Arc<Self> {
        let sessions_max = match server.fallback_sessions_per_address {
            0 => 0,
            requested => requested.min(limits.connections_max / SESSIONS_PER_ADDRESS_SHARE).max(1),
        };
        Arc::new(Self {
            limits,
            roster,
            metrics,
            recounts,
            addresses: Addresses::new(server.connections_per_address, sessions_max),
            connections: AtomicUsize::new(0),
            by_app: apps.iter().map(|app| (app.id.clone(), AppConnections::default())).collect(),
            report_due: Notify::new(),
            unserved: Mutex::default(),
            queued: Notify::new(),
            sockets: (0..limits.shards).map(|_| AtomicUsize::new(0)).collect(),
        })
    }

    /// Admits a client if the node has capacity. Counts the connection without applying the app's quota.
    pub(crate) fn admit_over_quota(
        self: &Arc<Self>,
        app: &Arc<App>,
        transport: Transport,
    ) -> Result<Admission, Farewell> {
        self.of_app(&app.id).add();
        self.admit_counted(app, transport)
    }

    /// Admits a client if the node has capacity. The connection is already counted for its app.
    fn admit_counted(self: &Arc<Self>, app: &Arc<App>, transport: Transport) -> Result<Admission, Farewell> {
        let of_app = self.of_app(&app.id);
        let connections = self.connections.fetch_add(1, Ordering::AcqRel);
        if connections >= self.limits.connections_max {
            self.connections.fetch_sub(1, Ordering::AcqRel);
            of_app.remove();
            self.count_changed(&app.id, of_app);
            return Err(Farewell::new(CloseCode::OverCapacity, "The server is over capacity, try again later"));
        }
        self.metrics.app(&app.id).connections(transport).inc();
        self.count_changed(&app.id, of_app);
        Ok(Admission {
            capacity: self.clone(),
            app: app.clone(),
            transport,
            is_in_quota: Cell::new(true),
            address: None,
        })
    }

    /// Returns the number of open client connections.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Acquire)
    }

    /// Returns the maximum number of open client connections.
    pub(crate) fn connections_max(&self) -> usize {
        self.limits.connections_max
    }

    /// Returns the number of shards.
    pub(crate) fn shards(&self) -> usize {
        self.limits.shards
    }

    /// Whether other nodes share the roster, and with it the quotas of apps.
    pub(crate) fn is_clustered(&self) -> bool {
        self.limits.is_clustered
    }

    /// Counts a TCP connection on a shard until the permit is dropped.
    pub(crate) fn add_socket(self: &Arc<Self>, shard: usize) -> SocketPermit {
        self.sockets[shard].fetch_add(1, Ordering::Relaxed);
        SocketPermit { capacity: self.clone(), shard }
    }

    /// Whether a descriptor is left for one more TCP connection.
    pub(crate) fn has_room_for_socket(&self) -> bool {
        self.sockets.iter().map(|sockets| sockets.load(Ordering::Relaxed)).sum::<usize>() < self.limits.sockets_max
    }

    /// Returns the shard with the fewest TCP connections.
    pub(crate) fn least_loaded_shard(&self) -> usize {
        let sockets = self.sockets.iter().map(|sockets| sockets.load(Ordering::Relaxed));
        sockets.enumerate().min_by_key(|(_, sockets)| *sockets).map_or(0, |(shard, _)| shard)
    }

    fn of_app(&self, app: &AppId) -> &AppConnections {
        self.by_app.get(app).expect("every configured app has a count")
    }

    fn unserved(&self) -> MutexGuard<'_, Vec<Arc<App>>> {
        lock(&self.unserved)
    }
}

/// The permit of one client connection. It counts for the app and the node until it is dropped.
pub(crate) struct Admission {
    capacity: Arc<Capacity>,
    pub(crate) app: Arc<App>,
    pub(crate) transport: Transport,
    address: Option<Box<AddressPermit>>,
    is_in_quota: Cell<bool>,
}

impl Admission {
    /// Returns the same admission, which also counts for the client's address.
    pub(crate) fn counted_for(mut self, address: Option<Box<AddressPermit>>) -> Self {
        self.address = address;
        self
    }

    /// Stops counting the connection for its app's quota. It still counts for the node until the socket is closed.
    pub(crate) fn release_quota(&self) {
        if self.is_in_quota.replace(false) {
            let of_app = self.capacity.of_app(&self.app.id);
            of_app.remove();
            self.capacity.count_changed(&self.app.id, of_app);
        }
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.release_quota();
        self.capacity.connections.fetch_sub(1, Ordering::AcqRel);
        self.capacity.metrics.app(&self.app.id).connections(self.transport).dec();
    }
}

/// The permit of one TCP connection. It counts for its shard until it is dropped.
pub(crate) struct SocketPermit {
    capacity: Arc<Capacity>,
    shard: usize,
}

impl Drop for SocketPermit {
    fn drop(&mut self) {
        self.capacity.sockets[self.shard].fetch_sub(1, Ordering::Relaxed);
    }
}
