//! Taking dead nodes out of every channel they held. Any node may do it, and may die doing it: every step may be run
//! again, and what is left to do stands in Redis.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use rand::Rng;

use super::{RedisRoster, millis};
use crate::app::AppId;
use crate::envelope::{Topic, unix_us};
use crate::protocol::{ChannelKind, ChannelName};
use crate::redis::scripts;
use crate::roster::RosterError;

/// How often a node looks for dead ones, half of it more or less, so that not all look at once.
const INTERVAL: Duration = Duration::from_secs(3);

/// How long past its lease a node is left alone.
const GRACE: Duration = Duration::from_secs(5);

/// How long one node has another to itself for sweeping.
const CLAIM: Duration = Duration::from_secs(30);

/// Dead nodes that one look takes.
const NODES_MAX: usize = 32;

/// Users that one script takes out: Redis does nothing else meanwhile.
const EVICT_BATCH: usize = 256;

/// Channels that are read from an index at a time.
const INDEX_BATCH: usize = 100;

/// Channels that are swept at a time: enough to be through thousands of them in a second.
const ENTRIES: usize = 32;

/// How long a channel remembers that a node was swept: longer than any node is paused and any command is under way.
const TOMBSTONE: Duration = Duration::from_secs(600);

impl RedisRoster {
    pub(super) async fn keep_sweeping(self: &Arc<Self>) -> Infallible {
        loop {
            tokio::time::sleep(INTERVAL.mul_f64(rand::rng().random_range(0.5..=1.5))).await;
            for node in self.dead_nodes().await.unwrap_or_default() {
                self.sweep_node(&node).await;
            }
        }
    }

    async fn dead_nodes(&self) -> Result<Vec<String>, RosterError> {
        let (nodes, dead) = (self.link.keys().nodes(), self.link.keys().dead());
        self.run("claim", move |mut connection| {
            Box::pin(async move {
                let script = scripts::claim();
                let mut call = script.key(nodes);
                call.key(dead).arg(millis(GRACE)).arg(NODES_MAX);
                call.invoke_async(&mut connection).await
            })
        })
        .await
    }

    /// Sweeps one dead node, unless another node is at it. What is left when something fails is found by the next look.
    async fn sweep_node(&self, node: &str) {
        match self.try_sweep(node).await {
            Ok(None) => {}
            Ok(Some(removed)) => {
                self.metrics.evictions.inc();
                self.metrics.evicted_members.inc_by(removed);
                tracing::info!(node, members = removed, "swept a dead node");
            }
            Err(error) => tracing::debug!(node, %error, "sweep interrupted, to be taken up again"),
        }
    }

    pub(super) async fn try_sweep(&self, node: &str) -> Result<Option<u64>, RosterError> {
        let claim = self.link.keys().sweep(node);
        if !self.claim(claim.clone()).await? {
            return Ok(None);
        }
        let index = self.link.keys().index(node);
        let (mut cursor, mut removed, mut is_whole) = (0, 0, true);
        loop {
            let (next, entries) = self.scan_index(&index, cursor).await?;
            let swept: Vec<_> = stream::iter(entries)
                .map(async |entry| (self.sweep_entry(node, &entry).await, entry))
                .buffer_unordered(ENTRIES)
                .collect()
                .await;
            let mut done = Vec::with_capacity(swept.len());
            for (result, entry) in swept {
                match result {
                    Ok(members) => {
                        removed += members;
                        done.push(entry);
                    }
                    // It stays in the index until someone puts the channel right; the others must not wait.
                    Err(RosterError::Damaged) => is_whole = false,
                    Err(error) => return Err(error),
                }
            }
            self.forget_entries(&index, done).await?;
            cursor = next;
            if cursor == 0 {
                break;
            }
        }
        if !is_whole {
            return Ok(Some(removed));
        }
        let (dead, node) = (self.link.keys().dead(), node.to_owned());
        self.run("swept", move |mut connection| {
            Box::pin(async move {
                let mut pipeline = redis::pipe();
                pipeline.zrem(&dead, &node).ignore().del(&claim).ignore();
                pipeline.exec_async(&mut connection).await
            })
        })
        .await?;
        Ok(Some(removed))
    }

    async fn scan_index(&self, index: &str, cursor: u64) -> Result<(u64, Vec<String>), RosterError> {
        let index = index.to_owned();
        self.run("sweep_index", move |mut connection| {
            Box::pin(async move {
                let mut command = redis::cmd("SSCAN");
                command.arg(index).arg(cursor).arg("COUNT").arg(INDEX_BATCH);
                command.query_async(&mut connection).await
            })
        })
        .await
    }

    async fn forget_entries(&self, index: &str, entries: Vec<String>) -> Result<(), RosterError> {
        if entries.is_empty() {
            return Ok(());
        }
        let index = index.to_owned();
        self.run("sweep_index", move |mut connection| {
            Box::pin(async move { redis::cmd("SREM").arg(index).arg(entries).exec_async(&mut connection).await })
        })
        .await
    }

    async fn claim(&self, key: String) -> Result<bool, RosterError> {
        let taken: Option<String> = self
            .run("sweep_claim", move |mut connection| {
                Box::pin(async move {
                    let mut command = redis::cmd("SET");
                    command.arg(key).arg("1").arg("NX").arg("PX").arg(millis(CLAIM));
                    command.query_async(&mut connection).await
                })
            })
            .await?;
        Ok(taken.is_some())
    }

    /// One entry of an index: `APP/CHANNEL`, or `APP/` for the app's connections. Returns how many users are gone.
    async fn sweep_entry(&self, node: &str, entry: &str) -> Result<u64, RosterError> {
        // An entry that is not ours is only taken off the list.
        let Some((app, channel)) = entry.split_once('/') else { return Ok(0) };
        let app = AppId::from(app);
        if channel.is_empty() {
            let keys = self.link.keys();
            let (counts, reports, node) = (keys.connections(&app), keys.connection_reports(&app), node.to_owned());
            self.run("sweep_connections", move |mut connection| {
                Box::pin(async move {
                    let mut pipeline = redis::pipe();
                    pipeline.hdel(&counts, &node).ignore().hdel(&reports, &node).ignore();
                    pipeline.exec_async(&mut connection).await
                })
            })
            .await?;
            return Ok(0);
        }
        let Ok(channel) = ChannelName::parse(channel, usize::MAX) else { return Ok(0) };
        let topic = Topic::new(&app, &channel);
        let mut removed = 0;
        loop {
            let (some, left) = self.evict(node, &topic).await?;
            removed += some;
            if left == 0 {
                return Ok(removed);
            }
        }
    }

    async fn evict(&self, node: &str, topic: &Topic) -> Result<(u64, u64), RosterError> {
        let keys = self.link.keys().channel(topic);
        let occupied = self.link.keys().occupied(&topic.app, self.link.keys().partition(topic));
        let is_user = topic.channel.kind() == ChannelKind::User;
        let (node, name, hooks) = (node.to_owned(), topic.channel.to_string(), self.hooks(topic, false));
        self.run("evict", move |mut connection| {
            Box::pin(async move {
                let script = scripts::evict();
                let mut call = script.key(keys.members());
                call.key(keys.holders()).key(keys.meta());
                call.key(keys.occupancy()).key(occupied).key(keys.tombstone(&node));
                hooks.add_keys(&mut call);
                call.arg(&node).arg(keys.topic()).arg(name).arg(EVICT_BATCH).arg(millis(TOMBSTONE));
                call.arg(u8::from(is_user)).arg(unix_us());
                hooks.add_arguments(&mut call);
                call.invoke_async(&mut connection).await
            })
        })
        .await
    }
}
