use futures_util::future::FutureExt;

use super::*;
use crate::cluster::bus::contract::{Cluster, Node, cached_event, event, topic};
use crate::cluster::roster::{MemoryRoster, Roster};

crate::bus_contract!(MemoryCluster::new());

/// A cluster of nodes on one in-memory bus.
pub(crate) struct MemoryCluster {
    bus: Arc<MemoryBus>,
    roster: Arc<MemoryRoster>,
}

impl MemoryCluster {
    pub(crate) fn new() -> Self {
        let bus = MemoryBus::new();
        Self { roster: MemoryRoster::new(bus.clone()), bus }
    }
}

impl Cluster for MemoryCluster {
    async fn start(&self, sink: Arc<dyn EnvelopeSink>) -> (Arc<dyn Bus>, Arc<dyn Roster>) {
        let bus = self.bus.join();
        bus.deliver_to(sink);
        (bus.clone(), self.roster.join_node(bus))
    }
}

#[tokio::test]
async fn a_publish_waits_until_every_sink_has_room() {
    let (cluster, a, b) = (MemoryCluster::new(), topic("one", "a"), topic("one", "b"));
    let mut ana = Node::subscribed(&cluster, &[&a]).await;
    let mut bo = Node::subscribed(&cluster, &[&b]).await;
    let publisher = Node::start(&cluster).await;
    bo.set_room(false);
    let mut waiting = publisher.bus.publish(vec![event(&a, "first"), event(&b, "second")]);
    assert_eq!((&mut waiting).now_or_never(), None);
    // A publish to other topics does not wait for the full node, and overtakes the waiting one.
    publisher.bus.publish(vec![event(&a, "ahead")]).now_or_never().expect("room").unwrap();
    assert_eq!((&mut waiting).now_or_never(), None);
    bo.set_room(true);
    waiting.await.unwrap();
    assert_eq!(ana.receive_texts(2).await, ["ahead", "first"]);
    assert_eq!(bo.receive_text().await, "second");
}

#[tokio::test]
async fn a_removed_topic_restarts_in_a_new_epoch() {
    let (cluster, a) = (MemoryCluster::new(), topic("one", "cache-a"));
    let ana = Node::start(&cluster).await;
    let mut positions = Vec::new();
    for text in ["first", "second"] {
        ana.publish([cached_event(&a, text, Duration::from_secs(3600))]).await;
        positions.push(ana.roster.cached(&a).await.unwrap().unwrap().position);
        ana.publish([cached_event(&a, "expired at once", Duration::ZERO)]).await;
        cluster.roster.sweep();
        assert!(cluster.bus.exchange.stripes.iter().all(|stripe| lock(stripe).is_empty()));
    }
    assert_eq!(positions.iter().map(|position| position.sequence).collect::<Vec<_>>(), [1, 1]);
    assert_ne!(positions[0].epoch, positions[1].epoch);
}

#[tokio::test]
async fn a_sweep_keeps_subscriptions_and_cached_events() {
    let (cluster, a, b) = (MemoryCluster::new(), topic("one", "a"), topic("one", "cache-b"));
    let mut ana = Node::subscribed(&cluster, &[&a]).await;
    ana.publish([cached_event(&b, "cached", Duration::from_secs(3600))]).await;
    cluster.roster.sweep();
    ana.publish([event(&a, "received")]).await;
    assert_eq!(ana.receive_text().await, "received");
    assert!(ana.roster.cached(&b).await.unwrap().is_some());
}

#[tokio::test]
async fn a_topic_without_subscribers_uses_no_memory() {
    let (cluster, a) = (MemoryCluster::new(), topic("one", "a"));
    let ana = Node::subscribed(&cluster, &[&a]).await;
    ana.bus.unsubscribe(&a).await;
    ana.publish([event(&a, "not received")]).await;
    assert!(cluster.bus.exchange.stripes.iter().all(|stripe| lock(stripe).is_empty()));
}

#[tokio::test]
async fn the_oldest_cached_events_are_removed_above_the_limit() {
    const FRAME_BYTES: usize = 1024 * 1024;
    let (cluster, hour) = (MemoryCluster::new(), Duration::from_secs(3600));
    let text = "x".repeat(FRAME_BYTES);
    let ana = Node::start(&cluster).await;
    let topics: Vec<Topic> = (0..70).map(|number| topic("one", &format!("cache-{number}"))).collect();
    for topic in &topics {
        ana.publish([cached_event(topic, &text, hour)]).await;
        // Replaced and expired events do not count, and a new event of a topic is the youngest.
        ana.publish([cached_event(&topics[0], "again", hour), cached_event(&topics[1], "expired", Duration::ZERO)])
            .await;
        cluster.roster.sweep();
    }
    let cached: Vec<usize> = (0..70).filter(|number| cluster.bus.cached(&topics[*number]).is_some()).collect();
    let largest = CACHED_BYTES_MAX / FRAME_BYTES - 1;
    let expected: Vec<usize> = [0].into_iter().chain(70 - largest..70).collect();
    assert_eq!(cached, expected);
    let known: usize = cluster.bus.exchange.stripes.iter().map(|stripe| lock(stripe).len()).sum();
    assert_eq!(known, cached.len(), "the removed events use no memory");
}

#[tokio::test]
async fn subscribers_receive_events_after_the_cached_event_was_removed() {
    let (cluster, a) = (MemoryCluster::new(), topic("one", "cache-a"));
    let mut ana = Node::subscribed(&cluster, &[&a]).await;
    ana.publish([cached_event(&a, "first", Duration::from_secs(3600))]).await;
    let large = "x".repeat(CACHED_BYTES_MAX);
    ana.publish([cached_event(&topic("one", "cache-b"), &large, Duration::from_secs(3600))]).await;
    assert!(ana.roster.cached(&a).await.unwrap().is_none());
    ana.publish([cached_event(&a, "second", Duration::from_secs(3600))]).await;
    assert_eq!(ana.receive_texts(2).await, ["first", "second"]);
    assert_eq!(ana.roster.cached(&a).await.unwrap().unwrap().position.sequence, 2);
}
