//! A node's lease, and keeping alive what the node holds.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt};
use rand::Rng;

use super::changes::note_in_index;
use super::{CHANNEL_TTL, Entry, Identity, Past, QUESTIONS_MAX, RedisRoster, lock, millis};
use crate::cluster::bus::EnvelopeSink;
use crate::cluster::envelope::Topic;
use crate::cluster::node::NodeId;
use crate::cluster::redis::scripts;
use crate::cluster::roster::RosterError;

/// The times of leases. Tests use shorter ones, in the same proportions.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// For how long a renewed lease is valid, as Redis shows it. Deaths are not decided by it, see [`Times::silence`].
    pub(super) lease: Duration,
    /// How often a node renews its lease.
    pub(super) heartbeat: Duration,
    /// How long a node waits after a renewal that failed.
    pub(super) retry: Duration,
    /// After this long without a renewal nothing is entered before the lease is renewed: it may be over soon.
    pub(super) self_fence: Duration,
    /// How often a node looks at the leases of all others.
    pub(super) look: Duration,
    /// How much a look counts at most for a node whose lease has not changed since the look before.
    pub(super) credit: Duration,
    /// A node is dead when its lease has not changed for this long. A living node renews every 5.5 s at most. It has
    /// another 2 s for a command that times out, 2 s to connect again, 1 s to wait, and 2 s for the next command, which is
    /// 12.5 s. One gap in which Redis was away counts for [`Times::credit`]. 2.5 s are for a busy machine.
    pub(super) silence: Duration,
    /// The same for an earlier identity that a node has given up. Until then the node has time to join again under its new
    /// one, so that no member is removed that is still there.
    pub(super) given_up: Duration,
    /// For how long one node has another to itself for sweeping. Renewed during the sweep.
    pub(super) claim: Duration,
    /// How often everything that a node holds gets its full time to live again.
    pub(super) touch: Duration,
}

impl Times {
    /// The times of a real cluster. A dead node is found within `silence` and two looks, 23 s. That leaves 7 s for its
    /// sweep.
    pub const REAL: Self = Self {
        lease: Duration::from_secs(15),
        heartbeat: Duration::from_secs(5),
        retry: Duration::from_secs(1),
        self_fence: Duration::from_secs(12),
        look: Duration::from_secs(2),
        credit: Duration::from_secs(3),
        silence: Duration::from_secs(18),
        given_up: Duration::from_secs(8),
        claim: Duration::from_secs(30),
        touch: Duration::from_secs(30),
    };

    /// All of them divided by `divisor`.
    #[cfg(any(test, feature = "contract"))]
    pub fn divided(divisor: u32) -> Self {
        let Self { lease, heartbeat, retry, self_fence, look, credit, silence, given_up, claim, touch } = Self::REAL;
        Self {
            lease: lease / divisor,
            heartbeat: heartbeat / divisor,
            retry: retry / divisor,
            self_fence: self_fence / divisor,
            look: look / divisor,
            credit: credit / divisor,
            silence: silence / divisor,
            given_up: given_up / divisor,
            claim: claim / divisor,
            touch: touch / divisor,
        }
    }
}

/// How long Redis remembers that a node was declared dead. A node that is paused for longer returns under the same id, and
/// finds that everything it had is missing.
pub(super) const NODE_TOMBSTONE_TTL: Duration = Duration::from_secs(3600);

/// Earlier ids that a node remembers: it may be swept again before it has asserted everything.
const EARLIER_MAX: usize = 3;

