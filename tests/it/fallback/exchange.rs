//! The protocol through both transports. Source: protocol reference 6.3, rule 14.

use std::collections::BTreeSet;

use serde_json::json;
use tests::fallback::{HttpSession, Line, TRANSPORTS, Transport, messages};
use tests::{HttpClient, Server, Setup};

use super::server;

#[tokio::test]
async fn events_client_events_and_presence_work_as_over_a_websocket() {
    for transport in TRANSPORTS {
        let server = Server::start(Setup::default().server("shards = 2")).await;
        let mut web = server.client().await;
        let mut client = HttpClient::connect(&server, transport).await;
        assert_eq!(web.join("presence-room", "web").await, ["web"]);
        let members: BTreeSet<String> = client.join("presence-room", "http").await.into_iter().collect();
        assert_eq!(members, BTreeSet::from(["web".to_owned(), "http".to_owned()]));
        web.expect("pusher_internal:member_added").await;

        for channel in ["news", "private-news"] {
            web.subscribe(channel).await;
            client.subscribe(channel).await;
            server.publish(channel, "hello", "\u{1f514} \"1\"\n").await;
            client.expect_event(channel, "hello", "\u{1f514} \"1\"\n").await;
            web.expect_event(channel, "hello", "\u{1f514} \"1\"\n").await;
        }
        server.publish_except("news", "hello", "2", Some(client.socket_id)).await;
        web.expect_event("news", "hello", "2").await;

        web.whisper("private-news", "client-typing", &json!({ "by": "web" }));
        let typing = client.expect("client-typing").await;
        assert_eq!((&typing["channel"], &typing["data"]), (&json!("private-news"), &json!("{\"by\":\"web\"}")));
        let message = json!({ "event": "client-typing", "channel": "private-news", "data": { "by": "http" } });
        client.session.send_json(&message).await;
        assert_eq!(web.expect("client-typing").await.channel.as_deref(), Some("private-news"));

        client.session.send_event("pusher:unsubscribe", &json!({ "channel": "presence-room" })).await;
        web.expect("pusher_internal:member_removed").await;
        client.sign_in("ana").await;
        server.publish("#server-to-user-ana", "hello", "3").await;
        client.expect_event("#server-to-user-ana", "hello", "3").await;
        client.settle().await;
        web.settle().await;
        drop(client);
        server.stop().await;
    }
}

#[tokio::test]
async fn an_invalid_signature_is_refused_and_the_session_stays_open() {
    let server = server().await;
    for transport in TRANSPORTS {
        let mut client = HttpClient::connect(&server, transport).await;
        let auth = format!("shop-key:{}", "0".repeat(64));
        client.session.send_event("pusher:subscribe", &json!({ "channel": "private-a", "auth": auth })).await;
        client.expect("pusher:subscription_error").await;
        assert_eq!(client.expect("pusher:error").await["data"]["code"], 4009);
        client.session.send(&["no json", "{}"]).await;
        client.expect("pusher:error").await;
        client.expect("pusher:error").await;
        client.settle().await;
    }
    server.stop().await;
}

#[tokio::test]
async fn many_messages_of_one_request_are_handled_in_order() {
    let server = server().await;
    let mut client = HttpClient::connect(&server, Transport::Poll).await;
    let channels: Vec<String> = (0..500).map(|number| format!("channel-{number}")).collect();
    let subscribe = |channel: &String| {
        json!({ "event": "pusher:subscribe", "data": { "channel": channel, "auth": "" } }).to_string()
    };
    let requests: Vec<String> = channels.iter().map(subscribe).collect();
    assert_eq!(client.session.send(&requests).await.status, 204);
    for channel in &channels {
        assert_eq!(client.expect("pusher_internal:subscription_succeeded").await["channel"], *channel);
    }
    client.settle().await;
    drop(client);
    server.stop().await;
}

#[tokio::test]
async fn a_session_switches_between_transports() {
    let server = server().await;
    let session = HttpSession::new(&server);
    session.open_poll().await;
    session.ask("news").await;
    assert_eq!(messages(&session.poll().await).len(), 1);
    let mut expected = 0;
    for _ in 0..5 {
        let mut stream = session.receive(Transport::Stream).await;
        for _ in 0..3 {
            server.publish("news", "count", &expected.to_string()).await;
            assert_eq!(stream.message().await["data"], expected.to_string());
            expected += 1;
        }
        drop(stream);
        server.publish("news", "count", &expected.to_string()).await;
        let mut lines = session.poll().await;
        if lines == [Line::Heartbeat] {
            // The next request took over the session before the end of the stream was detected.
            lines = session.poll().await;
        }
        assert_eq!(lines.len(), 1, "never another o: {lines:?}");
        assert_eq!(messages(&lines)[0]["data"], expected.to_string());
        expected += 1;
    }
    assert_eq!(server.metric("carillon_connections_opened_total").await, 1.0);
    server.stop().await;
}

#[tokio::test]
async fn queued_messages_arrive_in_one_line() {
    let server = server().await;
    let session = super::subscribed_poll(&server).await;
    for number in 0..5 {
        server.publish("news", "count", &number.to_string()).await;
    }
    session.send_event("pusher:ping", &json!({})).await;
    let mut seen = Vec::new();
    while seen.last().is_none_or(|message: &serde_json::Value| message["event"] != "pusher:pong") {
        let lines = session.poll().await;
        assert_eq!(lines.len(), 1, "{lines:?}");
        seen.extend(messages(&lines));
    }
    let events: Vec<&str> = seen.iter().filter_map(|message| message["data"].as_str()).collect();
    assert_eq!(events[..5], ["0", "1", "2", "3", "4"]);
    assert!(matches!(seen.len(), 6), "{seen:?}");
    server.stop().await;
}
