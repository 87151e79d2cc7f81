//! The tests that every implementation of [`Bus`](super::Bus) must pass.
//!
//! [`bus_contract!`](crate::bus_contract) makes a test of each function for one [`Cluster`]. A test proves that a
//! message does not arrive by awaiting a later message, not by sleeping.

pub mod cluster;

use std::time::Duration;

use crate::cluster::envelope::{Body, Position};
use crate::protocol::SocketId;

pub use cluster::{Cluster, Delivery, Node, cached_event, event, message, text_of, topic};

/// Makes one test of each function of the contract. `$cluster` is an expression that creates a [`Cluster`]; it may
/// await.
#[macro_export]
macro_rules! bus_contract {
    ($cluster:expr) => {
        $crate::bus_contract! { $cluster =>
            a_node_receives_only_topics_that_it_has_subscribed_to
            a_node_receives_its_own_events
            events_published_after_a_subscription_are_received
            a_second_subscription_has_no_effect
            an_unsubscribed_topic_receives_no_more_events
            unsubscribing_without_a_subscription_has_no_effect
            equal_names_in_two_apps_are_two_topics
            an_envelope_is_received_unchanged
            the_messages_of_one_publish_keep_their_order
            all_nodes_receive_a_topic_in_the_same_order
            a_sink_without_room_loses_no_events
            a_dropped_node_does_not_affect_others
            cached_events_have_increasing_positions
            every_node_reads_the_cached_event
            a_newer_cached_event_replaces_the_older
            an_event_is_cached_without_subscribers
            an_event_that_excludes_a_socket_is_cached
            events_without_a_cache_duration_are_not_cached
            a_cached_event_expires
            cached_events_of_two_apps_are_separate
            a_node_that_has_caught_up_has_received_the_cached_event
        }
    };
    ($cluster:expr => $($promise:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 3)]
            async fn $promise() {
                $crate::cluster::bus::contract::$promise($cluster).await;
            }
        )*
    };
}

const HOUR: Duration = Duration::from_secs(3600);

/// Two nodes subscribe to different topics.
pub async fn a_node_receives_only_topics_that_it_has_subscribed_to(cluster: impl Cluster) {
    let (a, b) = (topic("one", "a"), topic("one", "b"));
    let mut ana = Node::subscribed(&cluster, &[&a]).await;
    let mut bo = Node::subscribed(&cluster, &[&b]).await;
    let publisher = Node::start(&cluster).await;
    publisher.publish([event(&b, "for b"), event(&a, "for a"), event(&b, "end"), event(&a, "end")]).await;
    assert_eq!(ana.receive_texts(2).await, ["for a", "end"]);
    assert_eq!(bo.receive_texts(2).await, ["for b", "end"]);
}

/// The publishing node is subscribed to the topic.
pub async fn a_node_receives_its_own_events(cluster: impl Cluster) {
    let a = topic("one", "a");
    let mut ana = Node::subscribed(&cluster, &[&a]).await;
    ana.publish([event(&a, "mine")]).await;
    let (received, envelope) = ana.receive().await;
    assert_eq!((received, text_of(&envelope)), (a, "mine".into()));
}

/// Repeats it with many topics.
pub async fn events_published_after_a_subscription_are_received(cluster: impl Cluster) {
    let mut ana = Node::start(&cluster).await;
    let publisher = Node::start(&cluster).await;
    for round in 0..50 {
        let a = topic("one", &format!("a{round}"));
        publisher.publish([event(&a, "too early")]).await;
        ana.bus.subscribe(&a).await.expect("the bus is reachable");
        publisher.publish([event(&a, &format!("round {round}"))]).await;
        assert_eq!(ana.receive_text().await, format!("round {round}"));
    }
}

/// Each message is received once, and one `unsubscribe` ends the subscription.
pub async fn a_second_subscription_has_no_effect(cluster: impl Cluster) {
    let a = topic("one", "a");
    let mut ana = Node::subscribed(&cluster, &[&a, &a]).await;
    ana.publish([event(&a, "once"), event(&a, "end")]).await;
    assert_eq!(ana.receive_texts(2).await, ["once", "end"]);
    ana.bus.unsubscribe(&a).await;
    let b = topic("one", "b");
    ana.bus.subscribe(&b).await.expect("the bus is reachable");
    ana.publish([event(&a, "late"), event(&b, "end")]).await;
    assert_eq!(ana.receive_text().await, "end");
}

