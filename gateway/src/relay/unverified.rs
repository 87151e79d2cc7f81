//! The channels whose state must be resynchronized with the roster.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use shared::cluster::envelope::Topic;
use shared::sync::lock;
use tokio::sync::Notify;

/// How long members that are missing after a loss of data are retained.
///
/// After Redis lost data, every node registers its own members again. If the others were removed at once, clients would
/// see them leave and return. A node needs up to 2 s until its next attempt to connect, 4 s to connect, and 3 s for
/// 10,000 channels. The members of a node that failed in the meantime are removed late, but within the promised 30 s.
const RETENTION: Duration = Duration::from_secs(12);

/// Channels whose state may differ from the roster's.
pub(super) struct Unverified {
    /// [`RETENTION`], or less in tests.
    pub(super) retention: Duration,
    topics: Mutex<HashMap<Topic, Missing>>,
    /// Channels to verify again after the retention, and since when.
    later: Mutex<HashMap<Topic, Instant>>,
    all: AtomicBool,
    added: Notify,
}

/// The treatment of members, users and counts that are missing in the roster.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    /// Retain them, because Redis may have lost data and other nodes may register them again.
    MayReturn,
    Remove,
}

impl Default for Unverified {
    fn default() -> Self {
        Self {
            retention: RETENTION,
            topics: Mutex::default(),
            later: Mutex::default(),
            all: AtomicBool::new(false),
            added: Notify::new(),
        }
    }
}

impl Unverified {
    /// Adds a channel.
    pub(super) fn add(&self, topic: &Topic) {
        lock(&self.topics).entry(topic.clone()).or_insert(Missing::MayReturn);
        self.added.notify_one();
    }

    /// Adds a channel after the retention, counted from now, because Redis has lost data.
    pub(super) fn add_after_loss(&self, topic: &Topic) {
        lock(&self.later).insert(topic.clone(), Instant::now());
    }

    /// Adds a channel after the retention, unless that is already planned.
    pub(super) fn add_later(&self, topic: &Topic) {
        lock(&self.later).entry(topic.clone()).or_insert_with(Instant::now);
    }

    /// Adds the channels whose retention is over.
    pub(super) fn add_due(&self, now: Instant) {
        let is_due = |_: &Topic, since: &mut Instant| now.saturating_duration_since(*since) >= self.retention;
        let due: Vec<Topic> = lock(&self.later).extract_if(is_due).map(|(topic, _)| topic).collect();
        if due.is_empty() {
            return;
        }
        lock(&self.topics).extend(due.into_iter().map(|topic| (topic, Missing::Remove)));
        self.added.notify_one();
    }

    /// Adds all channels, and the node's own registration.
    pub(super) fn add_all(&self) {
        self.mark_all();
        self.added.notify_one();
    }

    /// Adds all channels to the next attempt, without starting one.
    pub(super) fn mark_all(&self) {
        self.all.store(true, Ordering::Release);
    }

    /// Whether all channels were added since the last call.
    pub(super) fn take_all(&self) -> bool {
        self.all.swap(false, Ordering::AcqRel)
    }

    /// Adds channels that are not in the list yet.
    pub(super) fn extend(&self, added: Vec<Topic>) {
        let mut topics = lock(&self.topics);
        for topic in added {
            topics.entry(topic).or_insert(Missing::MayReturn);
        }
    }

    /// Removes and returns the channels to verify.
    pub(super) fn take(&self) -> HashMap<Topic, Missing> {
        std::mem::take(&mut *lock(&self.topics))
    }

    /// Puts back the channels that could not be verified.
    pub(super) fn put_back(&self, failed: Vec<(Topic, Missing)>) {
        lock(&self.topics).extend(failed);
    }

    /// Resolves when a channel was added.
    pub(super) async fn added(&self) {
        self.added.notified().await;
    }
}
