//! The changes that a node makes to the roster. Each runs one script.

use redis::aio::MultiplexedConnection;
use redis::{FromRedisValue, RedisResult, ScriptInvocation};

use super::index::{INDEX_TTL, IndexEntry, add_to_index};
use super::{CHANNEL_TTL, RedisRoster, Report, millis, number};
use crate::app::{AppId, WebhookKind};
use crate::cluster::envelope::{Position, Topic, unix_us};
use crate::cluster::node::NodeId;
use crate::cluster::redis::{Command, scripts};
use crate::cluster::roster::{Claimed, Joined, RosterError};
use crate::limits::CACHE_MISS_INTERVAL;
use crate::protocol::{ChannelKind, Member, UserId};
use crate::sync::lock;

impl RedisRoster {
    /// Runs a script. If the channel may be missing in this node's index, adds it first: a sweep must find the channel
    /// even if this node crashes during the call.
    async fn change<T: FromRedisValue + Send + 'static>(
        &self,
        command: &'static str,
        node: NodeId,
        topic: &Topic,
        call: ScriptInvocation<'static>,
    ) -> Result<T, RosterError> {
        let entry = IndexEntry::Channel(topic.clone());
        let is_indexed = *lock(&self.registered).topics.entry(topic.clone()).or_insert(false);
        let index = self.link.keys().index(&node.to_string());
        let indexing = (!is_indexed).then(|| add_to_index(&index, [&entry]));
        let changed = self.run(command, Change { indexing, call }).await;
        self.record_change(node, entry);
        if !is_indexed {
            let mut registered = lock(&self.registered);
            match &changed {
                Ok(_) if self.node() == node => {
                    registered.topics.insert(topic.clone(), true);
                }
                // The entry may be missing. The next change adds it.
                _ => {
                    registered.topics.remove(topic);
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
        report: Report,
    ) -> Result<Joined, RosterError> {
        let node = self.node_with_lease().await?;
        let keys = self.link.keys().channel(topic);
        let webhooks = self.webhook_args(topic, report);
        let info = member.user_info.as_deref().unwrap_or_default();
        let script = match report {
            Report::New => scripts::join(),
            Report::Repeated => scripts::rejoin(),
        };
        let id = node.to_string();
        let mut call = script.key(keys.members());
        call.key(keys.member_nodes()).key(keys.meta()).key(keys.tombstone(&id));
        webhooks.add_keys(&mut call);
        call.arg(id).arg(member.user_id.as_str()).arg(info).arg(keys.topic());
        call.arg(millis(CHANNEL_TTL)).arg(members_max).arg(u8::from(with_members)).arg(unix_us());
        webhooks.add_arguments(&mut call);
        call.arg(topic.channel.as_str());
        let reply: (i64, String, String, Vec<(String, String)>) = self.change("join", node, topic, call).await?;
        let (status, epoch, sequence, list) = reply;
        match status {
            scripts::FULL => return Err(RosterError::Full),
            scripts::FENCED => {
                self.take_new_id(node);
                return Err(RosterError::Unavailable);
            }
            _ => {}
        }
        let position = Position { epoch: number(&epoch)?, sequence: number(&sequence)? };
        Ok(Joined { position, members: with_members.then(|| self.members_of(list)) })
    }

    pub(super) async fn set_subscriptions_now(
        &self,
        topic: &Topic,
        subscriptions: u64,
        announce: bool,
        report: Report,
    ) -> Result<(), RosterError> {
        let node = self.node_with_lease().await?;
        let keys = self.link.keys().channel(topic);
        let occupied = self.link.keys().occupied(&topic.app, self.link.keys().partition(topic));
        let is_user = topic.channel.kind() == ChannelKind::User;
        let webhooks = self.webhook_args(topic, report);
        // A call that frees memory or restores state must succeed even if the memory of Redis is full.
        let script = match report {
            Report::New if subscriptions > 0 => scripts::set_subscriptions(),
            _ => scripts::resend_subscriptions(),
        };
        let id = node.to_string();
        let mut call = script.key(keys.subscription_counts());
        call.key(occupied).key(keys.tombstone(&id));
        webhooks.add_keys(&mut call);
        call.arg(id).arg(subscriptions).arg(keys.topic()).arg(topic.channel.as_str()).arg(millis(CHANNEL_TTL));
        call.arg(u8::from(announce)).arg(u8::from(is_user)).arg(unix_us());
        webhooks.add_arguments(&mut call);
        let status: i64 = self.change("occupy", node, topic, call).await?;
        if status == scripts::FENCED {
            self.take_new_id(node);
            return Err(RosterError::Unavailable);
        }
        if subscriptions == 0 && lock(&self.registered).topics.remove(topic).is_some() {
            let mut command = redis::cmd("SREM");
            command.arg(self.link.keys().index(&node.to_string())).arg(topic.to_string());
            // If this fails, a later sweep checks the channel unnecessarily.
            let _ = self.run::<()>("index", command).await;
        }
        Ok(())
    }

    pub(super) async fn leave_now(&self, topic: &Topic, user_id: &UserId) -> Result<(), RosterError> {
        let (node, keys) = (self.node().to_string(), self.link.keys().channel(topic));
        let webhooks = self.webhook_args(topic, Report::New);
        // The script adds nothing, so the channel does not have to be in the index.
        let mut call = scripts::leave().key(keys.members());
        call.key(keys.member_nodes()).key(keys.meta());
        webhooks.add_keys(&mut call);
        call.arg(node).arg(user_id.as_str()).arg(keys.topic()).arg(unix_us());
        webhooks.add_arguments(&mut call);
        call.arg(topic.channel.as_str());
        self.run::<i64>("leave", call).await.map(drop)
    }

    pub(super) async fn report_cache_miss_now(&self, topic: &Topic) -> Result<(), RosterError> {
        if !self.event_types.of(&topic.app).has(WebhookKind::CacheMiss) {
            return Ok(());
        }
        let webhooks = self.webhook_args(topic, Report::New);
        let mut call = scripts::enqueue_cache_miss().key(self.link.keys().channel(topic).cache_miss_sent());
        webhooks.add_keys(&mut call);
        call.arg(millis(CACHE_MISS_INTERVAL)).arg(topic.channel.as_str());
        webhooks.add_arguments(&mut call);
        self.run::<i64>("miss", call).await.map(drop)
    }

    /// Reports this node's connections of an app and claims `requested` more. Also returns the cluster-wide number.
    pub(super) async fn claim_connections_now(
        &self,
        app: &AppId,
        connections: u64,
        requested: u64,
        quota: u64,
    ) -> Result<(u64, Claimed), RosterError> {
        let node = self.node_with_lease().await?;
        lock(&self.registered).connections.insert(app.clone(), connections);
        let (keys, id, entry) = (self.link.keys(), node.to_string(), IndexEntry::Connections(app.clone()));
        let mut call = scripts::claim_connections().key(keys.connections(app));
        call.key(keys.connection_reports(app)).key(keys.nodes()).key(keys.index(&id)).key(keys.lease_grace());
        call.arg(id).arg(connections).arg(requested).arg(quota);
        call.arg(millis(CHANNEL_TTL)).arg(millis(INDEX_TTL)).arg(entry.to_string()).arg(keys.recount());
        call.arg(app.as_str());
        let claimed = self.run("connect", call).await;
        self.record_change(node, entry);
        let (total, admitted, answered_at_ms, oldest_report_at_ms) = claimed?;
        Ok((total, Claimed { admitted, answered_at_ms, oldest_report_at_ms }))
    }
}

/// A change of a channel, after the addition to the index on the same connection.
struct Change {
    indexing: Option<ScriptInvocation<'static>>,
    call: ScriptInvocation<'static>,
}

impl<T: FromRedisValue + Send> Command<T> for Change {
    async fn send(&self, connection: &mut MultiplexedConnection) -> RedisResult<T> {
        if let Some(indexing) = &self.indexing {
            indexing.invoke_async::<i64>(connection).await?;
        }
        self.call.invoke_async(connection).await
    }
}
