//! The cluster-wide state: members of presence channels, occupied channels and their counts, signed-in users,
//! connections and cached events.
//!
//! The tests in `roster::contract` run against every implementation. Every change is idempotent: if a reply was lost,
//! the call may be repeated.

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

/// The result of a join.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// The position of the channel's member list that includes the member.
    pub position: Position,
    /// All members at that position, including the new one, sorted by user id; `None` if they were not requested.
    pub members: Option<Vec<Member>>,
}

/// The cluster-wide counts of one channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Occupancy {
    /// The number of subscriptions. A channel is occupied if it is not 0.
    pub subscriptions: u64,
    /// The number of distinct users; 0 for channels without members.
    pub users: u64,
}

/// The result of a claim of connections within an app's quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claimed {
    /// The number of requested connections that are admitted. They count as connections of this node immediately.
    pub admitted: u64,
    /// The time of the reply, in milliseconds of the roster's clock.
    pub answered_at_ms: u64,
    /// The time of the oldest report that was counted, by the same clock. The time of the reply if no other node
    /// counts.
    pub oldest_report_at_ms: u64,
}

/// The reason why a call of the roster failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RosterError {
    /// The roster cannot be reached. A change may have been made. The call should be repeated.
    #[error("the roster is not reachable")]
    Unavailable,
    /// A key of the channel has an unexpected type or value. Nothing was changed. Retrying does not help; an operator
    /// must delete the key.
    #[error("a key of the channel has an unexpected type or value")]
    Damaged,
    /// The channel has as many users as allowed, and this user is not one of them.
    #[error("the presence channel is full")]
    Full,
}

/// One node's access to the cluster-wide state.
///
/// The step that makes a change also publishes it on the channel's topic of the bus. Each change is published once,
/// regardless of the number of nodes.
pub trait Roster: Send + Sync {
    /// Adds a member that has its first connection on this node. Publishes `MemberAdded` if no other node has the user.
    /// The first join sets the `user_info`, which is kept until the user's last leave.
    ///
    /// `members_max`: the number of users that the channel may have. A user that is a member already may always join.
    /// `with_members`: whether to return all members.
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

    /// Adds a member again that the roster may have lost. Emits a webhook only if `member_removed` was sent in the
    /// meantime. Ignores the limit of members.
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

    /// Removes a member whose last connection on this node ended. Publishes `MemberRemoved` if no other node has the
    /// user.
    ///
    /// # Errors
    /// [`RosterError::Unavailable`].
    fn leave<'a>(&'a self, topic: &'a Topic, user_id: &'a UserId) -> BoxFuture<'a, Result<(), RosterError>>;

    /// Returns the members of a presence channel that the roster lists for this node. After a failure it may list some
    /// that have left.
    ///
    /// # Errors
    /// [`RosterError::Unavailable`].
    fn own_members<'a>(&'a self, topic: &'a Topic) -> BoxFuture<'a, Result<Vec<UserId>, RosterError>>;

    /// Returns the members of a presence channel.
    ///
    /// # Errors
    /// [`RosterError::Unavailable`].
    fn members<'a>(&'a self, topic: &'a Topic) -> BoxFuture<'a, Result<Vec<Member>, RosterError>>;

    /// Sets this node's number of subscriptions to a channel.
    ///
    /// On the channel of a user, publishes `UserOnline` if the cluster-wide count becomes 0 or stops being 0. On other
    /// channels, publishes `SubscriptionCount` if `announce` is set and the cluster-wide count changed.
    ///
    /// # Errors
    /// [`RosterError::Unavailable`].
    fn set_subscriptions<'a>(
        &'a self,
        topic: &'a Topic,
        subscriptions: u64,
        announce: bool,
    ) -> BoxFuture<'a, Result<(), RosterError>>;

    /// Sends a count again that the roster may have lost. Emits webhooks like [`Roster::rejoin`].
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

    /// Reports that a cache channel had no cached event for a subscriber. Webhooks report it once per interval.
    ///
    /// # Errors
    /// [`RosterError::Unavailable`].
    fn report_cache_miss<'a>(&'a self, _topic: &'a Topic) -> BoxFuture<'a, Result<(), RosterError>> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// Returns the counts of each channel, in the order of `topics`.
    ///
    /// # Errors
    /// [`RosterError::Unavailable`].
    fn occupancy<'a>(&'a self, topics: &'a [Topic]) -> BoxFuture<'a, Result<Vec<Occupancy>, RosterError>>;

    /// Returns the occupied channels of an app whose names start with `prefix`, sorted by name. Omits the channels of
    /// users.
    ///
    /// # Errors
    /// [`RosterError::Unavailable`].
    fn channels<'a>(
        &'a self,
        app: &'a AppId,
        prefix: &'a str,
    ) -> BoxFuture<'a, Result<Vec<(ChannelName, Occupancy)>, RosterError>>;

    /// Returns the cached event of a channel. [`crate::cluster::bus::Bus::publish`] stores it.
    ///
    /// # Errors
    /// [`RosterError::Unavailable`].
    fn cached<'a>(&'a self, topic: &'a Topic) -> BoxFuture<'a, Result<Option<CachedEvent>, RosterError>>;

    /// Reports this node's number of open connections of an app. Returns the cluster-wide number, including these.
    /// Nodes without a valid lease do not count.
    ///
    /// # Errors
    /// [`RosterError::Unavailable`].
    fn report_connections<'a>(&'a self, app: &'a AppId, connections: u64) -> BoxFuture<'a, Result<u64, RosterError>>;

    /// Does the same as [`Roster::report_connections`] without waiting, if the roster can. Returns `None` if it cannot.
    fn report_connections_now(&self, _app: &AppId, _connections: u64) -> Option<u64> {
        None
    }

    /// Reports this node's number of open connections, and admits up to `requested` more within a cluster-wide `quota`.
    /// If not all are admitted, requests the other nodes to report their numbers again.
    ///
    /// # Errors
    /// [`RosterError::Unavailable`]. The connections may count as admitted; the next report corrects it.
    fn claim_connections<'a>(
        &'a self,
        app: &'a AppId,
        connections: u64,
        requested: u64,
        quota: u64,
    ) -> BoxFuture<'a, Result<Claimed, RosterError>>;

    /// Returns the cluster-wide number of open connections of an app. Nodes without a valid lease do not count.
    ///
    /// # Errors
    /// [`RosterError::Unavailable`].
    fn connections<'a>(&'a self, app: &'a AppId) -> BoxFuture<'a, Result<u64, RosterError>>;

    /// Returns the largest number of calls of [`Roster::set_subscriptions`] per second for one channel. A count that
    /// becomes 0 or stops being 0 is always sent.
    fn reports_per_second(&self) -> u32 {
        u32::MAX
    }

    /// Returns the channels that the roster lists for this node although it has unsubscribed from them. This happens if
    /// Redis returned with an older state. The node may have subscribed to some of them again.
    ///
    /// # Errors
    /// [`RosterError::Unavailable`].
    fn stale_channels(&self) -> BoxFuture<'_, Result<Vec<Topic>, RosterError>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }

    /// Registers this node with the cluster, before it resynchronizes.
    ///
    /// # Errors
    /// [`RosterError::Unavailable`].
    fn renew(&self) -> BoxFuture<'_, Result<(), RosterError>> {
        Box::pin(std::future::ready(Ok(())))
    }
}
