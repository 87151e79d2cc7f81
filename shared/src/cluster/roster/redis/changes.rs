//! The changes that a node makes to the roster, each by one script.

use redis::aio::MultiplexedConnection;
use redis::{FromRedisValue, RedisResult, ScriptInvocation};

use super::{CHANNEL_TTL, Entry, INDEX_TTL, RedisRoster, lock, millis, number};
use crate::app::{AppId, WebhookKind};
use crate::cluster::envelope::{Position, Topic, unix_us};
use crate::cluster::node::NodeId;
use crate::cluster::redis::{Command, scripts};
use crate::cluster::roster::{Claimed, Joined, RosterError};
use crate::limits::CACHE_MISS_INTERVAL;
use crate::protocol::{ChannelKind, Member, UserId};

impl RedisRoster {
    /// Runs a script after noting in the index that this node may hold the channel: a sweep must find it even if this
    /// node dies right after.
    async fn change<T: FromRedisValue + Send + 'static>(
        &self,
        command: &'static str,
        node: NodeId,
        topic: &Topic,
        call: ScriptInvocation<'static>,
    ) -> Result<T, RosterError> {
        let is_noted = *lock(&self.held).topics.entry(topic.clone()).or_insert(false);
        let note = (!is_noted).then(|| note_in_index(&self.link.keys().index(&node.to_string()), &[topic.to_string()]));
        let changed = self.run(command, Change { note, call }).await;
        self.changed(node, Entry::Channel(topic.clone()));
        if !is_noted {
            let mut held = lock(&self.held);
            match &changed {
                Ok(_) if self.node() == node => {
                    held.topics.insert(topic.clone(), true);
                }
                // The note may be missing; the next change makes it again.
                _ => {
                    held.topics.remove(topic);
                }
            }
        }
        changed
    }

    pub(super) async fn join_now(
        &self,
        topic: &Topic,
        member: &Member,
        members_max: usize,
        with_members: bool,
        is_again: bool,
    ) -> Result<Joined, RosterError> {
        let node = self.standing_node().await?;
        let keys = self.link.keys().channel(topic);
        let hooks = self.hooks(topic, is_again);
        let info = member.user_info.as_deref().unwrap_or_default();
        let script = if is_again { scripts::rejoin() } else { scripts::join() };
        let id = node.to_string();
        let mut call = script.key(keys.members());
        call.key(keys.holders()).key(keys.meta()).key(keys.tombstone(&id));
        hooks.add_keys(&mut call);
        call.arg(id).arg(member.user_id.as_str()).arg(info).arg(keys.topic());
        call.arg(millis(CHANNEL_TTL)).arg(members_max).arg(u8::from(with_members)).arg(unix_us());
        hooks.add_arguments(&mut call);
        call.arg(topic.channel.as_str());
        let answer: (i64, String, String, Vec<(String, String)>) = self.change("join", node, topic, call).await?;
        let (status, epoch, sequence, list) = answer;
        match status {
            scripts::FULL => return Err(RosterError::Full),
            scripts::FENCED => {
                self.fenced(node);
                return Err(RosterError::Unavailable);
            }
            _ => {}
        }
        let position = Position { epoch: number(&epoch)?, sequence: number(&sequence)? };
        Ok(Joined { position, members: with_members.then(|| self.members_of(list)) })
    }

    pub(super) async fn occupy_now(
        &self,
        topic: &Topic,
        subscriptions: u64,
        announce: bool,
        is_again: bool,
    ) -> Result<(), RosterError> {
        let node = self.standing_node().await?;
        let keys = self.link.keys().channel(topic);
        let occupied = self.link.keys().occupied(&topic.app, self.link.keys().partition(topic));
        let is_user = topic.channel.kind() == ChannelKind::User;
        let hooks = self.hooks(topic, is_again);
        // What frees memory or keeps what is there must pass when Redis' memory is full.
        let script =
            if is_again || subscriptions == 0 { scripts::resend_subscriptions() } else { scripts::set_subscriptions() };
        let id = node.to_string();
        let mut call = script.key(keys.occupancy());
        call.key(occupied).key(keys.tombstone(&id));
        hooks.add_keys(&mut call);
        call.arg(id).arg(subscriptions).arg(keys.topic()).arg(topic.channel.as_str()).arg(millis(CHANNEL_TTL));
        call.arg(u8::from(announce)).arg(u8::from(is_user)).arg(unix_us());
        hooks.add_arguments(&mut call);
        let status: i64 = self.change("occupy", node, topic, call).await?;
        if status == scripts::FENCED {
            self.fenced(node);
            return Err(RosterError::Unavailable);
        }
        if subscriptions == 0 && lock(&self.held).topics.remove(topic).is_some() {
            let mut command = redis::cmd("SREM");
            command.arg(self.link.keys().index(&node.to_string())).arg(topic.to_string());
            // Left there it would cost a later sweep one look.
            let _ = self.run::<()>("index", command).await;
        }
        Ok(())
    }

    pub(super) async fn leave_now(&self, topic: &Topic, user_id: &UserId) -> Result<(), RosterError> {
        let (node, keys) = (self.node().to_string(), self.link.keys().channel(topic));
        let hooks = self.hooks(topic, false);
        // Nothing is entered, so nothing has to be noted in the index.
        let mut call = scripts::leave().key(keys.members());
        call.key(keys.holders()).key(keys.meta());
        hooks.add_keys(&mut call);
        call.arg(node).arg(user_id.as_str()).arg(keys.topic()).arg(unix_us());
        hooks.add_arguments(&mut call);
        call.arg(topic.channel.as_str());
        self.run::<i64>("leave", call).await.map(drop)
    }

    pub(super) async fn miss_now(&self, topic: &Topic) -> Result<(), RosterError> {
        if !self.event_types.of(&topic.app).has(WebhookKind::CacheMiss) {
            return Ok(());
        }
        let hooks = self.hooks(topic, false);
        let mut call = scripts::enqueue_cache_miss().key(self.link.keys().channel(topic).cache_miss_sent());
        hooks.add_keys(&mut call);
        call.arg(millis(CACHE_MISS_INTERVAL)).arg(topic.channel.as_str());
        hooks.add_arguments(&mut call);
        self.run::<i64>("miss", call).await.map(drop)
    }

    /// Reports the app's connections and claims places for `wanted` more. Returns the total too.
    pub(super) async fn claim_now(
        &self,
        app: &AppId,
        connections: u64,
        wanted: u64,
        quota: u64,
    ) -> Result<(u64, Claimed), RosterError> {
        let node = self.standing_node().await?;
        lock(&self.held).connections.insert(app.clone(), connections);
        let (keys, id) = (self.link.keys(), node.to_string());
        let mut call = scripts::claim_connections().key(keys.connections(app));
        call.key(keys.connection_reports(app)).key(keys.nodes()).key(keys.index(&id)).key(keys.lease_grace());
        call.arg(id).arg(connections).arg(wanted).arg(quota);
        call.arg(millis(CHANNEL_TTL)).arg(millis(INDEX_TTL)).arg(format!("{app}/")).arg(keys.recount());
        call.arg(app.as_str());
        let claimed = self.run("connect", call).await;
        self.changed(node, Entry::Connections(app.clone()));
        let (total, admitted, answered_at_ms, oldest_report_at_ms) = claimed?;
        Ok((total, Claimed { admitted, answered_at_ms, oldest_report_at_ms }))
    }
}

/// A change that is made after the note in the index, on the same connection.
struct Change {
    note: Option<ScriptInvocation<'static>>,
    call: ScriptInvocation<'static>,
}

impl<T: FromRedisValue + Send> Command<T> for Change {
    async fn send(&self, connection: &mut MultiplexedConnection) -> RedisResult<T> {
        if let Some(note) = &self.note {
            note.invoke_async::<i64>(connection).await?;
        }
        self.call.invoke_async(connection).await
    }
}

pub(super) fn note_in_index(index: &str, entries: &[String]) -> ScriptInvocation<'static> {
    let mut call = scripts::add_to_index().key(index);
    call.arg(millis(INDEX_TTL)).arg(entries);
    call
}
