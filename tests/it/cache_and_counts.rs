//! Cache channels and subscription counts. Source: protocol reference 2.6 and 2.7.

use serde_json::{Value, json};
use tests::{Server, Setup, TestClient};

#[tokio::test]
async fn a_new_subscriber_of_a_cache_channel_gets_the_last_event_after_the_confirmation() {
    let server = Server::plain().await;
    for channel in ["cache-news", "private-cache-news", "private-encrypted-cache-news"] {
        let mut first = server.client().await;
        first.subscribe(channel).await;
        assert_eq!(first.expect("pusher:cache_miss").await.data, "{}");
        server.publish(channel, "old", "1").await;
        // The event is cached although it excludes a socket and has no other subscriber.
        server.publish_except(channel, "new", "2", Some(first.socket_id)).await;
        first.expect_event(channel, "old", "1").await;
        let mut second = server.client().await;
        second.subscribe(channel).await;
        second.expect_event(channel, "new", "2").await;
        first.settle().await;
        let cache = server.get(&format!("/channels/{channel}?info=cache")).await["cache"].clone();
        assert_eq!(cache["data"], "2");
        assert!(cache["ttl"].as_u64().is_some_and(|ttl| (1_790..=1_800).contains(&ttl)), "{cache}");
    }
    server.stop().await;
}

#[tokio::test]
async fn an_event_is_cached_without_subscribers_and_after_all_have_unsubscribed() {
    let server = Server::plain().await;
    server.publish("cache-news", "early", "1").await;
    for _ in 0..2 {
        let mut client = server.client().await;
        client.subscribe("cache-news").await;
        client.expect_event("cache-news", "early", "1").await;
        drop(client);
        tests::eventually("the channel is empty", async || server.get("/channels").await == json!({ "channels": {} }))
            .await;
    }
    server.stop().await;
}

#[tokio::test]
async fn presence_cache_channels_replay_after_the_list_of_members() {
    let server = Server::plain().await;
    let mut first = server.client().await;
    assert_eq!(first.join("presence-cache-room", "1").await, ["1"]);
    first.expect("pusher:cache_miss").await;
    server.publish("presence-cache-room", "a", "1").await;
    first.expect_event("presence-cache-room", "a", "1").await;
    let mut second = server.client().await;
    assert_eq!(second.join("presence-cache-room", "2").await, ["1", "2"]);
    second.expect_event("presence-cache-room", "a", "1").await;
    first.expect("pusher_internal:member_added").await;
    server.stop().await;
}

#[tokio::test]
async fn client_events_and_events_of_other_channels_are_not_cached() {
    let server = Server::plain().await;
    let (mut first, mut second) = (server.client().await, server.client().await);
    for client in [&mut first, &mut second] {
        client.subscribe("private-cache-room").await;
        client.expect("pusher:cache_miss").await;
    }
    first.whisper("private-cache-room", "client-a", &json!(1));
    second.expect_event("private-cache-room", "client-a", "1").await;
    let mut third = server.client().await;
    third.subscribe("private-cache-room").await;
    third.expect("pusher:cache_miss").await;
    // The name contains the word but does not begin with the prefix of cache channels.
    server.publish("my-cache-news", "a", "1").await;
    third.subscribe("my-cache-news").await;
    third.settle().await;
    server.stop().await;
}

async fn expect_count(client: &mut TestClient, channel: &str, count: u64) {
    let message = client.expect("pusher_internal:subscription_count").await;
    assert_eq!(message.channel.as_deref(), Some(channel));
    let data: Value = serde_json::from_str(&message.data).expect("the data is JSON");
    assert_eq!(data, json!({ "subscription_count": count }));
}

#[tokio::test]
async fn every_subscriber_receives_the_subscription_count() {
    let server = Server::start(Setup::default().app("subscription_count = true")).await;
    let (mut first, mut second) = (server.client().await, server.client().await);
    first.subscribe("news").await;
    expect_count(&mut first, "news", 1).await;
    second.subscribe("news").await;
    expect_count(&mut second, "news", 2).await;
    expect_count(&mut first, "news", 2).await;
    second.unsubscribe("news");
    expect_count(&mut first, "news", 1).await;
    second.settle().await;
    second.subscribe("private-room").await;
    expect_count(&mut second, "private-room", 1).await;
    second.join("presence-room", "1").await;
    second.settle().await;
    first.settle().await;
    server.stop().await;
}

#[tokio::test]
async fn counts_are_sent_only_if_the_app_enables_them() {
    let server = Server::plain().await;
    let (mut first, mut second) = (server.client().await, server.client().await);
    first.subscribe("news").await;
    second.subscribe("news").await;
    first.settle().await;
    second.settle().await;
    server.stop().await;
}

#[tokio::test]
async fn a_publish_returns_the_requested_counts() {
    let server = Server::plain().await;
    let (mut first, mut second) = (server.client().await, server.client().await);
    first.join("presence-room", "1").await;
    second.join("presence-room", "1").await;
    second.subscribe("news").await;
    let info = "user_count,subscription_count";
    let body = json!({ "name": "a", "channels": ["presence-room", "news", "empty"], "data": "1", "info": info });
    let reply = server.post("/events", &body).await;
    let expected = json!({ "channels": {
        "presence-room": { "user_count": 1, "subscription_count": 2 },
        "news": { "subscription_count": 1 },
        "empty": { "subscription_count": 0 },
    }});
    assert_eq!(serde_json::from_str::<Value>(&reply.body).expect("JSON"), expected);
    let batch = json!({ "batch": [
        { "name": "a", "channel": "presence-room", "data": "1", "info": info },
        { "name": "a", "channel": "news", "data": "1" },
    ]});
    let reply = server.post("/batch_events", &batch).await;
    let expected = json!({ "batch": [{ "user_count": 1, "subscription_count": 2 }, {}] });
    assert_eq!(serde_json::from_str::<Value>(&reply.body).expect("JSON"), expected);
    let channels = server.get("/channels?filter_by_prefix=presence-&info=user_count").await;
    assert_eq!(channels, json!({ "channels": { "presence-room": { "user_count": 1 } } }));
    server.stop().await;
}
