//! Heartbeats, and the detection of dead clients. Source: protocol reference 6.3, rules 7 to 10.

use std::time::{Duration, Instant};

use serde_json::json;
use tests::fallback::{HttpSession, Line, TRANSPORTS, Transport, close_code};
use tests::{HttpClient, Server, Setup, within};

use super::{ONE_SHARD, server, subscribed_poll, subscribed_stream};

async fn impatient() -> Server {
    let setup = Setup::default().server("activity_timeout = \"1s\"").server("pong_timeout = \"2s\"");
    Server::start(setup.server(ONE_SHARD)).await
}

#[tokio::test]
async fn a_ping_is_answered_with_an_empty_array() {
    let server = server().await;
    let (session, mut stream) = subscribed_stream(&server).await;
    for _ in 0..3 {
        session.ping().await;
        assert_eq!(stream.line().await, Some(Line::Messages(Vec::new())));
    }
    let session = subscribed_poll(&server).await;
    session.ping().await;
    assert_eq!(session.poll().await, [Line::Messages(Vec::new())]);
    drop(stream);
    server.stop().await;
}

#[tokio::test]
async fn a_silent_stream_sends_heartbeats_and_ignores_their_replies() {
    let server = impatient().await;
    let session = HttpSession::new(&server);
    let (mut stream, _) = session.open_stream().await;
    for round in 0..6 {
        assert_eq!(stream.line().await, Some(Line::Heartbeat), "round {round}");
        session.ping().await;
    }
    // Any message counts as activity too.
    assert_eq!(stream.line().await, Some(Line::Heartbeat));
    session.send_event("pusher:ping", &json!({})).await;
    stream.expect("pusher:pong").await;
    assert_eq!(server.metric("carillon_ping_timeouts_total").await, 0.0);
    drop(stream);
    server.stop().await;
}

#[tokio::test]
async fn a_stream_that_is_idle_for_three_minutes_stays_open() {
    const IDLE: Duration = Duration::from_secs(180);
    let server = server().await;
    let (session, mut stream) = subscribed_stream(&server).await;
    let began = Instant::now();
    let mut heartbeats = 0;
    while began.elapsed() < IDLE {
        assert_eq!(stream.line().await, Some(Line::Heartbeat));
        session.ping().await;
        heartbeats += 1;
    }
    assert!(
        heartbeats >= 7,
        "proxies wait for half a minute, but there were {heartbeats} heartbeats in {:?}",
        began.elapsed()
    );
    server.publish("news", "e", "1").await;
    assert_eq!(stream.message().await["data"], "1");
    drop(stream);
    server.stop().await;
}

#[tokio::test]
async fn a_stream_that_answers_no_heartbeat_is_closed_with_4201() {
    let server = impatient().await;
    let (stream, _) = HttpSession::new(&server).open_stream().await;
    let mut lines = stream.rest().await;
    let end = lines.split_off(lines.len() - 2);
    assert_eq!(close_code(&end), 4201);
    assert!(lines.len() >= 2 && lines.iter().all(|line| *line == Line::Heartbeat), "{lines:?}");
    assert_eq!(server.metric("carillon_ping_timeouts_total").await, 1.0);
    server.metric_reaches("carillon_connections_closed_total{code=\"4201\"}", 1.0).await;
    server.stop().await;
}

#[tokio::test]
async fn an_idle_poll_ends_with_a_heartbeat_and_polling_keeps_the_session_open() {
    let server = impatient().await;
    let session = subscribed_poll(&server).await;
    for round in 0..6 {
        assert_eq!(session.poll().await, [Line::Heartbeat], "round {round}");
    }
    server.publish("news", "e", "1").await;
    assert_eq!(tests::fallback::messages(&session.poll().await)[0]["data"], "1");
    server.stop().await;
}

#[tokio::test]
async fn clients_that_behave_like_pusher_js_stay_connected() {
    let server = impatient().await;
    let mut clients = Vec::new();
    for transport in TRANSPORTS {
        let mut client = HttpClient::connect(&server, transport).await;
        client.subscribe("news").await;
        clients.push(client);
    }
    // A second client that does not respond is closed in the meantime.
    for _ in 0..2 {
        let (silent, _) = HttpSession::new(&server).open_stream().await;
        silent.rest().await;
    }
    server.publish("news", "e", "1").await;
    for client in &mut clients {
        client.expect_event("news", "e", "1").await;
        assert!(client.heartbeats >= 3, "{} heartbeats", client.heartbeats);
    }
    drop(clients);
    server.stop().await;
}

#[tokio::test]
async fn an_abandoned_session_ends_as_a_disconnect_after_a_grace_period() {
    let server = server().await;
    for transport in TRANSPORTS {
        let mut witness = server.client().await;
        witness.join("presence-room", "witness").await;
        let mut client = HttpClient::connect(&server, transport).await;
        client.join("presence-room", "gone").await;
        witness.expect("pusher_internal:member_added").await;
        let session = client.session.at(&server);
        let began = tokio::time::Instant::now();
        drop(client);
        let removed = witness.expect("pusher_internal:member_removed").await;
        assert!(removed.data.contains("gone"), "{}", removed.data);
        assert!(
            began.elapsed() >= std::time::Duration::from_secs(4),
            "the grace period was too short: {:?}",
            began.elapsed()
        );
        server.metric_reaches("carillon_connections", 1.0).await;
        assert_eq!(session.send_body(b"[]").await.status, 404);
        session.open_poll().await;
        drop(witness);
        server.metric_reaches("carillon_connections", 0.0).await;
    }
    server.metric_reaches("carillon_connections_closed_total{code=\"1006\"}", 6.0).await;
    server.stop().await;
}

#[tokio::test]
async fn a_large_poll_response_has_time_to_arrive() {
    let server = server().await;
    let session = subscribed_poll(&server).await;
    // On the slowest links they take twelve seconds.
    for number in 0..10 {
        server.publish("news", "e", &format!("{number}{}", "x".repeat(10_000))).await;
    }
    assert_eq!(tests::fallback::messages(&session.poll().await).len(), 10);
    // A session with a smaller response ended earlier, although its client left later.
    let left = HttpSession::new(&server);
    left.open_poll().await;
    server.metric_reaches("carillon_connections", 1.0).await;
    assert_eq!(left.send_body(b"[]").await.status, 404);
    server.publish("news", "e", "1").await;
    assert_eq!(tests::fallback::messages(&session.poll().await)[0]["data"], "1");
    server.stop().await;
}

#[tokio::test]
async fn a_session_with_a_request_in_time_stays_open() {
    let server = server().await;
    let (session, stream) = subscribed_stream(&server).await;
    drop(stream);
    // Other sessions without a request have ended. This one has continued twice.
    let left = HttpSession::new(&server);
    left.open_poll().await;
    let poll = super::pending(&server, &session, Transport::Poll).await;
    within("the end of the other", server.metric_reaches("carillon_connections", 1.0)).await;
    server.publish("news", "e", "1").await;
    let lines = tests::fallback::Response::of(poll).await.rest().await;
    assert_eq!(tests::fallback::messages(&lines)[0]["data"], "1");
    server.stop().await;
}
