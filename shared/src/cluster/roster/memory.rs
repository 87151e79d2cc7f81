//! The roster of a single process. Nodes that [`MemoryRoster::join_node`] adds share it, like nodes of a cluster share
//! Redis.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use futures_util::future::{BoxFuture, ready};
use hashbrown::HashMap;

use super::{Claimed, Joined, Occupancy, Roster, RosterError};
use crate::app::AppId;
use crate::cluster::bus::MemoryBus;
use crate::cluster::envelope::{Body, CachedEvent, Envelope, Position, Topic, unix_us};
use crate::cluster::node::NodeId;
use crate::protocol::{ChannelKind, ChannelName, Member, UserId};
use crate::sync::lock;

/// One node's access to a roster in memory.
pub struct MemoryRoster {
    node: NodeId,
    /// The state of all apps. Changes of members and counts lock it, but events do not.
    state: Arc<Mutex<State>>,
    bus: Arc<MemoryBus>,
    /// The start of the roster's clock.
    started: Instant,
}

#[derive(Default)]
struct State {
    channels: HashMap<AppId, BTreeMap<ChannelName, Channel>>,
    connections: HashMap<AppId, HashMap<NodeId, u64>>,
    /// The epoch of the channel that was added last. A channel that is added again gets another epoch, so its positions
    /// are not confused with earlier ones.
    epoch: u64,
}

/// A channel. It can only be reached under the lock of the state, so its changes are published in order.
struct Channel {
    members: BTreeMap<UserId, ChannelMember>,
    subscriptions: HashMap<NodeId, u64>,
    position: Position,
}

struct ChannelMember {
    member: Member,
    /// The nodes that the member is connected to.
    nodes: Vec<NodeId>,
}

impl MemoryRoster {
    /// Returns a roster with one node, which publishes changes on `bus`.
    pub fn new(bus: Arc<MemoryBus>) -> Arc<Self> {
        Arc::new(Self { node: NodeId::fresh(), state: Arc::default(), bus, started: Instant::now() })
    }

    /// Returns another node of the same roster. It publishes changes on `bus`.
    pub fn join_node(&self, bus: Arc<MemoryBus>) -> Arc<Self> {
        Arc::new(Self { node: NodeId::fresh(), state: self.state.clone(), bus, started: self.started })
    }

