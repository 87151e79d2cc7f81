//! A node's lease, and the renewal of what the node has registered.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt};
use rand::Rng;

use super::index::{IndexEntry, add_to_index};
use super::{BATCH_MAX, CHANNEL_TTL, Identity, RedisRoster, UnsweptId, millis};
use crate::cluster::bus::EnvelopeSink;
use crate::cluster::envelope::Topic;
use crate::cluster::node::NodeId;
use crate::cluster::redis::scripts;
use crate::cluster::roster::RosterError;
use crate::sync::lock;

/// The times of leases. Tests use shorter ones, in the same proportions.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// The duration of a lease in Redis. It does not decide whether a node is dead, see [`Times::silence`].
    pub(super) lease: Duration,
    /// The interval between two renewals of a lease.
    pub(super) heartbeat_interval: Duration,
    /// The pause after a failed renewal.
    pub(super) retry_pause: Duration,
    /// The age of a lease from which a node renews it before it makes a change, because it may expire soon.
    pub(super) lease_age_max: Duration,
    /// The interval between two checks of the leases of all other nodes.
    pub(super) check_interval: Duration,
    /// The longest time that one check adds to the silence of a node whose lease has not changed since the previous
    /// check.
    pub(super) credit_max: Duration,
    /// The time after which a node is dead if its lease has not changed.
    ///
    /// A running node renews its lease every 5.5 s at most. If a command times out, that takes another 2 s. A new
    /// connection takes 2 s, the pause 1 s, and the next command 2 s. The sum is 12.5 s. One gap in which Redis was
    /// unavailable counts for [`Times::credit_max`]. The remaining 2.5 s are for a busy machine.
    pub(super) silence: Duration,
    /// The same time for an earlier id of a node. In this time the node resynchronizes under its new id, so that
    /// connected members are not removed.
    pub(super) released_silence: Duration,
    /// The time to live of a node's claim to sweep another one. The node renews the claim during the sweep.
    pub(super) sweep_claim_ttl: Duration,
    /// The interval between two renewals of the time to live of what a node has registered.
    pub(super) touch_interval: Duration,
}

impl Times {
    /// The times of a real cluster. A dead node is detected within `silence` and two checks, which is 23 s. This leaves
    /// 7 s for its sweep.
    pub const REAL: Self = Self {
        lease: Duration::from_secs(15),
        heartbeat_interval: Duration::from_secs(5),
        retry_pause: Duration::from_secs(1),
        lease_age_max: Duration::from_secs(12),
        check_interval: Duration::from_secs(2),
        credit_max: Duration::from_secs(3),
        silence: Duration::from_secs(18),
        released_silence: Duration::from_secs(8),
        sweep_claim_ttl: Duration::from_secs(30),
        touch_interval: Duration::from_secs(30),
    };

    /// Returns the real times divided by `divisor`.
    #[cfg(any(test, feature = "contract"))]
    pub fn divided(divisor: u32) -> Self {
        let Self {
            lease,
            heartbeat_interval,
            retry_pause,
            lease_age_max,
            check_interval,
            credit_max,
            silence,
            released_silence,
            sweep_claim_ttl,
            touch_interval,
        } = Self::REAL;
        Self {
            lease: lease / divisor,
            heartbeat_interval: heartbeat_interval / divisor,
            retry_pause: retry_pause / divisor,
            lease_age_max: lease_age_max / divisor,
            check_interval: check_interval / divisor,
            credit_max: credit_max / divisor,
            silence: silence / divisor,
            released_silence: released_silence / divisor,
            sweep_claim_ttl: sweep_claim_ttl / divisor,
            touch_interval: touch_interval / divisor,
        }
    }
}

/// Time to live of the tombstone of a node. A node that was paused for longer returns under the same id, and finds that
/// everything that it had registered is missing.
pub(super) const NODE_TOMBSTONE_TTL: Duration = Duration::from_secs(3600);

/// Earlier ids that a node stores. A node may be swept several times before it has resynchronized.
const EARLIER_MAX: usize = 3;

/// Channels whose time to live is renewed concurrently.
const CONCURRENT_TOUCHES: usize = 64;

/// The outcome of a renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Renewal {
    Renewed,
    /// The lease was missing: the node is new, or Redis lost it.
    Started,
    /// The node was declared dead.
    Refused,
}

impl RedisRoster {
    /// Returns the id with which to make a change. Renews the lease first if it may expire soon.
    pub(super) async fn node_with_lease(&self) -> Result<NodeId, RosterError> {
        if self.is_released.load(Ordering::Acquire) {
            return Err(RosterError::Unavailable);
        }
        let node = {
            let identity = lock(&self.identity);
            let is_recent = identity.renewed.is_some_and(|renewed| renewed.elapsed() < self.times.lease_age_max);
            is_recent.then_some(identity.node)
        };
        match node {
            Some(node) => Ok(node),
            None => self.renew_lease().await,
        }
    }

