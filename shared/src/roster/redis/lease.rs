//! A node's lease, and keeping alive what the node holds.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt};
use rand::Rng;

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

/// Earlier ids that a node remembers: it may be swept again before it has asserted everything.
const EARLIER_MAX: usize = 3;

/// Channels that are touched at a time.
const TOUCHES: usize = 64;

/// How often everything that a node holds is given its full time to live again.
const TOUCH: Duration = Duration::from_secs(30);

impl RedisRoster {
    /// The identity to make a change with; renews the lease first when it may be over.
    pub(super) async fn standing_node(&self) -> Result<NodeId, RosterError> {
        if self.has_resigned.load(Ordering::Acquire) {
            return Err(RosterError::Unavailable);
        }
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
        if self.node() != standing {
            // Someone else found it swept meanwhile; the next attempt is made as whoever it is now.
            return Err(RosterError::Unavailable);
        }
        if let Err(error) = self.bury_past().await {
            tracing::debug!(%error, "what is left of an earlier id is given up later");
        }
        Ok(standing)
    }

    /// This identity has been swept: from here on the node is another.
    pub(super) fn fenced(&self, node: NodeId) {
        let mut identity = lock(&self.identity);
        if identity.node != node {
            return;
        }
        let mut earlier = std::mem::take(&mut identity.earlier);
        earlier.insert(0, node);
        earlier.truncate(EARLIER_MAX);
        *identity = Identity { node: NodeId::fresh(), earlier, renewed: None };
        drop(identity);
        self.metrics.fenced.inc();
        // Of the new identity nothing is in the index yet.
        let mut held = lock(&self.held);
        let topics = std::mem::take(&mut held.topics);
        let entries = topics.iter().map(Topic::to_string).chain(held.connections.keys().map(|app| format!("{app}/")));
        lock(&self.past).push(Past { node, entries: entries.collect() });
        drop(held);
        tracing::warn!(%node, "redis does not know this node any more; it goes on under a new id");
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

    /// Returns whether the node is registered. Goes the way of events, which waits for nobody: behind a herd of joins a
    /// heartbeat would come too late.
    async fn lease(&self, node: NodeId, lease: Duration, register: bool) -> Result<bool, RosterError> {
        let nodes = self.link.keys().nodes();
        self.run_aside("heartbeat", async move |mut connection| {
            let script = scripts::heartbeat();
            let mut call = script.key(nodes);
            call.arg(node.to_string()).arg(millis(lease)).arg(u8::from(register));
            call.invoke_async(&mut connection).await
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
            let (index, some) = (self.link.keys().index(&node.to_string()), some.to_vec());
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
            // Many rounds fit into the time to live.
            if let Ok(lost) = self.touch().await {
                for topic in &lost {
                    self.metrics.lost_channels.inc();
                    listener.doubt(topic);
                }
            }
        }
    }

    /// Gives everything its full time to live, and writes the index anew, without which nobody would sweep what this node
    /// holds; returns the channels of which something is not there any more, as after an eviction for want of memory.
    async fn touch(&self) -> Result<Vec<Topic>, RosterError> {
        let node = self.node();
        let (topics, apps) = {
            let held = lock(&self.held);
            let topics: Vec<_> = held.topics.iter().cloned().collect();
            (topics, held.connections.keys().cloned().collect::<Vec<_>>())
        };
        let apps_entries = apps.iter().map(|app| format!("{app}/"));
        self.note_all_in_index(node, topics.iter().map(Topic::to_string).chain(apps_entries).collect()).await?;
        for app in &apps {
            let (counts, reports) = (self.link.keys().connections(app), self.link.keys().connection_reports(app));
            self.run("touch", move |mut connection| {
                Box::pin(async move {
                    let mut pipeline = redis::pipe();
                    for key in [counts, reports] {
                        pipeline.pexpire(key, millis(CHANNEL_TTL)).ignore();
                    }
                    pipeline.exec_async(&mut connection).await
                })
            })
            .await?;
        }
        let touched: Vec<_> = stream::iter(topics)
            .map(async |topic| (self.touch_channel(node, &topic).await, topic))
            .buffer_unordered(TOUCHES)
            .collect()
            .await;
        let mut lost = Vec::new();
        for (touched, topic) in touched {
            match touched {
                Ok(true) => {}
                Ok(false) => lost.push(topic),
                // Someone else's value; the other channels are touched all the same.
                Err(RosterError::Damaged) => {}
                Err(error) => return Err(error),
            }
        }
        // What was left since the list was made is missing rightly.
        let held = lock(&self.held);
        lost.retain(|topic| held.topics.contains(topic));
        Ok(lost)
    }

    /// Returns whether all is there that this node has put there.
    async fn touch_channel(&self, node: NodeId, topic: &Topic) -> Result<bool, RosterError> {
        let keys = self.link.keys().channel(topic);
        let occupied = self.link.keys().occupied(&topic.app, self.link.keys().partition(topic));
        let is_presence = topic.channel.kind().is_presence();
        let name = topic.channel.to_string();
        let found: i64 = self
            .run("touch", move |mut connection| {
                Box::pin(async move {
                    let script = scripts::touch();
                    let mut call = script.key(keys.occupancy());
                    call.key(occupied).key(keys.meta());
                    if is_presence {
                        call.key(keys.members()).key(keys.holders());
                    }
                    call.arg(node.to_string()).arg(name).arg(millis(CHANNEL_TTL));
                    call.invoke_async(&mut connection).await
                })
            })
            .await?;
        Ok(found == 1)
    }
}
