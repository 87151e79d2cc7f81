//! The limit of a response, and successive requests of a session. Source: protocol reference 6.3, rules
//! 4 to 8.

use std::ops::Range;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::fallback::{Line, RESPONSE_UNITS_MAX, Response, TRANSPORTS, Transport, messages, until_over};
use tests::{HttpClient, PATIENCE, Server, Setup, within, within_time};

use super::{ONE_SHARD, pending, server, subscribed_poll, subscribed_stream};

/// Data of about 10 KB. Every event has a different size in bytes, characters and UTF-16 units. The number is first.
fn data(number: usize) -> String {
    let filling = match number % 3 {
        0 => "x".repeat(10_000),
        1 => "\u{e9}".repeat(5_000),
        _ => "\u{1f514}".repeat(2_500),
    };
    format!("{number} {filling}")
}

/// Publishes events and reads each from the stream, until the response has reached its limit.
async fn fill(server: &Server, stream: &mut Response, number: &mut usize) {
    while stream.units <= RESPONSE_UNITS_MAX {
        server.publish("news", "e", &data(*number)).await;
        assert_eq!(stream.message().await["data"], data(*number));
        *number += 1;
    }
}

/// Publishes events that no request waits for, ten at a time.
async fn publish_many(server: &Server, numbers: Range<usize>, data: fn(usize) -> String) {
    let event = |number: &usize| json!({ "channel": "news", "name": "e", "data": data(*number) });
    for batch in numbers.collect::<Vec<_>>().chunks(10) {
        let batch: Vec<Value> = batch.iter().map(event).collect();
        assert_eq!(server.post("/batch_events", &json!({ "batch": batch })).await.status.as_u16(), 200);
    }
}

/// Reads the next events from a response, regardless of how many share a line.
async fn take(stream: &mut Response, number: &mut usize, count: usize) {
    let end = *number + count;
    while *number < end {
        let Some(Line::Messages(messages)) = stream.line().await else { panic!("event {number} is missing") };
        for message in messages {
            assert_eq!(message["data"], data(*number));
            *number += 1;
        }
    }
}

#[tokio::test]
async fn a_stream_stops_after_the_frame_that_exceeds_the_limit_and_the_next_request_continues() {
    // Long enough that the server does not resume the old one.
    let server = Server::start(Setup::default().server(ONE_SHARD).server("outbox_timeout = \"120s\"")).await;
    let (session, mut stream) = subscribed_stream(&server).await;
    let mut number = 0;
    for _ in 0..3 {
        fill(&server, &mut stream, &mut number).await;
        publish_many(&server, number..number + 5, data).await;
        let mut next = session.receive(Transport::Stream).await;
        take(&mut next, &mut number, 5).await;
        assert_eq!(stream.line().await, None, "the full stream ends without further lines");
        stream = next;
    }
    drop(stream);
    server.stop().await;
}

#[tokio::test]
async fn a_full_stream_continues_if_no_other_request_arrives() {
    let server = server().await;
    let (_session, mut stream) = subscribed_stream(&server).await;
    let mut number = 0;
    let began = Instant::now();
    fill(&server, &mut stream, &mut number).await;
    publish_many(&server, number..number + 5, data).await;
    within_time(2 * PATIENCE, "what comes in the old response", take(&mut stream, &mut number, 5)).await;
    assert!(
        began.elapsed() > Duration::from_secs(30),
        "a response on a slow link needs more time: {:?}",
        began.elapsed()
    );
    drop(stream);
    server.stop().await;
}

#[tokio::test]
async fn a_session_delivers_three_megabytes_in_order() {
    const EVENTS: usize = 500;
    for transport in TRANSPORTS {
        let setup = Setup::default().server("shards = 2").server("outbox_bytes = \"16MiB\"");
        let server = Server::start(setup).await;
        let mut client = HttpClient::connect(&server, transport).await;
        client.subscribe("news").await;
        let publish = publish_many(&server, 0..EVENTS, data);
        let receive = async {
            for number in 0..EVENTS {
                client.expect_event("news", "e", &data(number)).await;
            }
        };
        within_time(PATIENCE, "all events", async { tokio::join!(publish, receive) }).await;
        client.settle().await;
        assert_eq!(server.metric("carillon_connections_opened_total").await, 1.0);
        drop(client);
        server.stop().await;
    }
}

