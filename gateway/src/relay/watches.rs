//! Topics that a shard receives without a subscription: the user channels of watched users.

use futures_util::stream::{self, StreamExt, TryStreamExt};
use shared::cluster::envelope::Topic;

use super::Relay;
use super::error::EnterError;
use super::topics::Gate;
use crate::limits::WATCHES_AT_ONCE;

impl Relay {
    /// Subscribes to topics for a shard, without adding subscriptions to their channels.
    ///
    /// # Errors
    /// [`EnterError`]. All topics are released.
    ///
    /// # Cancel safety
    /// If the future is dropped, all topics are released.
    pub(crate) async fn watch_all(&self, topics: Vec<Topic>, shard: usize) -> Result<Watches<'_>, EnterError> {
        let watches = Watches { relay: self, topics, shard };
        let gates: Vec<Gate<'_>> = watches.topics.iter().map(|topic| self.topics.acquire(topic, shard)).collect();
        stream::iter(gates)
            .map(|gate| self.watch(gate))
            .buffer_unordered(WATCHES_AT_ONCE)
            .try_for_each(async |()| Ok(()))
            .await?;
        Ok(watches)
    }

    async fn watch(&self, gate: Gate<'_>) -> Result<(), EnterError> {
        self.subscribe(&gate.lock().await).await
    }

    /// Ends the watch of one topic of [`Relay::watch_all`].
    pub(crate) fn unwatch(&self, topic: &Topic, shard: usize) {
        self.topics.release(topic, shard);
    }
}

/// Topics that a shard watches. The watches end when it is dropped.
pub(crate) struct Watches<'a> {
    relay: &'a Relay,
    topics: Vec<Topic>,
    shard: usize,
}

impl Watches<'_> {
    /// The watched topics.
    pub(crate) fn topics(&self) -> &[Topic] {
        &self.topics
    }

    /// Keeps the watches. The caller ends each of them with [`Relay::unwatch`].
    pub(crate) fn keep(mut self) {
        self.topics.clear();
    }
}

impl Drop for Watches<'_> {
    fn drop(&mut self) {
        for topic in &self.topics {
            self.relay.unwatch(topic, self.shard);
        }
    }
}
