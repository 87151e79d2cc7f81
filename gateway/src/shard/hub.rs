//! One shard's channels and their subscribers. No locks: a shard is one thread.

use std::rc::Rc;

use hashbrown::HashMap;
use shared::envelope::Topic;
use shared::protocol::SocketId;
use slab::Slab;

use crate::connection::Connection;
use crate::metrics::Metrics;
use crate::outbox::{Burst, FrameIndex};
use crate::session::subscriptions::Place;

/// The local subscriptions of a shard.
#[derive(Default)]
pub(crate) struct Hub {
    channels: HashMap<Topic, Channel>,
}

#[derive(Default)]
struct Channel {
    subscribers: Slab<Rc<Connection>>,
    /// On users' topics: connections that want to hear whether the user is online.
    watchers: Slab<Rc<Connection>>,
}

impl Hub {
    /// Puts a connection into a channel; the place is needed to take it out again.
    pub(crate) fn subscribe(&mut self, topic: &Topic, connection: Rc<Connection>, metrics: &Metrics) -> Place {
        let channel = self.channels.entry(topic.clone()).or_default();
        if channel.subscribers.is_empty() {
            metrics.channels(topic.channel.kind()).inc();
        }
        metrics.subscriptions(topic.channel.kind()).inc();
        place_of(channel.subscribers.insert(connection))
    }

    /// Takes a connection out.
    pub(crate) fn unsubscribe(&mut self, topic: &Topic, place: Place, metrics: &Metrics) {
        let Some(channel) = self.channels.get_mut(topic) else { return };
        if channel.subscribers.try_remove(place as usize).is_none() {
            return;
        }
        metrics.subscriptions(topic.channel.kind()).dec();
        if channel.subscribers.is_empty() {
            metrics.channels(topic.channel.kind()).dec();
            self.forget_if_unused(topic);
        }
    }

    /// Makes a connection hear whether the user of `topic` is online.
    pub(crate) fn watch(&mut self, topic: &Topic, connection: Rc<Connection>) -> Place {
        place_of(self.channels.entry(topic.clone()).or_default().watchers.insert(connection))
    }

    /// Ends one [`Hub::watch`].
    pub(crate) fn unwatch(&mut self, topic: &Topic, place: Place) {
        let Some(channel) = self.channels.get_mut(topic) else { return };
        channel.watchers.try_remove(place as usize);
        self.forget_if_unused(topic);
    }

    /// Appends a frame of the burst to every subscriber of `topic` except `except`; returns how many it went to.
    ///
    /// Order: calls for one channel reach each subscriber in call order. Cost: O(subscribers), without a hash, a clock
    /// or an allocation per subscriber. Never waits.
    pub(crate) fn broadcast(
        &self,
        topic: &Topic,
        frame: FrameIndex,
        except: Option<SocketId>,
        burst: &mut Burst,
    ) -> usize {
        let Some(channel) = self.channels.get(topic) else { return 0 };
        let before = burst.len();
        match except {
            None => {
                for (_, connection) in &channel.subscribers {
                    burst.append(connection, frame);
                }
            }
            Some(except) => {
                for (_, connection) in &channel.subscribers {
                    if connection.socket_id != except {
                        burst.append(connection, frame);
                    }
                }
            }
        }
        burst.len() - before
    }

    /// The subscribers of a channel, for what is done to each of them.
    pub(crate) fn subscribers(&self, topic: &Topic) -> Vec<Rc<Connection>> {
        self.channels
            .get(topic)
            .map(|channel| channel.subscribers.iter().map(|(_, connection)| connection.clone()).collect())
            .unwrap_or_default()
    }

    /// The connections that watch the user of `topic`.
    pub(crate) fn watchers(&self, topic: &Topic) -> Vec<Rc<Connection>> {
        let watchers = self.channels.get(topic).into_iter().flat_map(|channel| &channel.watchers);
        watchers.map(|(_, connection)| connection.clone()).collect()
    }

    fn forget_if_unused(&mut self, topic: &Topic) {
        if self.channels.get(topic).is_some_and(|channel| channel.subscribers.is_empty() && channel.watchers.is_empty())
        {
            self.channels.remove(topic);
        }
    }
}

fn place_of(key: usize) -> Place {
    Place::try_from(key).expect("a node has fewer than four billion sockets")
}
