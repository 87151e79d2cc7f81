//! Signed-in users across nodes: events to users, termination of their connections, and watchlists.

use serde_json::{Value, json};
use tests::{Cluster, Raw, TestClient, eventually};

async fn signed_in(cluster: &Cluster, gateway: usize, user_data: Value) -> TestClient {
    let mut client = cluster.client(gateway).await;
    client.sign_in(&user_data).await;
    client
}

async fn user(cluster: &Cluster, gateway: usize, id: &str) -> TestClient {
    signed_in(cluster, gateway, json!({ "id": id })).await
}

async fn expect_watchlist(client: &mut TestClient, events: Value) {
    let message = client.expect("pusher_internal:watchlist_events").await;
    let data: Value = serde_json::from_str(&message.data).expect("the data is an object");
    assert_eq!(data, json!({ "events": events }));
}

#[tokio::test]
async fn a_user_receives_events_on_the_sockets_of_every_gateway() {
    let cluster = Cluster::start().await;
    let (mut phone, mut laptop) = (user(&cluster, 0, "ana").await, user(&cluster, 1, "ana").await);
    let mut other = user(&cluster, 1, "bo").await;
    cluster.publish("#server-to-user-ana", "hello", "1").await;
    for client in [&mut phone, &mut laptop] {
        client.expect_event("#server-to-user-ana", "hello", "1").await;
        client.subscribe("#server-to-user-ana").await;
    }
    cluster.publish_except("#server-to-user-ana", "hello", "2", phone.socket_id).await;
    cluster.publish("#server-to-user-ana", "hello", "3").await;
    laptop.expect_event("#server-to-user-ana", "hello", "2").await;
    for client in [&mut phone, &mut laptop] {
        client.expect_event("#server-to-user-ana", "hello", "3").await;
    }
    cluster.publish("#server-to-user-bo", "hello", "4").await;
    other.expect_event("#server-to-user-bo", "hello", "4").await;
    assert_eq!(cluster.get("/channels").await, json!({ "channels": {} }), "channels of users are not listed");
    cluster.stop().await;
}

#[tokio::test]
async fn termination_reaches_every_gateway_by_both_paths() {
    let cluster = Cluster::start().publishers(2).await;
    for publisher in 0..2 {
        let (mut phone, mut laptop) = (user(&cluster, 0, "ana").await, user(&cluster, 1, "ana").await);
        let mut bo = user(&cluster, 1, "bo").await;
        let mut unsigned = cluster.client(0).await;
        let reply = cluster.publisher_at(publisher).post("/users/ana/terminate_connections", &json!({})).await;
        assert_eq!((reply.status.as_u16(), reply.body.as_str()), (200, "{}"));
        phone.expect_close(4009).await;
        laptop.expect_close(4009).await;
        cluster.publish("#server-to-user-bo", "marker", "").await;
        bo.expect("marker").await;
        unsigned.settle().await;
    }
    // The path of the official Python library, which does not contain the app. Unsigned it is refused.
    let request = b"POST /users/ana/terminate_connections HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}";
    let reply = Raw::connect(cluster.publisher().public).await.exchange(request).await;
    assert_eq!(reply.status, 401, "{}", reply.body);
    cluster.stop().await;
}

#[tokio::test]
async fn watchers_are_notified_once_when_a_user_goes_online_and_once_offline() {
    let cluster = Cluster::start().await;
    let mut watchers = Vec::new();
    let bo = user(&cluster, 1, "bo").await;
    for gateway in 0..2 {
        let watcher = json!({ "id": format!("watcher-{gateway}"), "watchlist": ["bo", "cy"] });
        let mut watcher = signed_in(&cluster, gateway, watcher).await;
        expect_watchlist(
            &mut watcher,
            json!([{ "name": "online", "user_ids": ["bo"] }, { "name": "offline", "user_ids": ["cy"] }]),
        )
        .await;
        watchers.push(watcher);
    }
    let (first, second) = (user(&cluster, 0, "cy").await, user(&cluster, 1, "cy").await);
    for (gateway, watcher) in watchers.iter_mut().enumerate() {
        expect_watchlist(watcher, json!([{ "name": "online", "user_ids": ["cy"] }])).await;
        cluster.publish(&format!("#server-to-user-watcher-{gateway}"), "marker", "").await;
        watcher.expect("marker").await;
    }
    drop(first);
    cluster.gateway(0).metric_reaches("carillon_connections", 1.0).await;
    let counted = "carillon:{0}:oc:shop/#server-to-user-cy";
    eventually("one node holds the user", async || cluster.redis.run::<u64>(&format!("HLEN {counted}")).await == 1)
        .await;
    for (gateway, watcher) in watchers.iter_mut().enumerate() {
        cluster.publish(&format!("#server-to-user-watcher-{gateway}"), "marker", "").await;
        watcher.expect("marker").await;
    }
    drop((second, bo));
    for watcher in &mut watchers {
        let mut gone = Vec::new();
        for _ in 0..2 {
            let message = watcher.expect("pusher_internal:watchlist_events").await;
            let data: Value = serde_json::from_str(&message.data).expect("the data is an object");
            assert_eq!(data["events"][0]["name"], "offline");
            gone.push(data["events"][0]["user_ids"][0].as_str().expect("a user").to_owned());
        }
        gone.sort();
        assert_eq!(gone, ["bo", "cy"]);
    }
    cluster.stop().await;
}
