//! Envelopes: events and changes with their routing, as the bus carries them.

pub mod wire;

use std::fmt;
use std::time::Duration;

use bytes::Bytes;

use crate::app::AppId;
use crate::protocol::{ChannelName, Member, SocketId, UserId};

/// One channel of one app on the bus.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Topic {
    /// The app. Channels of two apps with the same name are two topics.
    pub app: AppId,
    /// The channel.
    pub channel: ChannelName,
}

/// One message of the bus. It names an app by id and never carries a secret.
#[derive(Clone, Debug)]
pub struct Envelope {
    /// The time of the publish by the publisher's clock, in microseconds of Unix time. The delivery histogram uses it.
    pub published_at_us: u64,
    /// The position in its channel. `None` if no snapshot has to be ordered against it.
    pub position: Option<Position>,
    /// The event or the change.
    pub body: Body,
}

/// A place in the order of a channel. Later positions are greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The id of the sequence. A new epoch restarts the count. Later epochs are greater.
    pub epoch: u64,
    /// The number within the epoch, from 1 and without gaps.
    pub sequence: u64,
}

/// The content of an [`Envelope`].
#[derive(Clone, Debug)]
pub enum Body {
    /// An event for every subscriber.
    Event {
        /// The JSON that clients receive, encoded once by the publisher.
        frame: Bytes,
        /// The connection that does not receive the event.
        except: Option<SocketId>,
        /// Whether the channel caches the event. If so, the envelope has a position.
        cached: bool,
    },
    /// The first connection of a user joined.
    MemberAdded(Member),
    /// The last connection of a user left.
    MemberRemoved(UserId),
    /// The cluster-wide count of subscriptions changed.
    SubscriptionCount(u64),
    /// Whether a user is signed in on any node. Published to the user's topic.
    UserOnline(bool),
    /// Closes every connection of a user. Published to the user's topic.
    Terminate,
}

/// The cached event of a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CachedEvent {
    /// The JSON that clients receive.
    pub frame: Bytes,
    /// The position among the cached events of the channel.
    pub position: Position,
    /// The remaining time to live.
    pub ttl: Duration,
}

impl Position {
    /// Whether `next` is the position after this one.
    pub fn is_followed_by(self, next: Self) -> bool {
        self.epoch == next.epoch && self.sequence.checked_add(1) == Some(next.sequence)
    }
}

impl Topic {
    /// Creates the topic of a channel.
    pub fn new(app: &AppId, channel: &ChannelName) -> Self {
        Self { app: app.clone(), channel: channel.clone() }
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.app, self.channel)
    }
}

impl fmt::Debug for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Returns the current time in microseconds of Unix time.
pub fn unix_us() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
