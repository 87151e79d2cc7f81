use std::sync::Arc;
use std::time::Duration;

use shared::app::{App, Apps};
use shared::cluster::bus::memory::{Ages, CACHED_BYTES_MAX};
use shared::cluster::bus::{Bus, MemoryBus, Message};
use shared::cluster::envelope::{Body, CachedEvent, Envelope, Topic};
use shared::cluster::roster::MemoryRoster;
use shared::protocol::ChannelName;
use shared::serve::telemetry::metrics::Registry;

use super::*;
use crate::inbox::{ConnectionKey, Room, ShardMessage, inbox};
use crate::metrics::Metrics;

fn position(epoch: u64, sequence: u64) -> Position {
    Position { epoch, sequence }
}

fn event(at: Position, text: &'static str) -> CachedEvent {
    CachedEvent { frame: Bytes::from_static(text.as_bytes()), position: at, ttl: Duration::from_secs(1) }
}

fn received(at: Position, text: &'static str) -> TopicState {
    let topic = Topic::new(&"one".into(), &ChannelName::parse("cache-a", 200).expect("a valid name"));
    let mut state = TopicState::new(1);
    let frame = Bytes::from_static(text.as_bytes());
    state.cached =
        Some(CachedFrame { position: at, age: Ages::default().add(&topic, frame.len()), frame: Some(frame) });
    state
}

fn reply(state: &TopicState, received_before: Option<Position>, fetched: Option<CachedEvent>) -> Option<String> {
    let lookup = Lookup { received_before, fetched, _pin: Arc::default() };
    latest(state, lookup).map(|frame| String::from_utf8(frame.to_vec()).expect("text"))
}

#[test]
fn the_newer_of_the_fetched_and_the_received_event_is_the_reply() {
    let state = received(position(1, 5), "received");
    let before = Some(position(1, 4));
    for (sequence, expected) in [(4, "received"), (5, "fetched"), (6, "fetched")] {
        let fetched = Some(event(position(1, sequence), "fetched"));
        assert_eq!(reply(&state, before, fetched).as_deref(), Some(expected), "fetched at {sequence}");
    }
    assert_eq!(reply(&state, before, None).as_deref(), Some("received"), "received after the query");
    assert_eq!(reply(&state, Some(position(1, 5)), None), None, "expired");
    assert_eq!(reply(&TopicState::new(1), None, Some(event(position(1, 1), "fetched"))).as_deref(), Some("fetched"));
}

#[test]
fn an_event_published_after_a_failover_is_the_reply() {
    let before = position(70, 100);
    let state = received(before, "from the old primary");
    for epoch in [71, 69] {
        // 69: the clock of the new primary is behind.
        let fetched = event(position(epoch, 1), "from the new primary");
        assert_eq!(
            reply(&state, Some(before), Some(fetched)).as_deref(),
            Some("from the new primary"),
            "epoch {epoch}"
        );
    }
}

#[test]
fn an_event_that_a_promoted_replica_lacks_is_still_the_reply() {
    let before = position(70, 100);
    let state = received(before, "newest");
    assert_eq!(reply(&state, Some(before), Some(event(position(70, 90), "older"))).as_deref(), Some("newest"));
}

#[test]
fn an_evicted_event_is_read_from_the_roster() {
    let before = position(1, 5);
    let mut state = received(before, "evicted");
    state.cached.as_mut().expect("it is there").frame = None;
    assert_eq!(reply(&state, Some(before), Some(event(before, "fetched"))).as_deref(), Some("fetched"));
}

const EVENT_BYTES: usize = 256 * 1024;
const HOUR: Duration = Duration::from_secs(3600);

/// A relay with one shard, whose inbox is drained.
struct Scene {
    relay: Arc<Relay>,
    bus: Arc<MemoryBus>,
    app: App,
}

