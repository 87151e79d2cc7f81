//! The contract of the queues, tested against Redis and memory.

use std::time::Duration;

use super::*;
use crate::app::{App, AppId};
use crate::cluster::bus::contract::{Cluster, Node, event, topic};
use crate::cluster::bus::{Bus, EnvelopeSink, Message};
use crate::cluster::redis::server::RedisCluster;
use crate::cluster::roster::{MemoryRoster, Roster};
use crate::limits::WEBHOOK_HOLD;

const CHANNEL: &str = "presence-room";

fn apps() -> Apps {
    let app: App = serde_json::from_value(json!({
        "id": "shop", "key": "k", "secret": "s", "webhooks": [{ "url": "http://example.org/" }]
    }))
    .unwrap();
    Apps::new([app]).unwrap()
}

fn queue() -> QueueId {
    let apps = apps();
    let app = apps.by_id("shop").unwrap();
    let label = Endpoint::labelled(&app.webhooks)[0].0.clone();
    QueueId { partition: 0, app: app.id.clone(), endpoint: label }
}

/// A cluster of nodes with shared queues.
trait World: Cluster {
    fn queues(&self) -> Arc<dyn Queues>;
}

struct Memory {
    bus: Arc<crate::cluster::bus::MemoryBus>,
    roster: Arc<MemoryRoster>,
    queues: Arc<MemoryQueues>,
}

impl Memory {
    fn new() -> Self {
        let queues = MemoryQueues::new(&apps());
        let bus = crate::cluster::bus::MemoryBus::with_queues(Some(queues.clone()));
        Self { roster: MemoryRoster::new(bus.clone()), bus, queues }
    }
}

impl Cluster for Memory {
    async fn start(&self, sink: Arc<dyn EnvelopeSink>) -> (Arc<dyn Bus>, Arc<dyn Roster>) {
        let bus = self.bus.join();
        bus.deliver_to(sink);
        (bus.clone(), self.roster.join_node(bus))
    }
}

impl World for Memory {
    fn queues(&self) -> Arc<dyn Queues> {
        self.queues.clone()
    }
}

impl World for RedisCluster {
    fn queues(&self) -> Arc<dyn Queues> {
        self.queues_of(EventTypes::new(&apps()))
    }
}

async fn redis() -> RedisCluster {
    RedisCluster::with_event_types(EventTypes::new(&apps())).await
}

/// Ticks and reads until `count` events have arrived.
async fn read(queues: &Arc<dyn Queues>, last: &mut Option<StreamId>, count: usize) -> Vec<WebhookEvent> {
    let mut all = Vec::new();
    let reading = async {
        while all.len() < count {
            queues.tick().await.unwrap();
            let batch = queues.read(&queue(), last.as_ref(), 100).await.unwrap();
            all.extend(batch.events);
            *last = batch.last.or(last.take());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), reading).await.expect("the events arrive in time");
    assert_eq!(all.len(), count, "{all:?}");
    all
}

fn words(events: &[WebhookEvent]) -> Vec<String> {
    let word = |event: &WebhookEvent| match &event.occurrence {
        Occurrence::MemberAdded(user) => format!("+{user}"),
        Occurrence::MemberRemoved(user) => format!("-{user}"),
        Occurrence::SubscriptionCount(count) => format!("={count}"),
        other => other.kind().name().to_owned(),
    };
    events.iter().map(word).collect()
}

async fn join(node: &Node, topic: &crate::cluster::envelope::Topic, user: &str) {
    let member = crate::protocol::Member { user_id: user.into(), user_info: None };
    node.roster.join(topic, &member, 100, true).await.unwrap();
}

async fn changes_are_queued_once_and_ends_after_the_hold(world: impl World) {
    let (a, b) = (Node::start(&world).await, Node::start(&world).await);
    let (queues, topic, mut last) = (world.queues(), topic("shop", CHANNEL), None);
    for node in [&a, &b] {
        for _ in 0..2 {
            join(node, &topic, "ana").await;
            node.roster.set_subscriptions(&topic, 1, false).await.unwrap();
        }
    }
    let first = read(&queues, &mut last, 2).await;
    assert_eq!(words(&first), ["+ana", "channel_occupied"]);
    for node in [&a, &b] {
        node.roster.leave(&topic, &"ana".into()).await.unwrap();
        node.roster.set_subscriptions(&topic, 0, false).await.unwrap();
    }
    // A return cancels the end, and is not reported either.
    join(&a, &topic, "ana").await;
    a.roster.set_subscriptions(&topic, 1, false).await.unwrap();
    join(&a, &topic, "bo").await;
    assert_eq!(words(&read(&queues, &mut last, 1).await), ["+bo"]);
    let before = std::time::Instant::now();
    for user in ["ana", "bo"] {
        a.roster.leave(&topic, &user.into()).await.unwrap();
    }
    a.roster.set_subscriptions(&topic, 0, false).await.unwrap();
    let ends = read(&queues, &mut last, 3).await;
    assert_eq!(words(&ends), ["-ana", "-bo", "channel_vacated"]);
    assert!(before.elapsed() >= Duration::from_millis(2900), "held only for {:?}", before.elapsed());
    let ids: std::collections::HashSet<_> = first.iter().chain(&ends).map(|event| event.id.clone()).collect();
    assert_eq!(ids.len(), 5);
}

