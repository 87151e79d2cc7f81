//! What travels between nodes: an event or a change, with its routing.

pub mod wire;

use std::fmt;
use std::time::Duration;

use bytes::Bytes;

use crate::app::AppId;
use crate::protocol::{ChannelName, Member, SocketId, UserId};

/// What a node listens to on the bus: one channel of one app.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Topic {
    /// The tenant; equal names in two apps are two topics.
    pub app: AppId,
    /// The channel.
    pub channel: ChannelName,
}

/// One message of the bus. It names an app by id and never carries a secret.
#[derive(Clone, Debug)]
pub struct Envelope {
    /// When it was published, in microseconds of Unix time by the publisher's clock; for the delivery histogram.
    pub published_at_us: u64,
    /// Where it stands in its channel; `None` for messages that nobody needs to order against a snapshot.
    pub position: Option<Position>,
    /// What happened.
    pub body: Body,
}

/// A place in the sequence of one channel's ordered messages; later places are greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Names the sequence; another epoch means that the count began anew. Later epochs are greater.
    pub epoch: u64,
    /// Counts from 1, without gaps within an epoch.
    pub sequence: u64,
}

/// What an [`Envelope`] says.
#[derive(Clone, Debug)]
pub enum Body {
    /// An event for every subscriber.
    Event {
        /// The final client JSON, encoded once by the publisher.
        frame: Bytes,
        /// A connection that must not get it.
        except: Option<SocketId>,
        /// Whether the event is also its cache channel's last event from here on; its position is then set.
        cached: bool,
    },
    /// A user's first socket joined.
    MemberAdded(Member),
    /// A user's last socket left.
    MemberRemoved(UserId),
    /// The cluster-wide count of subscriptions changed.
    SubscriptionCount(u64),
    /// On a user's topic: whether the user is signed in anywhere.
    UserOnline(bool),
    /// On a user's topic: end every connection that is signed in as this user.
    Terminate,
}

/// The last event of a cache channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CachedEvent {
    /// The final client JSON.
    pub frame: Bytes,
    /// Where the event stands among the channel's kept events.
    pub position: Position,
    /// How long it will still be kept.
    pub ttl: Duration,
}

impl Position {
    /// Whether nothing is missing between this place and `next`.
    pub fn is_followed_by(self, next: Self) -> bool {
        self.epoch == next.epoch && self.sequence.checked_add(1) == Some(next.sequence)
    }
}

impl Topic {
    /// A channel of an app.
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

/// Now, as envelopes stamp it.
pub fn unix_us() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
