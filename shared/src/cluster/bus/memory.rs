//! The bus of a single process: a publish calls the listeners directly.

mod ages;

use std::hash::{BuildHasher, Hash};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use hashbrown::{DefaultHashBuilder, HashMap};

use super::{Bus, BusError, Listener, Message};
use crate::cluster::envelope::{Body, Envelope, Position, Topic};
use crate::cluster::roster::KeptEvent;
use crate::cluster::webhook::MemoryQueues;
pub use ages::{Age, Ages, KEPT_BYTES_MAX};

/// Publishes to different topics rarely meet in one of these.
const STRIPES: usize = 64;

/// One node of an in-memory bus. Nodes made by [`MemoryBus::join`] share it, as nodes of a cluster share Redis; a
/// process that runs alone has one.
pub struct MemoryBus {
    exchange: Arc<Exchange>,
    listener: OnceLock<Arc<dyn Listener>>,
    /// What other nodes hold of this one.
    this: Weak<MemoryBus>,
}

/// What the nodes share.
struct Exchange {
    hasher: DefaultHashBuilder,
    stripes: Vec<Mutex<HashMap<Topic, TopicState>>>,
    /// Of the kept events; locked after a stripe, never before one.
    ages: Mutex<Ages>,
    /// Where webhooks wait.
    queues: Option<Arc<MemoryQueues>>,
    /// Sequences of kept events begun so far. A topic that was forgotten begins another one.
    epochs: AtomicU64,
}

#[derive(Default)]
struct TopicState {
    /// Nodes that hear the topic.
    nodes: Vec<Weak<MemoryBus>>,
    /// Where the last kept event stands, also when its time is over.
    kept_position: Option<Position>,
    kept: Option<Kept>,
}

struct Kept {
    event: KeptEvent,
    until: Instant,
    age: Age,
}

impl MemoryBus {
    /// A bus with one node, without webhooks.
    pub fn new() -> Arc<Self> {
        Self::with_queues(None)
    }

    /// A bus with one node, which puts what webhooks tell of into `queues`, as does a roster on it.
    pub fn with_queues(queues: Option<Arc<MemoryQueues>>) -> Arc<Self> {
        let exchange = Exchange {
            queues,
            hasher: DefaultHashBuilder::default(),
            stripes: (0..STRIPES).map(|_| Mutex::default()).collect(),
            ages: Mutex::default(),
            epochs: AtomicU64::new(0),
        };
        Self::on(Arc::new(exchange))
    }

    /// Another node on the same bus.
    pub fn join(&self) -> Arc<Self> {
        Self::on(self.exchange.clone())
    }

    fn on(exchange: Arc<Exchange>) -> Arc<Self> {
        Arc::new_cyclic(|this| Self { exchange, listener: OnceLock::new(), this: this.clone() })
    }

    /// Says where this node's envelopes go. A node that only publishes never calls it.
    ///
    /// # Panics
    /// When the node has a listener already.
    pub fn listen(&self, listener: Arc<dyn Listener>) {
        assert!(self.listener.set(listener).is_ok(), "a node listens once");
    }

    /// Where webhooks wait.
    pub(crate) fn queues(&self) -> Option<&MemoryQueues> {
        self.exchange.queues.as_deref()
    }

    /// Delivers at once, whether or not listeners have room; for changes that the roster decided.
    pub(crate) fn deliver(&self, topic: &Topic, envelope: Envelope) {
        let mut stripe = self.exchange.stripe(topic);
        if let Some(state) = stripe.get_mut(topic) {
            state.deliver(topic, envelope);
        }
    }

    /// The last kept event of a cache channel, while its time is not over.
    pub(crate) fn kept(&self, topic: &Topic) -> Option<KeptEvent> {
        let stripe = self.exchange.stripe(topic);
        let kept = stripe.get(topic)?.kept.as_ref()?;
        let ttl = kept.until.checked_duration_since(Instant::now())?;
        Some(KeptEvent { ttl, ..kept.event.clone() })
    }

    fn publish_one(&self, message: Message) {
        let Message { topic, mut envelope, keep, webhook } = message;
        let mut stripe = self.exchange.stripe(&topic);
        if let (Some(queues), Some(occurrence)) = (&self.exchange.queues, &webhook) {
            // Under the lock of the topic, so that it is told of in the order in which it is heard.
            queues.enqueue(&topic, occurrence);
        }
        match (keep, &mut envelope.body) {
            (Some(ttl), Body::Event { frame, kept, .. }) => {
                let state = stripe.entry(topic.clone()).or_default();
                let position = self.exchange.after(state.kept_position);
                state.kept_position = Some(position);
                let event = KeptEvent { frame: frame.clone(), position, ttl };
                let age = self.exchange.age(&topic, frame.len(), state.kept.as_ref());
                state.kept = Some(Kept { event, until: Instant::now() + ttl, age });
                *kept = true;
                envelope.position = Some(position);
                state.deliver(&topic, envelope);
                drop(stripe);
                self.exchange.forget_beyond_bound();
            }
            _ => {
                if let Some(state) = stripe.get_mut(&topic) {
                    state.deliver(&topic, envelope);
                }
            }
        }
    }

