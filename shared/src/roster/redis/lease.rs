//! A node's lease, and keeping alive what the node holds.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use hashbrown::HashSet;
use rand::Rng;
use redis::Pipeline;

use super::{CHANNEL_TTL, INDEX_TTL, Identity, Past, QUESTIONS_MAX, RedisRoster, lock, millis};
use crate::bus::Listener;
use crate::envelope::Topic;
use crate::node::NodeId;
use crate::redis::scripts;
use crate::roster::RosterError;

/// How long a node stands without a word of it.
const LEASE: Duration = Duration::from_secs(15);

/// How often it gives one.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// After this long without a good heartbeat the lease may soon be over: nothing is entered on the strength of it.
const SELF_FENCE: Duration = Duration::from_secs(12);

/// How often everything that a node holds is given its full time to live again.
const TOUCH: Duration = Duration::from_secs(30);

impl RedisRoster {
    /// The identity to make a change with; renews the lease first when it may be over.
    pub(super) async fn standing_node(&self) -> Result<NodeId, RosterError> {
        let stands = {
            let identity = lock(&self.identity);
            let fresh = identity.renewed.is_some_and(|renewed| renewed.elapsed() < SELF_FENCE);
            fresh.then_some(identity.node)
        };
        match stands {
            Some(node) => Ok(node),
            None => self.renew_lease().await,
        }
    }

    /// Renews the lease; a node that is not known any more gets a new identity and a new lease.
    pub(super) async fn renew_lease(&self) -> Result<NodeId, RosterError> {
        if self.has_resigned.load(Ordering::Acquire) {
            return Err(RosterError::Unavailable);
        }
        let (node, is_first) = {
            let identity = lock(&self.identity);
            (identity.node, identity.renewed.is_none())
        };
        let mut standing = node;
        if !self.heartbeat(node, is_first).await? {
            self.fenced(node);
            standing = self.node();
            self.heartbeat(standing, true).await?;
        }
        self.bury_past().await?;
        Ok(standing)
    }

    /// This identity has been swept: from here on the node is another.
    pub(super) fn fenced(&self, node: NodeId) {
        let mut identity = lock(&self.identity);
        if identity.node != node {
            return;
        }
        *identity = Identity { node: NodeId::fresh(), renewed: None };
        drop(identity);
        self.metrics.fenced.inc();
        // Of the new identity nothing is in the index yet.
        let mut held = lock(&self.held);
        let topics = std::mem::take(&mut held.topics);
        let entries = topics.iter().map(Topic::to_string).chain(held.connections.keys().map(|app| format!("{app}/")));
        lock(&self.past).push(Past { node, entries: entries.collect() });
        drop(held);
        tracing::warn!(%node, "this node was taken for dead and swept; it goes on under a new id");
    }

    async fn heartbeat(&self, node: NodeId, register: bool) -> Result<bool, RosterError> {
        let sent = Instant::now();
        let known = self.lease(node, LEASE, register).await?;
        if known {
            let mut identity = lock(&self.identity);
            if identity.node == node {
                identity.renewed = Some(sent);
            }
        }
        Ok(known)
    }

    async fn register(&self, node: NodeId, lease: Duration) -> Result<(), RosterError> {
        self.lease(node, lease, true).await.map(drop)
    }

    /// Returns whether the node is registered.
    async fn lease(&self, node: NodeId, lease: Duration, register: bool) -> Result<bool, RosterError> {
        let nodes = self.link.keys().nodes();
        self.run("heartbeat", move |mut connection| {
            Box::pin(async move {
                let script = scripts::heartbeat();
                let mut call = script.key(nodes);
                call.arg(node.to_string()).arg(millis(lease)).arg(u8::from(register));
                call.invoke_async(&mut connection).await
            })
        })
        .await
    }

    /// Lets identities that this node has given up be swept: they may have made changes after their sweep had passed by, or
    /// after Redis had lost all it knew of them, their index included. Their lease ends now, so that the grace is left for
    /// joining again under the new one, and nobody sees anyone leave who has not.
    pub(super) async fn bury_past(&self) -> Result<(), RosterError> {
        loop {
            let (node, entries) = match lock(&self.past).last() {
                Some(past) => (past.node, past.entries.clone()),
                None => return Ok(()),
            };
            self.note_all_in_index(node, entries).await?;
            self.register(node, Duration::ZERO).await?;
            lock(&self.past).retain(|past| past.node != node);
        }
    }

    async fn note_all_in_index(&self, node: NodeId, entries: Vec<String>) -> Result<(), RosterError> {
        for some in entries.chunks(QUESTIONS_MAX) {
            let (index, some) = (self.link.keys().index(node), some.to_vec());
            self.run("index", move |mut connection| {
                Box::pin(async move {
                    let mut pipeline = redis::pipe();
                    pipeline.sadd(&index, some).ignore().pexpire(&index, millis(INDEX_TTL)).ignore();
                    pipeline.exec_async(&mut connection).await
                })
            })
            .await?;
        }
        Ok(())
    }

