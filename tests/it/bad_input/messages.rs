//! Texts that are not messages, and messages with forbidden requests.

use serde_json::json;
use tests::{Server, Setup, TestClient};

use super::start;

/// Sends a text and expects an error with this code. The connection must stay open.
async fn is_refused(client: &mut TestClient, text: &str, code: Option<u64>) -> String {
    client.send(text);
    let (given, message) = client.expect_error().await;
    assert_eq!(given, code, "{text}: {message}");
    client.settle().await;
    message
}

#[tokio::test]
async fn an_invalid_message_is_answered_4200_and_the_connection_stays_open() {
    let (server, mut witnesses) = start(Setup::default()).await;
    let mut client = server.client().await;
    let deep = "[".repeat(30_000);
    let deep_data = format!(r#"{{"event":"pusher:subscribe","data":{}}}"#, r#"{"a":"#.repeat(5_000));
    for text in [
        "",
        "{",
        "null",
        "[]",
        "42",
        "\"pusher:ping\"",
        "hello",
        "{}",
        r#"["pusher:ping"]"#,
        r#"{"event":7}"#,
        r#"{"event":null}"#,
        r#"{"event":"pusher:ping"} trailing"#,
        r#"{"event":"pusher:subscribe"}"#,
        r#"{"event":"pusher:subscribe","data":{}}"#,
        r#"{"event":"pusher:subscribe","data":"{}"}"#,
        r#"{"event":"pusher:subscribe","data":"not json"}"#,
        r#"{"event":"pusher:subscribe","data":{"channel":7}}"#,
        r#"{"event":"pusher:subscribe","data":["news"]}"#,
        r#"{"event":"pusher:unsubscribe","data":{}}"#,
        r#"{"event":"pusher:signin","data":{}}"#,
        r#"{"event":"client-typing","data":{}}"#,
        "{\"event\":\"a\u{0}\"}",
        &deep,
        &deep_data,
    ] {
        is_refused(&mut client, text, Some(4200)).await;
    }
    assert!(server.metric("carillon_protocol_errors_total").await >= 24.0);
    witnesses.are_served(&server).await;
    server.stop().await;
}

#[tokio::test]
async fn unknown_and_forged_events_are_refused_and_reach_no_client() {
    let (server, mut witnesses) = start(Setup::default()).await;
    let (mut client, mut other) = (server.client().await, server.client().await);
    client.join("presence-room", "1").await;
    other.join("presence-room", "2").await;
    client.expect("pusher_internal:member_added").await;
    for event in [
        "hello",
        "pusher:hello",
        "pusher:connection_established",
        "pusher:error",
        "pusher_internal:member_added",
        "pusher_internal:member_removed",
        "pusher_internal:subscription_succeeded",
        "client_typing",
        "Client-typing",
        "",
    ] {
        let forged = json!({ "event": event, "channel": "presence-room", "data": "{\"user_id\":\"3\"}" });
        is_refused(&mut client, &forged.to_string(), None).await;
    }
    other.settle().await;
    witnesses.are_served(&server).await;
    server.stop().await;
}

#[tokio::test]
async fn client_events_are_accepted_only_from_subscribers_of_channels_that_allow_them() {
    let (server, mut witnesses) = start(Setup::default()).await;
    let (mut client, mut other) = (server.client().await, server.client().await);
    other.subscribe("private-room").await;
    let whisper = |channel: &str, data: &str| json!({ "event": "client-typing", "channel": channel, "data": data });
    let text = is_refused(&mut client, &whisper("private-room", "1").to_string(), None).await;
    assert!(text.contains("not subscribed"), "{text}");
    for channel in ["news", "cache-news", "private-encrypted-room", "private-encrypted-cache-room"] {
        client.subscribe(channel).await;
        if channel.contains("cache-") {
            client.expect("pusher:cache_miss").await;
        }
        is_refused(&mut client, &whisper(channel, "1").to_string(), None).await;
    }
    client.subscribe("private-room").await;
    let too_large = "x".repeat(10_241);
    is_refused(&mut client, &whisper("private-room", &too_large).to_string(), Some(4301)).await;
    let long_name = json!({ "event": format!("client-{}", "x".repeat(200)), "channel": "private-room", "data": "" });
    is_refused(&mut client, &long_name.to_string(), None).await;
    client.whisper("private-room", "client-typing", &json!({ "x": 1 }));
    other.expect_event("private-room", "client-typing", r#"{"x":1}"#).await;
    client.unsubscribe("private-room");
    is_refused(&mut client, &whisper("private-room", "2").to_string(), None).await;
    other.settle().await;
    witnesses.are_served(&server).await;
    server.stop().await;
}

#[tokio::test]
async fn client_events_above_the_rate_are_dropped_with_4301() {
    let (server, mut witnesses) = start(Setup::default().limit("client_events_per_second = 5")).await;
    let (mut client, mut other) = (server.client().await, server.client().await);
    client.subscribe("private-room").await;
    other.subscribe("private-room").await;
    for number in 0..100 {
        client.whisper("private-room", "client-n", &json!(number));
    }
    let mut refused = 0;
    client.send_event("pusher:ping", &json!({}));
    loop {
        let message = client.next().await;
        if message.event == "pusher:pong" {
            break;
        }
        assert!(message.event == "pusher:error" && message.data.contains("4301"), "{message:?}");
        refused += 1;
    }
    server.publish("private-room", "marker", "").await;
    let mut delivered = 0;
    while other.next().await.event == "client-n" {
        delivered += 1;
    }
    assert_eq!(refused + delivered, 100);
    assert!((5..50).contains(&delivered), "{delivered} of 100 at 5 per second");
    assert_eq!(server.metric("carillon_rate_limited_total{scope=\"client_events\"}").await, f64::from(refused));
    client.expect_event("private-room", "marker", "").await;
    witnesses.are_served(&server).await;
    server.stop().await;
}

#[tokio::test]
async fn disabled_client_events_are_refused() {
    let server = Server::start(Setup::default().app("client_events = false")).await;
    let mut client = server.client().await;
    client.subscribe("private-room").await;
    is_refused(&mut client, r#"{"event":"client-a","channel":"private-room","data":{}}"#, None).await;
    server.stop().await;
}

#[tokio::test]
async fn subscriptions_with_bad_names_are_refused() {
    let (server, mut witnesses) = start(Setup::default()).await;
    let mut client = server.client().await;
    let long = "x".repeat(201);
    for name in ["", "a b", "a/b", "é", "a\nb", "#other", "#server-to-user-", "a:b", "a\u{0}b", &long] {
        client.send_event("pusher:subscribe", &json!({ "channel": name }));
        let refusal = client.expect("pusher:subscription_error").await;
        assert_eq!(refusal.channel.as_deref(), Some(name));
        assert_eq!(client.expect_error().await.0, Some(4009), "{name:?}");
    }
    client.subscribe(&"x".repeat(200)).await;
    witnesses.are_served(&server).await;
    server.stop().await;
}

#[tokio::test]
async fn subscriptions_without_a_valid_signature_are_refused() {
    let (server, mut witnesses) = start(Setup::default()).await;
    let mut client = server.client().await;
    let digest = "0".repeat(64);
    let other_key = format!("other-key:{digest}");
    let wrong = format!("shop-key:{digest}");
    for channel in ["private-a", "private-cache-a", "private-encrypted-a", "private-encrypted-cache-a", "presence-a"] {
        for auth in [
            json!(null),
            json!(""),
            json!("shop-key"),
            json!("shop-key:"),
            json!("shop-key:xyz"),
            json!(other_key),
            json!(wrong),
        ] {
            let member = r#"{"user_id":"1"}"#;
            client.send_event("pusher:subscribe", &json!({ "channel": channel, "auth": auth, "channel_data": member }));
            assert_eq!(client.expect_refusal(channel, 4009).await, ("AuthError".into(), 401), "{auth}");
        }
    }
    client.ask("presence-a", None);
    assert_eq!(client.expect_refusal("presence-a", 4009).await.0, "AuthError", "no member");
    for member in
        [json!({}), json!({ "user_id": "" }), json!({ "user_id": null }), json!({ "user_id": ["1"] }), json!([])]
    {
        client.ask("presence-a", Some(&member));
        assert_eq!(client.expect_refusal("presence-a", 4009).await.0, "AuthError", "{member}");
    }
    for member in [json!({ "user_id": "x".repeat(129) }), json!({ "user_id": "1", "user_info": "x".repeat(1023) })] {
        client.ask("presence-a", Some(&member));
        assert_eq!(client.expect_refusal("presence-a", 4301).await.0, "LimitReached");
    }
    assert_eq!(server.metric("carillon_auth_failures_total").await, 35.0);
    assert_eq!(server.get("/channels").await, json!({ "channels": { "witness": {} } }), "no subscription was stored");
    witnesses.are_served(&server).await;
    server.stop().await;
}

#[tokio::test]
async fn a_signature_of_another_socket_is_refused() {
    let server = Server::plain().await;
    let (mut client, other) = (server.client().await, server.client().await);
    let name = shared::protocol::ChannelName::parse("private-a", 200).expect("a valid name");
    let auth = shared::auth::sign_channel(&server.app, other.socket_id, &name, None);
    client.send_event("pusher:subscribe", &json!({ "channel": "private-a", "auth": auth }));
    client.expect_refusal("private-a", 4009).await;
    client.subscribe("private-a").await;
    server.stop().await;
}

#[tokio::test]
async fn a_repeated_subscription_is_confirmed_again_and_counted_once() {
    let server = Server::plain().await;
    let mut client = server.client().await;
    for _ in 0..3 {
        client.subscribe("news").await;
    }
    server.publish("news", "once", "1").await;
    client.expect_event("news", "once", "1").await;
    assert_eq!(
        server.get("/channels/news?info=subscription_count").await,
        json!({ "occupied": true, "subscription_count": 1 })
    );
    client.unsubscribe("news");
    client.unsubscribe("news");
    client.unsubscribe("never-joined");
    client.settle().await;
    tests::eventually("the channel is vacated", async || server.get("/channels").await == json!({ "channels": {} }))
        .await;
    server.publish("news", "unheard", "1").await;
    client.settle().await;
    server.stop().await;
}
