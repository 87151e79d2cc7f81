//! Pings in both directions. Source: protocol reference 1.2.

use std::time::{Duration, Instant};

use serde_json::json;
use tests::raw::{FIN, PING, PONG};
use tests::{Server, Setup};

fn impatient() -> Setup {
    Setup::default().server("activity_timeout = \"1s\"").server("pong_timeout = \"1s\"")
}

#[tokio::test]
async fn a_silent_client_is_pinged_and_closed_with_4201_and_one_that_answers_stays() {
    let server = Server::start(impatient()).await;
    let mut answering = server.client().await;
    answering.subscribe("news").await;
    server.raw().await.expect_ping_and_close(4201).await;
    // A second silent client takes the same time. Meanwhile the server has pinged the other client several times.
    server.raw().await.expect_ping_and_close(4201).await;
    assert_eq!(server.metric("carillon_ping_timeouts_total").await, 2.0);
    server.publish("news", "hello", "1").await;
    answering.expect_event("news", "hello", "1").await;
    server.metric_reaches("carillon_connections", 1.0).await;
    server.stop().await;
}

#[tokio::test]
async fn any_frame_counts_as_activity() {
    let server = Server::start(impatient()).await;
    let mut raw = server.raw().await;
    for round in 0..3 {
        let ping = raw.frame().await.expect("a ping");
        assert_eq!(ping.opcode, PING, "round {round}");
        match round {
            0 => raw.send_frame(FIN | PONG, &ping.payload).await,
            1 => raw.send_frame(FIN | PING, b"mine").await,
            _ => raw.send_text(r#"{"event":"pusher:pong","data":{}}"#).await,
        }
        if round == 1 {
            let pong = raw.frame().await.expect("a pong");
            assert_eq!((pong.opcode, pong.payload.as_slice()), (PONG, b"mine".as_slice()));
        }
    }
    assert_eq!(raw.frame().await.expect("a ping").opcode, PING, "still open");
    assert_eq!(server.metric("carillon_ping_timeouts_total").await, 0.0);
    drop(raw);
    server.stop().await;
}

#[tokio::test]
async fn a_protocol_ping_is_answered() {
    let server = Server::plain().await;
    let mut client = server.client().await;
    for text in
        [r#"{"event":"pusher:ping","data":{}}"#, r#"{"event":"pusher:ping"}"#, r#"{"event":"pusher:ping","data":"{}"}"#]
    {
        client.send(text);
        let pong = client.expect("pusher:pong").await;
        assert_eq!((pong.data.as_str(), pong.channel), ("{}", None));
    }
    // An unexpected pong is ignored.
    client.send_event("pusher:pong", &json!({}));
    client.settle().await;
    server.stop().await;
}

#[tokio::test]
async fn clients_that_ping_are_not_pinged_and_dead_ones_are_detected_in_time() {
    let activity_timeout = Duration::from_secs(2);
    let setup = Setup::default().server("activity_timeout = \"2s\"").server("pong_timeout = \"12s\"");
    let server = Server::start(setup).await;
    let dead = async {
        let began = Instant::now();
        server.raw().await.expect_ping_and_close(4201).await;
        let took = began.elapsed();
        // 14 s, with a margin for a busy machine.
        assert!((Duration::from_secs(12)..Duration::from_secs(30)).contains(&took), "closed after {took:?}");
    };
    // Like pusher-js: sends a ping if no message arrives during the activity timeout.
    let lively = async {
        let mut raw = server.raw().await;
        for _ in 0..4 {
            tokio::time::sleep(activity_timeout).await;
            raw.send_text(r#"{"event":"pusher:ping","data":{}}"#).await;
            assert_eq!(raw.message().await["event"], "pusher:pong", "no ping arrives before the pong");
        }
    };
    tokio::join!(dead, lively);
    assert_eq!(server.metric("carillon_ping_timeouts_total").await, 1.0);
    server.stop().await;
}
