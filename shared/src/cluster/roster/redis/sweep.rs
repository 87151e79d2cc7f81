//! Detects dead nodes and removes their state. Any node can do this. If it crashes, another node continues, because
//! every step may be repeated and the index in Redis has the remaining entries.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt};
use rand::Rng;
use tokio::sync::watch;

use super::index::IndexEntry;
use super::lease::NODE_TOMBSTONE_TTL;
use super::lease_watch::LeaseWatch;
use super::{RedisRoster, Report, millis};
use crate::cluster::envelope::{Topic, unix_us};
use crate::cluster::redis::scripts;
use crate::cluster::roster::RosterError;
use crate::excerpt::{NAME_MAX, excerpt};
use crate::protocol::ChannelKind;
use crate::sync::lock;

/// Dead nodes that one check of the leases returns. Later checks return the others.
const NODES_MAX: usize = 32;

/// Nodes whose leases are watched. Further nodes would not be swept. The number is far above that of any cluster.
const WATCHED_MAX: usize = 4096;

/// Users that one script removes. Redis executes nothing else during a script.
const EVICT_BATCH: usize = 256;

/// Entries of an index that one command reads.
const INDEX_BATCH: usize = 100;

/// Entries that are swept concurrently. This is enough for thousands of channels per second.
const CONCURRENT_ENTRIES: usize = 32;

/// Time to live of the tombstone that a sweep adds to a channel. It is longer than any pause of a node and any delay of
/// a command.
const CHANNEL_TOMBSTONE_TTL: Duration = Duration::from_secs(600);

/// The state of the nodes: dead nodes that are not swept yet, and all other nodes with their leases.
type NodeStates = (Vec<String>, Vec<(String, String)>);

/// The result of a sweep, or of a part of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Swept {
    /// Members that left their channels, because no other node has them.
    pub(super) members: u64,
    /// Entries of the index that could not be swept completely, because a key has the wrong type.
    pub(super) damaged: u64,
}

impl RedisRoster {
    /// Detects dead nodes and sweeps them. Never returns. The leases are also checked during a sweep, which may take
    /// long.
    pub(super) async fn sweep_dead_nodes(self: &Arc<Self>) -> Infallible {
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
        tokio::join!(self.watch_leases(&found), sweeping).0
    }

    async fn watch_leases(&self, found: &watch::Sender<Vec<String>>) -> Infallible {
        let mut watch = LeaseWatch::default();
        loop {
            // The jitter of 25% prevents nodes from checking at the same time.
            let pause = self.times.check_interval.mul_f64(rand::rng().random_range(0.75..=1.25));
            tokio::time::sleep(pause).await;
            // After an error the next check follows. A failed check does not count against any node.
            if let Ok(dead) = self.check_leases(&mut watch).await
                && !dead.is_empty()
            {
                found.send_replace(dead);
            }
        }
    }

    /// Checks all leases once. Declares nodes dead whose leases have not changed for too long, and returns all dead
    /// nodes.
    async fn check_leases(&self, watch: &mut LeaseWatch) -> Result<Vec<String>, RosterError> {
        let (dead, leases) = self.declare_dead(Vec::new()).await?;
        let own = self.node().to_string();
        let mut silent = watch.check(Instant::now(), leases, &self.times);
        silent.retain(|(node, _)| *node != own);
        silent.truncate(NODES_MAX);
        if silent.is_empty() {
            return Ok(dead);
        }
        self.declare_dead(silent).await.map(|(dead, _)| dead)
    }

    /// Declares `silent` nodes dead, unless their leases differ from the given ones. Returns the state of all nodes.
    async fn declare_dead(&self, silent: Vec<(String, String)>) -> Result<NodeStates, RosterError> {
        let keys = self.link.keys();
        let mut call = scripts::declare_dead().key(keys.nodes());
        call.key(keys.dead());
        call.arg(NODES_MAX).arg(WATCHED_MAX).arg(millis(NODE_TOMBSTONE_TTL));
        for (node, lease) in silent {
            call.key(keys.node_tombstone(&node)).arg(node).arg(lease);
        }
        self.run("claim", call).await
    }

    /// Sweeps one dead node, unless another node does. After an error the next check of the leases finds the node
    /// again.
    async fn sweep_node(&self, node: &str) {
        match self.try_sweep(node).await {
            Ok(None) => {}
            Ok(Some(Swept { members, damaged })) => {
                self.metrics.evictions.inc();
                self.metrics.evicted_members.inc_by(members);
                tracing::info!({ node.id = node, members = members, damaged = damaged }, "swept a dead node");
            }
            Err(error) => {
                tracing::debug!(
                    { node.id = node, error = %error },
                    "sweep interrupted; retrying with the next check of the leases"
                );
            }
        }
    }

