//! The pump between the bus and the shards, and the node's part in the cluster.
//!
//! Everything that happens on a channel passes here under one lock per topic: events, changes of members, and the
//! answers to new subscribers. So each shard gets them in one order, and a new subscriber's list of members or last
//! event fits exactly what it hears next.

mod cached;
pub(crate) mod membership;
#[cfg(test)]
mod outages;
mod replica;
mod resync;
pub(crate) mod topic;
mod watches;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::hash::BuildHasher;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use hashbrown::{DefaultHashBuilder, HashMap, HashSet};
use shared::app::AppId;
use shared::cluster::bus::memory::Ages;
use shared::cluster::bus::{Bus, Listener};
use shared::cluster::envelope::{Body, Envelope, Position, Topic};
use shared::cluster::roster::Roster;
use shared::protocol::ServerFrame;

use crate::capacity::RecountRequests;
use crate::inbox::{Accepted, Broadcast, Inbox, Room, ShardMessage};
use crate::limits::{COUNTS_AT_ONCE, COUNTS_PER_SECOND, MEMBER_BYTES_AT_ONCE, MEMBER_BYTES_PER_SECOND};
use crate::metrics::PresenceMetrics;
use crate::websocket::writer;
use replica::{Change, Effect};
use resync::Doubts;
use topic::TopicState;

/// Publishes to different channels rarely meet in one of these.
const STRIPES: usize = 64;

/// A channel that no socket holds any more stays subscribed this long: a page that reloads comes back within it.
const LINGER: Duration = Duration::from_secs(2);

/// Above this many subscribers, counts are announced at most every [`COUNT_INTERVAL`]. Source: protocol reference 2.6.
const COUNT_FREELY_UP_TO: u64 = 100;
const COUNT_INTERVAL: Duration = Duration::from_secs(5);