    /// Renews the lease and returns the node id. A node that was declared dead gets a new id and a new lease.
    pub(super) async fn renew_lease(&self) -> Result<NodeId, RosterError> {
        if self.is_released.load(Ordering::Acquire) {
            return Err(RosterError::Unavailable);
        }
        let mut node = self.node();
        if self.heartbeat(node).await? == Renewal::Refused {
            self.take_new_id(node);
            node = self.node();
            if self.heartbeat(node).await? == Renewal::Refused {
                return Err(RosterError::Unavailable);
            }
        }
        if self.node() != node {
            // Another task has changed the id during the call. The next attempt uses the new id.
            return Err(RosterError::Unavailable);
        }
        if let Err(error) = self.release_earlier_ids().await {
            tracing::debug!(%error, "cannot release an earlier node id; retrying with the next heartbeat");
        }
        Ok(node)
    }

    /// Gives the node a new id after `node` was declared dead.
    pub(super) fn take_new_id(&self, node: NodeId) {
        let recent = {
            let mut identity = lock(&self.identity);
            if identity.node != node {
                return;
            }
            let mut earlier = std::mem::take(&mut identity.earlier);
            earlier.insert(0, node);
            earlier.truncate(EARLIER_MAX);
            let recent = std::mem::take(&mut identity.recent);
            *identity = Identity { node: NodeId::fresh(), earlier, renewed: None, recent: Vec::new() };
            recent
        };
        self.metrics.fenced.inc();
        self.must_resynchronize.store(true, Ordering::Release);
        self.add_unswept(node, recent.into_iter().map(|(_, entry)| entry));
        self.mark_unindexed();
        tracing::warn!({ node.id = %node }, "node lease expired; re-registering under a new id");
    }

    /// Marks all channels as possibly missing in this node's index. The next change of each channel adds it again.
    pub(super) fn mark_unindexed(&self) {
        for is_indexed in lock(&self.registered).topics.values_mut() {
            *is_indexed = false;
        }
    }

    /// Records entries that may have been changed under an earlier id after the sweep visited them.
    fn add_unswept(&self, node: NodeId, entries: impl Iterator<Item = IndexEntry>) {
        let entries: Vec<IndexEntry> = entries.collect();
        if entries.is_empty() {
            return;
        }
        let mut unswept = lock(&self.unswept);
        match unswept.iter_mut().find(|id| id.node == node) {
            Some(id) => id.entries.extend(entries),
            None => unswept.push(UnsweptId { node, entries }),
        }
    }

    /// Records that a change has been made, or may have been made. If the node was declared dead during the change, the
    /// sweep may have visited the entry before the change.
    pub(super) fn record_change(&self, node: NodeId, entry: IndexEntry) {
        let mut identity = lock(&self.identity);
        if identity.node == node {
            identity.recent.push((Instant::now(), entry));
            return;
        }
        drop(identity);
        self.add_unswept(node, std::iter::once(entry));
    }

    /// Renews the lease of an id once.
    async fn heartbeat(&self, node: NodeId) -> Result<Renewal, RosterError> {
        let was_registered = {
            let identity = lock(&self.identity);
            identity.node == node && identity.renewed.is_some()
        };
        let sent = Instant::now();
        let renewal = self.send_heartbeat(node).await?;
        if renewal == Renewal::Refused {
            return Ok(renewal);
        }
        {
            let mut identity = lock(&self.identity);
            if identity.node != node {
                return Ok(renewal);
            }
            // A later sweep finds the changes that were made before this renewal.
            identity.recent.retain(|(at, _)| *at >= sent);
            identity.renewed = Some(sent);
        }
        if was_registered && renewal == Renewal::Started {
            self.on_lost_lease();
        }
        Ok(renewal)
    }

    /// Handles the loss of the lease. Redis has then also lost everything that this node had registered.
    fn on_lost_lease(&self) {
        let channels = lock(&self.registered).topics.len();
        self.metrics.lost_channels.inc_by(u64::try_from(channels).unwrap_or(u64::MAX));
        self.mark_unindexed();
        self.must_resynchronize.store(true, Ordering::Release);
        tracing::warn!(channels, "redis has lost the lease of this node; registering everything again");
    }

    /// Sends a heartbeat on the connection for events, which has no queue. On a pooled
    /// connection it would be sent too late after a burst of joins.
    async fn send_heartbeat(&self, node: NodeId) -> Result<Renewal, RosterError> {
        let keys = self.link.keys();
        let id = node.to_string();
        let mut call = scripts::renew_lease().key(keys.nodes());
        call.key(keys.dead())
            .key(keys.node_tombstone(&id))
            .key(keys.lease_grace())
            .arg(id)
            .arg(millis(self.times.lease));
        let reply: Result<i64, _> = self.link.publish("heartbeat", &call).await;
        let reply = reply.map_err(|error| self.failed("heartbeat", error))?;
        Ok(match reply {
            0 => Renewal::Refused,
            2 => Renewal::Started,
            _ => Renewal::Renewed,
        })
    }