    /// Sweeps a node. Returns `None` if it was swept already or another node sweeps it.
    pub(super) async fn try_sweep(&self, node: &str) -> Result<Option<Swept>, RosterError> {
        let sweeper = self.node().to_string();
        let index = self.link.keys().index(node);
        let (mut cursor, mut total) = (0, Swept::default());
        loop {
            if !self.begin_sweep(node, &sweeper).await? {
                return Ok(None);
            }
            let (next, entries) = match self.scan_index(&index, cursor).await {
                // Without the index the node's entries cannot be found. They expire.
                Err(RosterError::Damaged) => {
                    self.skip(node, &index, &mut total);
                    break;
                }
                scanned => scanned?,
            };
            let swept: Vec<_> = stream::iter(&entries)
                .map(async |entry| (self.sweep_entry(node, entry).await, entry))
                .buffer_unordered(CONCURRENT_ENTRIES)
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
                    self.skip(node, entry, &mut total);
                }
            }
            self.remove_entries(&index, entries).await?;
            cursor = next;
            if cursor == 0 {
                break;
            }
        }
        Ok(self.end_sweep(node, &sweeper).await?.then_some(total))
    }

    /// Counts an entry that cannot be swept, and logs the first one of a sweep. The sweep continues, because only an
    /// operator can repair the key.
    fn skip(&self, node: &str, entry: &str, total: &mut Swept) {
        total.damaged += 1;
        self.metrics.damaged_entries.inc();
        if total.damaged == 1 {
            tracing::error!(
                { node.id = node, entry = %excerpt(entry, NAME_MAX) },
                "a key of a dead node's channel has the wrong type; skipped it, so members of the node may remain; delete \
                 the key to repair the channel (further keys of this sweep are counted, not logged)"
            );
        }
    }

    /// Returns the channels in this node's index from which it has unsubscribed.
    pub(super) async fn stale_channels_now(&self) -> Result<Vec<Topic>, RosterError> {
        let index = self.link.keys().index(&self.node().to_string());
        let (mut cursor, mut stale) = (0, Vec::new());
        loop {
            let (next, entries) = match self.scan_index(&index, cursor).await {
                // The index cannot be read. The next renewal of this node's keys fails and logs it.
                Err(RosterError::Damaged) => return Ok(stale),
                scanned => scanned?,
            };
            let registered = lock(&self.registered);
            let topics = entries.iter().filter_map(|entry| match IndexEntry::parse(entry)? {
                IndexEntry::Channel(topic) => Some(topic),
                IndexEntry::Connections(_) => None,
            });
            stale.extend(topics.filter(|topic| !registered.topics.contains_key(topic)));
            drop(registered);
            cursor = next;
            if cursor == 0 {
                return Ok(stale);
            }
        }
    }

    async fn begin_sweep(&self, node: &str, sweeper: &str) -> Result<bool, RosterError> {
        let mut call = scripts::begin_sweep().key(self.link.keys().dead());
        call.key(self.link.keys().sweep_claim(node)).arg(node).arg(sweeper).arg(millis(self.times.sweep_claim_ttl));
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

    async fn remove_entries(&self, index: &str, entries: Vec<String>) -> Result<(), RosterError> {
        if entries.is_empty() {
            return Ok(());
        }
        let mut command = redis::cmd("SREM");
        command.arg(index).arg(entries);
        self.run("sweep_index", command).await
    }

    /// Sweeps one entry of an index. An entry that no node has written needs no sweep.
    async fn sweep_entry(&self, node: &str, entry: &str) -> Result<Swept, RosterError> {
        let mut total = Swept::default();
        let topic = match IndexEntry::parse(entry) {
            Some(IndexEntry::Channel(topic)) => topic,
            Some(IndexEntry::Connections(app)) => {
                let keys = self.link.keys();
                let mut pipeline = redis::pipe();
                pipeline.hdel(keys.connections(&app), node).ignore().hdel(keys.connection_reports(&app), node).ignore();
                self.run::<()>("sweep_connections", pipeline).await?;
                return Ok(total);
            }
            None => return Ok(total),
        };
        loop {
            let (members, more, damaged) = self.evict(node, &topic).await?;
            total.members += members;
            total.damaged = total.damaged.max(damaged);
            if more == 0 {
                return Ok(total);
            }
        }
    }

    /// Removes up to [`EVICT_BATCH`] users of a node from a channel. Returns the members that left, whether users of
    /// the node may remain, and whether a key was skipped.
    async fn evict(&self, node: &str, topic: &Topic) -> Result<(u64, u64, u64), RosterError> {
        let keys = self.link.keys().channel(topic);
        let occupied = self.link.keys().occupied(&topic.app, self.link.keys().partition(topic));
        let is_user = topic.channel.kind() == ChannelKind::User;
        let webhooks = self.webhook_args(topic, Report::New);
        let mut call = scripts::evict_node().key(keys.members());
        call.key(keys.member_nodes()).key(keys.meta());
        call.key(keys.subscription_counts()).key(occupied).key(keys.tombstone(node));
        webhooks.add_keys(&mut call);
        call.arg(node).arg(keys.topic()).arg(topic.channel.as_str()).arg(EVICT_BATCH);
        call.arg(millis(CHANNEL_TOMBSTONE_TTL)).arg(u8::from(is_user)).arg(unix_us());
        webhooks.add_arguments(&mut call);
        self.run("evict", call).await
    }
}
