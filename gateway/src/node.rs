//! What all shards of a gateway share: configuration, counters, and how full the node is.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use shared::admin::Health;
use shared::app::{App, AppId, Apps};
use shared::http::Routes;
use shared::listener::Front;
use shared::protocol::CloseCode;
use shared::roster::RosterError;
use tokio::sync::{Mutex, Notify};

use crate::config::Server;
use crate::fallback;
use crate::fallback::peers::Peers;
use crate::metrics::Metrics;
use crate::reject::Farewell;
use crate::relay::Relay;
use crate::transport::Transport;

/// A shard whose timer has not fired for this long counts as stalled.
const STALL: Duration = Duration::from_secs(10);

/// One running gateway.
pub(crate) struct Node {
    pub(crate) server: Server,
    /// Who is let in at the public listener.
    pub(crate) front: Front,
    pub(crate) apps: Apps,
    pub(crate) metrics: Metrics,
    pub(crate) relay: Arc<Relay>,
    pub(crate) routes: Option<Arc<dyn Routes>>,
    pub(crate) connections_max: usize,
    sockets_max: usize,
    /// Sessions of the HTTP transports.
    pub(crate) fallback: fallback::Registry,
    /// Other nodes, in a cluster.
    pub(crate) peers: Option<Peers>,
    occupants: Occupants,
    started: Instant,
    /// By shard: when its timer fired last, in milliseconds after `started`.
    heartbeats_ms: Box<[AtomicU64]>,
    /// By shard: its open TCP connections, HTTP included.
    loads: Box<[AtomicUsize]>,
    serving: AtomicBool,
    draining: AtomicBool,
}

/// Open connections of clients, of all apps and of each.
struct Occupants {
    all: AtomicUsize,
    by_app: HashMap<AppId, AppOccupants>,
    changed: Notify,
}

/// Open connections of clients of one app.
#[derive(Default)]
struct AppOccupants {
    count: AtomicUsize,
    /// Held while the roster is told, so that it hears of the counts in their order.
    reported: Mutex<Reported>,
}

/// What the roster was told last of an app's connections.
#[derive(Default)]
struct Reported {
    count: usize,
    failed: Option<Instant>,
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

/// After a failure nobody waits for the roster for this long.
const REPORT_PAUSE: Duration = Duration::from_secs(1);

impl Node {
    pub(crate) fn new(
        server: Server,
        front: Front,
        apps: Apps,
        metrics: Metrics,
        relay: Arc<Relay>,
        capacity: Capacity,
    ) -> Self {
        let Capacity { connections_max, sockets_max, shards } = capacity;
        let by_app = apps.iter().map(|app| (app.id.clone(), AppOccupants::default())).collect();
        Self {
            server,
            front,
            apps,
            metrics,
            relay,
            routes: None,
            connections_max,
            sockets_max,
            fallback: fallback::Registry::default(),
            peers: None,
            occupants: Occupants { all: AtomicUsize::new(0), by_app, changed: Notify::new() },
            started: Instant::now(),
            heartbeats_ms: (0..shards).map(|_| AtomicU64::new(0)).collect(),
            loads: (0..shards).map(|_| AtomicUsize::new(0)).collect(),
            serving: AtomicBool::new(false),
            draining: AtomicBool::new(false),
        }
    }

    /// Takes a place for a client of this app, or says why there is none. An app's quota is that of the whole cluster;
    /// while the cluster cannot be asked it is this node's own.
    pub(crate) async fn admit(self: &Arc<Self>, app: &Arc<App>, transport: Transport) -> Result<Admission, Farewell> {
        let admission = self.take_place(app, transport)?;
        let quota = app.limits.connections;
        if quota > 0
            && let Ok(connections) = self.report(&app.id, self.of_app(&app.id)).await
            && connections > quota as u64
        {
            return Err(over_quota());
        }
        Ok(admission)
    }

