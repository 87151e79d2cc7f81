//! Who is where: members of presence channels, occupied channels and their counts, signed-in users, and the last events
//! of cache channels, across the cluster.
//!
//! The contract is tested by `roster::contract` against every form. Every change is idempotent: a call whose answer was
//! lost may be repeated.

#[cfg(any(test, feature = "contract"))]
pub mod contract;
pub mod memory;
pub mod redis;

use futures_util::future::BoxFuture;

use crate::app::AppId;
use crate::cluster::envelope::{CachedEvent, Position, Topic};
use crate::protocol::{ChannelName, Member, UserId};

pub use memory::MemoryRoster;
pub use redis::RedisRoster;

/// The answer to a join.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// The place in the channel's sequence of changes at which the member is in.
    pub position: Position,
    /// All members at that position, the new one included, in the order of user ids; `None` when not asked for.
    pub members: Option<Vec<Member>>,
}

/// What is known of one channel, cluster-wide.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Occupancy {
    /// Subscribed sockets; a channel is occupied when this is not 0.
    pub subscriptions: u64,
    /// Distinct users; 0 on channels without members.
    pub users: u64,
}

/// The answer to a claim of places in an app's connection quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claimed {
    /// How many of the connections asked for are admitted. They count as this node's from here on.
    pub admitted: u64,
    /// When the roster answered, in milliseconds of its own clock.
    pub answered_at_ms: u64,
    /// The oldest report that the answer relies on, by the same clock: the time of the answer if no other node counts.
    pub oldest_report_at_ms: u64,
}

/// Why a change or a question did not succeed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RosterError {
    /// The roster cannot be reached now. A change may or may not have happened; repeat it.
    #[error("the roster is not reachable")]
    Unavailable,
    /// What is stored for the channel is not what the roster stores; nothing was changed. It stays so until someone puts
    /// it right.
    #[error("what is stored for the channel cannot be read")]
    Damaged,
    /// The channel has as many users as it may, and this user is not one of them.
    #[error("the presence channel is full")]
    Full,
}

