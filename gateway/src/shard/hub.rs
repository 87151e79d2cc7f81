//! One shard's channels and their subscribers. No locks: a shard is one thread.

use std::rc::Rc;

use hashbrown::HashMap;
use shared::cluster::envelope::Topic;
use shared::protocol::SocketId;
use slab::Slab;

use crate::connection::Connection;
use crate::metrics::Metrics;
use crate::outbox::{Burst, FrameIndex};
use crate::session::subscriptions::Place;

/// Some of a channel's subscribers.
#[derive(Clone, Copy)]
pub(crate) struct Part {
    /// The first place.
    pub(crate) from: usize,
    /// How many at most.
    pub(crate) count_max: usize,
}

impl Part {
    /// All subscribers.
    #[cfg(feature = "benchmark")]
    pub(crate) const ALL: Self = Self { from: 0, count_max: usize::MAX };
}

/// The result of [`Hub::broadcast`].
pub(crate) struct Fanout {
    /// Subscribers that the frame went to.
    pub(crate) reached: usize,
    /// Where the next part starts; `None` when there is none.
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

    /// Appends a frame of the burst to a part of the subscribers of `topic` except `except`.
    ///
    /// Order: calls for one channel reach each subscriber in call order. Between the parts of one frame connections may
    /// be taken out of the channel, but none may be put in. Cost: O(subscribers), without a hash, a clock or an
    /// allocation per subscriber. Never waits.
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
            let mut left = channel.subscribers.iter().skip_while(|(place, _)| *place < part.from);
            append(left.by_ref().take(part.count_max), frame, except, burst);
            left.next().map(|(place, _)| place)
        };
        Fanout { reached: burst.len() - before, next }
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

fn place_of(key: usize) -> Place {
    Place::try_from(key).expect("a node has fewer than four billion sockets")
}
