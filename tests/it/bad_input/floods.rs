//! Excessive use of allowed requests.

use std::time::Duration;

use serde_json::json;
use tests::raw::{FIN, PING, PONG, frame};
use tests::{Raw, Setup, within};
use tokio::io::AsyncWriteExt;

use super::start;

const PINGS: usize = 100_000;

#[tokio::test]
async fn a_flood_of_pings_is_answered_when_the_client_reads() {
    let (server, mut witnesses) = start(Setup::default()).await;
    let before = server.resident_bytes();
    let mut raw = server.raw().await;
    raw.send(&frame(FIN | PING, b"").repeat(PINGS)).await;
    witnesses.are_served(&server).await;
    for number in 0..PINGS {
        let pong = raw.frame().await.unwrap_or_else(|| panic!("only {number} pongs"));
        assert_eq!((pong.opcode, pong.payload.as_slice()), (PONG, b"".as_slice()));
    }
    let growth = server.resident_bytes().saturating_sub(before);
    assert!(growth < 16 * 1024 * 1024, "{growth} bytes for one client");
    witnesses.are_served(&server).await;
    server.stop().await;
}

/// Sends `count` pings with this payload without reading. The server must close the connection in bounded memory.
async fn flood_without_reading(count: usize, payload: &[u8]) {
    // At most 1 MiB of pongs is queued, plus the cost of storing them as separate messages.
    const GROWTH_MAX: u64 = 16 * 1024 * 1024;
    let (server, mut witnesses) = start(Setup::default().server("outbox_timeout = \"2s\"")).await;
    let before = server.resident_bytes();
    let mut raw = Raw::connect_narrow(server.public).await;
    raw.establish(&server.app).await;
    let pings = frame(FIN | PING, payload).repeat(1_000);
    let mut peak = before;
    within("the flood", async {
        for _ in 0..count / 1_000 {
            // The server can stop reading and close before the end.
            let sent = tokio::time::timeout(Duration::from_secs(1), raw.stream.write_all(&pings)).await;
            if !matches!(sent, Ok(Ok(()))) {
                break;
            }
            peak = peak.max(server.resident_bytes());
        }
    })
    .await;
    witnesses.are_served(&server).await;
    server.metric_reaches("carillon_slow_consumers_total", 1.0).await;
    let growth = peak.max(server.resident_bytes()) - before;
    assert!(growth < GROWTH_MAX, "{growth} bytes for one client");
    raw.drain().await;
    server.metric_reaches("carillon_connections_closed_total{code=\"4100\"}", 1.0).await;
    witnesses.are_served(&server).await;
    server.stop().await;
}

#[tokio::test]
async fn a_flood_of_pings_by_a_client_that_never_reads_ends_with_4100() {
    flood_without_reading(PINGS, &[b'x'; 100]).await;
}

#[tokio::test]
async fn a_flood_of_empty_pings_by_a_client_that_never_reads_uses_bounded_memory() {
    flood_without_reading(40 * PINGS, b"").await;
}

#[tokio::test]
async fn one_socket_can_have_ten_thousand_subscriptions_if_the_limit_allows_it() {
    const CHANNELS: usize = 10_000;
    let (server, mut witnesses) = start(Setup::default().limit("channels_per_connection = 10_000")).await;
    let mut client = server.client().await;
    for number in 0..CHANNELS {
        client.ask(&format!("channel-{number}"), None);
    }
    for _ in 0..CHANNELS {
        client.expect("pusher_internal:subscription_succeeded").await;
    }
    client.ask("one-more", None);
    assert_eq!(client.expect_refusal("one-more", 4100).await, ("LimitReached".into(), 4100));
    assert_eq!(server.metric("carillon_subscriptions{kind=\"public\"}").await, CHANNELS as f64 + 2.0);
    let listed = server.get("/channels?filter_by_prefix=channel-").await;
    assert_eq!(listed["channels"].as_object().map(serde_json::Map::len), Some(CHANNELS));
    for number in [0, 4_999, 9_999] {
        let channel = format!("channel-{number}");
        server.publish(&channel, "hello", "1").await;
        client.expect_event(&channel, "hello", "1").await;
    }
    witnesses.are_served(&server).await;
    drop(client);
    server.metric_reaches("carillon_subscriptions{kind=\"public\"}", 2.0).await;
    tests::eventually("all channels are vacated", async || {
        server.get("/channels").await == json!({ "channels": { "witness": {} } })
    })
    .await;
    server.stop().await;
}

#[tokio::test]
async fn more_subscriptions_than_the_default_allows_are_refused() {
    const ALLOWED: usize = 1_000;
    // The remaining burst of the subscription rate.
    const FURTHER: usize = 90;
    let (server, mut witnesses) = start(Setup::default()).await;
    let mut client = server.client().await;
    for number in 0..ALLOWED {
        client.ask(&format!("channel-{number}"), None);
    }
    for _ in 0..ALLOWED {
        client.expect("pusher_internal:subscription_succeeded").await;
    }
    for number in 0..FURTHER {
        client.ask(&format!("further-{number}"), None);
    }
    for number in 0..FURTHER {
        client.expect_refusal(&format!("further-{number}"), 4100).await;
    }
    assert_eq!(server.metric("carillon_rate_limited_total{scope=\"channels\"}").await, FURTHER as f64);
    client.unsubscribe("channel-0");
    client.subscribe("one-more").await;
    witnesses.are_served(&server).await;
    server.stop().await;
}

#[tokio::test]
async fn short_connections_release_all_their_state() {
    let (server, mut witnesses) = start(Setup::default()).await;
    for round in 0..20 {
        let mut clients = Vec::new();
        for number in 0..10 {
            let mut client = server.client().await;
            client.join("presence-room", &number.to_string()).await;
            client.ask(&format!("private-{round}-{number}"), None);
            clients.push(client);
        }
    }
    server.metric_reaches("carillon_connections", 2.0).await;
    server.metric_reaches("carillon_subscriptions", 2.0).await;
    server.metric_reaches("carillon_presence_members", 0.0).await;
    tests::eventually("all channels are vacated", async || {
        server.get("/channels").await == json!({ "channels": { "witness": {} } })
    })
    .await;
    assert_eq!(server.metric("carillon_connections_opened_total").await, 202.0);
    witnesses.are_served(&server).await;
    server.stop().await;
}

#[tokio::test]
async fn ten_thousand_requests_at_once_are_all_answered() {
    const REQUESTS: usize = 10_000;
    let (server, mut witnesses) = start(Setup::default().limit("channels_per_connection = 10_000")).await;
    let mut client = server.client().await;
    for number in 0..REQUESTS {
        // Each response has three hundred bytes. Together they exceed an outbox, so the server must not request them all.
        client.send_event("pusher:subscribe", &json!({ "channel": format!("private-{number}"), "auth": "none" }));
    }
    for number in 0..REQUESTS {
        client.expect_refusal(&format!("private-{number}"), 4009).await;
    }
    client.settle().await;
    witnesses.are_served(&server).await;
    server.stop().await;
}