/// Other nodes and topics are not affected, and the node can subscribe again.
pub async fn an_unsubscribed_topic_receives_no_more_events(cluster: impl Cluster) {
    let (a, b) = (topic("one", "a"), topic("one", "b"));
    let mut ana = Node::subscribed(&cluster, &[&a, &b]).await;
    let mut bo = Node::subscribed(&cluster, &[&a]).await;
    ana.bus.unsubscribe(&a).await;
    bo.publish([event(&a, "late"), event(&b, "end")]).await;
    assert_eq!(ana.receive_text().await, "end");
    assert_eq!(bo.receive_text().await, "late");
    ana.bus.subscribe(&a).await.expect("the bus is reachable");
    bo.publish([event(&a, "again")]).await;
    assert_eq!(ana.receive_text().await, "again");
}

/// Other subscriptions of the node stay.
pub async fn unsubscribing_without_a_subscription_has_no_effect(cluster: impl Cluster) {
    let (a, b) = (topic("one", "a"), topic("one", "b"));
    let mut ana = Node::subscribed(&cluster, &[&a]).await;
    ana.bus.unsubscribe(&b).await;
    ana.bus.unsubscribe(&b).await;
    ana.publish([event(&b, "other"), event(&a, "end")]).await;
    assert_eq!(ana.receive_text().await, "end");
}

/// Apps are isolated, even if the id of an app and the name of a channel are ambiguous when concatenated.
pub async fn equal_names_in_two_apps_are_two_topics(cluster: impl Cluster) {
    let (one, two) = (topic("one", "a"), topic("two", "a"));
    let mut ana = Node::subscribed(&cluster, &[&one]).await;
    let mut bo = Node::subscribed(&cluster, &[&two]).await;
    ana.publish([event(&two, "for two"), event(&one, "for one"), event(&two, "end"), event(&one, "end")]).await;
    assert_eq!(ana.receive_texts(2).await, ["for one", "end"]);
    assert_eq!(bo.receive_texts(2).await, ["for two", "end"]);
    let (left, right) = (topic("a", "b-c"), topic("a-b", "c"));
    let mut ana = Node::subscribed(&cluster, &[&left]).await;
    ana.publish([event(&right, "other"), event(&left, "end")]).await;
    assert_eq!(ana.receive_text().await, "end");
}

/// Covers the frame, the excluded connection, the time stamp and a body that is no event.
pub async fn an_envelope_is_received_unchanged(cluster: impl Cluster) {
    let user = topic("one", "#server-to-user-1");
    let mut ana = Node::subscribed(&cluster, &[&user]).await;
    let publisher = Node::start(&cluster).await;
    let except: SocketId = "1234.5678".parse().expect("a socket id");
    let frame = "{\"data\":\"\\u0000 \u{0} \r\n é 🎉\"}".to_owned();
    let sent = [
        message(&user, Body::Event { frame: frame.into(), except: Some(except), cached: false }),
        message(&user, Body::Event { frame: "x".repeat(100_000).into(), except: None, cached: false }),
        message(&user, Body::Terminate),
    ];
    publisher.publish(sent.clone()).await;
    for message in sent {
        let (received, envelope) = ana.receive().await;
        assert_eq!(received, user);
        assert_eq!(format!("{:?}", envelope), format!("{:?}", message.envelope));
    }
}

/// The messages have different topics.
pub async fn the_messages_of_one_publish_keep_their_order(cluster: impl Cluster) {
    let topics: Vec<_> = (0..5).map(|number| topic("one", &format!("t{number}"))).collect();
    let mut ana = Node::subscribed(&cluster, &topics.iter().collect::<Vec<_>>()).await;
    let publisher = Node::start(&cluster).await;
    let texts: Vec<String> = (0..200).map(|number| number.to_string()).collect();
    publisher.publish(texts.iter().enumerate().map(|(index, text)| event(&topics[index % 5], text))).await;
    assert_eq!(ana.receive_texts(200).await, texts);
}

/// Three nodes publish concurrently. The messages of each publisher keep their order.
pub async fn all_nodes_receive_a_topic_in_the_same_order(cluster: impl Cluster) {
    const EACH: usize = 100;
    let a = topic("one", "a");
    let mut ana = Node::subscribed(&cluster, &[&a]).await;
    let mut bo = Node::subscribed(&cluster, &[&a]).await;
    let mut publishers = Vec::new();
    for name in ["x", "y", "z"] {
        let (node, a) = (Node::start(&cluster).await, a.clone());
        publishers.push(tokio::spawn(async move {
            for number in 0..EACH {
                node.publish([event(&a, &format!("{name}{number:03}"))]).await;
                tokio::task::yield_now().await;
            }
        }));
    }
    let received = ana.receive_texts(3 * EACH).await;
    assert_eq!(received, bo.receive_texts(3 * EACH).await);
    for name in ["x", "y", "z"] {
        let own: Vec<_> = received.iter().filter(|text| text.starts_with(name)).collect();
        assert_eq!(own.len(), EACH);
        assert!(own.is_sorted(), "{own:?}");
    }
    for publisher in publishers {
        publisher.await.expect("the publisher ends");
    }
}