async fn counts_cache_misses_and_client_events_are_queued(world: impl World) {
    let node = Node::start(&world).await;
    let (queues, topic, mut last) = (world.queues(), topic("shop", "cache-news"), None);
    for count in [1, 2, 100] {
        node.roster.set_subscriptions(&topic, count, true).await.unwrap();
    }
    for _ in 0..3 {
        node.roster.report_cache_miss(&topic).await.unwrap();
    }
    assert_eq!(words(&read(&queues, &mut last, 5).await), ["channel_occupied", "=1", "=2", "=100", "cache_miss"]);
    let occurrence = occurrences().swap_remove(4).0;
    let message = |text: &str| Message { webhook: Some(occurrence.clone()), ..event(&topic, text) };
    node.publish([message("a"), message("b")]).await;
    let queued = read(&queues, &mut last, 2).await;
    assert_eq!(queued[0].occurrence, occurrence);
    let start = std::time::Instant::now();
    for count in [200, 300, 400] {
        node.roster.set_subscriptions(&topic, count, true).await.unwrap();
    }
    assert_eq!(words(&read(&queues, &mut last, 1).await), ["=400"]);
    assert!(start.elapsed() >= Duration::from_millis(4900), "queued after {:?}", start.elapsed());
}

async fn acknowledged_events_are_removed_and_the_others_are_counted(world: impl World) {
    let node = Node::start(&world).await;
    let (queues, mut last) = (world.queues(), None);
    for number in 0..5 {
        node.roster.set_subscriptions(&topic("shop", &format!("room-{number}")), 1, false).await.unwrap();
    }
    let events = read(&queues, &mut last, 5).await;
    let queue = queue();
    let labels = [queue.endpoint.clone()];
    let backlog = async || queues.backlog(0, &"shop".into(), &labels).await.unwrap();
    let expected = |queued, oldest_ms| Backlogs {
        by_endpoint: vec![(queue.endpoint.clone(), Backlog { queued, oldest_ms })],
        ..Backlogs::default()
    };
    assert_eq!(backlog().await, expected(5, Some(events[0].at_ms)));
    let stream_ids: Vec<StreamId> = events[..4].iter().map(|event| event.stream_id.clone()).collect();
    queues.acknowledge(&queue, &stream_ids).await.unwrap();
    assert_eq!(backlog().await, expected(1, Some(events[4].at_ms)));
    let letter = FailedDelivery { event: events[4].clone(), attempts: 3, error: "no".into() };
    queues.add_dead_letter(&queue, &letter).await.unwrap();
    assert_eq!(backlog().await, expected(0, None));
}

async fn an_end_is_queued_after_the_hold_without_a_dispatcher(world: impl World) {
    let node = Node::start(&world).await;
    let (queues, topic, mut last) = (world.queues(), topic("shop", CHANNEL), None);
    for _ in 0..2 {
        join(&node, &topic, "ana").await;
        node.roster.set_subscriptions(&topic, 1, false).await.unwrap();
        node.roster.leave(&topic, &"ana".into()).await.unwrap();
        node.roster.set_subscriptions(&topic, 0, false).await.unwrap();
        // No dispatcher runs in this time.
        tokio::time::sleep(WEBHOOK_HOLD + Duration::from_millis(100)).await;
    }
    let queued = words(&read(&queues, &mut last, 8).await);
    assert_eq!(queued[..4], ["+ana", "channel_occupied", "-ana", "channel_vacated"]);
    assert_eq!(queued[4..], queued[..4]);
}

async fn events_of_a_lost_reply_are_read_again(world: impl World) {
    let node = Node::start(&world).await;
    let (queues, mut last) = (world.queues(), None);
    for number in 0..3 {
        node.roster.set_subscriptions(&topic("shop", &format!("room-{number}")), 1, false).await.unwrap();
    }
    let first = read(&queues, &mut last, 3).await;
    node.roster.set_subscriptions(&topic("shop", "room-3"), 1, false).await.unwrap();
    // The worker has received only the first event.
    let after = Some(&first[0].stream_id);
    let again = queues.read(&queue(), after, 100).await.unwrap();
    assert_eq!(again.events, first[1..]);
    let next = queues.read(&queue(), again.last.as_ref(), 100).await.unwrap();
    assert_eq!(next.events.len(), 1);
}

