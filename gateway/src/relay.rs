//! The pump between the bus and the shards, and the node's part in the cluster.
//!
//! Events, member changes and replies to new subscribers of a topic are all queued for the shards under one lock. Each
//! shard therefore receives them in the same order. A new subscriber's member list or cached event is consistent with
//! the events that follow it.

mod cached;
mod counts;
mod error;
mod membership;
#[cfg(test)]
mod outages;
mod presence;
mod replica;
mod replies;
mod resync;
mod retry;
mod topic;
mod topics;
mod unverified;
mod watches;

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use hashbrown::HashSet;
use shared::app::AppId;
use shared::cluster::bus::memory::Ages;
use shared::cluster::bus::{Bus, EnvelopeSink};
use shared::cluster::envelope::{Body, Envelope, Topic};
use shared::cluster::roster::Roster;
use shared::protocol::SocketId;

use crate::capacity::RecountRequests;
use crate::inbox::{Accepted, Broadcast, Inbox, Room, ShardMessage};
use crate::metrics::PresenceMetrics;
use crate::websocket::writer;
use cached::CacheGrew;
pub(crate) use error::EnterError;
use replica::Change;
use topic::TopicState;
use topics::Topics;
use unverified::Unverified;

/// The relay of a node. It receives from the bus for all shards.
pub(crate) struct Relay {
    bus: Arc<dyn Bus>,
    roster: Arc<dyn Roster>,
    inboxes: Vec<Inbox>,
    room: Arc<Room>,
    metrics: PresenceMetrics,
    recounts: Arc<RecountRequests>,
    topics: Topics,
    /// Topics whose count changed too soon after the last notification.
    late_counts: Mutex<Vec<Topic>>,
    /// Topics whose members changed too often to notify subscribers of each change.
    late_members: Mutex<Vec<Topic>>,
    /// Topics whose number of subscriptions changed too often to report each change to the roster.
    late_reports: Mutex<HashSet<Topic>>,
    /// The ages of the cached events of all topics. Locked after a stripe of the topics, never before.
    cached_ages: Mutex<Ages>,
    unverified: Unverified,
}

impl Relay {
    pub(crate) fn new(
        bus: Arc<dyn Bus>,
        roster: Arc<dyn Roster>,
        inboxes: Vec<Inbox>,
        room: Arc<Room>,
        metrics: PresenceMetrics,
    ) -> Self {
        Self {
            bus,
            roster,
            topics: Topics::new(inboxes.len()),
            inboxes,
            room,
            metrics,
            recounts: Arc::default(),
            late_counts: Mutex::default(),
            late_members: Mutex::default(),
            late_reports: Mutex::default(),
            cached_ages: Mutex::default(),
            unverified: Unverified::default(),
        }
    }

    /// The bus, for publishing client events.
    pub(crate) fn bus(&self) -> &dyn Bus {
        &*self.bus
    }

    /// The roster, for queries.
    pub(crate) fn roster(&self) -> &dyn Roster {
        &*self.roster
    }

    /// Requests to report connection counts to the roster again.
    pub(crate) fn recounts(&self) -> &Arc<RecountRequests> {
        &self.recounts
    }

    /// Queues a message for one shard.
    pub(crate) fn send_to_shard(&self, shard: usize, message: ShardMessage) {
        self.inboxes[shard].push(message);
    }

    /// Hands a new TCP connection to a shard.
    pub(crate) fn accept_on(&self, shard: usize, accepted: Accepted) {
        self.inboxes[shard].accept(accepted);
    }

    /// Does the periodic work that waits for the cluster. Runs once per second.
    pub(crate) async fn tick(&self) {
        self.unverified.add_due(Instant::now());
        self.send_late_reports().await;
        self.unsubscribe_idle_topics().await;
    }

    /// Sends delayed notifications once per second. They do not wait for the cluster.
    pub(crate) async fn send_late_notifications(&self) -> Infallible {
        let mut second = tokio::time::interval(Duration::from_secs(1));
        loop {
            second.tick().await;
            self.send_late_member_changes();
            self.send_late_counts();
        }
    }

    /// Queues the effects of an envelope for the shards that use its topic.
    fn apply(&self, state: &mut TopicState, topic: &Topic, envelope: Envelope) -> Option<CacheGrew> {
        let Envelope { published_at_us, position, body } = envelope;
        match body {
            Body::Event { frame, except, cached } => {
                let grew = match position {
                    Some(position) if cached => Some(self.cache(state, topic, position, frame.clone())),
                    _ => None,
                };
                self.broadcast(state, topic, &frame, Route { except, published_at_us: Some(published_at_us) });
                return grew;
            }
            Body::MemberAdded(member) => self.member_changed(state, topic, position, Change::Added(member)),
            Body::MemberRemoved(user_id) => self.member_changed(state, topic, position, Change::Removed(user_id)),
            Body::SubscriptionCount(count) => {
                state.announcements += 1;
                self.count_changed(state, topic, count);
            }
            Body::UserOnline(online) => {
                state.announcements += 1;
                self.send_to_shards(state, || ShardMessage::UserOnline { topic: topic.clone(), online });
            }
            Body::Terminate => self.send_to_shards(state, || ShardMessage::Terminate { topic: topic.clone() }),
        }
        None
    }

    /// Queues a frame for every shard that uses the topic.
    fn broadcast(&self, state: &TopicState, topic: &Topic, json: &[u8], route: Route) {
        let frame = writer::text(json);
        for shard in state.shards() {
            self.inboxes[shard].push(ShardMessage::Broadcast(Broadcast {
                topic: topic.clone(),
                frame: frame.clone(),
                except: route.except,
                published_at_us: route.published_at_us,
            }));
        }
    }

    /// Queues a message for every shard that uses the topic.
    fn send_to_shards(&self, state: &TopicState, message: impl Fn() -> ShardMessage) {
        for shard in state.shards() {
            self.inboxes[shard].push(message());
        }
    }
}

impl EnvelopeSink for Relay {
    fn deliver(&self, topic: &Topic, envelope: Envelope) {
        if let Some(Some(grew)) = self.topics.with(topic, |state| self.apply(state, topic, envelope)) {
            self.evict_cached(grew);
        }
    }

    fn wait_for_room(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.room.wait())
    }

    fn has_room(&self) -> bool {
        self.room.is_left()
    }

    fn subscriptions_lost(&self) {
        self.suspend_replicas();
    }

    fn resynchronize(&self) {
        self.unverified.add_all();
    }

    fn resynchronize_topic(&self, topic: &Topic) {
        self.unverified.add(topic);
    }

    fn report_connections(&self, app: &AppId) {
        self.recounts.request(app);
    }
}

/// The excluded subscriber and the publish time of a broadcast. Only events have a publish time.
#[derive(Clone, Copy, Default)]
struct Route {
    except: Option<SocketId>,
    published_at_us: Option<u64>,
}