    /// Drops expired state. Must be called every [`crate::cluster::bus::memory::SWEEP_INTERVAL`].
    pub fn sweep(&self) {
        self.bus.sweep();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn join_now(
        &self,
        topic: &Topic,
        member: &Member,
        members_max: usize,
        with_members: bool,
    ) -> Result<Joined, RosterError> {
        let mut state = self.lock();
        let channel = state.channel_mut(topic);
        let is_full = channel.members.len() >= members_max;
        match channel.members.get_mut(&member.user_id) {
            Some(known) => {
                if !known.nodes.contains(&self.node) {
                    known.nodes.push(self.node);
                }
            }
            None if is_full => {
                state.remove_if_empty(topic);
                return Err(RosterError::Full);
            }
            None => {
                let added = ChannelMember { member: member.clone(), nodes: vec![self.node] };
                channel.members.insert(member.user_id.clone(), added);
                channel.publish_change(&self.bus, topic, Body::MemberAdded(member.clone()));
                if let Some(queues) = self.bus.queues() {
                    queues.added(topic, &member.user_id);
                }
            }
        }
        let members = with_members.then(|| channel.members());
        Ok(Joined { position: channel.position, members })
    }

    fn leave_now(&self, topic: &Topic, user_id: &UserId) {
        let mut state = self.lock();
        let Some(channel) = state.existing_channel_mut(topic) else { return };
        let has_left = channel.members.get_mut(user_id).is_some_and(|known| {
            known.nodes.retain(|node| *node != self.node);
            known.nodes.is_empty()
        });
        if has_left {
            channel.members.remove(user_id);
            channel.publish_change(&self.bus, topic, Body::MemberRemoved(user_id.clone()));
            if let Some(queues) = self.bus.queues() {
                queues.removed(topic, user_id);
            }
        }
        state.remove_if_empty(topic);
    }

    fn set_subscriptions_now(&self, topic: &Topic, subscriptions: u64, announce: bool) {
        let mut state = self.lock();
        let channel = state.channel_mut(topic);
        let before = channel.occupancy().subscriptions;
        if subscriptions == 0 {
            channel.subscriptions.remove(&self.node);
        } else {
            channel.subscriptions.insert(self.node, subscriptions);
        }
        let after = channel.occupancy().subscriptions;
        if topic.channel.kind() == ChannelKind::User {
            if (before == 0) != (after == 0) {
                channel.publish(&self.bus, topic, None, Body::UserOnline(after > 0));
            }
        } else {
            channel.publish_occupancy(&self.bus, topic, before, after, announce);
        }
        state.remove_if_empty(topic);
    }

    fn set_connections(&self, app: &AppId, connections: u64) -> u64 {
        let mut state = self.lock();
        let nodes = state.connections.entry(app.clone()).or_default();
        nodes.insert(self.node, connections);
        nodes.values().sum()
    }

    fn claim_connections_now(&self, app: &AppId, connections: u64, requested: u64, quota: u64) -> Claimed {
        let mut state = self.lock();
        let nodes = state.connections.entry(app.clone()).or_default();
        let others: u64 = nodes.iter().filter(|(node, _)| **node != self.node).map(|(_, count)| count).sum();
        let admitted = quota.saturating_sub(others.saturating_add(connections)).min(requested);
        nodes.insert(self.node, connections.saturating_add(admitted));
        let now_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        Claimed { admitted, answered_at_ms: now_ms, oldest_report_at_ms: now_ms }
    }
}

impl Roster for MemoryRoster {
    fn join<'a>(
        &'a self,
        topic: &'a Topic,
        member: &'a Member,
        members_max: usize,
        with_members: bool,
    ) -> BoxFuture<'a, Result<Joined, RosterError>> {
        Box::pin(ready(self.join_now(topic, member, members_max, with_members)))
    }

    fn leave<'a>(&'a self, topic: &'a Topic, user_id: &'a UserId) -> BoxFuture<'a, Result<(), RosterError>> {
        self.leave_now(topic, user_id);
        Box::pin(ready(Ok(())))
    }

    fn own_members<'a>(&'a self, topic: &'a Topic) -> BoxFuture<'a, Result<Vec<UserId>, RosterError>> {
        let state = self.lock();
        let own = state.channel(topic).map(|channel| channel.members_on(self.node)).unwrap_or_default();
        Box::pin(ready(Ok(own)))
    }

    fn members<'a>(&'a self, topic: &'a Topic) -> BoxFuture<'a, Result<Vec<Member>, RosterError>> {
        let state = self.lock();
        let members = state.channel(topic).map(Channel::members).unwrap_or_default();
        Box::pin(ready(Ok(members)))
    }

    fn set_subscriptions<'a>(
        &'a self,
        topic: &'a Topic,
        subscriptions: u64,
        announce: bool,
    ) -> BoxFuture<'a, Result<(), RosterError>> {
        self.set_subscriptions_now(topic, subscriptions, announce);
        Box::pin(ready(Ok(())))
    }

    fn occupancy<'a>(&'a self, topics: &'a [Topic]) -> BoxFuture<'a, Result<Vec<Occupancy>, RosterError>> {
        let state = self.lock();
        let all = topics.iter().map(|topic| state.channel(topic).map_or_else(Occupancy::default, Channel::occupancy));
        Box::pin(ready(Ok(all.collect())))
    }

    fn channels<'a>(
        &'a self,
        app: &'a AppId,
        prefix: &'a str,
    ) -> BoxFuture<'a, Result<Vec<(ChannelName, Occupancy)>, RosterError>> {
        let state = self.lock();
        // Names with the same prefix are adjacent.
        let from = (Bound::Included(prefix), Bound::Unbounded);
        let channels = state.channels.get(app).into_iter().flat_map(|channels| channels.range::<str, _>(from));
        let prefixed = channels.take_while(|(name, _)| name.as_str().starts_with(prefix));
        let occupied = prefixed.filter_map(|(name, channel)| {
            let occupancy = channel.occupancy();
            let listed = occupancy.subscriptions > 0 && name.kind() != ChannelKind::User;
            listed.then(|| (name.clone(), occupancy))
        });
        Box::pin(ready(Ok(occupied.collect())))
    }

    fn cached<'a>(&'a self, topic: &'a Topic) -> BoxFuture<'a, Result<Option<CachedEvent>, RosterError>> {
        Box::pin(ready(Ok(self.bus.cached(topic))))
    }

    fn report_cache_miss<'a>(&'a self, topic: &'a Topic) -> BoxFuture<'a, Result<(), RosterError>> {
        if let Some(queues) = self.bus.queues() {
            queues.missed(topic);
        }
        Box::pin(ready(Ok(())))
    }

    fn report_connections<'a>(&'a self, app: &'a AppId, connections: u64) -> BoxFuture<'a, Result<u64, RosterError>> {
        Box::pin(ready(Ok(self.set_connections(app, connections))))
    }

    fn report_connections_now(&self, app: &AppId, connections: u64) -> Option<u64> {
        Some(self.set_connections(app, connections))
    }

    fn claim_connections<'a>(
        &'a self,
        app: &'a AppId,
        connections: u64,
        requested: u64,
        quota: u64,
    ) -> BoxFuture<'a, Result<Claimed, RosterError>> {
        Box::pin(ready(Ok(self.claim_connections_now(app, connections, requested, quota))))
    }

    fn connections<'a>(&'a self, app: &'a AppId) -> BoxFuture<'a, Result<u64, RosterError>> {
        let total = self.lock().connections.get(app).map_or(0, |nodes| nodes.values().sum());
        Box::pin(ready(Ok(total)))
    }
}