/// Publishes client events of a megabyte each, numbered in their names.
async fn publish_large(node: &Node, topic: &crate::cluster::envelope::Topic, count: u64) {
    for number in 0..count {
        let occurrence = Occurrence::ClientEvent {
            event: format!("client-{number}"),
            data: "x".repeat(1 << 20),
            socket_id: "12.34".parse().unwrap(),
            user_id: None,
        };
        node.publish([Message { webhook: Some(occurrence), ..event(topic, "small") }]).await;
    }
}

fn event_name(event: &WebhookEvent) -> &str {
    match &event.occurrence {
        Occurrence::ClientEvent { event, .. } => event,
        other => panic!("{other:?}"),
    }
}

async fn a_queue_is_bounded_by_bytes_and_drops_the_oldest(world: impl World) {
    const COUNT: u64 = 70;
    let (node, queues) = (Node::start(&world).await, world.queues());
    publish_large(&node, &topic("shop", "private-room"), COUNT).await;
    queues.tick().await.unwrap();
    let first = queues.read(&queue(), None, 1).await.unwrap().events;
    let labels = [queue().endpoint];
    let backlogs = async || queues.backlog(0, &"shop".into(), &labels).await.unwrap();
    let Backlogs { by_endpoint, dropped, .. } = backlogs().await;
    assert_eq!(backlogs().await.dropped, 0, "dropped events are reported once");
    let left = by_endpoint[0].1.queued;
    assert!((16..=64).contains(&left), "{left} are left");
    assert_eq!(dropped + left, COUNT);
    assert_eq!(event_name(&first[0]), format!("client-{dropped}"));
    // Events that were read before they were dropped are not counted again.
    publish_large(&node, &topic("shop", "private-room"), COUNT).await;
    let Backlogs { by_endpoint, dropped: more, .. } = backlogs().await;
    assert_eq!(dropped + more + by_endpoint[0].1.queued, 2 * COUNT);
}

macro_rules! both {
    ($($test:ident)*) => {
        mod in_memory {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $test() {
                    super::$test(super::Memory::new()).await;
                }
            )*
        }
        mod in_redis {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $test() {
                    super::$test(super::redis().await).await;
                }
            )*
        }
    };
}