/// Hears the bus on behalf of all shards.
pub(crate) struct Relay {
    bus: Arc<dyn Bus>,
    roster: Arc<dyn Roster>,
    inboxes: Vec<Inbox>,
    room: Arc<Room>,
    metrics: PresenceMetrics,
    hasher: DefaultHashBuilder,
    stripes: Vec<Mutex<HashMap<Topic, TopicState>>>,
    /// Topics that became idle, oldest first.
    idle: Mutex<VecDeque<(Instant, Topic)>>,
    /// Topics whose count changed too soon after the last announcement.
    late_counts: Mutex<Vec<Topic>>,
    /// Topics whose members changed too often for their subscribers to be notified of each change.
    late_members: Mutex<Vec<Topic>>,
    /// Topics of which the roster has not been told the latest count.
    late_reports: Mutex<HashSet<Topic>>,
    /// Of the kept events of all topics. Locked after a stripe, never before one.
    kept_ages: Mutex<Ages>,
    doubts: Doubts,
    recounts: Arc<RecountRequests>,
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
            inboxes,
            room,
            metrics,
            hasher: DefaultHashBuilder::default(),
            stripes: (0..STRIPES).map(|_| Mutex::default()).collect(),
            idle: Mutex::default(),
            late_counts: Mutex::default(),
            late_members: Mutex::default(),
            late_reports: Mutex::default(),
            kept_ages: Mutex::default(),
            doubts: Doubts::default(),
            recounts: Arc::default(),
        }
    }

    /// The bus, for client events.
    pub(crate) fn bus(&self) -> &dyn Bus {
        &*self.bus
    }

    /// The roster, for questions.
    pub(crate) fn roster(&self) -> &dyn Roster {
        &*self.roster
    }

    /// Requests to report connection counts to the roster again.
    pub(crate) fn recounts(&self) -> &Arc<RecountRequests> {
        &self.recounts
    }

    /// Queues a message for one shard.
    pub(crate) fn tell_shard(&self, shard: usize, message: ShardMessage) {
        self.inboxes[shard].push(message);
    }

    /// Hands a new connection to a shard.
    pub(crate) fn accept_on(&self, shard: usize, accepted: Accepted) {
        self.inboxes[shard].accept(accepted);
    }

    /// Does what is due in the cluster, as to leave channels that no socket holds. To be called every second.
    pub(crate) async fn tend(&self) {
        self.doubts.raise_late(Instant::now());
        self.send_late_reports().await;
        for topic in self.idle_topics(Instant::now()) {
            self.unlink_if_idle(&topic).await;
        }
    }

    fn idle_topics(&self, now: Instant) -> Vec<Topic> {
        let mut idle = lock(&self.idle);
        let due = idle.iter().take_while(|(since, _)| now.duration_since(*since) >= LINGER).count();
        idle.drain(..due).map(|(_, topic)| topic).collect()
    }

    async fn unlink_if_idle(&self, topic: &Topic) {
        let Some(gate) = self.stripe(topic).get(topic).map(|state| state.gate.clone()) else { return };
        // Whoever has the gate waits for the cluster, which may take long; others are due too.
        let Ok(_serial) = gate.try_lock() else {
            lock(&self.idle).push_back((Instant::now(), topic.clone()));
            return;
        };
        {
            let mut stripe = self.stripe(topic);
            let Some(state) = stripe.get_mut(topic) else { return };
            // Whoever came and went since this entry was made has left an entry of its own.
            if state.is_held() || state.idle_since.is_none_or(|since| since.elapsed() < LINGER) {
                return;
            }
            state.linked = false;
        }
        self.bus.unsubscribe(topic).await;
        let mut stripe = self.stripe(topic);
        if stripe.get(topic).is_some_and(|state| !state.is_held())
            && let Some(kept) = stripe.remove(topic).and_then(|state| state.kept)
        {
            lock(&self.kept_ages).forget(kept.age);
        }
    }

    /// Notifies subscribers, once a second, of what changed too often to notify them of each change.
    pub(crate) async fn announce_late(&self) -> Infallible {
        let mut second = tokio::time::interval(Duration::from_secs(1));
        loop {
            second.tick().await;
            self.announce_late_members();
            self.announce_late_counts();
        }
    }

    fn announce_late_members(&self) {
        let late = std::mem::take(&mut *lock(&self.late_members));
        for topic in late {
            let mut stripe = self.stripe(&topic);
            let Some(state) = stripe.get_mut(&topic) else { continue };
            state.member_changes.is_late = false;
            let news = state.replica.as_mut().map(|replica| replica.take_news()).unwrap_or_default();
            self.send_changes(state, &topic, &news);
            self.release_parked(state);
        }
    }

    fn announce_late_counts(&self) {
        let now = Instant::now();
        let late = std::mem::take(&mut *lock(&self.late_counts));
        for topic in late {
            let mut stripe = self.stripe(&topic);
            let Some(state) = stripe.get_mut(&topic) else { continue };
            if !state.count.is_due(now, count_interval(state.count.value.unwrap_or(0))) {
                lock(&self.late_counts).push(topic.clone());
                continue;
            }
            state.count.pace.is_late = false;
            self.announce_count(state, &topic, now);
        }
    }

    /// Hands a frame to every shard that holds the topic.
    fn broadcast(&self, state: &TopicState, topic: &Topic, json: &[u8], route: Route) {
        let frame = writer::text(json);
        for shard in state.holders() {
            self.inboxes[shard].push(ShardMessage::Broadcast(Broadcast {
                topic: topic.clone(),
                frame: frame.clone(),
                except: route.except,
                published_at_us: route.published_at_us,
            }));
        }
    }

    fn tell(&self, state: &TopicState, message: impl Fn() -> ShardMessage) {
        for shard in state.holders() {
            self.inboxes[shard].push(message());
        }
    }

    fn stripe(&self, topic: &Topic) -> MutexGuard<'_, HashMap<Topic, TopicState>> {
        // The high half: the map inside the stripe uses the low one.
        let index = usize::try_from(self.hasher.hash_one(topic) >> 32).unwrap_or(0) % STRIPES;
        lock(&self.stripes[index])
    }

    fn deliver_to(&self, state: &mut TopicState, topic: &Topic, envelope: Envelope) {
        let Envelope { published_at_us, position, body } = envelope;
        let route = Route { except: None, published_at_us: Some(published_at_us) };
        match body {
            Body::Event { frame, except, kept } => {
                if let (true, Some(position)) = (kept, position) {
                    self.keep(state, topic, position, frame.clone());
                }
                self.broadcast(state, topic, &frame, Route { except, ..route });
            }
            Body::MemberAdded(member) => self.member_changed(state, topic, position, Change::Added(member)),
            Body::MemberRemoved(user_id) => self.member_changed(state, topic, position, Change::Removed(user_id)),
            Body::SubscriptionCount(count) => {
                state.heard += 1;
                self.count_changed(state, topic, count);
            }
            Body::UserOnline(online) => {
                state.heard += 1;
                self.tell(state, || ShardMessage::UserOnline { topic: topic.clone(), online });
            }
            Body::Terminate => self.tell(state, || ShardMessage::Terminate { topic: topic.clone() }),
        }
    }

    fn member_changed(&self, state: &mut TopicState, topic: &Topic, position: Option<Position>, change: Change) {
        match state.apply(position, change) {
            Effect::News => self.announce_members(state, topic),
            Effect::None => {}
            Effect::Gap => self.doubts.raise(topic),
        }
        self.release_parked(state);
    }

    /// Notifies local subscribers of changed members: at once within the channel's allowance, else within a second. If
    /// a member leaves and comes back by then, neither change is sent. So a flood of joins and leaves causes at most one
    /// notification of each member a second.
    fn announce_members(&self, state: &mut TopicState, topic: &Topic) {
        if state.member_changes.is_late {
            return;
        }
        let Some(replica) = &mut state.replica else { return };
        let news_bytes = replica.news_bytes();
        let (burst, per_second) = (MEMBER_BYTES_AT_ONCE, MEMBER_BYTES_PER_SECOND);
        if state.member_changes.at_once.take_of_burst(news_bytes, burst, per_second, Instant::now()) {
            let news = replica.take_news();
            self.send_changes(state, topic, &news);
        } else {
            state.member_changes.is_late = true;
            lock(&self.late_members).push(topic.clone());
        }
    }

    fn send_changes(&self, state: &TopicState, topic: &Topic, changes: &[Change]) {
        let channel = topic.channel.as_str();
        for change in changes {
            let frame = match change {
                Change::Added(member) => ServerFrame::MemberAdded { channel, member }.encode(),
                Change::Removed(user_id) => ServerFrame::MemberRemoved { channel, user_id }.encode(),
            };
            self.broadcast(state, topic, frame.as_bytes(), Route::default());
        }
    }

    fn count_changed(&self, state: &mut TopicState, topic: &Topic, count: u64) {
        let now = Instant::now();
        state.count.value = Some(count);
        let is_free = count <= COUNT_FREELY_UP_TO
            && state.count.pace.at_once.take_of_burst(1, COUNTS_AT_ONCE, COUNTS_PER_SECOND, now);
        if is_free || state.count.is_due(now, count_interval(count)) {
            self.announce_count(state, topic, now);
        } else if !state.count.pace.is_late {
            state.count.pace.is_late = true;
            lock(&self.late_counts).push(topic.clone());
        }
    }
}

