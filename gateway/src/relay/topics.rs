//! The topics that a node uses: a map in stripes, with one lock per stripe and one gate per topic.

use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use hashbrown::{DefaultHashBuilder, HashMap};
use shared::cluster::envelope::Topic;
use shared::sync::lock;
use tokio::sync::OwnedMutexGuard;

use super::topic::TopicState;

/// The number of locks. Publishes to different channels rarely share one.
const STRIPES: usize = 64;

/// How long a topic that no connection uses stays subscribed. A page that reloads reconnects within this time.
pub(super) const IDLE_TIMEOUT: Duration = Duration::from_secs(2);

/// The states of all topics that this node uses.
pub(super) struct Topics {
    shards: usize,
    hasher: DefaultHashBuilder,
    stripes: Vec<Mutex<HashMap<Topic, TopicState>>>,
    /// Topics without a user, and since when; oldest first.
    idle: Mutex<VecDeque<(Instant, Topic)>>,
}

/// The lock of one topic for work that waits for the bus or the roster.
pub(super) struct Gate<'a> {
    topic: &'a Topic,
    mutex: Arc<tokio::sync::Mutex<()>>,
}

/// A topic whose gate is locked. Functions that take it run one at a time per topic.
pub(super) struct LockedTopic<'a> {
    topic: &'a Topic,
    _guard: OwnedMutexGuard<()>,
}

impl<'a> Gate<'a> {
    /// Waits until earlier work on the topic is complete.
    pub(super) async fn lock(self) -> LockedTopic<'a> {
        LockedTopic { topic: self.topic, _guard: self.mutex.lock_owned().await }
    }

    /// Locks the gate if no other work on the topic is in progress.
    pub(super) fn try_lock(self) -> Option<LockedTopic<'a>> {
        Some(LockedTopic { topic: self.topic, _guard: self.mutex.try_lock_owned().ok()? })
    }
}

impl Deref for LockedTopic<'_> {
    type Target = Topic;

    fn deref(&self) -> &Topic {
        self.topic
    }
}

impl Topics {
    /// `shards`: the number of shards that can use a topic.
    pub(super) fn new(shards: usize) -> Self {
        Self {
            shards,
            hasher: DefaultHashBuilder::default(),
            stripes: (0..STRIPES).map(|_| Mutex::default()).collect(),
            idle: Mutex::default(),
        }
    }

    /// Calls `f` with the state of a topic while its stripe is locked. Returns `None` if the node does not use the
    /// topic.
    ///
    /// `f` must not call a method of [`Topics`], which would deadlock.
    pub(super) fn with<T>(&self, topic: &Topic, f: impl FnOnce(&mut TopicState) -> T) -> Option<T> {
        self.stripe(topic).get_mut(topic).map(f)
    }

    /// The same as [`Topics::with`]; adds the topic if the node does not use it.
    pub(super) fn with_or_insert<T>(&self, topic: &Topic, f: impl FnOnce(&mut TopicState) -> T) -> T {
        f(self.stripe(topic).entry(topic.clone()).or_insert_with(|| TopicState::new(self.shards)))
    }

    /// Calls `f` with every topic, while its stripe is locked. See [`Topics::with`].
    pub(super) fn for_each(&self, mut f: impl FnMut(&Topic, &mut TopicState)) {
        for stripe in &self.stripes {
            for (topic, state) in &mut *lock(stripe) {
                f(topic, state);
            }
        }
    }

    /// Counts one more user of a topic on a shard. Returns the topic's gate.
    pub(super) fn acquire<'a>(&self, topic: &'a Topic, shard: usize) -> Gate<'a> {
        let mutex = self.with_or_insert(topic, |state| {
            state.acquire(shard);
            state.gate.clone()
        });
        Gate { topic, mutex }
    }

    /// Counts one user of a topic fewer. A topic without users stays subscribed for [`IDLE_TIMEOUT`].
    pub(super) fn release(&self, topic: &Topic, shard: usize) {
        if self.with(topic, |state| state.release(shard)) == Some(true) {
            self.queue_idle(topic);
        }
    }

    /// Returns the gate of a topic that the node uses.
    pub(super) fn gate<'a>(&self, topic: &'a Topic) -> Option<Gate<'a>> {
        self.with(topic, |state| state.gate.clone()).map(|mutex| Gate { topic, mutex })
    }

    /// Looks at an idle topic again after [`IDLE_TIMEOUT`].
    pub(super) fn queue_idle(&self, topic: &Topic) {
        lock(&self.idle).push_back((Instant::now(), topic.clone()));
    }

    /// Removes and returns the topics that have been in the queue for [`IDLE_TIMEOUT`].
    pub(super) fn take_idle(&self, now: Instant) -> Vec<Topic> {
        let mut idle = lock(&self.idle);
        let due = idle.iter().take_while(|(since, _)| now.duration_since(*since) >= IDLE_TIMEOUT).count();
        idle.drain(..due).map(|(_, topic)| topic).collect()
    }

    /// Removes a topic that no connection uses. Calls `removed` with its state, while its stripe is locked.
    pub(super) fn remove_if_unused(&self, topic: &LockedTopic<'_>, removed: impl FnOnce(TopicState)) {
        let mut stripe = self.stripe(topic);
        if stripe.get(&**topic).is_some_and(|state| !state.is_used())
            && let Some(state) = stripe.remove(&**topic)
        {
            removed(state);
        }
    }

    fn stripe(&self, topic: &Topic) -> MutexGuard<'_, HashMap<Topic, TopicState>> {
        // The high half of the hash. The map inside the stripe uses the low half.
        let index = usize::try_from(self.hasher.hash_one(topic) >> 32).unwrap_or(0) % STRIPES;
        lock(&self.stripes[index])
    }
}
