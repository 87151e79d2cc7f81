//! The bus, the roster and the webhook queues of a process, in memory or in Redis.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use shared::app::Apps;
use shared::cluster::bus::memory::SWEEP_INTERVAL;
use shared::cluster::bus::redis::subscriber::Subscriber;
use shared::cluster::bus::{Bus, EnvelopeSink, MemoryBus, RedisBus};
use shared::cluster::directory::{Directory, RedisDirectory};
use shared::cluster::redis::metrics::Metrics;
use shared::cluster::redis::{Config, Link, Probe, RedisHealth};
use shared::cluster::roster::{MemoryRoster, RedisRoster, Roster};
use shared::cluster::webhook::{EventTypes, MemoryQueues, Queues, RedisQueues};
use shared::serve::admin::Health;
use shared::serve::telemetry::metrics::Registry;
use tokio::runtime::Handle;
use tokio::time::timeout;

/// How long the release of the node's state in Redis may take. After that, other nodes remove the state.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(2);

/// The bus, the roster and the webhook queues of this process.
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
    /// The receiver of envelopes; `None` for a publisher.
    sink: Option<Arc<dyn EnvelopeSink>>,
}

impl Backbone {
    /// Creates the parts in memory, or in the configured Redis without connecting to it. `subscribes`: whether the node
    /// receives envelopes.
    pub(crate) fn new(config: &Config, apps: &Apps, registry: &Registry, subscribes: bool) -> anyhow::Result<Self> {
        if !config.is_set() {
            let queues = MemoryQueues::new(apps);
            let bus = MemoryBus::with_queues(Some(queues.clone()));
            return Ok(Self::Memory { roster: MemoryRoster::new(bus.clone()), bus, queues });
        }
        let event_types = EventTypes::new(apps);
        let link = Link::new(config, Handle::current(), Metrics::new(registry, subscribes)).context("redis")?;
        Ok(Self::Redis(Box::new(Cluster {
            bus: RedisBus::new(link.clone(), Subscriber::new(link.clone())),
            roster: RedisRoster::new(link.clone(), event_types.clone()),
            queues: RedisQueues::new(link.clone(), event_types),
            link,
            sink: None,
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
    pub(crate) fn directory(&self) -> Option<Arc<dyn Directory>> {
        match self {
            Self::Memory { .. } => None,
            Self::Redis(cluster) => Some(Arc::new(RedisDirectory::new(cluster.link.clone()))),
        }
    }

    /// Returns the webhook queues, and whether they outlive the process.
    pub(crate) fn queues(&self) -> (Arc<dyn Queues>, bool) {
        match self {
            Self::Memory { queues, .. } => (queues.clone(), false),
            Self::Redis(cluster) => (cluster.queues.clone(), true),
        }
    }

    /// Delivers the envelopes of the bus to the gateway. Must be called once, before [`Backbone::run`].
    pub(crate) fn deliver_to(&mut self, sink: Arc<dyn EnvelopeSink>) {
        match self {
            Self::Memory { bus, .. } => bus.deliver_to(sink),
            Self::Redis(cluster) => {
                cluster.bus.deliver_to(sink.clone());
                cluster.sink = Some(sink);
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

    /// Runs the background tasks of the bus and the roster.
    pub(crate) async fn run(&self) -> Infallible {
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
                let Some(sink) = &cluster.sink else { return probe.run().await };
                tokio::join!(probe.run(), cluster.roster.maintain(sink.clone())).0
            }
        }
    }

    /// Removes the state of this node from Redis.
    pub(crate) async fn release(&self) {
        let Self::Redis(cluster) = self else { return };
        if cluster.sink.is_some() && timeout(RELEASE_TIMEOUT, cluster.roster.release()).await.is_err() {
            tracing::warn!("redis did not respond in time; other nodes will remove this node when its lease expires");
        }
    }
}
