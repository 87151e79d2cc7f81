//! Limits of sessions, and their cost. Source: protocol reference 6.3, rule 7.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;
use tests::fallback::{HttpSession, Line, Response, Transport, close_code};
use tests::{PATIENCE, Raw, Server, Setup, Witnesses, within, within_time};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::interval;

use super::{pending, subscribed_poll, subscribed_stream};

const MIB: u64 = 1024 * 1024;

async fn start(setup: Setup) -> (Server, Witnesses) {
    let server = Server::start(setup.server(Witnesses::SETUP)).await;
    let witnesses = Witnesses::join(&server).await;
    (server, witnesses)
}

#[tokio::test]
async fn sessions_are_counted_by_transport() {
    let server = super::server().await;
    let _web = server.client().await;
    let (stream, _) = HttpSession::new(&server).open_stream().await;
    let poll = HttpSession::new(&server);
    poll.open_poll().await;
    let waiting = pending(&server, &poll, Transport::Poll).await;
    let metrics = server.metrics().await;
    for transport in ["websocket", "xhr_streaming", "xhr_polling"] {
        for name in ["carillon_connections", "carillon_connections_opened_total"] {
            let series = format!("{name}{{app=\"shop\",transport=\"{transport}\"}}");
            assert_eq!(metrics.value(&series), 1.0, "{series}");
        }
    }
    drop((stream, waiting));
    server.metric_reaches("carillon_connections", 1.0).await;
    assert_eq!(server.metric("carillon_connections{app=\"shop\",transport=\"websocket\"}").await, 1.0);
    server.stop().await;
}

#[tokio::test]
async fn a_stream_that_is_not_read_ends_with_4100_in_bounded_memory() {
    let (server, mut witnesses) = start(Setup::default()).await;
    let session = HttpSession::new(&server);
    let mut raw = Raw::connect_narrow(server.public).await;
    raw.send(session.request(Transport::Stream).as_bytes()).await;
    server.metric_reaches("carillon_connections", 3.0).await;
    session.ask("news").await;
    let before = server.resident_bytes();
    let mut peak = before;
    let slow = async || server.metric("carillon_slow_consumers_total").await > 0.0;
    within("the timeout of the server", async {
        while !slow().await {
            for _ in 0..20 {
                server.publish("news", "e", &"x".repeat(10_000)).await;
            }
            peak = peak.max(server.resident_bytes());
        }
    })
    .await;
    witnesses.are_served(&server).await;
    assert!(peak - before < 24 * MIB, "{} bytes for one client", peak - before);
    server.metric_reaches("carillon_connections_closed_total{code=\"4100\"}", 1.0).await;
    witnesses.are_served(&server).await;
    drop(raw);
    server.stop().await;
}

#[tokio::test]
async fn a_stream_closed_with_a_pending_response_releases_its_session_at_once() {
    let setup = Setup::default().server("activity_timeout = \"1s\"").server("pong_timeout = \"2s\"");
    let (server, mut witnesses) = start(setup.server("outbox_timeout = \"60s\"")).await;
    let session = HttpSession::new(&server);
    let mut raw = Raw::connect_narrow(server.public).await;
    raw.send(session.request(Transport::Stream).as_bytes()).await;
    server.metric_reaches("carillon_connections", 3.0).await;
    session.ask("news").await;
    let mut stream = Response::of(raw).await;
    while stream.line().await != Some(Line::Heartbeat) {}
    // From here on the client neither reads nor answers, and more arrives than the queue can store.
    let event = json!({ "channel": "news", "name": "e", "data": "x".repeat(10_000) });
    within("the timeout of the server", async {
        // On a slow machine the missing answer is detected first. The end is the same.
        let is_closing = async || {
            let metrics = server.metrics().await;
            metrics.value("carillon_slow_consumers_total") + metrics.value("carillon_ping_timeouts_total") > 0.0
        };
        while !is_closing().await {
            server.post("/batch_events", &json!({ "batch": vec![event.clone(); 10] })).await;
        }
    })
    .await;
    let before = server.processor_time();
    within("the end of the grace period", async {
        // The interval is long, because each check takes time too.
        let mut turn = interval(Duration::from_millis(250));
        while server.metric("carillon_connections").await > 2.0 {
            turn.tick().await;
        }
    })
    .await;
    let spent = server.processor_time() - before;
    assert!(spent < Duration::from_secs(1), "{spent:?} while the server was idle");
    witnesses.are_served(&server).await;
    drop(stream);
    server.stop().await;
}

#[tokio::test]
async fn a_session_without_requests_queues_at_most_one_outbox() {
    let (server, mut witnesses) = start(Setup::default()).await;
    let session = subscribed_poll(&server).await;
    let event = json!({ "channel": "news", "name": "e", "data": "x".repeat(10_000) });
    for _ in 0..12 {
        let batch = vec![event.clone(); 10];
        assert_eq!(server.post("/batch_events", &json!({ "batch": batch })).await.status.as_u16(), 200);
    }
    assert_eq!(close_code(&session.poll().await), 4100);
    witnesses.are_served(&server).await;
    server.stop().await;
}

#[tokio::test]
async fn a_body_of_invalid_messages_uses_little_time() {
    const GROWTH_MAX: u64 = 16 * MIB;
    let (server, mut witnesses) = start(Setup::default()).await;
    let before = server.resident_bytes();
    // Each takes three bytes and is answered with an error of a hundred.
    let messages = vec![""; 80_000];
    for _ in 0..3 {
        let session = HttpSession::new(&server);
        session.open_poll().await;
        assert_eq!(session.send(&messages).await.status, 204);
        witnesses.are_served(&server).await;
        assert_eq!(close_code(&session.poll().await), 4100);
    }
    let growth = server.resident_bytes().saturating_sub(before);
    assert!(growth < GROWTH_MAX, "{growth} bytes");
    witnesses.are_served(&server).await;
    server.stop().await;
}

