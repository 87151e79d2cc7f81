//! What carries events between nodes.
//!
//! Publishers and gateways meet here and in [`crate::cluster::roster`], nowhere else. The contract is tested by
//! `bus::contract` against every form.

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

/// One envelope for one topic.
#[derive(Clone, Debug)]
pub struct Message {
    /// Who hears it.
    pub topic: Topic,
    /// What they hear. `position` is the bus' to fill in.
    pub envelope: Envelope,
    /// On a cache channel: how long the event is kept for new subscribers.
    pub cache_for: Option<Duration>,
    /// What the app's webhooks tell of it, put into their queue in the same step.
    pub webhook: Option<Occurrence>,
}

/// Why a publish or a subscription did not happen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BusError {
    /// The bus cannot be reached now. A publish that was not answered in time may be heard all the same.
    #[error("the bus is not reachable")]
    Unavailable,
}

/// One node's place on the bus.
///
/// Order: messages of one topic reach every node in one and the same order, and those of one `publish` in the order
/// given. A node hears only the topics that it subscribed to.
pub trait Bus: Send + Sync {
    /// Hands messages to every node that subscribed to their topics, this one included: all of them, or none.
    ///
    /// Waits while a node on the same machine has no room for more, so that a fast publisher loses nothing.
    ///
    /// # Errors
    /// [`BusError`] when nothing was accepted.
    fn publish(&self, messages: Vec<Message>) -> BoxFuture<'_, Result<(), BusError>>;

    /// Makes this node hear `topic`. What is published after the future resolves is heard.
    ///
    /// # Errors
    /// [`BusError`] when the subscription does not stand.
    fn subscribe<'a>(&'a self, topic: &'a Topic) -> BoxFuture<'a, Result<(), BusError>>;

    /// Stops hearing `topic`. A topic that this node does not hear is no error.
    fn unsubscribe<'a>(&'a self, topic: &'a Topic) -> BoxFuture<'a, ()>;

    /// Resolves once this node's sink has all that was published before the call and that it is to hear. What the
    /// roster answers may be ahead of what is heard.
    fn catch_up(&self) -> BoxFuture<'_, ()>;
}

/// The node that a bus delivers to.
pub trait EnvelopeSink: Send + Sync {
    /// Takes one envelope. Never waits; calls for one topic come one after the other, in order.
    fn deliver(&self, topic: &Topic, envelope: Envelope);

    /// Whether one more envelope can be taken. A bus that cannot wait ends its connection instead of growing, and says
    /// [`EnvelopeSink::resynchronize`] when it has a new one.
    fn has_room(&self) -> bool {
        true
    }

    /// Messages are being missed from here on.
    fn subscriptions_lost(&self) {}

    /// Messages may have been missed, and this node's own part may be gone: the state must be asserted and asked for
    /// again.
    fn resynchronize(&self) {}

    /// What this node told the cluster of one topic is not there any more: it must be asserted again.
    fn resynchronize_topic(&self, _topic: &Topic) {}

    /// Another node needs this node's current count of the app's connections.
    fn report_connections(&self, _app: &AppId) {}

    /// Resolves once there is room for more; until then publishers on this machine wait.
    fn wait_for_room(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}