    /// Forgets kept events whose time is over, and topics that nothing is known about. Called now and then by the
    /// roster; without it a process that publishes to ever new cache channels would grow.
    pub(crate) fn sweep(&self) {
        let now = Instant::now();
        for stripe in &self.exchange.stripes {
            lock(stripe).retain(|_, state| {
                if let Some(over) = state.kept.take_if(|kept| kept.until <= now) {
                    lock(&self.exchange.ages).forget(over.age);
                }
                state.nodes.retain(|node| node.strong_count() > 0);
                state.kept.is_some() || !state.nodes.is_empty()
            });
        }
    }

    fn set_heard(&self, topic: &Topic, heard: bool) {
        let mut stripe = self.exchange.stripe(topic);
        let state = stripe.entry(topic.clone()).or_default();
        state.nodes.retain(|node| !node.ptr_eq(&self.this));
        if heard {
            state.nodes.push(self.this.clone());
        } else if state.nodes.is_empty() && state.kept.is_none() {
            stripe.remove(topic);
        }
    }
}

impl Bus for MemoryBus {
    fn publish(&self, messages: Vec<Message>) -> BoxFuture<'_, Result<(), BusError>> {
        Box::pin(async move {
            let nodes = self.exchange.nodes_of(&messages);
            for node in nodes.iter().filter_map(|node| node.listener.get()) {
                node.room().await;
            }
            for message in messages {
                self.publish_one(message);
            }
            Ok(())
        })
    }

    fn subscribe<'a>(&'a self, topic: &'a Topic) -> BoxFuture<'a, Result<(), BusError>> {
        self.set_heard(topic, true);
        Box::pin(std::future::ready(Ok(())))
    }

    fn unsubscribe<'a>(&'a self, topic: &'a Topic) -> BoxFuture<'a, ()> {
        self.set_heard(topic, false);
        Box::pin(std::future::ready(()))
    }

    /// An event is kept and delivered under one lock, so nobody reads one that is still to be heard.
    fn catch_up(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}

impl Exchange {
    fn stripe(&self, topic: &Topic) -> MutexGuard<'_, HashMap<Topic, TopicState>> {
        let mut hasher = self.hasher.build_hasher();
        topic.hash(&mut hasher);
        let index = usize::try_from(std::hash::Hasher::finish(&hasher) >> 32).unwrap_or(0) % STRIPES;
        lock(&self.stripes[index])
    }

    fn after(&self, last: Option<Position>) -> Position {
        match last {
            Some(last) => Position { sequence: last.sequence + 1, ..last },
            None => Position { epoch: self.epochs.fetch_add(1, Ordering::Relaxed) + 1, sequence: 1 },
        }
    }

    /// The age of an event that takes the place of `replaced`.
    fn age(&self, topic: &Topic, frame_bytes: usize, replaced: Option<&Kept>) -> Age {
        let mut ages = lock(&self.ages);
        if let Some(replaced) = replaced {
            ages.forget(replaced.age);
        }
        ages.keep(topic, frame_bytes)
    }

    /// Forgets the oldest kept events until the others fit. To be called without a lock.
    fn forget_beyond_bound(&self) {
        let oldest = || lock(&self.ages).forget_oldest_beyond_bound();
        while let Some((age, topic)) = oldest() {
            let mut stripe = self.stripe(&topic);
            let Some(state) = stripe.get_mut(&topic) else { continue };
            // Another event may have taken its place meanwhile.
            state.kept.take_if(|kept| kept.age == age);
            if state.nodes.is_empty() && state.kept.is_none() {
                stripe.remove(&topic);
            }
        }
    }

    /// The nodes that hear at least one of the messages, each once.
    fn nodes_of(&self, messages: &[Message]) -> Vec<Arc<MemoryBus>> {
        let mut nodes: Vec<Arc<MemoryBus>> = Vec::new();
        for message in messages {
            let stripe = self.stripe(&message.topic);
            for node in stripe.get(&message.topic).into_iter().flat_map(|state| &state.nodes) {
                let Some(node) = node.upgrade() else { continue };
                if !nodes.iter().any(|known| Arc::ptr_eq(known, &node)) {
                    nodes.push(node);
                }
            }
        }
        nodes
    }
}

impl TopicState {
    fn deliver(&mut self, topic: &Topic, envelope: Envelope) {
        let mut listeners = self.nodes.iter().filter_map(Weak::upgrade).peekable();
        while let Some(node) = listeners.next() {
            let Some(listener) = node.listener.get() else { continue };
            if listeners.peek().is_none() {
                listener.deliver(topic, envelope);
                return;
            }
            listener.deliver(topic, envelope.clone());
        }
    }
}

/// How often the single process forgets what is over.
pub const SWEEP_INTERVAL: Duration = Duration::from_secs(10);

/// A panic under one of these locks leaves a map that is still whole: every change to it is one call.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
pub(crate) mod tests;
