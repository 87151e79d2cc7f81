//! The queries of the roster, which change nothing in Redis.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use redis::Pipeline;

use super::{BATCH_MAX, RedisRoster, from_value};
use crate::app::AppId;
use crate::cluster::envelope::wire::info_of;
use crate::cluster::envelope::{CachedEvent, Position, Topic};
use crate::cluster::redis::scripts;
use crate::cluster::roster::{Occupancy, RosterError};
use crate::protocol::{ChannelKind, ChannelName, Member, UserId};

impl RedisRoster {
    pub(super) async fn own_members_now(&self, topic: &Topic) -> Result<Vec<UserId>, RosterError> {
        let node = self.node().to_string();
        let mut command = redis::cmd("HGETALL");
        command.arg(self.link.keys().channel(topic).member_nodes());
        let users: Vec<(String, String)> = self.run("held", command).await?;
        let own = users.iter().filter(|(_, node_ids)| node_ids.contains(&node));
        Ok(own.map(|(user_id, _)| UserId::from(user_id.as_str())).collect())
    }

    pub(super) async fn members_now(&self, topic: &Topic) -> Result<Vec<Member>, RosterError> {
        let mut command = redis::cmd("HGETALL");
        command.arg(self.link.keys().channel(topic).members());
        self.run("members", command).await.map(|list| self.members_of(list))
    }

    /// Converts ids and infos to members, sorted by id. Omits malformed entries and counts them.
    pub(super) fn members_of(&self, list: Vec<(String, String)>) -> Vec<Member> {
        let mut members: Vec<Member> = Vec::with_capacity(list.len());
        for (user_id, info) in &list {
            match info_of(info) {
                Ok(user_info) => members.push(Member { user_id: UserId::from(user_id.as_str()), user_info }),
                Err(_) => self.metrics.dropped("malformed_member"),
            }
        }
        members.sort_by(|a, b| a.user_id.cmp(&b.user_id));
        members
    }

    pub(super) async fn occupancy_now(&self, topics: &[Topic]) -> Result<Vec<Occupancy>, RosterError> {
        let mut all = Vec::with_capacity(topics.len());
        for topics in topics.chunks(BATCH_MAX) {
            let mut pipeline = Pipeline::with_capacity(2 * topics.len());
            for topic in topics {
                let keys = self.link.keys().channel(topic);
                pipeline.cmd("HGETALL").arg(keys.subscription_counts()).cmd("HLEN").arg(keys.members());
            }
            let replies: Vec<redis::Value> = self.run("occupancy", pipeline).await?;
            let (pairs, _) = replies.as_chunks::<2>();
            for [nodes, users] in pairs {
                let nodes: HashMap<String, u64> = from_value(nodes)?;
                let counted =
                    nodes.iter().filter(|(node, _)| *node != scripts::COUNTS_ANNOUNCED_FIELD).map(|(_, count)| count);
                all.push(Occupancy { subscriptions: counted.sum(), users: from_value(users)? });
            }
        }
        Ok(all)
    }

    pub(super) async fn channels_now(
        &self,
        app: &AppId,
        prefix: &str,
    ) -> Result<Vec<(ChannelName, Occupancy)>, RosterError> {
        let keys = self.link.keys();
        let mut pipeline = redis::pipe();
        for partition in 0..keys.partitions() {
            pipeline.cmd("SMEMBERS").arg(keys.occupied(app, partition));
        }
        let names: Vec<Vec<String>> = self.run("channels", pipeline).await?;
        let mut names: Vec<ChannelName> = names
            .iter()
            .flatten()
            .filter(|name| name.starts_with(prefix))
            .filter_map(|name| ChannelName::parse(name, usize::MAX).ok())
            .filter(|name| name.kind() != ChannelKind::User)
            .collect();
        names.sort();
        let topics: Vec<Topic> = names.iter().map(|name| Topic::new(app, name)).collect();
        let occupancies = self.occupancy_now(&topics).await?;
        // The set may list a channel whose nodes have all crashed. Its counts are swept or expire.
        Ok(names.into_iter().zip(occupancies).filter(|(_, occupancy)| occupancy.subscriptions > 0).collect())
    }

    pub(super) async fn cached_now(&self, topic: &Topic) -> Result<Option<CachedEvent>, RosterError> {
        let key = self.link.keys().channel(topic).cached_event();
        let mut pipeline = redis::pipe();
        pipeline.cmd("GET").arg(&key).cmd("PTTL").arg(&key);
        let (text, ttl_ms): (Option<Vec<u8>>, i64) = self.run("kept", pipeline).await?;
        let Some(text) = text else { return Ok(None) };
        // The text is the position, a line break and the event.
        let parse = || {
            let end = text.iter().position(|byte| *byte == b'\n')?;
            let (epoch, sequence) = std::str::from_utf8(&text[..end]).ok()?.split_once(' ')?;
            let position = Position { epoch: epoch.parse().ok()?, sequence: sequence.parse().ok()? };
            std::str::from_utf8(&text[end + 1..]).ok()?;
            let frame = Bytes::copy_from_slice(&text[end + 1..]);
            Some(CachedEvent { frame, position, ttl: Duration::from_millis(u64::try_from(ttl_ms).ok()?) })
        };
        let event = parse();
        if event.is_none() {
            self.metrics.dropped("malformed_kept");
        }
        Ok(event)
    }

    pub(super) async fn connections_now(&self, app: &AppId) -> Result<u64, RosterError> {
        let keys = self.link.keys();
        let mut call = scripts::count_connections().key(keys.connections(app));
        call.key(keys.nodes()).key(keys.lease_grace());
        self.run("connections", call).await
    }
}
