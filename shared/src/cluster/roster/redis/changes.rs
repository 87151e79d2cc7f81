//! The changes that a node makes to the roster, each by one script.

use redis::aio::MultiplexedConnection;
use redis::{FromRedisValue, RedisError, ScriptInvocation};

use super::{CHANNEL_TTL, Entry, INDEX_TTL, RedisRoster, lock, millis, number};
use crate::app::{AppId, WebhookKind};
use crate::cluster::envelope::{Position, Topic, unix_us};
use crate::cluster::node::NodeId;
use crate::cluster::redis::scripts;
use crate::cluster::roster::{Claimed, Joined, RosterError};
use crate::cluster::webhook::MISS_PAUSE;
use crate::protocol::{ChannelKind, Member, UserId};

impl RedisRoster {
    /// Runs a script after noting in the index that this node may hold the channel: a sweep must find it even if this
    /// node dies right after.
    async fn change<T: FromRedisValue + Send + 'static>(
        &self,
        command: &'static str,
        node: NodeId,
        topic: &Topic,
        script: impl FnOnce() -> &'static redis::Script + Send + 'static,
        fill: impl FnOnce(&mut ScriptInvocation<'_>) + Send + 'static,
    ) -> Result<T, RosterError> {
        let is_noted = *lock(&self.held).topics.entry(topic.clone()).or_insert(false);
        let index = (!is_noted).then(|| (self.link.keys().index(&node.to_string()), topic.to_string()));
        let changed = self
            .run(command, move |mut connection| {
                Box::pin(async move {
                    if let Some((index, entry)) = index {
                        note_in_index(&mut connection, &index, &[entry]).await?;
                    }
                    let script = script();
                    let mut call = script.prepare_invoke();
                    fill(&mut call);
                    call.invoke_async(&mut connection).await
                })
            })
            .await;
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
        let (hooks, channel) = (self.hooks(topic, is_again), topic.channel.to_string());
        let (user_id, info) = (member.user_id.clone(), member.user_info.clone());
        let answer: (i64, String, String, Vec<(String, String)>) = self
            .change("join", node, topic, if is_again { scripts::rejoin } else { scripts::join }, move |call| {
                let node = node.to_string();
                call.key(keys.members()).key(keys.holders()).key(keys.meta()).key(keys.tombstone(&node));
                hooks.add_keys(call);
                call.arg(&node).arg(user_id.as_str()).arg(info.as_deref().unwrap_or_default()).arg(keys.topic());
                call.arg(millis(CHANNEL_TTL)).arg(members_max).arg(u8::from(with_members)).arg(unix_us());
                hooks.add_arguments(call);
                call.arg(channel);
            })
            .await?;
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
        let (hooks, name) = (self.hooks(topic, is_again), topic.channel.to_string());
        // What frees memory or keeps what is there must pass when Redis' memory is full.
        let script =
            if is_again || subscriptions == 0 { scripts::resend_subscriptions } else { scripts::set_subscriptions };
        let status: i64 = self
            .change("occupy", node, topic, script, move |call| {
                let node = node.to_string();
                call.key(keys.occupancy()).key(occupied).key(keys.tombstone(&node));
                hooks.add_keys(call);
                call.arg(node).arg(subscriptions).arg(keys.topic()).arg(name).arg(millis(CHANNEL_TTL));
                call.arg(u8::from(announce)).arg(u8::from(is_user)).arg(unix_us());
                hooks.add_arguments(call);
            })
            .await?;
        if status == scripts::FENCED {
            self.fenced(node);
            return Err(RosterError::Unavailable);
        }
        if subscriptions == 0 && lock(&self.held).topics.remove(topic).is_some() {
            let (index, entry) = (self.link.keys().index(&node.to_string()), topic.to_string());
            // Left there it would cost a later sweep one look.
            let _ = self
                .run("index", move |mut connection| {
                    Box::pin(async move { redis::cmd("SREM").arg(index).arg(entry).exec_async(&mut connection).await })
                })
                .await;
        }
        Ok(())
    }

    pub(super) async fn leave_now(&self, topic: &Topic, user_id: &UserId) -> Result<(), RosterError> {
        let (node, keys) = (self.node().to_string(), self.link.keys().channel(topic));
        let (user_id, hooks, channel) = (user_id.clone(), self.hooks(topic, false), topic.channel.to_string());
        // Nothing is entered, so nothing has to be noted in the index.
        self.run("leave", move |mut connection| {
            Box::pin(async move {
                let script = scripts::leave();
                let mut call = script.key(keys.members());
                call.key(keys.holders()).key(keys.meta());
                hooks.add_keys(&mut call);
                call.arg(node).arg(user_id.as_str()).arg(keys.topic()).arg(unix_us());
                hooks.add_arguments(&mut call);
                call.arg(channel);
                call.invoke_async::<i64>(&mut connection).await.map(drop)
            })
        })
        .await
    }

    pub(super) async fn miss_now(&self, topic: &Topic) -> Result<(), RosterError> {
        if !self.event_types.of(&topic.app).has(WebhookKind::CacheMiss) {
            return Ok(());
        }
        let (key, hooks, channel) =
            (self.link.keys().channel(topic).cache_miss_sent(), self.hooks(topic, false), topic.channel.to_string());
        self.run("miss", move |mut connection| {
            Box::pin(async move {
                let script = scripts::enqueue_cache_miss();
                let mut call = script.key(key);
                hooks.add_keys(&mut call);
                call.arg(millis(MISS_PAUSE)).arg(channel);
                hooks.add_arguments(&mut call);
                call.invoke_async::<i64>(&mut connection).await.map(drop)
            })
        })
        .await
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
        let (keys, entry) = (self.link.keys(), Entry::Connections(app.clone()));
        let (counts, reports, nodes) = (keys.connections(app), keys.connection_reports(app), keys.nodes());
        let (index, quiet) = (keys.index(&node.to_string()), keys.lease_grace());
        let (recount, app) = (keys.recount(), app.to_string());
        let claimed = self
            .run("connect", move |mut connection| {
                Box::pin(async move {
                    let script = scripts::claim_connections();
                    let mut call = script.key(counts);
                    call.key(reports).key(nodes).key(index).key(quiet);
                    call.arg(node.to_string()).arg(connections).arg(wanted).arg(quota);
                    call.arg(millis(CHANNEL_TTL)).arg(millis(INDEX_TTL)).arg(format!("{app}/")).arg(recount).arg(app);
                    call.invoke_async(&mut connection).await
                })
            })
            .await;
        self.changed(node, entry);
        let (total, admitted, answered_at_ms, oldest_report_at_ms) = claimed?;
        Ok((total, Claimed { admitted, answered_at_ms, oldest_report_at_ms }))
    }
}

pub(super) async fn note_in_index(
    connection: &mut MultiplexedConnection,
    index: &str,
    entries: &[String],
) -> Result<(), RedisError> {
    let script = scripts::add_to_index();
    let mut call = script.key(index);
    call.arg(millis(INDEX_TTL)).arg(entries);
    call.invoke_async::<i64>(connection).await.map(drop)
}