impl State {
    fn channel(&self, topic: &Topic) -> Option<&Channel> {
        self.channels.get(&topic.app)?.get(&topic.channel)
    }

    fn existing_channel_mut(&mut self, topic: &Topic) -> Option<&mut Channel> {
        self.channels.get_mut(&topic.app)?.get_mut(&topic.channel)
    }

    /// Returns a channel. Adds it if it does not exist.
    fn channel_mut(&mut self, topic: &Topic) -> &mut Channel {
        let Self { channels, epoch, .. } = self;
        channels.entry(topic.app.clone()).or_default().entry(topic.channel.clone()).or_insert_with(|| {
            *epoch += 1;
            Channel {
                members: BTreeMap::new(),
                subscriptions: HashMap::new(),
                position: Position { epoch: *epoch, sequence: 0 },
            }
        })
    }

    fn remove_if_empty(&mut self, topic: &Topic) {
        let Some(channels) = self.channels.get_mut(&topic.app) else { return };
        let is_empty = channels
            .get(&topic.channel)
            .is_some_and(|channel| channel.members.is_empty() && channel.subscriptions.is_empty());
        if is_empty {
            channels.remove(&topic.channel);
        }
    }
}

impl Channel {
    fn members(&self) -> Vec<Member> {
        self.members.values().map(|known| known.member.clone()).collect()
    }

    fn members_on(&self, node: NodeId) -> Vec<UserId> {
        let own = self.members.iter().filter(|(_, known)| known.nodes.contains(&node));
        own.map(|(user_id, _)| user_id.clone()).collect()
    }

    fn occupancy(&self) -> Occupancy {
        Occupancy {
            subscriptions: self.subscriptions.values().sum(),
            users: u64::try_from(self.members.len()).unwrap_or(u64::MAX),
        }
    }

    /// Publishes a change of members under the next position.
    fn publish_change(&mut self, bus: &MemoryBus, topic: &Topic, body: Body) {
        self.position.sequence += 1;
        self.publish(bus, topic, Some(self.position), body);
    }

    /// Publishes and enqueues a change of the subscription count, on a channel that is not that of a user.
    fn publish_occupancy(&self, bus: &MemoryBus, topic: &Topic, before: u64, after: u64, announce: bool) {
        let queues = bus.queues();
        if let (0, 1.., Some(queues)) = (before, after, queues) {
            queues.occupied(topic);
        }
        if announce && before != after {
            self.publish(bus, topic, None, Body::SubscriptionCount(after));
            if let Some(queues) = queues {
                queues.counted(topic, after);
            }
        }
        if let (1.., 0, Some(queues)) = (before, after, queues) {
            queues.vacated(topic);
        }
    }

    fn publish(&self, bus: &MemoryBus, topic: &Topic, position: Option<Position>, body: Body) {
        bus.deliver(topic, Envelope { published_at_us: unix_us(), position, body });
    }
}

#[cfg(test)]
mod tests;
