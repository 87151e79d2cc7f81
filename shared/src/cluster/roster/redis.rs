//! The roster of a cluster, stored in Redis. Scripts change the state and publish the change in one step.
//!
//! A node has an id with a lease, which it renews every 5 s. Other nodes watch the lease (`lease_watch.rs`). If the
//! lease stops changing, they declare the node dead and sweep it. If the node is still running, its next renewal is
//! refused: it is fenced. It takes a new id and resynchronizes. If Redis only lost the lease, the node keeps its id and
//! resynchronizes.

mod changes;
mod index;
mod lease;
mod lease_watch;
mod queries;
mod sweep;
mod webhook_args;

use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use hashbrown::{HashMap, HashSet};
use redis::{FromRedisValue, RedisError};

use super::{Claimed, Joined, Occupancy, Roster, RosterError};
use crate::app::AppId;
use crate::cluster::bus::EnvelopeSink;
use crate::cluster::envelope::{CachedEvent, Topic};
use crate::cluster::node::NodeId;
use crate::cluster::redis::link::LinkError;
use crate::cluster::redis::metrics::Metrics;
use crate::cluster::redis::{Command, Link, is_damage, scripts};
use crate::cluster::webhook::EventTypes;
use crate::protocol::{ChannelName, Member, UserId};
use crate::sync::lock;

use index::IndexEntry;
pub use lease::Times;

/// Time to live of a channel's keys after the last change. Sweeps remove the state of dead nodes much earlier, but do
/// not find keys that no index lists. The time is longer than any outage after which Redis returns with its data.
const CHANNEL_TTL: Duration = Duration::from_secs(600);

/// Counts of one channel that a node sends per second. Further ones are sent in the next second. Otherwise each
/// subscriber of a burst would cost a script.
const REPORTS_PER_SECOND: u32 = 16;

/// Channels that one pipeline queries, and entries that one command adds to an index.
const BATCH_MAX: usize = 500;

/// One node's access to the roster of a cluster.
pub struct RedisRoster {
    link: Link,
    metrics: Metrics,
    times: Times,
    /// The webhook kinds that each app requests.
    event_types: EventTypes,
    identity: Mutex<Identity>,
    registered: Mutex<Registered>,
    /// Earlier ids whose sweep may be incomplete.
    unswept: Mutex<Vec<UnsweptId>>,
    /// Set if Redis may lack what this node has registered, until the node starts to resynchronize.
    must_resynchronize: AtomicBool,
    /// Set when the node shuts down. Its lease must not start again.
    is_released: AtomicBool,
    /// The rejected commands with their error codes. Each pair is logged once.
    logged_refusals: Mutex<HashSet<(&'static str, String)>>,
}

/// The id with which this node changes the roster.
struct Identity {
    node: NodeId,
    /// Earlier ids of this node, the latest first.
    earlier: Vec<NodeId>,
    /// The time at which the latest renewal of the lease was sent; `None` before the first one.
    renewed: Option<Instant>,
    /// Changes since the last renewal, and the times at which they ended.
    recent: Vec<(Instant, IndexEntry)>,
}

/// An earlier id of this node.
struct UnsweptId {
    node: NodeId,
    /// Entries that may have been changed after the sweep of this id.
    entries: Vec<IndexEntry>,
}

/// The state that this node may have in Redis. The node renews its time to live.
#[derive(Default)]
struct Registered {
    /// The topics, each with whether it is certainly in the index.
    topics: HashMap<Topic, bool>,
    connections: HashMap<AppId, u64>,
}

/// Whether a node reports something for the first time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Report {
    New,
    /// The node reported it before, and Redis may have lost it.
    Repeated,
}

impl RedisRoster {
    /// Returns a roster without a lease. [`RedisRoster::maintain`] starts the lease.
    pub fn new(link: Link, event_types: EventTypes) -> Arc<Self> {
        Self::with_times(link, event_types, Times::REAL)
    }

    /// Returns a roster with other times than [`Times::REAL`], for tests.
    pub fn with_times(link: Link, event_types: EventTypes, times: Times) -> Arc<Self> {
        let identity = Identity { node: NodeId::fresh(), earlier: Vec::new(), renewed: None, recent: Vec::new() };
        Arc::new(Self {
            metrics: link.metrics().clone(),
            link,
            times,
            event_types,
            identity: Mutex::new(identity),
            must_resynchronize: AtomicBool::new(false),
            registered: Mutex::default(),
            unswept: Mutex::default(),
            is_released: AtomicBool::new(false),
            logged_refusals: Mutex::default(),
        })
    }

    /// Renews the lease and the time to live of what this node has registered, and sweeps dead nodes. Never returns.
    /// Calls `sink` if the node must resynchronize.
    pub async fn maintain(self: &Arc<Self>, sink: Arc<dyn EnvelopeSink>) -> Infallible {
        tokio::join!(self.maintain_lease(sink.clone()), self.maintain_registered(sink), self.sweep_dead_nodes()).0
    }

    /// Releases the lease and everything that this node has registered. Other nodes do not have to wait for its expiry.
    pub async fn release(&self) {
        self.is_released.store(true, Ordering::Release);
        let earlier_ids = self.release_earlier_ids().await;
        let node = self.node().to_string();
        let keys = self.link.keys();
        let mut call = scripts::release_lease().key(keys.nodes());
        call.key(keys.dead()).key(keys.node_tombstone(&node)).arg(&node).arg(millis(lease::NODE_TOMBSTONE_TTL));
        if self.run::<i64>("resign", call).await.is_ok() {
            // Little is left, because each connection has unsubscribed from its channels.
            let swept = self.try_sweep(&node).await;
            tracing::debug!({ node.id = node, ?earlier_ids, ?swept }, "released the lease of this node");
        }
    }