/// Channels that are touched at a time.
const TOUCHES: usize = 64;

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
    /// Returns the identity to make a change with. Renews the lease first when it may be over.
    pub(super) async fn standing_node(&self) -> Result<NodeId, RosterError> {
        if self.has_resigned.load(Ordering::Acquire) {
            return Err(RosterError::Unavailable);
        }
        let stands = {
            let identity = lock(&self.identity);
            let fresh = identity.renewed.is_some_and(|renewed| renewed.elapsed() < self.times.self_fence);
            fresh.then_some(identity.node)
        };
        match stands {
            Some(node) => Ok(node),
            None => self.renew_lease().await,
        }
    }

    /// Renews the lease. A node that was declared dead gets a new identity and a new lease.
    pub(super) async fn renew_lease(&self) -> Result<NodeId, RosterError> {
        if self.has_resigned.load(Ordering::Acquire) {
            return Err(RosterError::Unavailable);
        }
        let node = self.node();
        let mut standing = node;
        if self.heartbeat(node).await? == Renewal::Refused {
            self.fenced(node);
            standing = self.node();
            if self.heartbeat(standing).await? == Renewal::Refused {
                return Err(RosterError::Unavailable);
            }
        }
        if self.node() != standing {
            // Another task found the node fenced meanwhile. The next attempt is made with the latest identity.
            return Err(RosterError::Unavailable);
        }
        if let Err(error) = self.bury_past().await {
            tracing::debug!(%error, "cannot give up an earlier node id yet; retrying with the next heartbeat");
        }
        Ok(standing)
    }

    /// Gives the node a new identity after `node` was declared dead.
    pub(super) fn fenced(&self, node: NodeId) {
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
        self.must_assert.store(true, Ordering::Release);
        self.leave_to_sweep(node, recent.into_iter().map(|(_, entry)| entry));
        self.forget_index();
        tracing::warn!({ node.id = %node }, "node lease expired; re-registering under a new id");
    }

    /// Nothing that the node holds is in its index for certain: the next change of each channel notes it there.
    pub(super) fn forget_index(&self) {
        for is_noted in lock(&self.held).topics.values_mut() {
            *is_noted = false;
        }
    }

    /// Remembers entries that a given-up identity may have changed after the sweep visited them.
    fn leave_to_sweep(&self, node: NodeId, entries: impl Iterator<Item = Entry>) {
        let entries: Vec<String> = entries.map(|entry| entry.to_string()).collect();
        if entries.is_empty() {
            return;
        }
        let mut past = lock(&self.past);
        match past.iter_mut().find(|past| past.node == node) {
            Some(past) => past.entries.extend(entries),
            None => past.push(Past { node, entries }),
        }
    }

    /// Notes that a change has been made, or may have been. If the node was declared dead at the same time, the sweep may
    /// have passed the entry before the change.
    pub(super) fn changed(&self, node: NodeId, entry: Entry) {
        let mut identity = lock(&self.identity);
        if identity.node == node {
            identity.recent.push((Instant::now(), entry));
            return;
        }
        drop(identity);
        self.leave_to_sweep(node, std::iter::once(entry));
    }

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
            // What was changed before this renewal will be in the index when the node is swept.
            identity.recent.retain(|(at, _)| *at >= sent);
            identity.renewed = Some(sent);
        }
        if was_registered && renewal == Renewal::Started {
            self.lost();
        }
        Ok(renewal)
    }

    /// Redis has lost the lease, and so everything that this node had put there.
    fn lost(&self) {
        let channels = lock(&self.held).topics.len();
        self.metrics.lost_channels.inc_by(u64::try_from(channels).unwrap_or(u64::MAX));
        self.forget_index();
        self.must_assert.store(true, Ordering::Release);
        tracing::warn!(channels, "redis has lost the lease of this node; asserting everything again");
    }

    /// Uses the connection of events, which waits for nothing: behind a herd of joins a heartbeat would come too late.
    async fn send_heartbeat(&self, node: NodeId) -> Result<Renewal, RosterError> {
        let keys = self.link.keys();
        let id = node.to_string();
        let mut call = scripts::renew_lease().key(keys.nodes());
        call.key(keys.dead())
            .key(keys.node_tombstone(&id))
            .key(keys.lease_grace())
            .arg(id)
            .arg(millis(self.times.lease));
        let answer: Result<i64, _> = self.link.publish("heartbeat", &call).await;
        let answer = answer.map_err(|error| self.failed("heartbeat", error))?;
        Ok(match answer {
            0 => Renewal::Refused,
            2 => Renewal::Started,
            _ => Renewal::Renewed,
        })
    }

    /// Lets identities that this node has given up be swept again, because they may have made changes after their sweep.
    pub(super) async fn bury_past(&self) -> Result<(), RosterError> {
        loop {
            let (node, entries) = match lock(&self.past).last() {
                Some(past) => (past.node, past.entries.clone()),
                None => return Ok(()),
            };
            self.note_all_in_index(node, entries).await?;
            let mut call = scripts::release_earlier_id().key(self.link.keys().nodes());
            call.arg(node.to_string());
            self.run::<i64>("give_up", call).await?;
            lock(&self.past).retain(|past| past.node != node);
        }
    }

    async fn note_all_in_index(&self, node: NodeId, entries: Vec<String>) -> Result<(), RosterError> {
        let index = self.link.keys().index(&node.to_string());
        for some in entries.chunks(QUESTIONS_MAX) {
            self.run::<i64>("index", note_in_index(&index, some)).await?;
        }
        Ok(())
    }

    pub(super) async fn keep_lease(self: &Arc<Self>, sink: Arc<dyn EnvelopeSink>) -> Infallible {
        loop {
            // The connection's health is logged elsewhere. The lease is renewed as soon as Redis is back.
            let renewed = self.renew_lease().await;
            if renewed.is_ok() && self.must_assert.swap(false, Ordering::AcqRel) {
                sink.resynchronize();
            }
            let pause = if renewed.is_ok() { self.times.heartbeat } else { self.times.retry };
            let pause = pause.mul_f64(rand::rng().random_range(0.9..=1.1));
            tokio::time::sleep(pause).await;
        }
    }

    pub(super) async fn keep_alive(&self, sink: Arc<dyn EnvelopeSink>) -> Infallible {
        loop {
            tokio::time::sleep(self.times.touch).await;
            // Many rounds fit into the time to live.
            if let Ok(lost) = self.touch().await {
                for topic in &lost {
                    self.metrics.lost_channels.inc();
                    sink.resynchronize_topic(topic);
                }
            }
        }
    }

    /// Renews the time to live of all keys of this node, and writes its index again, which sweeps read. Returns the channels
    /// that lack something, as after an eviction because memory was full.
    async fn touch(&self) -> Result<Vec<Topic>, RosterError> {
        let node = self.node();
        let (topics, apps) = {
            let held = lock(&self.held);
            let topics: Vec<_> = held.topics.keys().cloned().collect();
            (topics, held.connections.keys().cloned().collect::<Vec<_>>())
        };
        let apps_entries = apps.iter().map(|app| format!("{app}/"));
        self.note_all_in_index(node, topics.iter().map(Topic::to_string).chain(apps_entries).collect()).await?;
        for app in &apps {
            let mut pipeline = redis::pipe();
            for key in [self.link.keys().connections(app), self.link.keys().connection_reports(app)] {
                pipeline.pexpire(key, millis(CHANNEL_TTL)).ignore();
            }
            self.run::<()>("touch", pipeline).await?;
        }
        let touched: Vec<_> = stream::iter(topics)
            .map(async |topic| (self.touch_channel(node, &topic).await, topic))
            .buffer_unordered(TOUCHES)
            .collect()
            .await;
        let mut lost = Vec::new();
        for (touched, topic) in touched {
            match touched {
                Ok(true) => {}
                Ok(false) => lost.push(topic),
                // Someone else's value; the other channels are touched all the same.
                Err(RosterError::Damaged) => {}
                Err(error) => return Err(error),
            }
        }
        // What was left since the list was made is missing rightly.
        let held = lock(&self.held);
        lost.retain(|topic| held.topics.contains_key(topic));
        Ok(lost)
    }

    /// Returns whether all is there that this node has put there.
    async fn touch_channel(&self, node: NodeId, topic: &Topic) -> Result<bool, RosterError> {
        let keys = self.link.keys().channel(topic);
        let occupied = self.link.keys().occupied(&topic.app, self.link.keys().partition(topic));
        let mut call = scripts::touch().key(keys.occupancy());
        call.key(occupied).key(keys.meta());
        if topic.channel.kind().is_presence() {
            call.key(keys.members()).key(keys.holders());
        }
        call.arg(node.to_string()).arg(topic.channel.as_str()).arg(millis(CHANNEL_TTL));
        let found: i64 = self.run("touch", call).await?;
        Ok(found == 1)
    }
}