    pub(super) async fn keep_lease(self: &Arc<Self>, listener: Arc<dyn Listener>) -> Infallible {
        let mut asserted = self.node();
        loop {
            // Redis being away is told by others; the lease is renewed as soon as it is back.
            let renewed = self.renew_lease().await;
            if let Ok(node) = renewed
                && node != asserted
            {
                asserted = node;
                listener.came_back();
            }
            let pause = if renewed.is_ok() { HEARTBEAT } else { Duration::from_secs(1) };
            tokio::time::sleep(pause.mul_f64(rand::rng().random_range(0.9..=1.1))).await;
        }
    }

    pub(super) async fn keep_alive(&self, listener: Arc<dyn Listener>) -> Infallible {
        loop {
            tokio::time::sleep(TOUCH).await;
            // Four rounds fit into the time to live; after a failure the next one is soon.
            if let Ok(lost) = self.touch().await {
                for topic in &lost {
                    self.metrics.lost_channels.inc();
                    listener.doubt(topic);
                }
            }
        }
    }

    /// Names what this node holds in the sets of occupied channels again. A set that was lost and made anew by one channel
    /// would lack the others for ever; a name too many is left out of answers, and goes with the set's time to live.
    async fn touch_occupied(&self, topics: &[Topic]) -> Result<(), RosterError> {
        for some in topics.chunks(QUESTIONS_MAX) {
            let mut pipeline = Pipeline::with_capacity(2 * some.len());
            for topic in some {
                let occupied = self.link.keys().occupied(&topic.app, self.link.keys().partition(topic));
                pipeline.sadd(&occupied, topic.channel.as_str()).ignore();
                pipeline.pexpire(&occupied, millis(CHANNEL_TTL)).ignore();
            }
            let touched = self.run("touch", move |mut connection| {
                Box::pin(async move { pipeline.exec_async(&mut connection).await })
            });
            match touched.await {
                // Someone else's value in one set; the rest is touched all the same.
                Ok(()) | Err(RosterError::Damaged) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Writes the whole index of this node anew: without it nobody would sweep what the node holds.
    async fn restore_index(&self, node: NodeId) -> Result<(), RosterError> {
        let entries: Vec<String> = {
            let held = lock(&self.held);
            held.topics
                .iter()
                .map(Topic::to_string)
                .chain(held.connections.keys().map(|app| format!("{app}/")))
                .collect()
        };
        self.note_all_in_index(node, entries).await
    }

    /// Gives everything its full time to live; returns the channels of which something is not there any more, as after
    /// an eviction for want of memory.
    async fn touch(&self) -> Result<Vec<Topic>, RosterError> {
        let node = self.node();
        let keys = self.link.keys();
        let (topics, apps) = {
            let held = lock(&self.held);
            let topics: Vec<_> = held.topics.iter().cloned().collect();
            (topics, held.connections.keys().cloned().collect::<Vec<_>>())
        };
        let mut expirations = vec![(keys.index(node), INDEX_TTL, None)];
        expirations.extend(apps.iter().map(|app| (keys.connections(app), CHANNEL_TTL, None)));
        for topic in &topics {
            let channel = keys.channel(topic);
            expirations.push((channel.occupancy(), CHANNEL_TTL, Some(topic)));
            if topic.channel.kind().is_presence() {
                for key in [channel.members(), channel.references(), channel.held(&node.to_string())] {
                    expirations.push((key, CHANNEL_TTL, Some(topic)));
                }
            }
        }
        self.touch_occupied(&topics).await?;
        let mut lost = HashSet::new();
        for some in expirations.chunks(QUESTIONS_MAX) {
            let mut pipeline = Pipeline::with_capacity(some.len());
            for (key, ttl, _) in some {
                pipeline.cmd("PEXPIRE").arg(key).arg(millis(*ttl));
            }
            let found: Vec<bool> = self
                .run("touch", move |mut connection| {
                    Box::pin(async move { pipeline.query_async(&mut connection).await })
                })
                .await?;
            if some.first().is_some_and(|(_, _, topic)| topic.is_none()) && found.first() == Some(&false) {
                self.restore_index(node).await?;
            }
            let missing = some.iter().zip(found).filter(|(_, found)| !found);
            lost.extend(missing.filter_map(|((_, _, topic), _)| topic.cloned()));
        }
        // What was left since the list was made is missing rightly.
        let held = lock(&self.held);
        Ok(lost.into_iter().filter(|topic| held.topics.contains(topic)).collect())
    }
}
