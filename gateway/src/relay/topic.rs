//! What a node knows of one channel.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use shared::allowance::Allowance;
use shared::cluster::bus::memory::Age;
use shared::cluster::envelope::Position;

use super::replica::{Change, Effect, Replica};
use crate::inbox::ShardMessage;

/// One channel on this node.
pub(crate) struct TopicState {
    /// Serialises everything that waits for the bus or the roster on behalf of this channel.
    pub(crate) gate: Arc<tokio::sync::Mutex<()>>,
    /// Whether the bus delivers the topic to this node.
    pub(crate) linked: bool,
    /// By shard: how many of its subscribers and watchers need the topic.
    holds: Box<[u32]>,
    /// Since when no shard needs the topic; `None` while one does.
    pub(crate) idle_since: Option<Instant>,
    /// Subscribed sockets of this node.
    pub(crate) subscriptions: u64,
    /// What the roster was last told of them.
    pub(crate) reported: u64,
    /// Whether subscribers are to hear how many they are.
    pub(crate) announces: bool,
    reports: Reports,
    /// Reports of counts that subscribers are waiting for.
    pub(crate) announced_reports: Allowance,
    /// Announcements of counts and of users heard so far.
    pub(crate) heard: u64,
    /// The copy of a presence channel; `None` for other kinds and while no local socket is in.
    pub(crate) replica: Option<Box<Replica>>,
    /// The newest kept event that this node has received.
    pub(crate) kept: Option<KeptFrame>,
    /// Shared with answers under way that may need the kept event: until they are made or dropped it is not dropped.
    pub(crate) kept_pin: Option<Arc<()>>,
    pub(crate) count: Count,
    /// Answers that wait for the replica to reach a position, or for local subscribers to be notified of its changes.
    pub(crate) parked: Vec<Parked>,
    /// Changes of members that local subscribers are notified of at once.
    pub(crate) member_changes: Paced,
}

/// A kept event that this node has received.
pub(crate) struct KeptFrame {
    pub(crate) position: Position,
    /// `None` once all kept events took too much memory, and this one was among the oldest.
    pub(crate) frame: Option<Bytes>,
    pub(crate) age: Age,
}

/// An answer to a new subscriber that the replica is not ready for.
pub(crate) struct Parked {
    /// The position that the list must have reached; `None` for any list that local subscribers have.
    pub(crate) position: Option<Position>,
    pub(crate) shard: usize,
    pub(crate) answer: Box<dyn FnOnce(&TopicState) -> ShardMessage + Send>,
}

/// How often the roster was told a count within the current second.
#[derive(Default)]
struct Reports {
    count: u32,
    since: Option<Instant>,
}

/// The announced count of subscriptions.
#[derive(Default)]
pub(crate) struct Count {
    /// Cluster-wide, as last heard.
    pub(crate) value: Option<u64>,
    /// What subscribers were told last, and when.
    announced: Option<(u64, Instant)>,
    pub(crate) pace: Paced,
}

/// Notifications of one kind on one channel: some at once, further ones together once a second.
#[derive(Default)]
pub(crate) struct Paced {
    pub(crate) at_once: Allowance,
    /// Whether the topic is in the list of late ones.
    pub(crate) is_late: bool,
}

impl TopicState {
    pub(crate) fn new(shards: usize) -> Self {
        Self {
            gate: Arc::default(),
            linked: false,
            holds: vec![0; shards].into(),
            idle_since: None,
            subscriptions: 0,
            reported: 0,
            announces: false,
            reports: Reports::default(),
            announced_reports: Allowance::default(),
            heard: 0,
            replica: None,
            kept: None,
            kept_pin: None,
            count: Count::default(),
            parked: Vec::new(),
            member_changes: Paced::default(),
        }
    }

    /// The position of the newest kept event that this node has received.
    pub(crate) fn kept_position(&self) -> Option<Position> {
        self.kept.as_ref().map(|kept| kept.position)
    }

    /// Whether the roster may be told a count now; counts it as told if so.
    pub(crate) fn may_report(&mut self, now: Instant, per_second: u32) -> bool {
        if self.reports.since.is_none_or(|since| now.duration_since(since) >= Duration::from_secs(1)) {
            self.reports = Reports { count: 0, since: Some(now) };
        }
        self.reports.count = self.reports.count.saturating_add(1);
        self.reports.count <= per_second
    }

    /// One more reason for a shard to hear the topic.
    pub(crate) fn hold(&mut self, shard: usize) {
        self.holds[shard] += 1;
        self.idle_since = None;
    }

    /// One reason less; returns whether it was the last of all shards.
    pub(crate) fn release(&mut self, shard: usize) -> bool {
        self.holds[shard] = self.holds[shard].saturating_sub(1);
        self.idle_since = (!self.is_held()).then(Instant::now);
        self.idle_since.is_some()
    }

    pub(crate) fn is_held(&self) -> bool {
        self.holds.iter().any(|holds| *holds > 0)
    }

    /// The shards that need the topic.
    pub(crate) fn holders(&self) -> impl Iterator<Item = usize> {
        self.holds.iter().enumerate().filter(|(_, holds)| **holds > 0).map(|(shard, _)| shard)
    }

    /// Gives a change to the replica.
    pub(crate) fn apply(&mut self, position: Option<Position>, change: Change) -> Effect {
        match (&mut self.replica, position) {
            (Some(replica), Some(position)) => replica.apply(position, change),
            _ => Effect::None,
        }
    }

    /// Takes out the answers that the replica is ready for, in the order in which they were parked.
    pub(crate) fn ready_answers(&mut self) -> Vec<Parked> {
        let Some(replica) = &self.replica else { return Vec::new() };
        if replica.has_news() {
            return Vec::new();
        }
        let is_ready = |parked: &mut Parked| parked.position.is_none_or(|position| replica.has_reached(position));
        self.parked.extract_if(.., is_ready).collect()
    }
}

impl Count {
    /// Whether enough time has passed since the last announcement.
    pub(crate) fn is_due(&self, now: Instant, interval: Duration) -> bool {
        self.announced.is_none_or(|(_, at)| now.duration_since(at) >= interval)
    }

    /// The count, if it is not the one that subscribers were told last; it counts as told from here on.
    pub(crate) fn news(&mut self, now: Instant) -> Option<u64> {
        let count = self.value?;
        if self.announced.is_some_and(|(told, _)| told == count) {
            return None;
        }
        self.announced = Some((count, now));
        Some(count)
    }
}

#[cfg(test)]
mod tests;