/// The sink receives the events when it has room again.
pub async fn a_sink_without_room_loses_no_events(cluster: impl Cluster) {
    let a = topic("one", "a");
    let mut ana = Node::subscribed(&cluster, &[&a]).await;
    let publisher = Node::start(&cluster).await;
    ana.set_room(false);
    let texts: Vec<String> = (0..100).map(|number| number.to_string()).collect();
    let publishing = {
        let (a, texts) = (a.clone(), texts.clone());
        tokio::spawn(async move {
            for text in &texts {
                publisher.publish([event(&a, text)]).await;
            }
        })
    };
    tokio::task::yield_now().await;
    ana.set_room(true);
    assert_eq!(ana.receive_texts(100).await, texts);
    publishing.await.expect("the publisher ends");
}

/// Publishers do not wait for it, and other nodes still receive its topics.
pub async fn a_dropped_node_does_not_affect_others(cluster: impl Cluster) {
    let a = topic("one", "a");
    let mut ana = Node::subscribed(&cluster, &[&a]).await;
    let gone = Node::subscribed(&cluster, &[&a]).await;
    drop(gone);
    ana.publish([event(&a, "still here")]).await;
    assert_eq!(ana.receive_text().await, "still here");
}

async fn receive_position(node: &mut Node) -> Position {
    let (_, envelope) = node.receive().await;
    assert!(matches!(envelope.body, Body::Event { cached: true, .. }), "not marked as cached: {envelope:?}");
    envelope.position.expect("a cached event has a position")
}

async fn cached_text(node: &Node, topic: &crate::cluster::envelope::Topic) -> Option<String> {
    let cached = node.roster.cached(topic).await.expect("the roster is reachable")?;
    Some(String::from_utf8_lossy(&cached.frame).into_owned())
}

/// Positions have no gaps, whichever node publishes. Other events of the channel do not count.
pub async fn cached_events_have_increasing_positions(cluster: impl Cluster) {
    let a = topic("one", "cache-a");
    let mut ana = Node::subscribed(&cluster, &[&a]).await;
    let bo = Node::start(&cluster).await;
    ana.publish([cached_event(&a, "0", HOUR)]).await;
    let mut last = receive_position(&mut ana).await;
    assert_eq!(last.sequence, 1);
    for round in 1..20 {
        let publisher = if round % 2 == 0 { &ana } else { &bo };
        publisher.publish([event(&a, "not cached"), cached_event(&a, &round.to_string(), HOUR)]).await;
        assert_eq!(ana.receive_text().await, "not cached");
        let position = receive_position(&mut ana).await;
        assert_eq!(position, Position { sequence: last.sequence + 1, ..last });
        last = position;
    }
}

/// The read returns the position of the envelope and the remaining time to live.
pub async fn every_node_reads_the_cached_event(cluster: impl Cluster) {
    let a = topic("one", "cache-a");
    let mut ana = Node::subscribed(&cluster, &[&a]).await;
    let bo = Node::start(&cluster).await;
    assert_eq!(ana.roster.cached(&a).await, Ok(None));
    ana.publish([cached_event(&a, "cached", HOUR)]).await;
    let position = receive_position(&mut ana).await;
    for node in [&ana, &bo] {
        let cached = node.roster.cached(&a).await.expect("the roster is reachable").expect("the event is cached");
        assert_eq!((&*cached.frame, cached.position), (&b"cached"[..], position));
        assert!(cached.ttl <= HOUR && cached.ttl > HOUR / 2, "{:?}", cached.ttl);
    }
}

/// Both events may be in one publish, or in two.
pub async fn a_newer_cached_event_replaces_the_older(cluster: impl Cluster) {
    let a = topic("one", "cache-a");
    let ana = Node::start(&cluster).await;
    ana.publish([cached_event(&a, "first", HOUR), cached_event(&a, "second", HOUR)]).await;
    assert_eq!(cached_text(&ana, &a).await.as_deref(), Some("second"));
    ana.publish([cached_event(&a, "third", HOUR)]).await;
    assert_eq!(cached_text(&ana, &a).await.as_deref(), Some("third"));
}

