//! Sign-in, events to users, termination and watchlists. Source: protocol reference 2.8.

use serde_json::{Value, json};
use tests::{Server, Setup, TestClient};

async fn signed_in(server: &Server, user: &str) -> TestClient {
    let mut client = server.client().await;
    client.sign_in(&json!({ "id": user })).await;
    client
}

#[tokio::test]
async fn a_user_receives_events_on_every_socket_after_the_sign_in() {
    let server = Server::plain().await;
    let (mut phone, mut laptop) = (signed_in(&server, "ana").await, signed_in(&server, "ana").await);
    let mut other = signed_in(&server, "bo").await;
    server.publish("#server-to-user-ana", "hello", "1").await;
    for client in [&mut phone, &mut laptop] {
        client.expect_event("#server-to-user-ana", "hello", "1").await;
        // pusher-js requests the channel although the sign-in has subscribed it. It must not receive events twice.
        client.subscribe("#server-to-user-ana").await;
    }
    server.publish_except("#server-to-user-ana", "hello", "2", Some(phone.socket_id)).await;
    laptop.expect_event("#server-to-user-ana", "hello", "2").await;
    for client in [&mut phone, &mut laptop, &mut other] {
        client.settle().await;
    }
    assert_eq!(server.get("/channels").await, json!({ "channels": {} }), "channels of users are not listed");
    server.stop().await;
}

#[tokio::test]
async fn only_the_user_may_subscribe_to_the_users_channel() {
    let server = Server::plain().await;
    let (mut anonymous, mut bo) = (server.client().await, signed_in(&server, "bo").await);
    for client in [&mut anonymous, &mut bo] {
        client.ask("#server-to-user-ana", None);
        client.expect_refusal("#server-to-user-ana", 4009).await;
    }
    server.publish("#server-to-user-ana", "secret", "1").await;
    anonymous.settle().await;
    bo.settle().await;
    server.stop().await;
}

#[tokio::test]
async fn invalid_sign_ins_are_refused_and_the_connection_stays_open() {
    let server = Server::plain().await;
    let mut client = server.client().await;
    let wrong = format!("shop-key:{}", "0".repeat(64));
    for auth in ["", "shop-key", "other-key:00", wrong.as_str()] {
        client.send_event("pusher:signin", &json!({ "auth": auth, "user_data": r#"{"id":"1"}"# }));
        assert_eq!(client.expect_error().await.0, Some(4009), "{auth}");
    }
    let long = "x".repeat(129);
    for user_data in
        [json!({}), json!({ "id": "" }), json!({ "id": 7 }), json!({ "id": "a b" }), json!({ "id": long }), json!([])]
    {
        client.request_sign_in(&user_data);
        assert_eq!(client.expect_error().await.0, Some(4009), "{user_data}");
    }
    client.sign_in(&json!({ "id": "ana" })).await;
    client.request_sign_in(&json!({ "id": "bo" }));
    assert_eq!(client.expect_error().await.0, Some(4009), "a socket cannot change its user");
    client.sign_in(&json!({ "id": "ana" })).await;
    server.publish("#server-to-user-ana", "hello", "1").await;
    client.expect_event("#server-to-user-ana", "hello", "1").await;
    client.settle().await;
    server.stop().await;
}

#[tokio::test]
async fn a_signed_in_socket_joins_presence_channels_as_its_user() {
    let server = Server::plain().await;
    let mut client = server.client().await;
    client.sign_in(&json!({ "id": "ana", "user_info": { "name": "Ana" } })).await;
    client.ask("presence-room", None);
    let succeeded = client.expect("pusher_internal:subscription_succeeded").await;
    let data: Value = serde_json::from_str(&succeeded.data).expect("the data is JSON");
    assert_eq!(data["presence"]["hash"], json!({ "ana": { "name": "Ana" } }));
    server.stop().await;
}

#[tokio::test]
async fn termination_closes_every_signed_in_socket_of_the_user_with_4009() {
    let server = Server::plain().await;
    let (mut phone, mut laptop) = (signed_in(&server, "ana").await, signed_in(&server, "ana").await);
    let mut bo = signed_in(&server, "bo").await;
    let mut unsigned = server.client().await;
    unsigned.join("presence-room", "ana").await;
    let reply = server.post("/users/ana/terminate_connections", &json!({})).await;
    assert_eq!((reply.status.as_u16(), reply.body.as_str()), (200, "{}"));
    phone.expect_close(4009).await;
    laptop.expect_close(4009).await;
    bo.settle().await;
    unsigned.settle().await;
    server.metric_reaches("carillon_connections_closed_total{code=\"4009\"}", 2.0).await;
    let reply = server.post("/users/unknown/terminate_connections", &json!({})).await;
    assert_eq!(reply.status.as_u16(), 200, "an offline user is not an error");
    assert_eq!(server.post("/users/a%20b/terminate_connections", &json!({})).await.status.as_u16(), 400);
    server.stop().await;
}

async fn expect_watchlist(client: &mut TestClient, events: Value) {
    let message = client.expect("pusher_internal:watchlist_events").await;
    assert_eq!(message.channel, None);
    let data: Value = serde_json::from_str(&message.data).expect("the data is an object");
    assert_eq!(data, json!({ "events": events }));
}

#[tokio::test]
async fn watchers_are_notified_once_when_a_user_goes_online_and_once_offline() {
    let server = Server::start(Setup::default().server("shards = 2")).await;
    let bo = signed_in(&server, "bo").await;
    let mut watcher = server.client().await;
    watcher.sign_in(&json!({ "id": "ana", "watchlist": ["bo", "cy"] })).await;
    expect_watchlist(
        &mut watcher,
        json!([{ "name": "online", "user_ids": ["bo"] }, { "name": "offline", "user_ids": ["cy"] }]),
    )
    .await;
    let (first, second) = (signed_in(&server, "cy").await, signed_in(&server, "cy").await);
    expect_watchlist(&mut watcher, json!([{ "name": "online", "user_ids": ["cy"] }])).await;
    watcher.settle().await;
    drop(first);
    server.metric_reaches("carillon_connections", 3.0).await;
    watcher.settle().await;
    drop(second);
    expect_watchlist(&mut watcher, json!([{ "name": "offline", "user_ids": ["cy"] }])).await;
    drop(bo);
    expect_watchlist(&mut watcher, json!([{ "name": "offline", "user_ids": ["bo"] }])).await;
    watcher.settle().await;
    server.stop().await;
}

#[tokio::test]
async fn a_watchlist_above_the_limit_is_truncated_and_the_sign_in_succeeds() {
    let server = Server::start(Setup::default().limit("watchlist = 2")).await;
    let mut watcher = server.client().await;
    watcher.sign_in(&json!({ "id": "ana", "watchlist": ["a", "b", "c"] })).await;
    assert_eq!(watcher.expect_error().await.0, Some(4302));
    expect_watchlist(&mut watcher, json!([{ "name": "offline", "user_ids": ["a", "b"] }])).await;
    let (_c, _a) = (signed_in(&server, "c").await, signed_in(&server, "a").await);
    expect_watchlist(&mut watcher, json!([{ "name": "online", "user_ids": ["a"] }])).await;
    server.stop().await;
}