#[tokio::test]
async fn continuous_requests_delay_no_other_client() {
    const REQUESTS: usize = 500;
    let (server, mut witnesses) = start(Setup::default()).await;
    let (session, mut stream) = subscribed_stream(&server).await;
    let mut raw = server.tcp().await;
    let request = format!("{}Content-Length: 2\r\n\r\n[]", session.head("POST", "xhr_send"));
    raw.send(request.repeat(REQUESTS).as_bytes()).await;
    witnesses.are_served(&server).await;
    for _ in 0..REQUESTS {
        assert_eq!(raw.take_head().await.status, 204);
        assert_eq!(stream.line().await, Some(Line::Messages(Vec::new())));
    }
    witnesses.are_served(&server).await;
    drop(stream);
    server.stop().await;
}

/// The highest number of polls. It can be lower if there are few descriptors.
const POLLS_MAX: usize = 10_000;

/// A lower number would not test the limits.
const POLLS_MIN: usize = 2_000;

/// Requests that are answered at once while others start.
const OPENING_MAX: usize = 100;

#[tokio::test]
async fn thousands_of_polls_receive_one_event_and_release_all_state() {
    let limit = shared::serve::descriptors::raise_limit().expect("descriptors");
    // The other descriptors are for concurrent tests.
    let polls = usize::try_from(limit.saturating_sub(2_000)).unwrap_or(POLLS_MAX).min(POLLS_MAX);
    assert!(polls >= POLLS_MIN, "{limit} descriptors are too few for thousands of polls: raise the hard limit");
    println!("{polls} polls");
    let (server, mut witnesses) = start(Setup::default()).await;
    let before = server.resident_bytes();
    let mut clients = poll_until_all_received(&server, &mut witnesses, polls).await;
    let peak = server.resident_bytes();
    // All of them send the next request and then disconnect at once.
    for (session, raw) in &mut clients {
        raw.send(session.request(Transport::Poll).as_bytes()).await;
    }
    drop(clients);
    all_sessions_have_ended(&server, &mut witnesses).await;
    within_time(PATIENCE, "the memory is released", async {
        while server.resident_bytes().saturating_sub(before) > (peak - before) / 5 {
            witnesses.are_served(&server).await;
        }
    })
    .await;
    server.stop().await;
}

/// Opens this number of polling sessions that have received one event. The witnesses are served all the time.
async fn poll_until_all_received(server: &Server, witnesses: &mut Witnesses, polls: usize) -> Vec<(HttpSession, Raw)> {
    let (opening, opened) = (Arc::new(Semaphore::new(OPENING_MAX)), Arc::new(AtomicUsize::new(0)));
    let mut clients = JoinSet::new();
    for _ in 0..polls {
        let session = HttpSession::new(server);
        clients.spawn(poll_until_event(server.public, session, opening.clone(), opened.clone()));
    }
    within_time(2 * PATIENCE, "all sessions", async {
        while opened.load(Ordering::Relaxed) < polls {
            witnesses.are_served(server).await;
        }
    })
    .await;
    server.metric_reaches("carillon_connections", polls as f64 + 2.0).await;
    server.publish("news", "e", "1").await;
    let clients = within_time(2 * PATIENCE, "all clients have the event", clients.join_all()).await;
    witnesses.are_served(server).await;
    clients
}

async fn all_sessions_have_ended(server: &Server, witnesses: &mut Witnesses) {
    within_time(PATIENCE, "all are closed", async {
        while server.metric("carillon_connections").await > 2.0 {
            witnesses.are_served(server).await;
        }
    })
    .await;
}

/// Opens a session, subscribes it, and polls until it has an event, all on one connection.
async fn poll_until_event(
    address: SocketAddr,
    session: HttpSession,
    opening: Arc<Semaphore>,
    opened: Arc<AtomicUsize>,
) -> (HttpSession, Raw) {
    let turn = opening.acquire().await.expect("never closed");
    let mut raw = Raw::connect(address).await;
    let subscribe =
        json!([json!({ "event": "pusher:subscribe", "data": { "channel": "news" } }).to_string()]).to_string();
    let send = format!("{}Content-Length: {}\r\n\r\n{subscribe}", session.head("POST", "xhr_send"), subscribe.len());
    let poll = session.request(Transport::Poll);
    raw.send(format!("{poll}{send}{poll}{poll}").as_bytes()).await;
    assert!(raw.http_reply().await.body.starts_with("o\na["));
    assert_eq!(raw.take_head().await.status, 204);
    let subscribed = raw.http_reply().await.body;
    assert!(subscribed.contains("subscription_succeeded"), "{subscribed}");
    drop(turn);
    opened.fetch_add(1, Ordering::Relaxed);
    loop {
        let mut response = Response::of(raw).await;
        let line = response.line().await;
        while response.line().await.is_some() {}
        raw = response.into_raw();
        match line {
            Some(Line::Heartbeat) => raw.send(session.request(Transport::Poll).as_bytes()).await,
            // On a slow machine the next poll can arrive too late. Then a new session starts, like in pusher-js.
            Some(Line::Open) => {
                raw.send(format!("{send}{poll}{poll}").as_bytes()).await;
                assert_eq!(raw.take_head().await.status, 204);
                assert!(raw.http_reply().await.body.contains("subscription_succeeded"));
            }
            Some(Line::Messages(messages)) => {
                assert_eq!(messages[0]["event"], "e");
                return (session, raw);
            }
            other => panic!("{other:?}"),
        }
    }
}
