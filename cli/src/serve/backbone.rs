//! The bus, the roster and the webhook queues of a process, in memory or in Redis.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use prometheus::Registry;
use shared::app::Apps;
use shared::cluster::bus::memory::SWEEP_INTERVAL;
use shared::cluster::bus::redis::subscriber::Subscriber;
use shared::cluster::bus::{Bus, Listener, MemoryBus, RedisBus};
use shared::cluster::redis::metrics::Metrics;
use shared::cluster::redis::{Config, Directory, Link, Probe, RedisHealth};
use shared::cluster::roster::{MemoryRoster, RedisRoster, Roster};
use shared::cluster::webhook::{EventTypes, MemoryQueues, Queues, RedisQueues};
use shared::serve::admin::Health;
use tokio::runtime::Handle;
use tokio::time::timeout;

/// How long a node that leaves tries to take its part out of Redis; others do it for it otherwise.
const RESIGN_TIMEOUT: Duration = Duration::from_secs(2);

/// The bus and the roster of this process.
pub(crate) enum Backbone {
    /// State in memory: the process is the whole cluster.
    Memory {
        /// The bus of the process.
        bus: Arc<MemoryBus>,
        /// The members and occupied channels of the process.
        roster: Arc<MemoryRoster>,
        /// The webhook queues of the process.
        queues: Arc<MemoryQueues>,
    },
    /// State in Redis: the process is one node of a cluster.
    Redis(Box<Cluster>),
}

/// The parts of a node that use Redis.
pub(crate) struct Cluster {
    link: Link,
    bus: Arc<RedisBus>,
    roster: Arc<RedisRoster>,
    queues: Arc<RedisQueues>,
    /// Set for nodes that hold connections.
    listener: Option<Arc<dyn Listener>>,
}

impl Backbone {
    /// Memory, or the Redis that is configured; nothing is connected yet. `hears`: whether [`Backbone::listen`]
    /// follows.
    pub(crate) fn new(config: &Config, apps: &Apps, registry: &Registry, hears: bool) -> anyhow::Result<Self> {
        if !config.is_set() {
            let queues = MemoryQueues::new(apps);
            let bus = MemoryBus::with_queues(Some(queues.clone()));
            return Ok(Self::Memory { roster: MemoryRoster::new(bus.clone()), bus, queues });
        }
        let event_types = EventTypes::new(apps);
        let link = Link::new(config, Handle::current(), Metrics::new(registry, hears)).context("redis")?;
        Ok(Self::Redis(Box::new(Cluster {
            bus: RedisBus::new(link.clone(), Subscriber::new(link.clone())),
            roster: RedisRoster::new(link.clone(), event_types.clone()),
            queues: RedisQueues::new(link.clone(), event_types),
            link,
            listener: None,
        })))
    }

    pub(crate) fn bus(&self) -> Arc<dyn Bus> {
        match self {
            Self::Memory { bus, .. } => bus.clone(),
            Self::Redis(cluster) => cluster.bus.clone(),
        }
    }

    pub(crate) fn roster(&self) -> Arc<dyn Roster> {
        match self {
            Self::Memory { roster, .. } => roster.clone(),
            Self::Redis(cluster) => cluster.roster.clone(),
        }
    }

    /// Returns the directory of fallback sessions. `None` for a process without a cluster.
    pub(crate) fn directory(&self) -> Option<Directory> {
        match self {
            Self::Memory { .. } => None,
            Self::Redis(cluster) => Some(Directory::new(cluster.link.clone())),
        }
    }

    /// Returns the webhook queues, and whether they outlive the process.
    pub(crate) fn queues(&self) -> (Arc<dyn Queues>, bool) {
        match self {
            Self::Memory { queues, .. } => (queues.clone(), false),
            Self::Redis(cluster) => (cluster.queues.clone(), true),
        }
    }

    /// Makes this process a node that hears and holds; to be called once, before [`Backbone::keep`].
    pub(crate) fn listen(&mut self, listener: Arc<dyn Listener>) {
        match self {
            Self::Memory { bus, .. } => bus.listen(listener),
            Self::Redis(cluster) => {
                cluster.bus.listen(listener.clone());
                cluster.listener = Some(listener);
            }
        }
    }

    /// Returns the health of the node for the admin listener. `role`: the health of the role.
    pub(crate) fn health(&self, role: Arc<dyn Health>) -> Arc<dyn Health> {
        match self {
            Self::Memory { .. } => role,
            Self::Redis(cluster) => RedisHealth::new(cluster.link.clone(), role),
        }
    }

    /// Does what is due for as long as the process lives.
    pub(crate) async fn keep(&self) -> Infallible {
        match self {
            Self::Memory { roster, .. } => {
                let mut interval = tokio::time::interval(SWEEP_INTERVAL);
                loop {
                    interval.tick().await;
                    roster.sweep();
                }
            }
            Self::Redis(cluster) => {
                let probe = Probe::new(cluster.link.clone());
                let Some(listener) = &cluster.listener else { return probe.run().await };
                tokio::join!(probe.run(), cluster.roster.maintain(listener.clone())).0
            }
        }
    }

    /// Takes what is left of this node out of the cluster.
    pub(crate) async fn leave(&self) {
        let Self::Redis(cluster) = self else { return };
        if cluster.listener.is_some() && timeout(RESIGN_TIMEOUT, cluster.roster.release()).await.is_err() {
            tracing::warn!("redis did not answer; other nodes will take this one out when its lease is over");
        }
    }
}
