//! The subscribers of a shard by channel. It needs no locks, because a shard is one thread.

use std::rc::Rc;

use hashbrown::HashMap;
use shared::cluster::envelope::Topic;
use shared::protocol::SocketId;
use slab::Slab;

use super::burst::{Burst, FrameIndex};
use crate::connection::Connection;
use crate::metrics::Metrics;
use crate::session::subscriptions::HubSlot;

/// A part of a channel's subscribers.
#[derive(Clone, Copy)]
pub(crate) struct Part {
    /// The first slot.
    pub(crate) from: usize,
    /// The maximum number of subscribers.
    pub(crate) count_max: usize,
}

impl Part {
    /// All subscribers.
    #[cfg(feature = "benchmark")]
    pub(crate) const ALL: Self = Self { from: 0, count_max: usize::MAX };
}

/// The result of [`Hub::broadcast`].
pub(crate) struct Fanout {
    /// The number of subscribers that receive the frame.
    pub(crate) reached: usize,
    /// The first slot of the next part; `None` if no subscriber is left.
    pub(crate) next: Option<usize>,
}

/// The local subscriptions of a shard.
#[derive(Default)]
pub(crate) struct Hub {
    channels: HashMap<Topic, Channel>,
}

#[derive(Default)]
struct Channel {
    subscribers: Slab<Rc<Connection>>,
    /// On topics of users: connections that are notified when the user goes online or offline.
    watchers: Slab<Rc<Connection>>,
}

impl Hub {
    /// Adds a connection to a channel. Returns the slot, which is needed to remove it.
    pub(crate) fn subscribe(&mut self, topic: &Topic, connection: Rc<Connection>, metrics: &Metrics) -> HubSlot {
        let channel = self.channels.entry(topic.clone()).or_default();
        if channel.subscribers.is_empty() {
            metrics.channels(topic.channel.kind()).inc();
        }
        metrics.subscriptions(topic.channel.kind()).inc();
        slot_of(channel.subscribers.insert(connection))
    }

    /// Removes a connection from a channel.
    pub(crate) fn unsubscribe(&mut self, topic: &Topic, slot: HubSlot, metrics: &Metrics) {
        let Some(channel) = self.channels.get_mut(topic) else { return };
        if channel.subscribers.try_remove(slot as usize).is_none() {
            return;
        }
        metrics.subscriptions(topic.channel.kind()).dec();
        if channel.subscribers.is_empty() {
            metrics.channels(topic.channel.kind()).dec();
            self.remove_if_unused(topic);
        }
    }

    /// Adds a connection that is notified when the user of `topic` goes online or offline.
    pub(crate) fn watch(&mut self, topic: &Topic, connection: Rc<Connection>) -> HubSlot {
        slot_of(self.channels.entry(topic.clone()).or_default().watchers.insert(connection))
    }

    /// Ends one [`Hub::watch`].
    pub(crate) fn unwatch(&mut self, topic: &Topic, slot: HubSlot) {
        let Some(channel) = self.channels.get_mut(topic) else { return };
        channel.watchers.try_remove(slot as usize);
        self.remove_if_unused(topic);
    }

    /// Appends a frame of the burst to a part of the subscribers of `topic` except `except`.
    ///
    /// Each subscriber receives the frames of a channel in call order. Between the parts of one frame connections may
    /// be removed from the channel, but none may be added. The cost is O(subscribers), without a hash, a clock or an
    /// allocation per subscriber. Never blocks.
    pub(crate) fn broadcast(
        &self,
        topic: &Topic,
        frame: FrameIndex,
        except: Option<SocketId>,
        part: Part,
        burst: &mut Burst,
    ) -> Fanout {
        let Some(channel) = self.channels.get(topic) else { return Fanout { reached: 0, next: None } };
        let before = burst.len();
        let next = if part.from == 0 && channel.subscribers.len() <= part.count_max {
            append(channel.subscribers.iter(), frame, except, burst);
            None
        } else {
            let mut left = channel.subscribers.iter().skip_while(|(slot, _)| *slot < part.from);
            append(left.by_ref().take(part.count_max), frame, except, burst);
            left.next().map(|(slot, _)| slot)
        };
        Fanout { reached: burst.len() - before, next }
    }

    /// Returns the subscribers of a channel.
    pub(crate) fn subscribers(&self, topic: &Topic) -> Vec<Rc<Connection>> {
        self.channels
            .get(topic)
            .map(|channel| channel.subscribers.iter().map(|(_, connection)| connection.clone()).collect())
            .unwrap_or_default()
    }

    /// Returns the connections that watch the user of `topic`.
    pub(crate) fn watchers(&self, topic: &Topic) -> Vec<Rc<Connection>> {
        let watchers = self.channels.get(topic).into_iter().flat_map(|channel| &channel.watchers);
        watchers.map(|(_, connection)| connection.clone()).collect()
    }

    fn remove_if_unused(&mut self, topic: &Topic) {
        if self.channels.get(topic).is_some_and(|channel| channel.subscribers.is_empty() && channel.watchers.is_empty())
        {
            self.channels.remove(topic);
        }
    }
}

fn append<'a>(
    subscribers: impl Iterator<Item = (usize, &'a Rc<Connection>)>,
    frame: FrameIndex,
    except: Option<SocketId>,
    burst: &mut Burst,
) {
    match except {
        None => {
            for (_, connection) in subscribers {
                burst.append(connection, frame);
            }
        }
        Some(except) => {
            for (_, connection) in subscribers {
                if connection.socket_id != except {
                    burst.append(connection, frame);
                }
            }
        }
    }
}

fn slot_of(key: usize) -> HubSlot {
    HubSlot::try_from(key).expect("a node has fewer than four billion sockets")
}
