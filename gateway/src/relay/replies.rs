//! Replies to new subscribers, in the order of the channel's events.

use bytes::Bytes;
use shared::cluster::envelope::{Position, Topic};
use shared::protocol::{ChannelKind, ServerFrame};

use super::Relay;
use super::cached::{self, Lookup};
use super::counts::count_message;
use super::topic::{SubscribeReply, TopicState};
use crate::inbox::ShardMessage;
use crate::websocket::writer;

impl Relay {
    /// Queues a reply for a shard once the replica has reached `position` and subscribers are notified of all its
    /// changes. An earlier reply would be followed by changes that its member list already contains.
    pub(super) fn queue_reply(
        &self,
        topic: &Topic,
        shard: usize,
        position: Option<Position>,
        message: impl FnOnce(&TopicState) -> ShardMessage + Send + 'static,
    ) {
        self.topics.with(topic, |state| {
            let reached = |position| state.replica.as_ref().is_some_and(|replica| replica.has_reached(position));
            let is_reached = position.is_none_or(reached);
            if is_reached && state.replica.as_ref().is_none_or(|replica| !replica.has_unsent()) {
                return self.inboxes[shard].push(message(state));
            }
            // A new epoch may start without a change that shows it.
            if let (Some(position), Some(replica)) = (position, &state.replica)
                && !is_reached
                && !replica.is_of(position.epoch)
            {
                self.unverified.add(topic);
            }
            state.replies.push(SubscribeReply { position, shard, message: Box::new(message) });
        });
    }

    /// Queues the replies that the replica is ready for.
    pub(super) fn send_ready_replies(&self, state: &mut TopicState) {
        for reply in state.ready_replies() {
            self.inboxes[reply.shard].push((reply.message)(state));
        }
    }
}

/// Encodes the frames for a new subscriber, in order. Source: protocol reference 2.9.
pub(super) fn frames(topic: &Topic, state: &TopicState, lookup: Option<Lookup>) -> Vec<Bytes> {
    let mut frames = vec![succeeded(topic, state)];
    if let Some(lookup) = lookup {
        frames.push(match cached::latest(state, lookup) {
            Some(event) => writer::text(&event),
            None => writer::text(ServerFrame::CacheMiss { channel: topic.channel.as_str() }.encode().as_bytes()),
        });
    }
    if let Some(count) = state.count.value {
        frames.push(writer::text(count_message(topic, count).as_bytes()));
    }
    frames
}

/// Encodes the frame that confirms a subscription.
pub(super) fn succeeded(topic: &Topic, state: &TopicState) -> Bytes {
    let channel = topic.channel.as_str();
    let json = match (&state.replica, topic.channel.kind()) {
        (Some(replica), ChannelKind::Presence | ChannelKind::PresenceCache) => {
            ServerFrame::SubscribedWithMembers { channel, members: &replica.members() }.encode()
        }
        _ => ServerFrame::Subscribed { channel }.encode(),
    };
    writer::text(json.as_bytes())
}
