//! Topics that a shard receives without being counted as a subscriber of them: the channels of watched users.

use futures_util::stream::{self, StreamExt, TryStreamExt};
use shared::cluster::envelope::Topic;

use super::Relay;
use super::membership::EnterError;
use crate::limits::WATCHES_AT_ONCE;

impl Relay {
    /// Subscribes to topics on behalf of a shard, without counting as a subscriber of them.
    ///
    /// # Errors
    /// [`EnterError`]; no topic is subscribed then.
    ///
    /// # Cancel safety
    /// Dropped, it undoes what it did.
    pub(crate) async fn watch_all(&self, topics: Vec<Topic>, shard: usize) -> Result<Watches<'_>, EnterError> {
        for topic in &topics {
            self.hold(topic, shard);
        }
        let watches = Watches { relay: self, topics, shard };
        stream::iter(&watches.topics)
            .map(|topic| self.watch(topic))
            .buffer_unordered(WATCHES_AT_ONCE)
            .try_for_each(async |()| Ok(()))
            .await?;
        Ok(watches)
    }

    /// The topic must be held.
    async fn watch(&self, topic: &Topic) -> Result<(), EnterError> {
        let gate = self.gate(topic);
        let _serial = gate.lock().await;
        self.hear(topic).await
    }

    /// Ends the watch of one topic of [`Relay::watch_all`].
    pub(crate) fn unwatch(&self, topic: &Topic, shard: usize) {
        self.release(topic, shard);
    }
}

/// Topics that a shard watches. Dropped, it ends the watches, unless they are kept.
pub(crate) struct Watches<'a> {
    relay: &'a Relay,
    topics: Vec<Topic>,
    shard: usize,
}

impl Watches<'_> {
    /// The topics.
    pub(crate) fn topics(&self) -> &[Topic] {
        &self.topics
    }

    /// Leaves the topics watched: each must be given back with [`Relay::unwatch`].
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