    /// Lets other nodes sweep the earlier ids of this node again, because of changes that were made after the first
    /// sweep.
    pub(super) async fn release_earlier_ids(&self) -> Result<(), RosterError> {
        loop {
            let (node, entries) = match lock(&self.unswept).last() {
                Some(id) => (id.node, id.entries.clone()),
                None => return Ok(()),
            };
            self.index_entries(node, &entries).await?;
            let mut call = scripts::release_earlier_id().key(self.link.keys().nodes());
            call.arg(node.to_string());
            self.run::<i64>("give_up", call).await?;
            lock(&self.unswept).retain(|id| id.node != node);
        }
    }

    /// Adds entries to the index of an id.
    async fn index_entries(&self, node: NodeId, entries: &[IndexEntry]) -> Result<(), RosterError> {
        let index = self.link.keys().index(&node.to_string());
        for batch in entries.chunks(BATCH_MAX) {
            self.run::<i64>("index", add_to_index(&index, batch)).await?;
        }
        Ok(())
    }

    /// Renews the lease in a loop. Never returns. Requests a resynchronization if the lease was lost.
    pub(super) async fn maintain_lease(self: &Arc<Self>, sink: Arc<dyn EnvelopeSink>) -> Infallible {
        loop {
            // Errors of the connection are logged elsewhere. The lease is renewed as soon as Redis is available.
            let renewed = self.renew_lease().await;
            if renewed.is_ok() && self.must_resynchronize.swap(false, Ordering::AcqRel) {
                sink.resynchronize();
            }
            let pause = if renewed.is_ok() { self.times.heartbeat_interval } else { self.times.retry_pause };
            let pause = pause.mul_f64(rand::rng().random_range(0.9..=1.1));
            tokio::time::sleep(pause).await;
        }
    }

    /// Renews the time to live of what this node has registered. Never returns. Requests a resynchronization of
    /// channels that lack something.
    pub(super) async fn maintain_registered(&self, sink: Arc<dyn EnvelopeSink>) -> Infallible {
        loop {
            tokio::time::sleep(self.times.touch_interval).await;
            // After an error the next round follows. The time to live is many rounds long.
            if let Ok(lost) = self.touch().await {
                for topic in &lost {
                    self.metrics.lost_channels.inc();
                    sink.resynchronize_topic(topic);
                }
            }
        }
    }

    /// Renews the time to live of all keys of this node and writes its index again. Returns the channels that lack
    /// something, for example because Redis evicted it.
    async fn touch(&self) -> Result<Vec<Topic>, RosterError> {
        let node = self.node();
        let (topics, apps) = {
            let registered = lock(&self.registered);
            let topics: Vec<_> = registered.topics.keys().cloned().collect();
            (topics, registered.connections.keys().cloned().collect::<Vec<_>>())
        };
        let channel_entries = topics.iter().cloned().map(IndexEntry::Channel);
        let app_entries = apps.iter().cloned().map(IndexEntry::Connections);
        self.index_entries(node, &channel_entries.chain(app_entries).collect::<Vec<_>>()).await?;
        for app in &apps {
            let mut pipeline = redis::pipe();
            for key in [self.link.keys().connections(app), self.link.keys().connection_reports(app)] {
                pipeline.pexpire(key, millis(CHANNEL_TTL)).ignore();
            }
            self.run::<()>("touch", pipeline).await?;
        }
        let touched: Vec<_> = stream::iter(topics)
            .map(async |topic| (self.touch_channel(node, &topic).await, topic))
            .buffer_unordered(CONCURRENT_TOUCHES)
            .collect()
            .await;
        let mut lost = Vec::new();
        for (touched, topic) in touched {
            match touched {
                Ok(true) => {}
                Ok(false) => lost.push(topic),
                // A key of the wrong type does not affect the other channels.
                Err(RosterError::Damaged) => {}
                Err(error) => return Err(error),
            }
        }
        // A channel from which the node has unsubscribed during this call lacks nothing.
        let registered = lock(&self.registered);
        lost.retain(|topic| registered.topics.contains_key(topic));
        Ok(lost)
    }

    /// Renews the time to live of a channel's keys. Returns whether everything that this node has registered is there.
    async fn touch_channel(&self, node: NodeId, topic: &Topic) -> Result<bool, RosterError> {
        let keys = self.link.keys().channel(topic);
        let occupied = self.link.keys().occupied(&topic.app, self.link.keys().partition(topic));
        let mut call = scripts::touch().key(keys.subscription_counts());
        call.key(occupied).key(keys.meta());
        if topic.channel.kind().is_presence() {
            call.key(keys.members()).key(keys.member_nodes());
        }
        call.arg(node.to_string()).arg(topic.channel.as_str()).arg(millis(CHANNEL_TTL));
        let found: i64 = self.run("touch", call).await?;
        Ok(found == 1)
    }
}