/// The channel has no subscribers at the time of the publish.
pub async fn an_event_is_cached_without_subscribers(cluster: impl Cluster) {
    let a = topic("one", "cache-a");
    let ana = Node::start(&cluster).await;
    ana.publish([cached_event(&a, "cached", HOUR)]).await;
    ana.bus.subscribe(&a).await.expect("the bus is reachable");
    ana.bus.unsubscribe(&a).await;
    assert_eq!(cached_text(&ana, &a).await.as_deref(), Some("cached"));
}

/// New subscribers receive the event although one connection was excluded.
pub async fn an_event_that_excludes_a_socket_is_cached(cluster: impl Cluster) {
    let a = topic("one", "cache-a");
    let ana = Node::start(&cluster).await;
    let except = Some("1.2".parse().expect("a socket id"));
    let body = Body::Event { frame: "cached".into(), except, cached: false };
    ana.publish([crate::cluster::bus::Message { cache_for: Some(HOUR), ..message(&a, body) }]).await;
    assert_eq!(cached_text(&ana, &a).await.as_deref(), Some("cached"));
}

/// Nor do they replace the cached event.
pub async fn events_without_a_cache_duration_are_not_cached(cluster: impl Cluster) {
    let a = topic("one", "cache-a");
    let mut ana = Node::subscribed(&cluster, &[&a]).await;
    ana.publish([event(&a, "not cached")]).await;
    assert_eq!(cached_text(&ana, &a).await, None);
    ana.publish([cached_event(&a, "cached", HOUR), event(&a, "not cached")]).await;
    assert_eq!(cached_text(&ana, &a).await.as_deref(), Some("cached"));
    for cached in [false, true, false] {
        let (_, envelope) = ana.receive().await;
        assert!(matches!(envelope.body, Body::Event { cached: marked, .. } if marked == cached), "{envelope:?}");
    }
}

/// After its time to live, a read returns no event. The next event has a later position.
pub async fn a_cached_event_expires(cluster: impl Cluster) {
    let a = topic("one", "cache-a");
    let mut ana = Node::subscribed(&cluster, &[&a]).await;
    ana.publish([cached_event(&a, "short", Duration::from_millis(20))]).await;
    let first = receive_position(&mut ana).await;
    let expired = async {
        while cached_text(&ana, &a).await.is_some() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), expired).await.expect("the event expires");
    ana.publish([cached_event(&a, "next", HOUR)]).await;
    let next = receive_position(&mut ana).await;
    assert!(next.epoch != first.epoch || next.sequence > first.sequence, "{first:?} {next:?}");
    assert_eq!(cached_text(&ana, &a).await.as_deref(), Some("next"));
}

/// Both channels have the same name.
pub async fn cached_events_of_two_apps_are_separate(cluster: impl Cluster) {
    let (one, two) = (topic("one", "cache-a"), topic("two", "cache-a"));
    let ana = Node::start(&cluster).await;
    ana.publish([cached_event(&one, "of one", HOUR)]).await;
    assert_eq!(cached_text(&ana, &two).await, None);
    ana.publish([cached_event(&two, "of two", HOUR)]).await;
    assert_eq!(cached_text(&ana, &one).await.as_deref(), Some("of one"));
}

/// The roster may return an event before the node receives it, but not after `catch_up`.
pub async fn a_node_that_has_caught_up_has_received_the_cached_event(cluster: impl Cluster) {
    const EVENTS: u64 = 300;
    let a = topic("one", "cache-a");
    let mut ana = Node::subscribed(&cluster, &[&a]).await;
    let bo = Node::start(&cluster).await;
    let topic_of_bo = a.clone();
    let publishing = tokio::spawn(async move {
        for number in 1..=EVENTS {
            bo.publish([cached_event(&topic_of_bo, &number.to_string(), HOUR)]).await;
        }
    });
    let mut newest = 0;
    while newest < EVENTS {
        let cached = ana.roster.cached(&a).await.expect("the roster is reachable");
        ana.bus.catch_up().await;
        let known = cached.map_or(0, |cached| cached.position.sequence);
        let received = ana.delivered().into_iter().filter_map(|(_, envelope)| envelope.position);
        newest = received.map(|position| position.sequence).max().unwrap_or(0).max(newest);
        assert!(newest >= known, "{known} is cached, but only {newest} was received");
    }
    publishing.await.expect("all events are published");
}
