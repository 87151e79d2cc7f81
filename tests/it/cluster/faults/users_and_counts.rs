//! Watchlist events and subscription counts after crashes and outages.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use tests::proxy::Mode;
use tests::{Cluster, Setup, TestClient, eventually, within_time};

use super::live;

async fn user(cluster: &Cluster, gateway: usize, id: &str) -> TestClient {
    let mut client = cluster.client(gateway).await;
    client.sign_in(&json!({ "id": id })).await;
    client
}

/// A watcher of three users. Two of them are online at first.
async fn watcher(cluster: &Cluster) -> (TestClient, [TestClient; 2]) {
    let online = [user(cluster, 1, "stays").await, user(cluster, 1, "leaves").await];
    let mut watcher = cluster.client(0).await;
    watcher.sign_in(&json!({ "id": "watcher", "watchlist": ["stays", "leaves", "comes"] })).await;
    assert_eq!(watchlist(&watcher.next().await.data), set(&["online leaves", "online stays", "offline comes"]));
    (watcher, online)
}

fn set(texts: &[&str]) -> BTreeSet<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

/// Formats an event as `online ana` or `offline bo`.
fn watchlist(data: &str) -> BTreeSet<String> {
    let data: Value = serde_json::from_str(data).expect("JSON");
    let events = data["events"].as_array().expect("a list").iter();
    let of_event = |event: &Value| {
        let (name, users) = (event["name"].as_str().expect("a name"), event["user_ids"].as_array().expect("a list"));
        users.iter().map(|user| format!("{name} {}", user.as_str().expect("a user"))).collect::<Vec<_>>()
    };
    events.flat_map(of_event).collect()
}

/// Receives watchlist events until all of `expected` have arrived, and then up to a marker. No other event
/// and no duplicate can arrive.
async fn expect_notified(cluster: &Cluster, watcher: &mut TestClient, expected: &[&str]) {
    let mut delivered = Vec::new();
    while !set(expected).is_subset(&delivered.iter().cloned().collect()) {
        let message = watcher.expect("pusher_internal:watchlist_events").await;
        delivered.extend(watchlist(&message.data));
    }
    cluster.publish("#server-to-user-watcher", "marker", "").await;
    loop {
        let message = watcher.next().await;
        if message.event == "marker" {
            break;
        }
        delivered.extend(watchlist(&message.data));
    }
    delivered.sort();
    assert_eq!(delivered, expected);
}

#[tokio::test]
async fn watchers_receive_exactly_the_changes_during_an_outage_of_redis() {
    let mut cluster = Cluster::start().await;
    let (mut watcher, [stays, leaves]) = watcher(&cluster).await;
    cluster.redis.kill().await;
    for gateway in cluster.gateways() {
        gateway.metric_reaches("carillon_redis_subscriber_live", 0.0).await;
    }
    drop(leaves);
    let mut comes = cluster.client(1).await;
    comes.request_sign_in(&json!({ "id": "comes" }));
    comes.settle().await;
    cluster.redis.start_again().await;
    live(&cluster).await;
    comes.expect("pusher:signin_success").await;
    expect_notified(&cluster, &mut watcher, &["offline leaves", "online comes"]).await;
    // The nodes with the previous references have released their ids and are swept.
    cluster.swept().await;
    expect_notified(&cluster, &mut watcher, &[]).await;
    cluster.publish("#server-to-user-comes", "hello", "1").await;
    comes.expect_event("#server-to-user-comes", "hello", "1").await;
    drop(stays);
    expect_notified(&cluster, &mut watcher, &["offline stays"]).await;
    let reply = cluster.publisher().post("/users/comes/terminate_connections", &json!({})).await;
    assert_eq!(reply.status.as_u16(), 200);
    comes.expect_close(4009).await;
    cluster.stop().await;
}

#[tokio::test]
async fn watchers_receive_missed_changes_after_their_gateway_reconnects() {
    let mut cluster = Cluster::start().proxied().await;
    let (mut watcher, [_stays, leaves]) = watcher(&cluster).await;
    cluster.gateway_proxy(0).set(Mode::Refuse).await;
    cluster.gateway_proxy(0).cut();
    cluster.gateway(0).metric_reaches("carillon_redis_subscriber_live", 0.0).await;
    drop(leaves);
    let comes = user(&cluster, 1, "comes").await;
    cluster.gateway(1).metric_reaches("carillon_connections", 2.0).await;
    cluster.gateway_proxy(0).set(Mode::Pass).await;
    live(&cluster).await;
    expect_notified(&cluster, &mut watcher, &["offline leaves", "online comes"]).await;
    drop(comes);
    expect_notified(&cluster, &mut watcher, &["offline comes"]).await;
    cluster.stop().await;
}

/// Receives counts until one has this value.
async fn count_becomes(client: &mut TestClient, expected: u64) {
    loop {
        let message = client.next().await;
        if message.event != "pusher_internal:subscription_count" {
            continue;
        }
        let data: Value = serde_json::from_str(&message.data).expect("the data is JSON");
        if data["subscription_count"] == expected {
            return;
        }
    }
}

#[tokio::test]
async fn subscribers_receive_the_new_count_after_a_gateway_crashes() {
    let mut cluster = Cluster::start().setup(Setup::default().app("subscription_count = true")).await;
    let mut held = Vec::new();
    let mut observer = cluster.client(1).await;
    observer.subscribe("news").await;
    for _ in 0..3 {
        let mut client = cluster.client(0).await;
        client.subscribe("news").await;
        held.push(client);
    }
    count_becomes(&mut observer, 4).await;
    cluster.kill_gateway(0).await;
    let delivered = async {
        loop {
            // No message arrives until the lease of the crashed gateway expires.
            let Some(message) = observer.next_if_any().await else { panic!("the connection is over") };
            if message.event == "pusher_internal:subscription_count" && message.data.contains(":1}") {
                return;
            }
        }
    };
    within_time(Duration::from_secs(40), "the count without the dead", delivered).await;
    drop(held);
    cluster.stop().await;
}

#[tokio::test]
async fn subscribers_receive_the_count_after_redis_has_lost_all_counts() {
    let mut cluster = Cluster::start().setup(Setup::default().app("subscription_count = true")).await;
    let mut clients = vec![cluster.client(0).await, cluster.client(1).await, cluster.client(1).await];
    for client in &mut clients {
        client.ask("news", None);
    }
    count_becomes(&mut clients[0], 3).await;
    cluster.redis.kill().await;
    clients.pop();
    cluster.redis.start_again().await;
    live(&cluster).await;
    count_becomes(&mut clients[0], 2).await;
    cluster.swept().await;
    let two = async || cluster.get("/channels/news?info=subscription_count").await["subscription_count"] == 2;
    eventually("two are counted", two).await;
    clients.pop();
    count_becomes(&mut clients[0], 1).await;
    cluster.stop().await;
}