impl Relay {
    fn announce_count(&self, state: &mut TopicState, topic: &Topic, now: Instant) {
        if let Some(count) = state.count.news(now) {
            self.broadcast(state, topic, count_frame(topic, count).as_bytes(), Route::default());
        }
    }
}

impl Listener for Relay {
    fn deliver(&self, topic: &Topic, envelope: Envelope) {
        let is_kept = matches!(envelope.body, Body::Event { kept: true, .. });
        let mut stripe = self.stripe(topic);
        if let Some(state) = stripe.get_mut(topic) {
            self.deliver_to(state, topic, envelope);
        }
        drop(stripe);
        if is_kept {
            self.drop_kept_beyond_bound();
        }
    }

    fn room(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.room.wait())
    }

    fn has_room(&self) -> bool {
        self.room.is_left()
    }

    fn went_deaf(&self) {
        self.doubt_all_members();
    }

    fn came_back(&self) {
        self.doubts.raise_all();
    }

    fn doubt(&self, topic: &Topic) {
        self.doubts.raise(topic);
    }

    fn connections_asked(&self, app: &AppId) {
        self.recounts.request(app);
    }
}

/// Whom a broadcast leaves out, and when it was published; the latter only for events, which alone are timed.
#[derive(Clone, Copy, Default)]
struct Route {
    except: Option<shared::protocol::SocketId>,
    published_at_us: Option<u64>,
}

/// How long subscribers wait for a count that changed too often.
fn count_interval(count: u64) -> Duration {
    if count <= COUNT_FREELY_UP_TO { Duration::from_secs(1) } else { COUNT_INTERVAL }
}

fn count_frame(topic: &Topic, count: u64) -> String {
    ServerFrame::SubscriptionCount { channel: topic.channel.as_str(), count }.encode()
}

/// A panic under one of these locks leaves maps that are whole: every change to one is a single call.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
