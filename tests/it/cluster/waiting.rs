//! Work that waits for Redis: bounded, no longer than its clients wait, and sent at the pace of Redis.

use std::time::{Duration, Instant};

use serde_json::json;
use tests::proxy::Mode;
use tests::{Cluster, Setup, eventually};

/// Bytes of a subscription that waits, with all that belongs to it.
const WAITING_BYTES_MAX: u64 = 2 * 1024;

async fn take_redis_away(cluster: &mut Cluster) {
    cluster.gateway_proxy(0).set(Mode::Refuse).await;
    cluster.gateway_proxy(0).cut();
    cluster.gateway(0).metric_reaches("carillon_redis_subscriber_live", 0.0).await;
}

#[tokio::test]
async fn subscriptions_that_wait_for_redis_are_small_and_end_with_their_clients() {
    const CLIENTS: usize = 250;
    const CHANNELS: usize = 40;
    let mut cluster = Cluster::start().gateways(1).proxied().await;
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(cluster.client(0).await);
    }
    let before = cluster.gateway(0).resident_bytes();
    take_redis_away(&mut cluster).await;
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
    // Each subscription takes three kilobytes on the way. Some were under way when their clients left: 256 at most.
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
async fn sign_ins_whose_clients_left_are_given_up() {
    const CLIENTS: usize = 50;
    const WATCHED: usize = 40;
    let mut cluster = Cluster::start().gateways(1).proxied().await;
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(cluster.client(0).await);
    }
    take_redis_away(&mut cluster).await;
    for (number, client) in clients.iter_mut().enumerate() {
        let watchlist: Vec<String> = (0..WATCHED).map(|user| format!("{}-{number}-{user}", "x".repeat(100))).collect();
        client.ask_sign_in(&json!({ "id": format!("user-{number}"), "watchlist": watchlist }));
        client.settle().await;
    }
    drop(clients);
    cluster.gateway(0).metric_reaches("carillon_connections", 0.0).await;
    // No message shows it: a sign-in is given up within a second, and an idle topic after two more.
    tokio::time::sleep(Duration::from_secs(6)).await;
    let forwarded = cluster.gateway_proxy(0).forwarded_bytes();
    cluster.gateway_proxy(0).set(Mode::Pass).await;
    let mut user = cluster.client(0).await;
    user.sign_in(&json!({ "id": "user", "watchlist": ["user-0"] })).await;
    let forwarded = cluster.gateway_proxy(0).forwarded_bytes() - forwarded;
    // The names of the watched users alone are more than 200 KB, in each direction.
    assert!(forwarded < 100_000, "{forwarded} bytes");
    drop(user);
    cluster.stop().await;
}

#[tokio::test]
async fn a_sign_in_subscribes_to_its_watched_users_at_the_same_time() {
    // One after the other they would take ten seconds.
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
    eventually("both are gone", async || cluster.gateway(0).metric("carillon_connections").await == 0.0).await;
    cluster.stop().await;
}
