//! The state of one topic on a node.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use shared::allowance::Allowance;
use shared::cluster::bus::memory::Age;
use shared::cluster::envelope::Position;

use super::replica::{Change, Effect, Replica};
use crate::inbox::ShardMessage;

/// The state of one topic on this node.
pub(super) struct TopicState {
    /// Serializes all work on the topic that waits for the bus or the roster.
    pub(super) gate: Arc<tokio::sync::Mutex<()>>,
    /// Whether the bus delivers the topic to this node.
    pub(super) is_subscribed: bool,
    /// By shard: the number of its subscribers and watchers of the topic.
    users: Box<[u32]>,
    /// Since when no shard uses the topic; `None` while one does.
    pub(super) idle_since: Option<Instant>,
    /// The subscriptions of this node.
    pub(super) subscriptions: u64,
    /// The number of subscriptions that was last reported to the roster.
    pub(super) reported: u64,
    /// Whether subscribers are notified of the channel's number of subscriptions.
    pub(super) announces: bool,
    reports: Reports,
    /// The rate of reports that subscribers are notified about.
    pub(super) announced_reports: Allowance,
    /// The number of announced counts and online states that were received.
    pub(super) announcements: u64,
    /// The replica of a presence channel; `None` for other kinds and while this node has no subscription.
    pub(super) replica: Option<Box<Replica>>,
    /// The newest cached event that this node has received.
    pub(super) cached: Option<CachedFrame>,
    /// Shared with pending replies that may need the cached event. It is not evicted while such a reply exists.
    pub(super) cached_pin: Option<Arc<()>>,
    pub(super) count: Count,
    /// Replies that wait until the replica reaches a position, or until subscribers are notified of its changes.
    pub(super) replies: Vec<SubscribeReply>,
    /// The pace of notifications of member changes.
    pub(super) member_changes: Paced,
}

/// A cached event that this node has received.
pub(super) struct CachedFrame {
    pub(super) position: Position,
    /// `None` after the event was evicted because all cached events used too much memory.
    pub(super) frame: Option<Bytes>,
    pub(super) age: Age,
}

/// A reply to a new subscriber that waits for the replica.
pub(super) struct SubscribeReply {
    /// The position that the replica must reach; `None` for any list that subscribers have.
    pub(super) position: Option<Position>,
    pub(super) shard: usize,
    pub(super) message: Box<dyn FnOnce(&TopicState) -> ShardMessage + Send>,
}

/// The number of reports to the roster within the current second.
#[derive(Default)]
struct Reports {
    count: u32,
    since: Option<Instant>,
}

/// The announced number of subscriptions of a channel.
#[derive(Default)]
pub(super) struct Count {
    /// The latest count of the cluster.
    pub(super) value: Option<u64>,
    /// The count that was last sent to subscribers, and when.
    sent: Option<(u64, Instant)>,
    pub(super) pace: Paced,
}

/// The pace of one kind of notification on one channel: some are sent at once, further ones together once per second.
#[derive(Default)]
pub(super) struct Paced {
    pub(super) at_once: Allowance,
    /// Whether the topic is in the list of delayed notifications.
    pub(super) is_late: bool,
}

impl TopicState {
    pub(super) fn new(shards: usize) -> Self {
        Self {
            gate: Arc::default(),
            is_subscribed: false,
            users: vec![0; shards].into(),
            idle_since: None,
            subscriptions: 0,
            reported: 0,
            announces: false,
            reports: Reports::default(),
            announced_reports: Allowance::default(),
            announcements: 0,
            replica: None,
            cached: None,
            cached_pin: None,
            count: Count::default(),
            replies: Vec::new(),
            member_changes: Paced::default(),
        }
    }

    /// Returns the position of the newest cached event that this node has received.
    pub(super) fn cached_position(&self) -> Option<Position> {
        self.cached.as_ref().map(|cached| cached.position)
    }

    /// Whether one more count may be reported to the roster now. Counts the report.
    pub(super) fn may_report(&mut self, now: Instant, per_second: u32) -> bool {
        if self.reports.since.is_none_or(|since| now.duration_since(since) >= Duration::from_secs(1)) {
            self.reports = Reports { count: 0, since: Some(now) };
        }
        self.reports.count = self.reports.count.saturating_add(1);
        self.reports.count <= per_second
    }

    /// Counts one more user of the topic on a shard.
    pub(super) fn acquire(&mut self, shard: usize) {
        self.users[shard] += 1;
        self.idle_since = None;
    }

    /// Counts one user fewer. Returns whether the topic has no user left on any shard.
    pub(super) fn release(&mut self, shard: usize) -> bool {
        self.users[shard] = self.users[shard].saturating_sub(1);
        self.idle_since = (!self.is_used()).then(Instant::now);
        self.idle_since.is_some()
    }

    /// Whether a shard uses the topic.
    pub(super) fn is_used(&self) -> bool {
        self.users.iter().any(|users| *users > 0)
    }

    /// The shards that use the topic.
    pub(super) fn shards(&self) -> impl Iterator<Item = usize> {
        self.users.iter().enumerate().filter(|(_, users)| **users > 0).map(|(shard, _)| shard)
    }

    /// Applies a change to the replica.
    pub(super) fn apply(&mut self, position: Option<Position>, change: Change) -> Effect {
        match (&mut self.replica, position) {
            (Some(replica), Some(position)) => replica.apply(position, change),
            _ => Effect::None,
        }
    }

    /// Removes and returns the replies that the replica is ready for, in the order in which they were queued.
    pub(super) fn ready_replies(&mut self) -> Vec<SubscribeReply> {
        let Some(replica) = &self.replica else { return Vec::new() };
        if replica.has_unsent() {
            return Vec::new();
        }
        let is_ready = |reply: &mut SubscribeReply| reply.position.is_none_or(|position| replica.has_reached(position));
        self.replies.extract_if(.., is_ready).collect()
    }
}

impl Count {
    /// Whether `interval` has passed since the last notification.
    pub(super) fn is_due(&self, now: Instant, interval: Duration) -> bool {
        self.sent.is_none_or(|(_, at)| now.duration_since(at) >= interval)
    }

    /// Returns the count if it differs from the one that was last sent, and marks it as sent.
    pub(super) fn take_unsent(&mut self, now: Instant) -> Option<u64> {
        let count = self.value?;
        if self.sent.is_some_and(|(sent, _)| sent == count) {
            return None;
        }
        self.sent = Some((count, now));
        Some(count)
    }
}

#[cfg(test)]
mod tests;
