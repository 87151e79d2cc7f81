//! The roster of a cluster: presence, occupancy and kept events in Redis, changed by scripts that announce in one step.
//!
//! A node has an identity with a lease, which it renews every 5 s. Other nodes watch the lease (`lease_watch.rs`). If it does not
//! change any more they declare the node dead and sweep it. If the node is still alive, its next renewal is refused: it is
//! fenced, takes a new identity and asserts everything that it holds again. If Redis only lost the lease, the node keeps its
//! identity and asserts everything again.

mod changes;
mod lease;
mod lease_watch;
mod queries;
mod sweep;
mod webhook_args;

use std::convert::Infallible;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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

pub use lease::Times;

/// What a channel has in Redis outlives the last word of its nodes by this much. Sweeps clean up long before; this is for
/// what they cannot find, and longer than any time for which Redis cannot be reached and still comes back whole.
const CHANNEL_TTL: Duration = Duration::from_secs(600);

/// The list of what a node may hold outlives the channels.
const INDEX_TTL: Duration = Duration::from_secs(3600);

/// Reports of one channel's count that a node makes at once; more wait for the next second. A storm of subscribers would
/// otherwise cost Redis a script each.
const REPORTS_PER_SECOND: u32 = 16;

/// Questions about so many channels go out together.
const QUESTIONS_MAX: usize = 500;

/// One node's part in the roster of a cluster.
pub struct RedisRoster {
    link: Link,
    metrics: Metrics,
    times: Times,
    /// What is told by webhooks.
    event_types: EventTypes,
    identity: Mutex<Identity>,
    held: Mutex<Held>,
    /// Identities that were given up and are not known to be swept.
    past: Mutex<Vec<Past>>,
    /// Set when Redis may lack what this node holds, until it is about to be asserted again.
    must_assert: AtomicBool,
    /// Set once the node leaves: its lease is not to begin again.
    has_resigned: AtomicBool,
    /// Commands and the errors that they were answered with, for the log: each pair is worth one line.
    complaints: Mutex<HashSet<(&'static str, String)>>,
}

/// As whom this node changes the roster.
struct Identity {
    node: NodeId,
    /// Who this node was before, the last ones first.
    earlier: Vec<NodeId>,
    /// When the lease was last renewed; `None` before the first time.
    renewed: Option<Instant>,
    /// Changes since the last renewal, and when they ended.
    recent: Vec<(Instant, Entry)>,
}

/// A node that this one was.
struct Past {
    node: NodeId,
    /// Entries that it may have changed after its sweep.
    entries: Vec<String>,
}

/// An entry of a node's index: what the node may hold.
enum Entry {
    Channel(Topic),
    Connections(AppId),
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Channel(topic) => write!(f, "{topic}"),
            Self::Connections(app) => write!(f, "{app}/"),
        }
    }
}

/// What this node may have in Redis and must keep alive there.
#[derive(Default)]
struct Held {
    /// Each with whether it is in the index.
    topics: HashMap<Topic, bool>,
    connections: HashMap<AppId, u64>,
}

impl RedisRoster {
    /// A roster whose lease has not begun; [`RedisRoster::maintain`] begins it.
    pub fn new(link: Link, event_types: EventTypes) -> Arc<Self> {
        Self::with_times(link, event_types, Times::REAL)
    }

    /// The same with other times than [`Times::REAL`], for tests.
    pub fn with_times(link: Link, event_types: EventTypes, times: Times) -> Arc<Self> {
        let identity = Identity { node: NodeId::fresh(), earlier: Vec::new(), renewed: None, recent: Vec::new() };
        Arc::new(Self {
            metrics: link.metrics().clone(),
            link,
            times,
            event_types,
            identity: Mutex::new(identity),
            must_assert: AtomicBool::new(false),
            held: Mutex::default(),
            past: Mutex::default(),
            has_resigned: AtomicBool::new(false),
            complaints: Mutex::default(),
        })
    }

