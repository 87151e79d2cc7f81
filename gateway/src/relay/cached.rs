//! The cached events of cache channels that this node has received. A new subscriber receives one of them if the
//! roster's event is older.

use std::sync::Arc;

use bytes::Bytes;
use shared::cluster::envelope::{CachedEvent, Position, Topic};
use shared::sync::lock;

use super::Relay;
use super::error::EnterError;
use super::retry::retry;
use super::topic::{CachedFrame, TopicState};
use super::topics::LockedTopic;

/// The cached event of a channel, as the roster returned it.
pub(super) struct Lookup {
    /// The position of the newest cached event that this node had received before the query.
    received_before: Option<Position>,
    fetched: Option<CachedEvent>,
    /// Protects the received event from eviction until the reply is made.
    _pin: Arc<()>,
}

impl Lookup {
    /// Whether the roster has no cached event.
    pub(super) fn is_miss(&self) -> bool {
        self.fetched.is_none()
    }
}

/// The cached events have grown, and may use too much memory. [`Relay::evict_cached`] needs it.
#[must_use]
pub(super) struct CacheGrew(());

impl Relay {
    /// Stores a frame as the channel's cached event. The caller passes the result to [`Relay::evict_cached`] after it
    /// has unlocked the stripe.
    pub(super) fn cache(&self, state: &mut TopicState, topic: &Topic, position: Position, frame: Bytes) -> CacheGrew {
        let mut ages = lock(&self.cached_ages);
        if let Some(replaced) = &state.cached {
            ages.remove(replaced.age);
        }
        let age = ages.add(topic, frame.len());
        drop(ages);
        state.cached = Some(CachedFrame { position, frame: Some(frame), age });
        CacheGrew(())
    }

    /// Evicts the least recently cached events until the others fit. Must not be called under the lock of a stripe.
    pub(super) fn evict_cached(&self, _: CacheGrew) {
        loop {
            let Some((age, topic)) = lock(&self.cached_ages).remove_oldest_over_limit() else { return };
            let is_pinned = self.topics.with(&topic, |state| {
                // Another event may have replaced it in the meantime.
                let Some(cached) = state.cached.as_mut().filter(|cached| cached.age == age) else { return false };
                if state.cached_pin.as_ref().is_none_or(|pin| Arc::strong_count(pin) == 1) {
                    cached.frame = None;
                    return false;
                }
                // A pending reply needs it if the roster's event is older. From now on it counts as the youngest. The
                // next cached event makes room for both.
                let bytes = cached.frame.as_ref().map_or(0, Bytes::len);
                cached.age = lock(&self.cached_ages).add(&topic, bytes);
                true
            });
            if is_pinned == Some(true) {
                return;
            }
        }
    }

    /// Reads the channel's cached event from the roster for a new subscriber, and waits until it is also in the order
    /// of received events.
    pub(super) async fn look_up_cached(&self, topic: &LockedTopic<'_>) -> Result<Lookup, EnterError> {
        let (received_before, pin) = self.pin_cached(topic);
        let fetched = retry(async || self.roster.cached(topic).await.map_err(EnterError::from)).await?;
        let lookup = Lookup { received_before, fetched, _pin: pin };
        self.catch_up_with(topic, &lookup).await;
        Ok(lookup)
    }

    /// Protects the channel's cached event from eviction while the returned pin exists. Also returns its position.
    pub(super) fn pin_cached(&self, topic: &Topic) -> (Option<Position>, Arc<()>) {
        let pin = |state: &mut TopicState| {
            let pin = state.cached_pin.get_or_insert_default().clone();
            (state.cached_position(), pin)
        };
        self.topics.with(topic, pin).unwrap_or_default()
    }

    /// Waits until the node has received the fetched event, if the event is still on its way. Otherwise a subscriber
    /// would receive it twice: as the cached event, and as a live one.
    async fn catch_up_with(&self, topic: &LockedTopic<'_>, lookup: &Lookup) {
        let Lookup { received_before, fetched: Some(fetched), .. } = lookup else { return };
        if received_before.is_some_and(|received| !supersedes(fetched.position, received)) {
            return;
        }
        self.bus.catch_up().await;
        // An event that has not arrived was published before this node subscribed or while it was disconnected. Storing
        // it saves the next subscriber the wait.
        let grew = self.topics.with(topic, |state| {
            let is_missing = state.cached_position() == *received_before;
            is_missing.then(|| self.cache(state, topic, fetched.position, fetched.frame.clone()))
        });
        if let Some(Some(grew)) = grew {
            self.evict_cached(grew);
        }
    }
}

/// Whether the fetched event may be newer than the one that this node received before the query. Positions of two
/// epochs are not comparable, because the roster's clock may have been set back.
fn supersedes(fetched: Position, received: Position) -> bool {
    fetched.epoch != received.epoch || fetched.sequence > received.sequence
}

/// Returns the newer of the roster's cached event and the one that this node has received.
pub(super) fn latest(state: &TopicState, lookup: Lookup) -> Option<Bytes> {
    let Lookup { received_before, fetched, .. } = lookup;
    let Some(received) = &state.cached else { return fetched.map(|event| event.frame) };
    let is_new = Some(received.position) != received_before;
    match fetched {
        // It was received after the query. It is newer unless it is the fetched event or one before it.
        Some(fetched) if is_new && received.position > fetched.position => {
            received.frame.clone().or(Some(fetched.frame))
        }
        // The roster has an older state: its server is a promoted replica that lacked this event.
        Some(fetched) if !is_new && !supersedes(fetched.position, received.position) => {
            received.frame.clone().or(Some(fetched.frame))
        }
        Some(fetched) => Some(fetched.frame),
        None if is_new => received.frame.clone(),
        // An event that was received before the query may have expired. Only the roster knows.
        None => None,
    }
}

#[cfg(test)]
mod tests;