both! {
    changes_are_queued_once_and_ends_after_the_hold
    counts_cache_misses_and_client_events_are_queued
    acknowledged_events_are_removed_and_the_others_are_counted
    an_end_is_queued_after_the_hold_without_a_dispatcher
    events_of_a_lost_reply_are_read_again
    a_queue_is_bounded_by_bytes_and_drops_the_oldest
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_bounded_by_bytes_and_expire() {
    const COUNT: u64 = 40;
    let world = redis().await;
    let (node, queues) = (Node::start(&world).await, World::queues(&world));
    for number in 0..COUNT {
        node.roster.set_subscriptions(&topic("shop", &format!("room-{number}")), 1, false).await.unwrap();
    }
    let events = read(&queues, &mut None, 40).await;
    for (number, mut event) in events.into_iter().enumerate() {
        event.occurrence = Occurrence::ClientEvent {
            event: format!("client-{number}"),
            data: "x".repeat(1 << 20),
            socket_id: "12.34".parse().unwrap(),
            user_id: None,
        };
        let letter = FailedDelivery { event, attempts: 1, error: "no".into() };
        queues.add_dead_letter(&queue(), &letter).await.unwrap();
    }
    let left: u64 = world.query("XLEN", &["carillon:{0}:wd:shop"]).await;
    assert!((16..=32).contains(&left), "{left} are left");
    let labels = [queue().endpoint];
    let dropped = queues.backlog(0, &"shop".into(), &labels).await.unwrap().dead_dropped;
    assert_eq!(dropped + left, COUNT);
    let first = world.dead_letters("shop").list().await.unwrap().swap_remove(0);
    assert_eq!(event_name(&first.event), format!("client-{dropped}"));
    const DAY_MS: i64 = 24 * 3600 * 1000;
    for (key, days) in [("wq:shop", 1), ("wq:shop:m", 1), ("wd:shop", 7), ("wd:shop:m", 7)] {
        let left_ms: i64 = world.query("PTTL", &[&format!("carillon:{{0}}:{key}")]).await;
        assert!(left_ms > (days - 1) * DAY_MS && left_ms <= days * DAY_MS, "{key}: {left_ms}");
    }
    // A dead letter from eight days ago.
    let old = format!("{}-0", crate::cluster::envelope::unix_us() / 1000 - 8 * 24 * 3600 * 1000);
    let other = "carillon:{0}:wd:old";
    let _: String = world.query("XADD", &[other, &old, "k", "O", "c", "room"]).await;
    assert_eq!(queues.backlog(0, &"old".into(), &labels).await.unwrap().dead_dropped, 1);
    assert_eq!(world.query::<u64>("XLEN", &[other]).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_endpoint_loses_its_position_after_the_grace_period() {
    let world = redis().await;
    let node = Node::start(&world).await;
    node.roster.set_subscriptions(&topic("shop", "room"), 1, false).await.unwrap();
    let with_grace: Arc<dyn Queues> = World::queues(&world);
    read(&with_grace, &mut None, 1).await;
    let (known, other) = (queue().endpoint, Label::from("other"));
    let groups = async || {
        let groups: Vec<std::collections::HashMap<String, ::redis::Value>> =
            world.query("XINFO", &["GROUPS", "carillon:{0}:wq:shop"]).await;
        groups.len()
    };
    let look = async |queues: &Arc<dyn Queues>, label: &Label| {
        queues.backlog(0, &"shop".into(), std::slice::from_ref(label)).await.unwrap().by_endpoint.len()
    };
    assert_eq!(look(&with_grace, &other).await, 0);
    assert_eq!(groups().await, 1, "another publisher can still have the endpoint");
    let without_grace: Arc<dyn Queues> = world.queues_with_grace(EventTypes::new(&apps()), Duration::ZERO);
    assert_eq!(look(&without_grace, &known).await, 1);
    assert_eq!(groups().await, 1, "the endpoint is configured");
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(look(&without_grace, &other).await, 0);
    assert_eq!(groups().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_leader_reads_unacknowledged_events_again() {
    let world = redis().await;
    let node = Node::start(&world).await;
    let (first, second) = (world.queues(), world.queues());
    let mut last = None;
    node.roster.set_subscriptions(&topic("shop", "room"), 1, false).await.unwrap();
    let unacknowledged = read(&first, &mut last, 1).await;
    assert_eq!(second.tick().await.unwrap(), []);
    assert!(first.leads(0) && !second.leads(0));
    first.release().await;
    assert!(!first.leads(0));
    let news = async {
        loop {
            let news = second.tick().await.unwrap();
            if !news.is_empty() {
                return news;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let news =
        tokio::time::timeout(Duration::from_secs(10), news).await.expect("the second dispatcher takes the lease");
    assert_eq!(news, [(0, AppId::from("shop"))]);
    let again = second.read(&queue(), None, 100).await.unwrap();
    assert_eq!(again.events, unacknowledged);
    let nothing = second.read(&queue(), again.last.as_ref(), 100).await.unwrap();
    assert_eq!(nothing, Batch::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dispatcher_without_the_lease_reads_nothing() {
    let world = redis().await;
    let node = Node::start(&world).await;
    let (first, second) = (world.queues(), world.queues());
    first.tick().await.unwrap();
    node.roster.set_subscriptions(&topic("shop", "room"), 1, false).await.unwrap();
    assert_eq!(second.read(&queue(), None, 100).await.unwrap(), Batch::default());
    assert_eq!(first.read(&queue(), None, 100).await.unwrap().events.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn events_without_an_endpoint_are_not_stored() {
    let world = RedisCluster::with_event_types(EventTypes::default()).await;
    let node = Node::start(&world).await;
    let topic = topic("shop", CHANNEL);
    join(&node, &topic, "ana").await;
    node.roster.set_subscriptions(&topic, 1, true).await.unwrap();
    node.roster.report_cache_miss(&topic).await.unwrap();
    node.roster.leave(&topic, &"ana".into()).await.unwrap();
    node.roster.set_subscriptions(&topic, 0, true).await.unwrap();
    let keys: Vec<String> = world.query("KEYS", &["*:w*"]).await;
    assert_eq!(keys, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn state_that_is_reported_again_after_a_data_loss_is_not_queued() {
    let world = redis().await;
    let node = Node::start(&world).await;
    let (queues, topic, mut last) = (world.queues(), topic("shop", CHANNEL), None);
    let member = crate::protocol::Member { user_id: "ana".into(), user_info: None };
    node.roster.join(&topic, &member, 100, true).await.unwrap();
    node.roster.set_subscriptions(&topic, 1, false).await.unwrap();
    read(&queues, &mut last, 2).await;
    let _: String = world.query("FLUSHALL", &[]).await;
    node.roster.renew().await.unwrap();
    node.roster.rejoin(&topic, &member, true).await.unwrap();
    node.roster.resend_subscriptions(&topic, 1, false).await.unwrap();
    node.roster.set_subscriptions(&crate::cluster::bus::contract::topic("shop", "marker"), 1, false).await.unwrap();
    assert_eq!(words(&read(&queues, &mut last, 1).await), ["channel_occupied"]);
}