    /// Keeps the lease, keeps alive what this node holds, and sweeps dead nodes; never returns. `sink` is told when
    /// everything has to be asserted again.
    pub async fn maintain(self: &Arc<Self>, sink: Arc<dyn EnvelopeSink>) -> Infallible {
        tokio::join!(self.keep_lease(sink.clone()), self.keep_alive(sink), self.keep_sweeping()).0
    }

    /// Releases the lease and everything that this node still holds, so that others need not wait for its end.
    pub async fn release(&self) {
        self.has_resigned.store(true, Ordering::Release);
        let buried = self.bury_past().await;
        let node = self.node().to_string();
        let keys = self.link.keys();
        let (nodes, dead, marker) = (keys.nodes(), keys.dead(), keys.node_tombstone(&node));
        let mut call = scripts::release_lease().key(nodes);
        call.key(dead).key(marker).arg(&node).arg(millis(lease::NODE_TOMBSTONE_TTL));
        let declared = self.run::<i64>("resign", call).await;
        if declared.is_ok() {
            // Little is left: the connections left their channels one by one.
            let swept = self.try_sweep(&node).await;
            tracing::debug!(?buried, ?swept, "released what was left of this node");
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
            LinkError::Command(cause) if error.is_answer() => self.refused(command, cause),
            _ => RosterError::Unavailable,
        }
    }

    fn refused(&self, command: &'static str, cause: RedisError) -> RosterError {
        let code = cause.code().unwrap_or_else(|| cause.category()).to_owned();
        if lock(&self.complaints).insert((command, code)) {
            tracing::warn!(command, error = %cause, "redis refused a command; further refusals are only counted");
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
        Box::pin(self.join_now(topic, member, members_max, with_members, false))
    }

    fn rejoin<'a>(
        &'a self,
        topic: &'a Topic,
        member: &'a Member,
        with_members: bool,
    ) -> BoxFuture<'a, Result<Joined, RosterError>> {
        Box::pin(self.join_now(topic, member, usize::MAX, with_members, true))
    }

    fn leave<'a>(&'a self, topic: &'a Topic, user_id: &'a UserId) -> BoxFuture<'a, Result<(), RosterError>> {
        Box::pin(self.leave_now(topic, user_id))
    }

    fn own_members<'a>(&'a self, topic: &'a Topic) -> BoxFuture<'a, Result<Vec<UserId>, RosterError>> {
        Box::pin(self.held_now(topic))
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
        Box::pin(self.occupy_now(topic, subscriptions, announce, false))
    }

    fn resend_subscriptions<'a>(
        &'a self,
        topic: &'a Topic,
        subscriptions: u64,
        announce: bool,
    ) -> BoxFuture<'a, Result<(), RosterError>> {
        Box::pin(self.occupy_now(topic, subscriptions, announce, true))
    }

    fn report_cache_miss<'a>(&'a self, topic: &'a Topic) -> BoxFuture<'a, Result<(), RosterError>> {
        Box::pin(self.miss_now(topic))
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
        Box::pin(async move { self.claim_now(app, connections, 0, 0).await.map(|(total, _)| total) })
    }

    fn claim_connections<'a>(
        &'a self,
        app: &'a AppId,
        connections: u64,
        wanted: u64,
        quota: u64,
    ) -> BoxFuture<'a, Result<Claimed, RosterError>> {
        Box::pin(async move { self.claim_now(app, connections, wanted, quota).await.map(|(_, claimed)| claimed) })
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
            // Redis may have come back with an older state of the index.
            self.forget_index();
            self.must_assert.store(false, Ordering::Release);
            Ok(())
        })
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// What a script of ours wrote as a number; anything else means that someone else writes our keys.
fn number(text: &str) -> Result<u64, RosterError> {
    text.parse().map_err(|_| RosterError::Damaged)
}

fn from_value<T: FromRedisValue>(value: &redis::Value) -> Result<T, RosterError> {
    T::from_redis_value_ref(value).map_err(|_| RosterError::Damaged)
}

/// A panic under one of these locks leaves values that are whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
