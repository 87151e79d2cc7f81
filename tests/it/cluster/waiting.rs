//! Work that waits for Redis. It is bounded, ends with its client, and is sent at the pace of Redis.

use std::time::{Duration, Instant};

use serde_json::json;
use tests::proxy::Mode;
use tests::{Cluster, Setup, eventually};

/// The memory of a waiting subscription, including all related state.
const WAITING_BYTES_MAX: u64 = 2 * 1024;

async fn make_redis_unavailable(cluster: &mut Cluster) {
    cluster.gateway_proxy(0).set(Mode::Refuse).await;
    cluster.gateway_proxy(0).cut();
    cluster.gateway(0).metric_reaches("carillon_redis_subscriber_live", 0.0).await;
}

#[tokio::test]
async fn subscriptions_that_wait_for_redis_use_little_memory_and_end_with_their_clients() {
    const CLIENTS: usize = 250;
    const CHANNELS: usize = 40;
    let mut cluster = Cluster::start().gateways(1).proxied().await;
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(cluster.client(0).await);
    }
    let before = cluster.gateway(0).resident_bytes();
    make_redis_unavailable(&mut cluster).await;
    for (number, client) in clients.iter_mut().enumerate() {
        for channel in 0..CHANNELS {
            client.ask(&format!("{}-{number}-{channel}", "x".repeat(100)), None);
        }
        client.settle().await;
    }
    let growth = cluster.gateway(0).resident_bytes().saturating_sub(before);
    let each = growth / (CLIENTS * CHANNELS) as u64;
    assert!(each < WAITING_BYTES_MAX, "{each} bytes for each of {} subscriptions", CLIENTS * CHANNELS);
    let patient = clients.pop().expect("a client");
    drop(clients);
    cluster.gateway(0).metric_reaches("carillon_connections", 1.0).await;
    let forwarded = cluster.gateway_proxy(0).forwarded_bytes();
    cluster.gateway_proxy(0).set(Mode::Pass).await;
    let mut patient = patient;
    for _ in 0..CHANNELS {
        patient.expect("pusher_internal:subscription_succeeded").await;
    }
    // Each subscription sends three kilobytes. At most 256 were in progress when their clients disconnected.
    let forwarded = cluster.gateway_proxy(0).forwarded_bytes() - forwarded;
    assert!(forwarded < 3_000_000, "{forwarded} bytes for the subscriptions of one client");
    drop(patient);
    cluster.stop().await;
}

#[tokio::test]
async fn a_gateway_that_shuts_down_with_many_subscriptions_needs_little_memory_for_it() {
    const CLIENTS: usize = 200;
    const CHANNELS: usize = 50;
    let mut cluster = Cluster::start().gateways(1).proxied().await;
    let mut clients = Vec::new();
    for number in 0..CLIENTS {
        let mut client = cluster.client(0).await;
        for channel in 0..CHANNELS {
            client.ask(&format!("room-{number}-{channel}"), None);
        }
        for _ in 0..CHANNELS {
            client.expect("pusher_internal:subscription_succeeded").await;
        }
        clients.push(client);
    }
    let before = cluster.gateway(0).resident_bytes();
    cluster.gateway_proxy(0).set(Mode::Stall).await;
    cluster.gateway(0).signal(rustix::process::Signal::TERM);
    for client in &mut clients {
        client.expect_close(4200).await;
    }
    drop(clients);
    cluster.gateway(0).metric_reaches("carillon_connections", 0.0).await;
    let growth = cluster.gateway(0).resident_bytes().saturating_sub(before);
    let each = growth / (CLIENTS * CHANNELS) as u64;
    assert!(each < WAITING_BYTES_MAX, "{each} bytes for each of {} subscriptions", CLIENTS * CHANNELS);
    cluster.gateway_proxy(0).set(Mode::Pass).await;
    cluster.gateway_ends(0).await;
    cluster.stop().await;
}

#[tokio::test]
async fn sign_ins_of_disconnected_clients_are_dropped() {
    const CLIENTS: usize = 50;
    const WATCHED: usize = 40;
    let mut cluster = Cluster::start().gateways(1).proxied().await;
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(cluster.client(0).await);
    }
    make_redis_unavailable(&mut cluster).await;
    for (number, client) in clients.iter_mut().enumerate() {
        let watchlist: Vec<String> = (0..WATCHED).map(|user| format!("{}-{number}-{user}", "x".repeat(100))).collect();
        client.request_sign_in(&json!({ "id": format!("user-{number}"), "watchlist": watchlist }));
        client.settle().await;
    }
    drop(clients);
    cluster.gateway(0).metric_reaches("carillon_connections", 0.0).await;
    // No message announces it. A sign-in is dropped within a second, and an idle topic after two more.
    tokio::time::sleep(Duration::from_secs(6)).await;
    let forwarded = cluster.gateway_proxy(0).forwarded_bytes();
    cluster.gateway_proxy(0).set(Mode::Pass).await;
    let mut user = cluster.client(0).await;
    user.sign_in(&json!({ "id": "user", "watchlist": ["user-0"] })).await;
    let forwarded = cluster.gateway_proxy(0).forwarded_bytes() - forwarded;
    // The names of the watched users alone take more than 200 KB in each direction.
    assert!(forwarded < 100_000, "{forwarded} bytes");
    drop(user);
    cluster.stop().await;
}

#[tokio::test]
async fn a_sign_in_subscribes_to_all_watched_users_concurrently() {
    // In sequence they would take ten seconds.
    const DELAY: Duration = Duration::from_millis(50);
    const WATCHED: usize = 100;
    let mut cluster = Cluster::start().gateways(1).proxied().setup(Setup::default()).await;
    let mut online = cluster.client(0).await;
    online.sign_in(&json!({ "id": "watched-7" })).await;
    let mut client = cluster.client(0).await;
    cluster.gateway_proxy(0).set(Mode::Delay(DELAY)).await;
    let watchlist: Vec<String> = (0..WATCHED).map(|user| format!("watched-{user}")).collect();
    let began = Instant::now();
    client.sign_in(&json!({ "id": "ana", "watchlist": watchlist })).await;
    let took = began.elapsed();
    assert!(took < DELAY * WATCHED as u32, "{took:?}");
    let message = client.expect("pusher_internal:watchlist_events").await;
    assert!(message.data.contains("watched-7"), "{}", message.data);
    cluster.gateway_proxy(0).set(Mode::Pass).await;
    drop((online, client));
    eventually("both are disconnected", async || cluster.gateway(0).metric("carillon_connections").await == 0.0).await;
    cluster.stop().await;
}
