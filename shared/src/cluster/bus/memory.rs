//! The bus of a single process. A publish calls the sinks directly.

mod ages;

use std::hash::{BuildHasher, Hash};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, Weak};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use hashbrown::{DefaultHashBuilder, HashMap};

use super::{Bus, BusError, EnvelopeSink, Message};
use crate::cluster::envelope::{Body, CachedEvent, Envelope, Position, Topic};
use crate::cluster::webhook::MemoryQueues;
use crate::sync::lock;
pub use ages::{Age, Ages, CACHED_BYTES_MAX};

/// The number of locks that the topics are spread over.
const STRIPES: usize = 64;

/// One node of an in-memory bus. [`MemoryBus::join`] adds another node to the same bus. A process has one, tests have
/// several.
pub struct MemoryBus {
    exchange: Arc<Exchange>,
    sink: OnceLock<Arc<dyn EnvelopeSink>>,
    /// The reference that other nodes hold.
    this: Weak<MemoryBus>,
}

/// The state that all nodes of a bus share.
struct Exchange {
    hasher: DefaultHashBuilder,
    stripes: Vec<Mutex<HashMap<Topic, TopicState>>>,
    /// The ages of the cached events. This lock is taken after that of a stripe, never before.
    ages: Mutex<Ages>,
    /// The webhook queues.
    queues: Option<Arc<MemoryQueues>>,
    /// The last epoch of cached events. A topic that was removed gets a new epoch when it returns.
    epochs: AtomicU64,
}

#[derive(Default)]
struct TopicState {
    /// The nodes that have subscribed to the topic.
    nodes: Vec<Weak<MemoryBus>>,
    /// The position of the last cached event, which may have expired.
    cached_position: Option<Position>,
    cached: Option<Cached>,
}

struct Cached {
    event: CachedEvent,
    until: Instant,
    age: Age,
}

impl MemoryBus {
    /// Creates a bus with one node and without webhooks.
    pub fn new() -> Arc<Self> {
        Self::with_queues(None)
    }

    /// Creates a bus with one node. The bus and its roster enqueue webhook events in `queues`.
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

    /// Adds a node to this bus.
    pub fn join(&self) -> Arc<Self> {
        Self::on(self.exchange.clone())
    }

    fn on(exchange: Arc<Exchange>) -> Arc<Self> {
        Arc::new_cyclic(|this| Self { exchange, sink: OnceLock::new(), this: this.clone() })
    }

    /// Sets the sink that receives the envelopes of this node. A node that only publishes has none.
    ///
    /// # Panics
    /// If the node already has a sink.
    pub fn deliver_to(&self, sink: Arc<dyn EnvelopeSink>) {
        assert!(self.sink.set(sink).is_ok(), "a node has one sink");
    }

    /// Returns the webhook queues.
    pub(crate) fn queues(&self) -> Option<&MemoryQueues> {
        self.exchange.queues.as_deref()
    }

    /// Delivers a change of the roster to all subscribed nodes. Does not wait for room.
    pub(crate) fn deliver(&self, topic: &Topic, envelope: Envelope) {
        let mut stripe = self.exchange.stripe(topic);
        if let Some(state) = stripe.get_mut(topic) {
            state.deliver(topic, envelope);
        }
    }

    /// Returns the cached event of a channel, unless it has expired.
    pub(crate) fn cached(&self, topic: &Topic) -> Option<CachedEvent> {
        let stripe = self.exchange.stripe(topic);
        let cached = stripe.get(topic)?.cached.as_ref()?;
        let ttl = cached.until.checked_duration_since(Instant::now())?;
        Some(CachedEvent { ttl, ..cached.event.clone() })
    }

