//! Entering and leaving channels: the steps before a client receives the confirmation of its subscription.

use std::time::Instant;

use bytes::Bytes;
use shared::app::App;
use shared::cluster::envelope::{Position, Topic};
use shared::protocol::{Member, UserId};
use shared::sync::lock;

use super::Relay;
use super::cached::Lookup;
use super::error::EnterError;
use super::replies::{frames, succeeded};
use super::retry::{persist, retry};
use super::topic::TopicState;
use super::topics::{Gate, IDLE_TIMEOUT, LockedTopic};
use crate::inbox::ShardMessage;

/// The result of a subscription.
struct Entered {
    /// The position that the member list must reflect. `None` in channels without members, and for a user who was
    /// already a member on this node.
    position: Option<Position>,
    /// The cached event of a cache channel; `None` for other kinds.
    lookup: Option<Lookup>,
}

impl Relay {
    /// Adds a socket of `shard` to the channel, as `member` in presence channels. Queues the reply in the shard's
    /// inbox, at the position in the channel's order that the reply reflects.
    ///
    /// `ended`: resolves when the connection has ended. If nothing has changed in the cluster yet, the attempt then
    /// fails with [`EnterError::Unavailable`]. `reply`: makes the message from the frames for the client.
    ///
    /// # Errors
    /// [`EnterError`]. No reply is queued.
    ///
    /// # Cancel safety
    /// None. If the future is dropped, the shard stays a user of the topic.
    pub(crate) async fn enter(
        &self,
        topic: &Topic,
        app: &App,
        shard: usize,
        member: Option<&Member>,
        ended: impl Future<Output = ()>,
        reply: impl FnOnce(Vec<Bytes>) -> ShardMessage + Send + 'static,
    ) -> Result<(), EnterError> {
        let gate = self.topics.acquire(topic, shard);
        match self.enter_acquired(gate, app, member, ended).await {
            Ok(Entered { position, lookup }) => {
                let topic_of_reply = topic.clone();
                self.queue_reply(topic, shard, position, move |state| reply(frames(&topic_of_reply, state, lookup)));
                Ok(())
            }
            Err(error) => {
                self.topics.release(topic, shard);
                Err(error)
            }
        }
    }

    /// Queues the reply to a repeated subscription.
    pub(crate) fn reply_again(
        &self,
        topic: &Topic,
        shard: usize,
        reply: impl FnOnce(Vec<Bytes>) -> ShardMessage + Send + 'static,
    ) {
        let topic_of_reply = topic.clone();
        self.queue_reply(topic, shard, None, move |state| reply(vec![succeeded(&topic_of_reply, state)]));
    }

    /// Removes a socket of `shard` from the channel. Retries until the roster accepts the changes.
    pub(crate) async fn exit(&self, topic: &Topic, app: &App, shard: usize, user_id: Option<&UserId>) {
        let Some(gate) = self.topics.gate(topic) else { return };
        {
            let locked = gate.lock().await;
            if let Some(user_id) = user_id {
                self.leave(&locked, user_id).await;
            }
            // After the gate is locked: work ahead would report the channel as empty while this user is still a member.
            self.topics.with(topic, |state| state.subscriptions = state.subscriptions.saturating_sub(1));
            self.report_subscriptions(&locked, app).await;
        }
        self.topics.release(topic, shard);
    }

    async fn enter_acquired(
        &self,
        gate: Gate<'_>,
        app: &App,
        member: Option<&Member>,
        ended: impl Future<Output = ()>,
    ) -> Result<Entered, EnterError> {
        let begin = async {
            let locked = gate.lock().await;
            self.subscribe(&locked).await?;
            Ok::<_, EnterError>(locked)
        };
        // Attempts whose client disconnects while Redis is unavailable end here. They must neither accumulate nor
        // succeed later.
        let topic = tokio::select! {
            biased;
            locked = begin => locked?,
            () = ended => return Err(EnterError::Unavailable),
        };
        let position = match member {
            Some(member) => retry(async || self.join(&topic, app, member).await).await?,
            None => None,
        };
        let lookup = if topic.channel.kind().is_cache() {
            match self.look_up_cached(&topic).await {
                Ok(lookup) => Some(lookup),
                Err(error) => {
                    if let Some(member) = member {
                        self.leave(&topic, &member.user_id).await;
                    }
                    return Err(error);
                }
            }
        } else {
            None
        };
        self.topics.with(&topic, |state| state.subscriptions += 1);
        self.report_subscriptions(&topic, app).await;
        if lookup.as_ref().is_some_and(Lookup::is_miss) {
            // A damaged key is reported by other commands.
            let _ = persist(|| self.roster.report_cache_miss(&topic)).await;
        }
        Ok(Entered { position, lookup })
    }

    /// Subscribes to a topic on the bus, unless the node is already subscribed.
    pub(super) async fn subscribe(&self, topic: &LockedTopic<'_>) -> Result<(), EnterError> {
        if self.topics.with(topic, |state| state.is_subscribed) == Some(true) {
            return Ok(());
        }
        self.bus.subscribe(topic).await?;
        self.topics.with(topic, |state| state.is_subscribed = true);
        Ok(())
    }

    /// Unsubscribes from topics that no connection has used for [`IDLE_TIMEOUT`].
    pub(super) async fn unsubscribe_idle_topics(&self) {
        for topic in self.topics.take_idle(Instant::now()) {
            self.unsubscribe_if_idle(&topic).await;
        }
    }

    async fn unsubscribe_if_idle(&self, topic: &Topic) {
        let Some(gate) = self.topics.gate(topic) else { return };
        // The work that has the gate may wait for Redis. Other topics must not wait for it.
        let Some(locked) = gate.try_lock() else { return self.topics.queue_idle(topic) };
        let is_idle = self.topics.with(topic, |state| {
            // A connection that used the topic in the meantime has added another entry to the queue.
            let is_idle = !state.is_used() && state.idle_since.is_some_and(|since| since.elapsed() >= IDLE_TIMEOUT);
            state.is_subscribed &= !is_idle;
            is_idle
        });
        if is_idle != Some(true) {
            return;
        }
        self.bus.unsubscribe(topic).await;
        self.topics.remove_if_unused(&locked, |TopicState { cached, .. }| {
            if let Some(cached) = cached {
                lock(&self.cached_ages).remove(cached.age);
            }
        });
    }
}