impl Scene {
    fn new() -> Self {
        let app: App = serde_json::from_str(r#"{"id":"one","key":"k","secret":"s"}"#).expect("an app");
        let apps = Apps::new([app.clone()]).expect("one app is unique");
        let bus = MemoryBus::new();
        let room = Arc::new(Room::default());
        let (sender, receiver) = inbox(room.clone());
        let mut messages = receiver.messages;
        let metrics = Metrics::new(&Registry::new(), &apps, 10, 10);
        let roster = MemoryRoster::new(bus.clone());
        let relay = Arc::new(Relay::new(bus.clone(), roster, vec![sender], room, metrics.presence.clone()));
        bus.deliver_to(relay.clone());
        tokio::spawn(async move {
            let mut batch = Vec::new();
            while messages.receive(&mut batch, 64).await {
                batch.clear();
            }
        });
        Self { relay, bus, app }
    }

    fn topic(&self, number: usize) -> Topic {
        Topic::new(&self.app.id, &ChannelName::parse(&format!("cache-{number}"), 200).expect("a valid name"))
    }

    async fn subscribe(&self, topic: &Topic) {
        let reply = |_| ShardMessage::Watched {
            connection: ConnectionKey { slot: 0, socket_id: "1.1".parse().expect("a socket id") },
            users: Vec::new(),
        };
        self.relay
            .enter(topic, &self.app, 0, None, std::future::pending(), reply)
            .await
            .expect("the subscription succeeds");
    }

    async fn publish(&self, topic: &Topic) {
        let frame = Bytes::from(vec![b'x'; EVENT_BYTES]);
        let body = Body::Event { frame, except: None, cached: false };
        let envelope = Envelope { published_at_us: 0, position: None, body };
        let message = Message { topic: topic.clone(), envelope, cache_for: Some(HOUR), webhook: None };
        self.bus.publish(vec![message]).await.expect("the bus is in memory");
    }

    fn cached_bytes(&self) -> usize {
        let of_topic = |state: &TopicState| state.cached.as_ref()?.frame.as_ref().map(Bytes::len);
        let mut bytes = 0;
        self.relay.topics.for_each(|_, state| bytes += of_topic(state).unwrap_or(0));
        bytes
    }

    fn is_cached(&self, topic: &Topic) -> bool {
        let is_cached = |state: &mut TopicState| state.cached.as_ref().is_some_and(|cached| cached.frame.is_some());
        self.relay.topics.with(topic, is_cached) == Some(true)
    }
}

#[tokio::test]
async fn cached_events_stay_within_their_bound_and_the_oldest_are_evicted() {
    let (scene, channels) = (Scene::new(), CACHED_BYTES_MAX / EVENT_BYTES + 40);
    for number in 0..channels {
        let topic = scene.topic(number);
        scene.subscribe(&topic).await;
        scene.publish(&topic).await;
        // A replaced event does not count, and a channel that is published to again is the youngest.
        scene.publish(&scene.topic(0)).await;
        assert!(scene.cached_bytes() <= CACHED_BYTES_MAX, "after {number}");
    }
    assert!(scene.cached_bytes() > CACHED_BYTES_MAX - 2 * EVENT_BYTES, "no more events are evicted than necessary");
    let cached: Vec<bool> = (0..channels).map(|number| scene.is_cached(&scene.topic(number))).collect();
    assert!(cached[0] && !cached[1] && cached[channels - 1]);
    assert!(cached[1..].is_sorted(), "the least recently cached events are evicted first: {cached:?}");
}

#[tokio::test]
async fn an_event_that_a_pending_reply_needs_is_not_evicted() {
    let scene = Scene::new();
    let awaited = scene.topic(0);
    scene.subscribe(&awaited).await;
    scene.publish(&awaited).await;
    let (_, pin) = scene.relay.pin_cached(&awaited);
    for number in 1..2 * CACHED_BYTES_MAX / EVENT_BYTES {
        let topic = scene.topic(number);
        scene.subscribe(&topic).await;
        scene.publish(&topic).await;
        assert!(scene.is_cached(&awaited), "after {number}");
        assert!(scene.cached_bytes() <= CACHED_BYTES_MAX + EVENT_BYTES, "after {number}");
    }
    drop(pin);
    for number in 1..=CACHED_BYTES_MAX / EVENT_BYTES {
        scene.publish(&scene.topic(number)).await;
    }
    assert!(!scene.is_cached(&awaited), "the reply was made");
}

#[tokio::test]
async fn an_unused_channel_does_not_count() {
    let scene = Scene::new();
    for round in 0..3 {
        let topic = scene.topic(round);
        scene.subscribe(&topic).await;
        scene.publish(&topic).await;
        scene.relay.exit(&topic, &scene.app, 0, None).await;
    }
    let began = std::time::Instant::now();
    while scene.cached_bytes() > 0 {
        assert!(began.elapsed() < Duration::from_secs(20));
        tokio::time::sleep(Duration::from_millis(100)).await;
        scene.relay.tick().await;
    }
    assert!(lock(&scene.relay.cached_ages).is_empty());
}