#[tokio::test]
async fn a_poll_ends_after_the_frame_that_exceeds_the_limit() {
    let server = server().await;
    let session = subscribed_poll(&server).await;
    const EVENTS: usize = 80;
    publish_many(&server, 0..EVENTS, |number| format!("{number} {}", "x".repeat(10_000))).await;
    let mut expected = 0;
    while expected < EVENTS {
        let mut response = session.receive(Transport::Poll).await;
        let Some(Line::Messages(messages)) = response.line().await else { panic!("messages") };
        assert_eq!(response.line().await, None);
        let last = messages.last().expect("never none").to_string().len();
        assert!(response.units - last <= RESPONSE_UNITS_MAX, "{} units", response.units);
        for message in messages {
            let data = message["data"].as_str().and_then(|data| data.split(' ').next()).expect("data");
            assert_eq!(data, expected.to_string());
            expected += 1;
        }
        assert!(expected == EVENTS || response.units > RESPONSE_UNITS_MAX - 12_000, "{} units", response.units);
    }
    server.stop().await;
}

#[tokio::test]
async fn a_later_request_takes_over_and_the_earlier_one_ends() {
    let server = server().await;
    for earlier in TRANSPORTS {
        for later in TRANSPORTS {
            let session = subscribed_poll(&server).await;
            let first = pending(&server, &session, earlier).await;
            let second = pending(&server, &session, later).await;
            let ended = within("the end of the first", Response::of(first)).await.rest().await;
            // An empty poll would not count as activity.
            let expected: &[Line] = if earlier == Transport::Poll { &[Line::Heartbeat] } else { &[] };
            assert_eq!(ended, expected, "{earlier:?}, then {later:?}");
            server.publish("news", "e", "1").await;
            let mut second = Response::of(second).await;
            assert_eq!(second.message().await["data"], "1", "{earlier:?}, then {later:?}");
            if later == Transport::Poll {
                assert_eq!(second.line().await, None);
            }
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn no_message_is_lost_between_rapid_requests() {
    const EVENTS: usize = 60;
    let server = server().await;
    let session = subscribed_poll(&server).await;
    let publish = async {
        for number in 0..EVENTS {
            server.publish("news", "e", &number.to_string()).await;
        }
    };
    let receive = async {
        let mut seen = Vec::new();
        let mut turn = 0;
        while seen.len() < EVENTS {
            // Each request starts before the previous response has been read.
            let mut raws = Vec::new();
            for transport in [TRANSPORTS[turn % 2], TRANSPORTS[turn / 2 % 2], Transport::Poll] {
                raws.push(pending(&server, &session, transport).await);
            }
            turn += 1;
            for raw in raws {
                let lines = until_over(Response::of(raw).await).await;
                seen.extend(messages(&lines).iter().map(number_of));
            }
        }
        seen
    };
    let ((), seen) = within_time(PATIENCE, "all events", async { tokio::join!(publish, receive) }).await;
    assert_eq!(seen, (0..EVENTS).collect::<Vec<_>>());
    server.stop().await;
}

fn number_of(message: &Value) -> usize {
    message["data"].as_str().and_then(|data| data.parse().ok()).expect("a number")
}

#[tokio::test]
async fn a_session_without_a_request_queues_messages() {
    let server = server().await;
    for transport in TRANSPORTS {
        let session = subscribed_poll(&server).await;
        drop(pending(&server, &session, transport).await);
        publish_many(&server, 0..5, |number| number.to_string()).await;
        let mut numbers = Vec::new();
        while numbers.len() < 5 {
            numbers.extend(messages(&session.poll().await).iter().map(number_of));
        }
        assert_eq!(numbers, [0, 1, 2, 3, 4], "{transport:?}");
    }
    server.stop().await;
}

#[tokio::test]
async fn session_names_are_separate_per_app_and_path() {
    let server = server().await;
    let session = subscribed_poll(&server).await;
    let mut other = session.at(&server);
    other.path = format!("{}x", session.path);
    other.open_poll().await;
    assert_eq!(server.metric("carillon_connections_opened_total").await, 2.0);
    server.publish("news", "e", "1").await;
    assert_eq!(messages(&session.poll().await)[0]["data"], "1");
    server.stop().await;
}
