//! Repetitions of a request that is allowed once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tests::{Server, Setup, TestClient, within};

use super::start;

/// A limit, and a burst of requests, that no flood of a test reaches.
const UNLIMITED: &str = "channels_per_connection = 1000000000";

/// Far more than the pending responses of one client can use, and far less than one response per request would use.
const GROWTH_MAX: u64 = 48 * 1024 * 1024;

/// Sends far more than it reads, until it is stopped.
async fn flood(mut client: TestClient, messages: Vec<(&'static str, Value)>, stop: Arc<AtomicBool>) {
    while !stop.load(Ordering::Relaxed) {
        for (event, data) in &messages {
            client.send_event(event, data);
        }
        // Lets the writing task run. The queue of the client must not grow while the server does not read.
        let answered = tokio::time::timeout(Duration::from_millis(1), client.next()).await;
        drop(answered);
    }
}

/// Lets a client flood the server while the witnesses are served, and checks the memory.
async fn flooded(
    server: &Server,
    witnesses: &mut tests::Witnesses,
    client: TestClient,
    messages: Vec<(&'static str, Value)>,
) {
    let before = server.resident_bytes();
    let stop = Arc::new(AtomicBool::new(false));
    let flooding = tokio::spawn(flood(client, messages, stop.clone()));
    let mut peak = before;
    for _ in 0..20 {
        witnesses.are_served(server).await;
        peak = peak.max(server.resident_bytes());
    }
    stop.store(true, Ordering::Relaxed);
    within("the end of the flood", flooding).await.expect("the flood does not panic");
    witnesses.are_served(server).await;
    let growth = peak.max(server.resident_bytes()) - before;
    assert!(growth < GROWTH_MAX, "{growth} bytes for one client");
}

#[tokio::test]
async fn a_member_that_repeats_its_subscription_gets_one_member_list_at_a_time() {
    const MEMBERS: usize = 50;
    // Without a rate, the number of requests in progress is still bounded.
    let (server, mut witnesses) = start(Setup::default().limit(UNLIMITED)).await;
    let info = "x".repeat(900);
    let mut members = Vec::new();
    for number in 0..MEMBERS {
        let member = json!({ "user_id": number.to_string(), "user_info": info });
        let client = server.client().await;
        client.ask("presence-room", Some(&member));
        members.push(client);
    }
    let mut client = server.client().await;
    client.ask("presence-room", Some(&json!({ "user_id": "flood" })));
    client.expect("pusher_internal:subscription_succeeded").await;
    let request = client.subscription("presence-room", Some(&json!({ "user_id": "flood" })));
    let burst = vec![("pusher:subscribe", request); 200];
    flooded(&server, &mut witnesses, client, burst).await;
    drop(members);
    server.stop().await;
}

#[tokio::test]
async fn alternating_subscribes_and_unsubscribes_have_a_bounded_number_in_flight() {
    let (server, mut witnesses) = start(Setup::default().limit(UNLIMITED)).await;
    let client = server.client().await;
    let pair = [("pusher:subscribe", json!({ "channel": "a" })), ("pusher:unsubscribe", json!({ "channel": "a" }))];
    let burst = pair.iter().cycle().take(400).cloned().collect();
    flooded(&server, &mut witnesses, client, burst).await;
    server.metric_reaches("carillon_subscriptions{kind=\"public\"}", 2.0).await;
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_never_pauses_does_not_starve_its_shard() {
    // Signatures are the most expensive requests. The shard can take some turns for the flood before it serves a witness,
    // but it must not handle the whole flood first.
    const TURNS_MAX: f64 = 20_000.0;
    let (server, mut witnesses) = start(Setup::default().limit(UNLIMITED)).await;
    let client = server.client().await;
    let stop = Arc::new(AtomicBool::new(false));
    let request = json!({ "channel": "private-a", "auth": format!("{}:{}", tests::setup::APP_KEY, "0".repeat(64)) });
    let flooding = tokio::spawn(flood(client, vec![("pusher:subscribe", request); 400], stop.clone()));
    let failures = "carillon_auth_failures_total{reason=\"signature\"}";
    tests::eventually("the flood has started", async || {
        server.metrics().await.names().any(|name| name == "carillon_auth_failures_total")
    })
    .await;
    for _ in 0..20 {
        let before = server.metric(failures).await;
        witnesses.are_served(&server).await;
        let turns = server.metric(failures).await - before;
        assert!(turns < TURNS_MAX, "{turns} requests of one client came before an event for others");
    }
    stop.store(true, Ordering::Relaxed);
    within("the end of the flood", flooding).await.expect("the flood does not panic");
    server.stop().await;
}
