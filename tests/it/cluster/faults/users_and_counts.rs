//! Who is online and how many subscribe, told rightly although those who would have said so died, or nobody could hear.

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

/// A watcher of three, two of whom are online at first.
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

/// `online ana`, `offline bo`.
fn watchlist(data: &str) -> BTreeSet<String> {
    let data: Value = serde_json::from_str(data).expect("JSON");
    let events = data["events"].as_array().expect("a list").iter();
    let of_event = |event: &Value| {
        let (name, users) = (event["name"].as_str().expect("a name"), event["user_ids"].as_array().expect("a list"));
        users.iter().map(|user| format!("{name} {}", user.as_str().expect("a user"))).collect::<Vec<_>>()
    };
    events.flat_map(of_event).collect()
}

/// Everything that the watcher is told until it has been told all of `expected`, and up to a marker after that: which
/// must be nothing else, and nothing twice.
async fn expect_told(cluster: &Cluster, watcher: &mut TestClient, expected: &[&str]) {
    let mut told = Vec::new();
    while !set(expected).is_subset(&told.iter().cloned().collect()) {
        let message = watcher.expect("pusher_internal:watchlist_events").await;
        told.extend(watchlist(&message.data));
    }
    cluster.publish("#server-to-user-watcher", "marker", "").await;
    loop {
        let message = watcher.next().await;
        if message.event == "marker" {
            break;
        }
        told.extend(watchlist(&message.data));
    }
    told.sort();
    assert_eq!(told, expected);
}

#[tokio::test]
async fn watchers_are_told_of_what_changed_while_redis_was_killed_and_of_nothing_else() {
    let mut cluster = Cluster::start().await;
    let (mut watcher, [stays, leaves]) = watcher(&cluster).await;
    cluster.redis.kill().await;
    for gateway in cluster.gateways() {
        gateway.metric_reaches("carillon_redis_subscriber_live", 0.0).await;
    }
    drop(leaves);
    let mut comes = cluster.client(1).await;
    comes.ask_sign_in(&json!({ "id": "comes" }));
    comes.settle().await;
    cluster.redis.start_again().await;
    live(&cluster).await;
    comes.expect("pusher:signin_success").await;
    expect_told(&cluster, &mut watcher, &["offline leaves", "online comes"]).await;
    // Those who held them before have given up their ids, and are swept.
    cluster.swept().await;
    expect_told(&cluster, &mut watcher, &[]).await;
    cluster.publish("#server-to-user-comes", "hello", "1").await;
    comes.expect_event("#server-to-user-comes", "hello", "1").await;
    drop(stays);
    expect_told(&cluster, &mut watcher, &["offline stays"]).await;
    let reply = cluster.publisher().post("/users/comes/terminate_connections", &json!({})).await;
    assert_eq!(reply.status.as_u16(), 200);
    comes.expect_close(4009).await;
    cluster.stop().await;
}

#[tokio::test]
async fn watchers_on_a_gateway_that_was_deaf_are_told_afterwards() {
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
    expect_told(&cluster, &mut watcher, &["offline leaves", "online comes"]).await;
    drop(comes);
    expect_told(&cluster, &mut watcher, &["offline comes"]).await;
    cluster.stop().await;
}

/// Takes counts until one is this.
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
async fn subscribers_are_told_how_many_are_left_when_a_gateway_has_died() {
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
    let told = async {
        loop {
            // Not one message comes for as long as the dead one is thought to live.
            let Some(message) = observer.next_if_any().await else { panic!("the connection is over") };
            if message.event == "pusher_internal:subscription_count" && message.data.contains(":1}") {
                return;
            }
        }
    };
    within_time(Duration::from_secs(40), "the count without the dead", told).await;
    drop(held);
    cluster.stop().await;
}

#[tokio::test]
async fn subscribers_are_told_how_many_they_are_after_redis_has_lost_all_counts() {
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
