//! Publishers that are killed or stopped while they work.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use client::ApiClient;
use serde_json::json;
use tests::{Cluster, TestClient};

const ROUNDS: usize = 5;
const SENDERS: usize = 4;
const EVENTS: usize = 10;

/// Sends batches until no response arrives. Returns the numbers of the batches that were answered with 200, and of the
/// batch without a response.
async fn send_batches(mut api: ApiClient, channel: String, first: usize) -> (BTreeSet<usize>, usize) {
    let mut answered = BTreeSet::new();
    for number in first.. {
        // Every other batch contains a cached event, which uses another command of Redis.
        let other = if number % 2 == 0 { "cache-elsewhere" } else { "elsewhere" };
        let events = (0..EVENTS).map(|index| {
            let channel = if index == 5 { other } else { &channel };
            json!({ "name": "part", "channel": channel, "data": format!("{number}/{index}") })
        });
        match api.post("/batch_events", &json!({ "batch": events.collect::<Vec<_>>() })).await {
            Ok(reply) => {
                assert_eq!(reply.status.as_u16(), 200, "{}", reply.body);
                answered.insert(number);
            }
            Err(_) => return (answered, number),
        }
    }
    unreachable!("the publisher is killed")
}

/// Returns the batches of a channel up to the marker. Each must be whole and in order, or absent.
async fn batches_received(client: &mut TestClient) -> BTreeSet<usize> {
    let mut received: BTreeMap<usize, usize> = BTreeMap::new();
    let mut expected_next = None;
    loop {
        let message = client.next().await;
        if message.event == "marker" {
            assert_eq!(expected_next, None, "the last batch is not whole");
            return received.into_keys().collect();
        }
        let (number, index) = message.data.split_once('/').expect("a batch and an index");
        let (number, index): (usize, usize) = (number.parse().expect("a number"), index.parse().expect("an index"));
        let (expected_number, expected_index) = expected_next.unwrap_or((number, 0));
        assert_eq!((number, index), (expected_number, expected_index), "batches are whole and in order");
        assert!(
            received.last_key_value().is_none_or(|(last, _)| number >= *last),
            "{number} arrived after a later one"
        );
        *received.entry(number).or_default() += 1;
        let next = if index + 1 == 5 { 6 } else { index + 1 };
        expected_next = (next < EVENTS).then_some((number, next));
    }
}

#[tokio::test]
async fn acknowledged_batches_are_delivered_whole_and_no_batch_in_part() {
    let mut cluster = Cluster::start().publishers(2).await;
    let channels: Vec<String> = (0..SENDERS).map(|number| format!("batches-{number}")).collect();
    let mut clients = Vec::new();
    for channel in &channels {
        clients.push(cluster.subscribers(channel).await);
    }
    let mut answered: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); SENDERS];
    let mut unanswered: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); SENDERS];
    let mut next = [0; SENDERS];
    for round in 0..ROUNDS {
        let senders: Vec<_> = (0..SENDERS)
            .map(|index| {
                let api = cluster.publisher_at(0).api_client();
                tokio::spawn(send_batches(api, channels[index].clone(), next[index]))
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(200 + 50 * round as u64)).await;
        cluster.kill_publisher(0).await;
        for (index, sender) in senders.into_iter().enumerate() {
            let (whole, cut_off) = sender.await.expect("the sender ends");
            answered[index].extend(whole);
            unanswered[index].insert(cut_off);
            next[index] = cut_off + 1;
        }
        cluster.start_publisher(0).await;
    }
    for (index, channel) in channels.iter().enumerate() {
        cluster.publisher_at(1).publish(channel, "marker", "").await;
        for client in &mut clients[index] {
            let received = batches_received(client).await;
            let lost: Vec<&usize> = answered[index].difference(&received).collect();
            assert!(lost.is_empty(), "answered 200 and not delivered: {lost:?}");
            let more: Vec<&usize> = received.difference(&answered[index]).collect();
            assert!(more.iter().all(|number| unanswered[index].contains(number)), "{more:?}");
        }
        println!("{channel}: {} answered, cut off: {:?}", answered[index].len(), unanswered[index]);
        assert!(answered[index].len() > ROUNDS, "batches were in progress");
    }
    cluster.stop().await;
}

#[tokio::test]
async fn a_draining_publisher_answers_requests_in_progress() {
    let mut cluster = Cluster::start().publishers(2).await;
    let mut clients = cluster.subscribers("batches").await;
    let sending = tokio::spawn(send_batches(cluster.publisher_at(0).api_client(), "batches".into(), 0));
    tokio::time::sleep(Duration::from_millis(300)).await;
    cluster.stop_publisher(0).await;
    let (answered, cut_off) = sending.await.expect("the sender ends");
    cluster.publisher_at(1).publish("batches", "marker", "").await;
    for client in &mut clients {
        let received = batches_received(client).await;
        assert_eq!(received, answered, "number {cut_off} was not accepted");
    }
    cluster.stop().await;
}