    fn publish_one(&self, message: Message) {
        let Message { topic, mut envelope, cache_for, webhook } = message;
        let mut stripe = self.exchange.stripe(&topic);
        if let (Some(queues), Some(occurrence)) = (&self.exchange.queues, &webhook) {
            // The lock of the topic ensures that webhooks and subscribers receive events in the same order.
            queues.enqueue(&topic, occurrence);
        }
        match (cache_for, &mut envelope.body) {
            (Some(ttl), Body::Event { frame, cached, .. }) => {
                let state = stripe.entry(topic.clone()).or_default();
                let position = self.exchange.after(state.cached_position);
                state.cached_position = Some(position);
                let event = CachedEvent { frame: frame.clone(), position, ttl };
                let age = self.exchange.age(&topic, frame.len(), state.cached.as_ref());
                state.cached = Some(Cached { event, until: Instant::now() + ttl, age });
                *cached = true;
                envelope.position = Some(position);
                state.deliver(&topic, envelope);
                drop(stripe);
                self.exchange.remove_oldest_over_limit();
            }
            _ => {
                if let Some(state) = stripe.get_mut(&topic) {
                    state.deliver(&topic, envelope);
                }
            }
        }
    }

    /// Removes expired cached events and unused topics. The roster calls it periodically.
    pub(crate) fn sweep(&self) {
        let now = Instant::now();
        for stripe in &self.exchange.stripes {
            lock(stripe).retain(|_, state| {
                if let Some(over) = state.cached.take_if(|cached| cached.until <= now) {
                    lock(&self.exchange.ages).remove(over.age);
                }
                state.nodes.retain(|node| node.strong_count() > 0);
                state.cached.is_some() || !state.nodes.is_empty()
            });
        }
    }

    fn set_subscribed(&self, topic: &Topic, is_subscribed: bool) {
        let mut stripe = self.exchange.stripe(topic);
        let state = stripe.entry(topic.clone()).or_default();
        state.nodes.retain(|node| !node.ptr_eq(&self.this));
        if is_subscribed {
            state.nodes.push(self.this.clone());
        } else if state.nodes.is_empty() && state.cached.is_none() {
            stripe.remove(topic);
        }
    }
}

impl Bus for MemoryBus {
    fn publish(&self, messages: Vec<Message>) -> BoxFuture<'_, Result<(), BusError>> {
        Box::pin(async move {
            let nodes = self.exchange.nodes_of(&messages);
            for node in nodes.iter().filter_map(|node| node.sink.get()) {
                node.wait_for_room().await;
            }
            for message in messages {
                self.publish_one(message);
            }
            Ok(())
        })
    }

    fn subscribe<'a>(&'a self, topic: &'a Topic) -> BoxFuture<'a, Result<(), BusError>> {
        self.set_subscribed(topic, true);
        Box::pin(std::future::ready(Ok(())))
    }

    fn unsubscribe<'a>(&'a self, topic: &'a Topic) -> BoxFuture<'a, ()> {
        self.set_subscribed(topic, false);
        Box::pin(std::future::ready(()))
    }

    /// Resolves at once, because an event is cached and delivered under one lock.
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

    /// Returns the age of a new event, which replaces `replaced`.
    fn age(&self, topic: &Topic, frame_bytes: usize, replaced: Option<&Cached>) -> Age {
        let mut ages = lock(&self.ages);
        if let Some(replaced) = replaced {
            ages.remove(replaced.age);
        }
        ages.add(topic, frame_bytes)
    }

    /// Removes the oldest cached events until the limit is met. The caller must not hold the lock of a stripe.
    fn remove_oldest_over_limit(&self) {
        let oldest = || lock(&self.ages).remove_oldest_over_limit();
        while let Some((age, topic)) = oldest() {
            let mut stripe = self.stripe(&topic);
            let Some(state) = stripe.get_mut(&topic) else { continue };
            // A newer event may have replaced it.
            state.cached.take_if(|cached| cached.age == age);
            if state.nodes.is_empty() && state.cached.is_none() {
                stripe.remove(&topic);
            }
        }
    }

    /// Returns the nodes that have subscribed to at least one of the messages' topics, each once.
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
        let mut sinks = self.nodes.iter().filter_map(Weak::upgrade).peekable();
        while let Some(node) = sinks.next() {
            let Some(sink) = node.sink.get() else { continue };
            if sinks.peek().is_none() {
                sink.deliver(topic, envelope);
                return;
            }
            sink.deliver(topic, envelope.clone());
        }
    }
}

/// The interval of the sweeps of a process without Redis.
pub const SWEEP_INTERVAL: Duration = Duration::from_secs(10);

#[cfg(test)]
pub(crate) mod tests;
