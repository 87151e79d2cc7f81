//! The roster of a single process. Nodes made by [`MemoryRoster::join_node`] share it, as nodes of a cluster share Redis.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use futures_util::future::{BoxFuture, ready};
use hashbrown::HashMap;

use super::{Claimed, Joined, Occupancy, Roster, RosterError};
use crate::app::AppId;
use crate::cluster::bus::MemoryBus;
use crate::cluster::envelope::{Body, CachedEvent, Envelope, Position, Topic, unix_us};
use crate::cluster::node::NodeId;
use crate::protocol::{ChannelKind, ChannelName, Member, UserId};

/// One node's handle to the roster in memory.
pub struct MemoryRoster {
    node: NodeId,
    /// One lock for all: it is taken when someone joins or leaves, never per event.
    state: Arc<Mutex<State>>,
    bus: Arc<MemoryBus>,
    /// Where its clock starts.
    started: Instant,
}

#[derive(Default)]
struct State {
    channels: HashMap<AppId, BTreeMap<ChannelName, Channel>>,
    connections: HashMap<AppId, HashMap<NodeId, u64>>,
    /// The epoch of the channel that was occupied last. Each life of a channel has its own, so that no node takes the
    /// changes of a new life for those of an old one.
    epoch: u64,
}

struct Channel {
    members: BTreeMap<UserId, Holders>,
    subscriptions: HashMap<NodeId, u64>,
    position: Position,
}

struct Holders {
    member: Member,
    nodes: Vec<NodeId>,
}

impl MemoryRoster {
    /// A roster with one node, which announces on `bus`.
    pub fn new(bus: Arc<MemoryBus>) -> Arc<Self> {
        Arc::new(Self { node: NodeId::fresh(), state: Arc::default(), bus, started: Instant::now() })
    }

    /// Another node of the same roster, which announces on its own place on the bus.
    pub fn join_node(&self, bus: Arc<MemoryBus>) -> Arc<Self> {
        Arc::new(Self { node: NodeId::fresh(), state: self.state.clone(), bus, started: self.started })
    }

    /// Forgets what is over; to be called every [`crate::cluster::bus::memory::SWEEP_INTERVAL`].
    pub fn sweep(&self) {
        self.bus.sweep();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic under this lock leaves maps that are whole: every change to one is a single call.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Called under the lock, so that announcements come in the order of the changes.
    fn announce(&self, topic: &Topic, position: Option<Position>, body: Body) {
        self.bus.deliver(topic, Envelope { published_at_us: unix_us(), position, body });
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
        let full = channel.members.len() >= members_max;
        match channel.members.get_mut(&member.user_id) {
            Some(holders) => {
                if !holders.nodes.contains(&self.node) {
                    holders.nodes.push(self.node);
                }
            }
            None if full => {
                state.forget_if_empty(topic);
                return Err(RosterError::Full);
            }
            None => {
                let holders = Holders { member: member.clone(), nodes: vec![self.node] };
                channel.members.insert(member.user_id.clone(), holders);
                let position = channel.advance();
                self.announce(topic, Some(position), Body::MemberAdded(member.clone()));
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
        let Some(channel) = state.channel_if_known(topic) else { return };
        let gone = channel.members.get_mut(user_id).is_some_and(|holders| {
            holders.nodes.retain(|node| *node != self.node);
            holders.nodes.is_empty()
        });
        if gone {
            channel.members.remove(user_id);
            let position = channel.advance();
            self.announce(topic, Some(position), Body::MemberRemoved(user_id.clone()));
            if let Some(queues) = self.bus.queues() {
                queues.removed(topic, user_id);
            }
        }
        state.forget_if_empty(topic);
    }

    fn occupy_now(&self, topic: &Topic, subscriptions: u64, announce: bool) {
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
                self.announce(topic, None, Body::UserOnline(after > 0));
            }
        } else {
            self.occupancy_changed(topic, before, after, announce);
        }
        state.forget_if_empty(topic);
    }

    fn connect_now(&self, app: &AppId, connections: u64) -> u64 {
        let mut state = self.lock();
        let nodes = state.connections.entry(app.clone()).or_default();
        nodes.insert(self.node, connections);
        nodes.values().sum()
    }

    fn claim_now(&self, app: &AppId, connections: u64, wanted: u64, quota: u64) -> Claimed {
        let mut state = self.lock();
        let nodes = state.connections.entry(app.clone()).or_default();
        let others: u64 = nodes.iter().filter(|(node, _)| **node != self.node).map(|(_, count)| count).sum();
        let admitted = quota.saturating_sub(others.saturating_add(connections)).min(wanted);
        nodes.insert(self.node, connections.saturating_add(admitted));
        let now_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        Claimed { admitted, answered_at_ms: now_ms, oldest_report_at_ms: now_ms }
    }

    fn occupancy_changed(&self, topic: &Topic, before: u64, after: u64, announce: bool) {
        let queues = self.bus.queues();
        if let (0, 1.., Some(queues)) = (before, after, queues) {
            queues.occupied(topic);
        }
        if announce && before != after {
            self.announce(topic, None, Body::SubscriptionCount(after));
            if let Some(queues) = queues {
                queues.counted(topic, after);
            }
        }
        if let (1.., 0, Some(queues)) = (before, after, queues) {
            queues.vacated(topic);
        }
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
        let held = state.channel(topic).map(|channel| channel.held_by(self.node)).unwrap_or_default();
        Box::pin(ready(Ok(held)))
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
        self.occupy_now(topic, subscriptions, announce);
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
        // Names with one prefix stand together.
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
        Box::pin(ready(Ok(self.connect_now(app, connections))))
    }

    fn report_connections_now(&self, app: &AppId, connections: u64) -> Option<u64> {
        Some(self.connect_now(app, connections))
    }

    fn claim_connections<'a>(
        &'a self,
        app: &'a AppId,
        connections: u64,
        wanted: u64,
        quota: u64,
    ) -> BoxFuture<'a, Result<Claimed, RosterError>> {
        Box::pin(ready(Ok(self.claim_now(app, connections, wanted, quota))))
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

    fn channel_if_known(&mut self, topic: &Topic) -> Option<&mut Channel> {
        self.channels.get_mut(&topic.app)?.get_mut(&topic.channel)
    }

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

    fn forget_if_empty(&mut self, topic: &Topic) {
        let Some(channels) = self.channels.get_mut(&topic.app) else { return };
        let empty = channels
            .get(&topic.channel)
            .is_some_and(|channel| channel.members.is_empty() && channel.subscriptions.is_empty());
        if empty {
            channels.remove(&topic.channel);
        }
    }
}

impl Channel {
    fn members(&self) -> Vec<Member> {
        self.members.values().map(|holders| holders.member.clone()).collect()
    }

    fn held_by(&self, node: NodeId) -> Vec<UserId> {
        let held = self.members.iter().filter(|(_, holders)| holders.nodes.contains(&node));
        held.map(|(user_id, _)| user_id.clone()).collect()
    }

    fn advance(&mut self) -> Position {
        self.position.sequence += 1;
        self.position
    }

    fn occupancy(&self) -> Occupancy {
        Occupancy {
            subscriptions: self.subscriptions.values().sum(),
            users: u64::try_from(self.members.len()).unwrap_or(u64::MAX),
        }
    }
}

#[cfg(test)]
mod tests;
