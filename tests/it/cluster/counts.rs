//! Occupied channels and their counts across the cluster, from any publisher.

use serde_json::{Value, json};
use tests::{Cluster, Setup, TestClient, eventually};

/// Waits until every publisher returns this response to a GET.
async fn all_say(cluster: &Cluster, path: &str, expected: &Value) {
    for publisher in 0..2 {
        let publisher = cluster.publisher_at(publisher);
        eventually(&format!("{path}: {expected}"), async || publisher.get(path).await == *expected).await;
    }
}

#[tokio::test]
async fn every_publisher_returns_occupied_channels_and_their_counts() {
    let cluster = Cluster::start().publishers(2).await;
    let (mut ana, mut bo) = (cluster.client(0).await, cluster.client(1).await);
    for client in [&mut ana, &mut bo] {
        client.subscribe("news").await;
    }
    ana.subscribe("private-one").await;
    ana.join("presence-room", "1").await;
    bo.join("presence-room", "2").await;
    ana.expect("pusher_internal:member_added").await;
    all_say(
        &cluster,
        "/channels?info=subscription_count",
        &json!({ "channels": {
            "news": { "subscription_count": 2 },
            "presence-room": { "subscription_count": 2 },
            "private-one": { "subscription_count": 1 },
        }}),
    )
    .await;
    all_say(
        &cluster,
        "/channels?filter_by_prefix=presence-&info=user_count",
        &json!({ "channels": { "presence-room": { "user_count": 2 } } }),
    )
    .await;
    all_say(&cluster, "/channels/news?info=subscription_count", &json!({ "occupied": true, "subscription_count": 2 }))
        .await;
    all_say(&cluster, "/channels/empty", &json!({ "occupied": false })).await;
    all_say(&cluster, "/channels/presence-room/users", &json!({ "users": [{ "id": "1" }, { "id": "2" }] })).await;
    let info = "user_count,subscription_count";
    let body = json!({ "name": "a", "channels": ["presence-room", "news", "empty"], "data": "1", "info": info });
    let reply = cluster.publisher_at(1).post("/events", &body).await;
    let expected = json!({ "channels": {
        "presence-room": { "user_count": 2, "subscription_count": 2 },
        "news": { "subscription_count": 2 },
        "empty": { "subscription_count": 0 },
    }});
    assert_eq!(serde_json::from_str::<Value>(&reply.body).expect("JSON"), expected);
    drop((ana, bo));
    all_say(&cluster, "/channels", &json!({ "channels": {} })).await;
    assert_eq!(cluster.redis.keys("carillon:{0}:oc:*").await, [""; 0], "no key remains");
    cluster.stop().await;
}

/// Receives the next count of a channel, which must be the next message.
async fn count(client: &mut TestClient) -> u64 {
    let message = client.expect("pusher_internal:subscription_count").await;
    let data: Value = serde_json::from_str(&message.data).expect("the data is JSON");
    data["subscription_count"].as_u64().expect("a number")
}

/// Only the last count matters, because each one replaces the previous ones.
async fn count_becomes(client: &mut TestClient, expected: u64) {
    while count(client).await != expected {}
}

#[tokio::test]
async fn subscribers_receive_the_count_over_all_nodes() {
    let cluster = Cluster::start().setup(Setup::default().app("subscription_count = true")).await;
    let (mut first, mut second) = (cluster.client(0).await, cluster.client(1).await);
    first.subscribe("news").await;
    count_becomes(&mut first, 1).await;
    second.subscribe("news").await;
    count_becomes(&mut second, 2).await;
    count_becomes(&mut first, 2).await;
    let mut more = Vec::new();
    for number in 0..6 {
        let mut client = cluster.client(number % 2).await;
        client.subscribe("news").await;
        more.push(client);
    }
    count_becomes(&mut first, 8).await;
    count_becomes(&mut second, 8).await;
    drop(more);
    count_becomes(&mut first, 2).await;
    count_becomes(&mut second, 2).await;
    second.unsubscribe("news");
    count_becomes(&mut first, 1).await;
    second.settle().await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_connection_above_the_quota_of_the_app_is_refused_on_every_gateway() {
    let cluster = Cluster::start().setup(Setup::default().limit("connections = 3")).await;
    let mut clients = vec![cluster.client(0).await, cluster.client(0).await, cluster.client(1).await];
    let count = "carillon:conn:shop";
    let counted = async || cluster.redis.run::<Vec<u64>>(&format!("HVALS {count}")).await.iter().sum::<u64>() == 3;
    eventually("all are counted", counted).await;
    for gateway in [0, 1] {
        let mut refused = cluster.gateway(gateway).tcp().await;
        refused.upgrade("/app/shop-key?protocol=7", &[]).await;
        refused.expect_close(4004).await;
    }
    let opened = async |gateway: usize| cluster.gateway(gateway).metric("carillon_connections_opened_total").await;
    assert_eq!((opened(0).await, opened(1).await), (2.0, 1.0), "refused connections are not counted");
    clients.pop();
    // No message announces that the quota allows a connection again.
    let admitted = async || {
        let mut raw = cluster.gateway(0).tcp().await;
        raw.upgrade("/app/shop-key?protocol=7", &[]).await;
        raw.message().await["event"] == "pusher:connection_established"
    };
    eventually("the quota allows a connection", admitted).await;
    cluster.stop().await;
}
