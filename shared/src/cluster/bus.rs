//! The bus: carries events between nodes.
//!
//! Publishers and gateways share only the bus and the [roster](crate::cluster::roster). The tests in `bus::contract`
//! run against every implementation.

#[cfg(any(test, feature = "contract"))]
pub mod contract;
pub mod memory;
pub mod redis;

use std::time::Duration;

use futures_util::future::BoxFuture;

use crate::app::AppId;
use crate::cluster::envelope::{Envelope, Topic};
use crate::cluster::webhook::Occurrence;

pub use memory::MemoryBus;
pub use redis::RedisBus;

/// An envelope and the topic that it is published to.
#[derive(Clone, Debug)]
pub struct Message {
    /// The topic.
    pub topic: Topic,
    /// The envelope. The bus sets its `position`.
    pub envelope: Envelope,
    /// How long a cache channel caches the event for new subscribers.
    pub cache_for: Option<Duration>,
    /// The webhook event that the bus enqueues in the same step.
    pub webhook: Option<Occurrence>,
}

/// The error of a publish or a subscription.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BusError {
    /// The bus cannot be reached. Nodes may still receive a publish that timed out.
    #[error("the bus is not reachable")]
    Unavailable,
}

/// One node's access to the bus.
///
/// All nodes receive the messages of a topic in the same order. The messages of one `publish` keep their order. A node
/// receives only the topics that it has subscribed to.
pub trait Bus: Send + Sync {
    /// Publishes all messages, or none, to the nodes that have subscribed to their topics. This node is included.
    ///
    /// An in-memory bus waits while a subscribed node has no room.
    ///
    /// # Errors
    /// [`BusError`] if no message was accepted.
    fn publish(&self, messages: Vec<Message>) -> BoxFuture<'_, Result<(), BusError>>;

    /// Subscribes to `topic`. The node receives all messages that are published after the future has resolved.
    ///
    /// # Errors
    /// [`BusError`] if the node is not subscribed.
    fn subscribe<'a>(&'a self, topic: &'a Topic) -> BoxFuture<'a, Result<(), BusError>>;

    /// Unsubscribes from `topic`. Does nothing if the node is not subscribed.
    fn unsubscribe<'a>(&'a self, topic: &'a Topic) -> BoxFuture<'a, ()>;

    /// Resolves when the sink of this node has received all messages that were published before the call. The roster
    /// may be ahead of the sink until then.
    fn catch_up(&self) -> BoxFuture<'_, ()>;
}

/// The receiver of the envelopes of one node.
pub trait EnvelopeSink: Send + Sync {
    /// Receives one envelope without blocking. The bus calls it in order and never concurrently for one topic.
    fn deliver(&self, topic: &Topic, envelope: Envelope);

    /// Whether the sink has room for another envelope. If not, a bus that cannot wait closes its connection,
    /// reconnects, and calls [`EnvelopeSink::resynchronize`].
    fn has_room(&self) -> bool {
        true
    }

    /// Reports that the subscriptions are lost. The node misses messages until [`EnvelopeSink::resynchronize`].
    fn subscriptions_lost(&self) {}

    /// Requests a full resynchronization, because messages or the registrations of this node may be lost. The sink
    /// registers its state again and reads the state of the others.
    fn resynchronize(&self) {}

    /// Requests that this node registers its state of one topic again, because the cluster has lost it.
    fn resynchronize_topic(&self, _topic: &Topic) {}

    /// Requests a report of the app's current connections on this node.
    fn report_connections(&self, _app: &AppId) {}

    /// Resolves when the sink has room. Publishers in the same process wait for it.
    fn wait_for_room(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}