    fn node(&self) -> NodeId {
        lock(&self.identity).node
    }

    async fn run<T: Send + 'static>(
        &self,
        name: &'static str,
        command: impl Command<T> + 'static,
    ) -> Result<T, RosterError> {
        self.link.run(name, command).await.map_err(|error| self.failed(name, error))
    }

    fn failed(&self, command: &'static str, error: LinkError) -> RosterError {
        match error {
            LinkError::Command(cause) if error.is_command_error() => self.refused(command, cause),
            _ => RosterError::Unavailable,
        }
    }

    fn refused(&self, command: &'static str, cause: RedisError) -> RosterError {
        let code = cause.code().unwrap_or_else(|| cause.category()).to_owned();
        if lock(&self.logged_refusals).insert((command, code)) {
            tracing::warn!(
                command,
                error = %cause,
                "redis rejected a roster command (further rejections are only counted)"
            );
        }
        if is_damage(&cause) { RosterError::Damaged } else { RosterError::Unavailable }
    }
}

impl Roster for RedisRoster {
    fn join<'a>(
        &'a self,
        topic: &'a Topic,
        member: &'a Member,
        members_max: usize,
        with_members: bool,
    ) -> BoxFuture<'a, Result<Joined, RosterError>> {
        Box::pin(self.join_now(topic, member, members_max, with_members, Report::New))
    }

    fn rejoin<'a>(
        &'a self,
        topic: &'a Topic,
        member: &'a Member,
        with_members: bool,
    ) -> BoxFuture<'a, Result<Joined, RosterError>> {
        Box::pin(self.join_now(topic, member, usize::MAX, with_members, Report::Repeated))
    }

    fn leave<'a>(&'a self, topic: &'a Topic, user_id: &'a UserId) -> BoxFuture<'a, Result<(), RosterError>> {
        Box::pin(self.leave_now(topic, user_id))
    }

    fn own_members<'a>(&'a self, topic: &'a Topic) -> BoxFuture<'a, Result<Vec<UserId>, RosterError>> {
        Box::pin(self.own_members_now(topic))
    }

    fn members<'a>(&'a self, topic: &'a Topic) -> BoxFuture<'a, Result<Vec<Member>, RosterError>> {
        Box::pin(self.members_now(topic))
    }

    fn set_subscriptions<'a>(
        &'a self,
        topic: &'a Topic,
        subscriptions: u64,
        announce: bool,
    ) -> BoxFuture<'a, Result<(), RosterError>> {
        Box::pin(self.set_subscriptions_now(topic, subscriptions, announce, Report::New))
    }

    fn resend_subscriptions<'a>(
        &'a self,
        topic: &'a Topic,
        subscriptions: u64,
        announce: bool,
    ) -> BoxFuture<'a, Result<(), RosterError>> {
        Box::pin(self.set_subscriptions_now(topic, subscriptions, announce, Report::Repeated))
    }

    fn report_cache_miss<'a>(&'a self, topic: &'a Topic) -> BoxFuture<'a, Result<(), RosterError>> {
        Box::pin(self.report_cache_miss_now(topic))
    }

    fn occupancy<'a>(&'a self, topics: &'a [Topic]) -> BoxFuture<'a, Result<Vec<Occupancy>, RosterError>> {
        Box::pin(self.occupancy_now(topics))
    }

    fn channels<'a>(
        &'a self,
        app: &'a AppId,
        prefix: &'a str,
    ) -> BoxFuture<'a, Result<Vec<(ChannelName, Occupancy)>, RosterError>> {
        Box::pin(self.channels_now(app, prefix))
    }

    fn cached<'a>(&'a self, topic: &'a Topic) -> BoxFuture<'a, Result<Option<CachedEvent>, RosterError>> {
        Box::pin(self.cached_now(topic))
    }

    fn report_connections<'a>(&'a self, app: &'a AppId, connections: u64) -> BoxFuture<'a, Result<u64, RosterError>> {
        Box::pin(async move { self.claim_connections_now(app, connections, 0, 0).await.map(|(total, _)| total) })
    }

    fn claim_connections<'a>(
        &'a self,
        app: &'a AppId,
        connections: u64,
        requested: u64,
        quota: u64,
    ) -> BoxFuture<'a, Result<Claimed, RosterError>> {
        Box::pin(async move {
            self.claim_connections_now(app, connections, requested, quota).await.map(|(_, claimed)| claimed)
        })
    }

    fn connections<'a>(&'a self, app: &'a AppId) -> BoxFuture<'a, Result<u64, RosterError>> {
        Box::pin(self.connections_now(app))
    }

    fn stale_channels(&self) -> BoxFuture<'_, Result<Vec<Topic>, RosterError>> {
        Box::pin(self.stale_channels_now())
    }

    fn reports_per_second(&self) -> u32 {
        REPORTS_PER_SECOND
    }

    fn renew(&self) -> BoxFuture<'_, Result<(), RosterError>> {
        Box::pin(async {
            self.renew_lease().await?;
            // Redis may have returned with an older state of the index.
            self.mark_unindexed();
            self.must_resynchronize.store(false, Ordering::Release);
            Ok(())
        })
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// Parses a number that a script wrote. Fails if another program has changed the key.
fn number(text: &str) -> Result<u64, RosterError> {
    text.parse().map_err(|_| RosterError::Damaged)
}

fn from_value<T: FromRedisValue>(value: &redis::Value) -> Result<T, RosterError> {
    T::from_redis_value_ref(value).map_err(|_| RosterError::Damaged)
}

#[cfg(test)]
mod tests;