/// One node's view of the cluster-wide state, and its part in it.
///
/// Changes are announced on the channel's topic of the bus in the same step that decides them, exactly once however
/// many nodes take part.
pub trait Roster: Send + Sync {
    /// This node holds a first socket of `member`. Announces `MemberAdded` when no node held the user before; the
    /// `user_info` of the first joiner stands until the user's last leave.
    ///
    /// `members_max`: users that the channel may have; users already in do not count against it. `with_members`: whether
    /// the answer needs the whole list, which a node does that keeps no copy of it yet.
    ///
    /// # Errors
    /// [`RosterError::Full`], [`RosterError::Unavailable`].
    fn join<'a>(
        &'a self,
        topic: &'a Topic,
        member: &'a Member,
        members_max: usize,
        with_members: bool,
    ) -> BoxFuture<'a, Result<Joined, RosterError>>;

    /// The same for a member whom this node has told of before, and whom the roster may have forgotten: webhooks tell of it
    /// only where they told of the member's end meanwhile. Nobody is refused for want of room.
    ///
    /// # Errors
    /// [`RosterError::Unavailable`].
    fn rejoin<'a>(
        &'a self,
        topic: &'a Topic,
        member: &'a Member,
        with_members: bool,
    ) -> BoxFuture<'a, Result<Joined, RosterError>> {
        self.join(topic, member, usize::MAX, with_members)
    }

    /// This node holds no socket of `user_id` any more. Announces `MemberRemoved` when no other node holds one.
    ///
    /// # Errors
    /// [`RosterError::Unavailable`].
    fn leave<'a>(&'a self, topic: &'a Topic, user_id: &'a UserId) -> BoxFuture<'a, Result<(), RosterError>>;

    /// The users of a presence channel that this node holds by the roster's own account; after a failure it may name some
    /// that have left.
    ///
    /// # Errors
    /// [`RosterError::Unavailable`].
    fn own_members<'a>(&'a self, topic: &'a Topic) -> BoxFuture<'a, Result<Vec<UserId>, RosterError>>;

    /// The members of a presence channel; nobody when it is not occupied.
    ///
    /// # Errors
    /// [`RosterError::Unavailable`].
    fn members<'a>(&'a self, topic: &'a Topic) -> BoxFuture<'a, Result<Vec<Member>, RosterError>>;

    /// This node holds `subscriptions` sockets of the channel now; 0 means none. Announces `UserOnline` on the topics of
    /// users when the cluster-wide count leaves or reaches 0, and, if `announce` is set, `SubscriptionCount` on others
    /// when it changed.
    ///
    /// # Errors
    /// [`RosterError::Unavailable`].
    fn set_subscriptions<'a>(
        &'a self,
        topic: &'a Topic,
        subscriptions: u64,
        announce: bool,
    ) -> BoxFuture<'a, Result<(), RosterError>>;

    /// The same for a count that this node has told before, and that the roster may have forgotten; see
    /// [`Roster::rejoin`].
    ///
    /// # Errors
    /// [`RosterError::Unavailable`].
    fn resend_subscriptions<'a>(
        &'a self,
        topic: &'a Topic,
        subscriptions: u64,
        announce: bool,
    ) -> BoxFuture<'a, Result<(), RosterError>> {
        self.set_subscriptions(topic, subscriptions, announce)
    }

    /// A subscriber of a cache channel found no event kept. Webhooks tell of it, but not of every one.
    ///
    /// # Errors
    /// [`RosterError::Unavailable`].
    fn report_cache_miss<'a>(&'a self, _topic: &'a Topic) -> BoxFuture<'a, Result<(), RosterError>> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// What is known of each channel, in the order asked.
    ///
    /// # Errors
    /// [`RosterError::Unavailable`].
    fn occupancy<'a>(&'a self, topics: &'a [Topic]) -> BoxFuture<'a, Result<Vec<Occupancy>, RosterError>>;

    /// The occupied channels of an app whose names start with `prefix`, user channels left out, in the order of names.
    ///
    /// # Errors
    /// [`RosterError::Unavailable`].
    fn channels<'a>(
        &'a self,
        app: &'a AppId,
        prefix: &'a str,
    ) -> BoxFuture<'a, Result<Vec<(ChannelName, Occupancy)>, RosterError>>;

    /// The last event of a cache channel, if one is kept. Events are kept by [`crate::cluster::bus::Bus::publish`].
    ///
    /// # Errors
    /// [`RosterError::Unavailable`].
    fn cached<'a>(&'a self, topic: &'a Topic) -> BoxFuture<'a, Result<Option<CachedEvent>, RosterError>>;

    /// Reports that this node has `connections` open connections of the app. Returns how many there are cluster-wide,
    /// these included. Nodes without a valid lease do not count.
    ///
    /// # Errors
    /// [`RosterError::Unavailable`].
    fn report_connections<'a>(&'a self, app: &'a AppId, connections: u64) -> BoxFuture<'a, Result<u64, RosterError>>;

    /// The same as [`Roster::report_connections`] for a roster that never waits. Returns `None` if [`Roster::report_connections`] must be used.
    fn report_connections_now(&self, _app: &AppId, _connections: u64) -> Option<u64> {
        None
    }

    /// Admits up to `wanted` connections of the app besides the `connections` that this node has, within a cluster-wide
    /// `quota`, in one step. If not all are admitted, the other nodes are asked to report their counts again.
    ///
    /// # Errors
    /// [`RosterError::Unavailable`]. The claim may have been granted all the same; the next report corrects it.
    fn claim_connections<'a>(
        &'a self,
        app: &'a AppId,
        connections: u64,
        wanted: u64,
        quota: u64,
    ) -> BoxFuture<'a, Result<Claimed, RosterError>>;

    /// Open connections of the app, cluster-wide. Nodes without a valid lease do not count.
    ///
    /// # Errors
    /// [`RosterError::Unavailable`].
    fn connections<'a>(&'a self, app: &'a AppId) -> BoxFuture<'a, Result<u64, RosterError>>;

    /// How often in a second one node should tell the count of one channel, [`Roster::set_subscriptions`], at most; the counts in
    /// between are of no use to anyone. Coming to and from 0 is always told.
    fn reports_per_second(&self) -> u32 {
        u32::MAX
    }

    /// Returns channels that the roster lists for this node although it has left them: Redis may have returned with an older
    /// state. Some of them may have been entered again meanwhile.
    ///
    /// # Errors
    /// [`RosterError::Unavailable`].
    fn stale_channels(&self) -> BoxFuture<'_, Result<Vec<Topic>, RosterError>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }

    /// Makes sure that the cluster knows this node, before everything it holds is asserted again.
    ///
    /// # Errors
    /// [`RosterError::Unavailable`].
    fn renew(&self) -> BoxFuture<'_, Result<(), RosterError>> {
        Box::pin(std::future::ready(Ok(())))
    }
}
