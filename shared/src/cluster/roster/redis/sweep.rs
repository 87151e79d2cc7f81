//! Finding dead nodes and removing them from every channel they held. Any node may do it, and may die doing it: every step
//! may be repeated, and what is left to do stands in Redis.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt};
use rand::Rng;
use tokio::sync::watch;

use super::lease::NODE_TOMBSTONE_TTL;
use super::lease_watch::Watch;
use super::{RedisRoster, lock, millis};
use crate::app::AppId;
use crate::cluster::envelope::{Topic, unix_us};
use crate::cluster::redis::scripts;
use crate::cluster::roster::RosterError;
use crate::excerpt::{NAME_MAX, excerpt};
use crate::protocol::{ChannelKind, ChannelName};

/// Dead nodes that are swept at a time. Others wait for the next look.
const NODES_MAX: usize = 32;

/// Nodes of a cluster whose leases are watched: far more than there are. Others would not be swept.
const WATCHED_MAX: usize = 4096;

/// Users that one script removes: Redis does nothing else meanwhile.
const EVICT_BATCH: usize = 256;

/// Channels that are read from an index at a time.
const INDEX_BATCH: usize = 100;

/// Channels that are swept at a time: enough for thousands of them in a second.
const ENTRIES: usize = 32;

/// How long a channel remembers that a node was swept: longer than any node is paused and any command is under way.
const TOMBSTONE: Duration = Duration::from_secs(600);

/// A look at the leases: nodes that are declared dead and not swept yet, and all other nodes with their leases.
type Look = (Vec<String>, Vec<(String, String)>);

/// The result of a sweep, or of a part of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Swept {
    /// Users that were removed, because no other node holds them.
    pub(super) members: u64,
    /// Entries of the index that could not be swept completely, because a key holds something else.
    pub(super) damaged: u64,
}

impl RedisRoster {
    /// Looks for dead nodes and sweeps them; never returns. A sweep may take long, so looking goes on beside it.
    pub(super) async fn keep_sweeping(self: &Arc<Self>) -> Infallible {
        let (found, mut dead) = watch::channel(Vec::new());
        let sweeping = async {
            loop {
                // The sender lives as long as this future.
                let _ = dead.changed().await;
                let nodes: Vec<String> = dead.borrow_and_update().clone();
                for node in nodes {
                    self.sweep_node(&node).await;
                }
            }
        };
        tokio::join!(self.keep_looking(&found), sweeping).0
    }

    async fn keep_looking(&self, found: &watch::Sender<Vec<String>>) -> Infallible {
        let mut watch = Watch::default();
        loop {
            // Up to a quarter more or less, so that nodes do not all look at once.
            let pause = self.times.look.mul_f64(rand::rng().random_range(0.75..=1.25));
            tokio::time::sleep(pause).await;
            // An error needs no handling: a look that failed is not counted against any node.
            if let Ok(dead) = self.look(&mut watch).await
                && !dead.is_empty()
            {
                found.send_replace(dead);
            }
        }
    }

    /// Looks at all leases once. Declares nodes dead that have been silent for too long, and returns all dead nodes.
    async fn look(&self, watch: &mut Watch) -> Result<Vec<String>, RosterError> {
        let (dead, leases) = self.claim(Vec::new()).await?;
        let own = self.node().to_string();
        let mut silent = watch.look(Instant::now(), leases, &self.times);
        silent.retain(|(node, _)| *node != own);
        silent.truncate(NODES_MAX);
        if silent.is_empty() {
            return Ok(dead);
        }
        self.claim(silent).await.map(|(dead, _)| dead)
    }

    /// Declares `silent` nodes dead, unless they have renewed the given leases meanwhile.
    async fn claim(&self, silent: Vec<(String, String)>) -> Result<Look, RosterError> {
        let keys = self.link.keys();
        let mut call = scripts::declare_dead().key(keys.nodes());
        call.key(keys.dead());
        call.arg(NODES_MAX).arg(WATCHED_MAX).arg(millis(NODE_TOMBSTONE_TTL));
        for (node, lease) in silent {
            call.key(keys.node_tombstone(&node)).arg(node).arg(lease);
        }
        self.run("claim", call).await
    }

    /// Sweeps one dead node, unless another node does. After an error the next look finds what is left.
    async fn sweep_node(&self, node: &str) {
        match self.try_sweep(node).await {
            Ok(None) => {}
            Ok(Some(Swept { members, damaged })) => {
                self.metrics.evictions.inc();
                self.metrics.evicted_members.inc_by(members);
                tracing::info!({ node.id = node, members = members, damaged = damaged }, "swept a dead node");
            }
            Err(error) => {
                tracing::debug!({ node.id = node, error = %error }, "sweep interrupted; retrying with the next look")
            }
        }
    }

    /// Returns `None` if the node is swept already, or another node sweeps it.
    pub(super) async fn try_sweep(&self, node: &str) -> Result<Option<Swept>, RosterError> {
        let sweeper = self.node().to_string();
        let index = self.link.keys().index(node);
        let (mut cursor, mut total) = (0, Swept::default());
        loop {
            if !self.begin_sweep(node, &sweeper).await? {
                return Ok(None);
            }
            let (next, entries) = match self.scan_index(&index, cursor).await {
                // Without the index the entries of the node cannot be found. They expire by themselves.
                Err(RosterError::Damaged) => {
                    self.set_aside(node, &index, &mut total);
                    break;
                }
                scanned => scanned?,
            };
            let swept: Vec<_> = stream::iter(&entries)
                .map(async |entry| (self.sweep_entry(node, entry).await, entry))
                .buffer_unordered(ENTRIES)
                .collect()
                .await;
            for (result, entry) in swept {
                let is_damaged = match result {
                    Ok(swept) => {
                        total.members += swept.members;
                        swept.damaged > 0
                    }
                    Err(RosterError::Damaged) => true,
                    Err(error) => return Err(error),
                };
                if is_damaged {
                    self.set_aside(node, entry, &mut total);
                }
            }
            self.forget_entries(&index, entries).await?;
            cursor = next;
            if cursor == 0 {
                break;
            }
        }
        Ok(self.end_sweep(node, &sweeper).await?.then_some(total))
    }

