//! The last events of cache channels that this node has received: for subscribers whose answer from the roster is older.

use std::sync::Arc;

use bytes::Bytes;
use shared::cluster::envelope::{Position, Topic};
use shared::cluster::roster::KeptEvent;

use super::topic::{KeptFrame, TopicState};
use super::{Relay, lock};

/// The roster's answer about a cache channel's last event.
pub(super) struct Kept {
    /// The newest one that this node had received when it asked.
    pub(super) received_before: Option<Position>,
    pub(super) fetched: Option<KeptEvent>,
    /// Keeps the received event from being dropped until the answer has been made.
    pub(super) _pin: Arc<()>,
}

impl Relay {
    /// Takes `frame` as the channel's kept event. The caller calls [`Relay::drop_kept_beyond_bound`] once it has released
    /// the stripe.
    pub(super) fn keep(&self, state: &mut TopicState, topic: &Topic, position: Position, frame: Bytes) {
        let mut ages = lock(&self.kept_ages);
        if let Some(replaced) = &state.kept {
            ages.forget(replaced.age);
        }
        let age = ages.keep(topic, frame.len());
        drop(ages);
        state.kept = Some(KeptFrame { position, frame: Some(frame), age });
    }

    /// Drops the least recently kept events until the others fit. Must be called without a lock.
    pub(super) fn drop_kept_beyond_bound(&self) {
        loop {
            let Some((age, topic)) = lock(&self.kept_ages).forget_oldest_beyond_bound() else { return };
            let mut stripe = self.stripe(&topic);
            let Some(state) = stripe.get_mut(&topic) else { continue };
            // Another event may have replaced it meanwhile.
            let Some(kept) = state.kept.as_mut().filter(|kept| kept.age == age) else { continue };
            if state.kept_pin.as_ref().is_none_or(|pin| Arc::strong_count(pin) == 1) {
                kept.frame = None;
                continue;
            }
            // A subscriber is about to get it, if the roster's answer is older. It counts as the youngest from here on. The
            // next kept event makes room for both.
            let bytes = kept.frame.as_ref().map_or(0, Bytes::len);
            kept.age = lock(&self.kept_ages).keep(&topic, bytes);
            return;
        }
    }

    /// Keeps the channel's kept event from being dropped while the returned pin lives. Returns its position too.
    pub(super) fn expect_kept(&self, topic: &Topic) -> (Option<Position>, Arc<()>) {
        let mut stripe = self.stripe(topic);
        let Some(state) = stripe.get_mut(topic) else { return Default::default() };
        let pin = state.kept_pin.get_or_insert_default().clone();
        (state.kept_position(), pin)
    }

    /// Waits until the node has received the fetched event, if it is still to come. Otherwise a subscriber would get it both
    /// as the answer and as an event. Must be called under the topic's gate.
    pub(super) async fn catch_up_with(&self, topic: &Topic, kept: &Kept) {
        let Kept { received_before, fetched: Some(fetched), .. } = kept else { return };
        if received_before.is_some_and(|received| !supersedes(fetched.position, received)) {
            return;
        }
        self.bus.catch_up().await;
        let mut stripe = self.stripe(topic);
        // If nothing came, it was published before this node subscribed, or while the node was disconnected. The next
        // subscriber need not wait.
        let Some(state) = stripe.get_mut(topic) else { return };
        if state.kept_position() == *received_before {
            self.keep(state, topic, fetched.position, fetched.frame.clone());
            drop(stripe);
            self.drop_kept_beyond_bound();
        }
    }
}

/// Whether what the roster has now may be newer than what this node received before it asked. Positions of two epochs are
/// not compared: the roster's clock may have gone back.
fn supersedes(fetched: Position, received: Position) -> bool {
    fetched.epoch != received.epoch || fetched.sequence > received.sequence
}

/// Returns the newer of what the roster keeps and what this node has received.
pub(super) fn latest_kept(state: &TopicState, kept: Kept) -> Option<Bytes> {
    let Kept { received_before, fetched, .. } = kept;
    let Some(received) = &state.kept else { return fetched.map(|event| event.frame) };
    let is_new = Some(received.position) != received_before;
    match fetched {
        // Received since the question, so this is newer, unless it is the fetched one or one before it.
        Some(fetched) if is_new && received.position > fetched.position => {
            received.frame.clone().or(Some(fetched.frame))
        }
        // The roster has an older state: its server is a promoted replica that had not received this one.
        Some(fetched) if !is_new && !supersedes(fetched.position, received.position) => {
            received.frame.clone().or(Some(fetched.frame))
        }
        Some(fetched) => Some(fetched.frame),
        None if is_new => received.frame.clone(),
        // What was received before the question may have expired. Only the roster knows.
        None => None,
    }
}

#[cfg(test)]
mod tests;