    /// Takes a place among those of this node.
    pub(crate) fn take_place(self: &Arc<Self>, app: &Arc<App>, transport: Transport) -> Result<Admission, Farewell> {
        let all = self.occupants.all.fetch_add(1, Ordering::AcqRel);
        if all >= self.connections_max {
            self.occupants.all.fetch_sub(1, Ordering::AcqRel);
            return Err(Farewell::new(CloseCode::OverCapacity, "The server is over capacity, try again later"));
        }
        let of_app = self.of_app(&app.id).count.fetch_add(1, Ordering::AcqRel);
        let quota = app.limits.connections;
        if quota > 0 && of_app >= quota {
            self.of_app(&app.id).count.fetch_sub(1, Ordering::AcqRel);
            self.occupants.all.fetch_sub(1, Ordering::AcqRel);
            return Err(over_quota());
        }
        self.metrics.app(&app.id).connections(transport).inc();
        self.occupants.changed.notify_one();
        Ok(Admission { node: self.clone(), app: app.clone(), transport })
    }

    fn leave(&self, app: &App, transport: Transport) {
        self.of_app(&app.id).count.fetch_sub(1, Ordering::AcqRel);
        self.occupants.all.fetch_sub(1, Ordering::AcqRel);
        self.metrics.app(&app.id).connections(transport).dec();
        self.occupants.changed.notify_one();
    }

    /// Open connections of clients.
    pub(crate) fn connections(&self) -> usize {
        self.occupants.all.load(Ordering::Acquire)
    }

    /// Tells the roster how many connections each app has, whenever that changed, a few times a second at most.
    pub(crate) async fn report_connections(&self) -> Infallible {
        loop {
            let forgotten = tokio::select! {
                () = self.occupants.changed.notified() => false,
                () = self.relay.connections_forgotten() => true,
            };
            for (app, occupants) in &self.occupants.by_app {
                let is_news = {
                    let mut reported = occupants.reported.lock().await;
                    if forgotten {
                        reported.count = 0;
                    }
                    reported.count != occupants.count.load(Ordering::Acquire)
                };
                if is_news && self.report(app, occupants).await.is_err() {
                    // The next round says it.
                    self.occupants.changed.notify_one();
                }
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Tells the roster how many connections the app has here; returns how many it has everywhere.
    async fn report(&self, app: &AppId, occupants: &AppOccupants) -> Result<u64, RosterError> {
        let mut reported = occupants.reported.lock().await;
        let count = occupants.count.load(Ordering::Acquire);
        if reported.failed.is_some_and(|failed| failed.elapsed() < REPORT_PAUSE) {
            return Err(RosterError::Unavailable);
        }
        match self.relay.roster().connect(app, count as u64).await {
            Ok(everywhere) => {
                *reported = Reported { count, failed: None };
                Ok(everywhere)
            }
            Err(error) => {
                reported.failed = Some(Instant::now());
                Err(error)
            }
        }
    }

    fn of_app(&self, app: &AppId) -> &AppOccupants {
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

    /// Whether there is a descriptor for one more TCP connection.
    pub(crate) fn has_room_for_socket(&self) -> bool {
        self.loads.iter().map(|load| load.load(Ordering::Relaxed)).sum::<usize>() < self.sockets_max
    }

    /// The shard with the fewest TCP connections.
    pub(crate) fn least_loaded_shard(&self) -> usize {
        let loads = self.loads.iter().map(|load| load.load(Ordering::Relaxed));
        loads.enumerate().min_by_key(|(_, load)| *load).map_or(0, |(shard, _)| shard)
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

fn over_quota() -> Farewell {
    Farewell::new(CloseCode::OverQuota, "The app is over its connection quota")
}

/// A connection's place among those of its app and of the node; given back when dropped.
pub(crate) struct Admission {
    node: Arc<Node>,
    pub(crate) app: Arc<App>,
    pub(crate) transport: Transport,
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.node.leave(&self.app, self.transport);
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