    /// Counts an entry that cannot be swept, and logs the first of a sweep. The node cannot be removed from that key before a
    /// person has repaired it, so the sweep does not wait for it.
    fn set_aside(&self, node: &str, entry: &str, total: &mut Swept) {
        total.damaged += 1;
        self.metrics.damaged_entries.inc();
        if total.damaged == 1 {
            tracing::error!(
                { node.id = node, entry = %excerpt(entry, NAME_MAX) },
                "a key of a dead node's channel has the wrong type; skipped it, so members of that node may stay; delete \
                 the key to repair the channel; further ones of this sweep are only counted"
            );
        }
    }

    /// Returns the channels in this node's index that it has left.
    pub(super) async fn stale_channels_now(&self) -> Result<Vec<Topic>, RosterError> {
        let index = self.link.keys().index(&self.node().to_string());
        let (mut cursor, mut left) = (0, Vec::new());
        loop {
            let (next, entries) = match self.scan_index(&index, cursor).await {
                // The index shows nothing then. The next touch reports it.
                Err(RosterError::Damaged) => return Ok(left),
                scanned => scanned?,
            };
            let held = lock(&self.held);
            let topics = entries.iter().filter_map(|entry| topic_of(entry));
            left.extend(topics.filter(|topic| !held.topics.contains_key(topic)));
            drop(held);
            cursor = next;
            if cursor == 0 {
                return Ok(left);
            }
        }
    }

    async fn begin_sweep(&self, node: &str, sweeper: &str) -> Result<bool, RosterError> {
        let mut call = scripts::begin_sweep().key(self.link.keys().dead());
        call.key(self.link.keys().sweep_claim(node)).arg(node).arg(sweeper).arg(millis(self.times.claim));
        self.run("sweep_claim", call).await
    }

    async fn end_sweep(&self, node: &str, sweeper: &str) -> Result<bool, RosterError> {
        let mut call = scripts::end_sweep().key(self.link.keys().dead());
        call.key(self.link.keys().sweep_claim(node)).arg(node).arg(sweeper);
        self.run("swept", call).await
    }

    async fn scan_index(&self, index: &str, cursor: u64) -> Result<(u64, Vec<String>), RosterError> {
        let mut command = redis::cmd("SSCAN");
        command.arg(index).arg(cursor).arg("COUNT").arg(INDEX_BATCH);
        self.run("sweep_index", command).await
    }

    async fn forget_entries(&self, index: &str, entries: Vec<String>) -> Result<(), RosterError> {
        if entries.is_empty() {
            return Ok(());
        }
        let mut command = redis::cmd("SREM");
        command.arg(index).arg(entries);
        self.run("sweep_index", command).await
    }

    /// Sweeps one entry of an index: `APP/CHANNEL`, or `APP/` for the app's connections.
    async fn sweep_entry(&self, node: &str, entry: &str) -> Result<Swept, RosterError> {
        let mut total = Swept::default();
        // An entry that is not ours is only taken off the list.
        let Some((app, channel)) = entry.split_once('/') else { return Ok(total) };
        let app = AppId::from(app);
        if channel.is_empty() {
            let keys = self.link.keys();
            let mut pipeline = redis::pipe();
            pipeline.hdel(keys.connections(&app), node).ignore().hdel(keys.connection_reports(&app), node).ignore();
            self.run::<()>("sweep_connections", pipeline).await?;
            return Ok(total);
        }
        let Ok(channel) = ChannelName::parse(channel, usize::MAX) else { return Ok(total) };
        let topic = Topic::new(&app, &channel);
        loop {
            let (members, left, damaged) = self.evict(node, &topic).await?;
            total.members += members;
            total.damaged = total.damaged.max(damaged);
            if left == 0 {
                return Ok(total);
            }
        }
    }

    async fn evict(&self, node: &str, topic: &Topic) -> Result<(u64, u64, u64), RosterError> {
        let keys = self.link.keys().channel(topic);
        let occupied = self.link.keys().occupied(&topic.app, self.link.keys().partition(topic));
        let is_user = topic.channel.kind() == ChannelKind::User;
        let hooks = self.hooks(topic, false);
        let mut call = scripts::evict_node().key(keys.members());
        call.key(keys.holders()).key(keys.meta());
        call.key(keys.occupancy()).key(occupied).key(keys.tombstone(node));
        hooks.add_keys(&mut call);
        call.arg(node).arg(keys.topic()).arg(topic.channel.as_str()).arg(EVICT_BATCH).arg(millis(TOMBSTONE));
        call.arg(u8::from(is_user)).arg(unix_us());
        hooks.add_arguments(&mut call);
        self.run("evict", call).await
    }
}

/// Returns the channel of an entry of an index; `None` for an app's connections, and for what is not ours.
fn topic_of(entry: &str) -> Option<Topic> {
    let (app, channel) = entry.split_once('/')?;
    let channel = ChannelName::parse(channel, usize::MAX).ok()?;
    Some(Topic::new(&AppId::from(app), &channel))
}
