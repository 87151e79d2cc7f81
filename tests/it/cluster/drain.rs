//! Drains of a gateway in a cluster. Its clients move to other gateways at the pace of `[drain]`. The end of TCP counts.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use shared::auth::request::signed_query;
use shared::cluster::envelope::unix_us;
use tests::fallback::{HttpSession, Transport, close_code};
use tests::raw::HttpReply;
use tests::{Cluster, Raw, Setup, within};
use tokio::task::JoinSet;

/// The time for a close frame and its answer, with a margin for a busy machine. It is much shorter than the
/// window.
const ROUND_TRIP_MAX: Duration = Duration::from_secs(2);

async fn a_gateway(drain: &[&str]) -> Cluster {
    let setup = drain.iter().fold(Setup::default().server("shards = 2"), |setup, line| setup.drain(line));
    Cluster::start().gateways(1).setup(setup).await
}

/// Asserts that these are spread evenly over the window. Every quarter must have half to twice its share.
#[track_caller]
fn expect_even(what: &str, began: Instant, window: Duration, ends: &[Instant]) {
    let mut quarters = [0; 4];
    for end in ends {
        let share = (*end - began).as_secs_f64() / window.as_secs_f64();
        quarters[((share * 4.0) as usize).min(3)] += 1;
    }
    let share = ends.len() / 4;
    for count in quarters {
        assert!((share / 2..=share * 2).contains(&count), "{what} by quarter of the window: {quarters:?}");
    }
}

#[tokio::test]
async fn close_frames_and_tcp_closes_are_spread_evenly_over_the_window() {
    const CLIENTS: usize = 60;
    let window = Duration::from_secs(6);
    let mut cluster = a_gateway(&["window = \"6s\""]).await;
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let mut raw = cluster.gateway(0).raw().await;
        clients.spawn(async move { raw.closed().await });
    }
    let began = Instant::now();
    cluster.gateway(0).signal(Signal::TERM);
    let ends = clients.join_all().await;
    let (mut frames, mut tcp) = (Vec::new(), Vec::new());
    for (code, closed, ended) in ends {
        assert_eq!(code, 4200);
        assert!(ended - closed < ROUND_TRIP_MAX, "TCP ended {:?} after the close frame", ended - closed);
        frames.push(closed);
        tcp.push(ended);
    }
    expect_even("close frames", began, window, &frames);
    expect_even("ends of TCP", began, window, &tcp);
    cluster.gateway_ends(0).await;
    cluster.stop().await;
}

#[tokio::test]
async fn ends_of_fallback_sessions_are_spread_evenly_over_the_window() {
    const CLIENTS: usize = 40;
    let window = Duration::from_secs(6);
    let mut cluster = a_gateway(&["window = \"6s\""]).await;
    let mut sessions = JoinSet::new();
    for number in 0..CLIENTS {
        let session = HttpSession::new(cluster.gateway(0));
        let transport = if number % 2 == 0 { Transport::Stream } else { Transport::Poll };
        session.open_poll().await;
        let mut raw = Raw::connect(cluster.gateway(0).public).await;
        raw.send(session.request(transport).as_bytes()).await;
        sessions.spawn(async move {
            // Reads until the end of TCP, because the response ends earlier.
            let text = String::from_utf8(raw.until_end_within(tests::PATIENCE).await).expect("lines are UTF-8");
            (text.contains("c[4200,"), Instant::now())
        });
    }
    cluster.gateway(0).metric_reaches("carillon_fallback_requests_total{kind=\"receive\"}", 2.0 * CLIENTS as f64).await;
    let began = Instant::now();
    cluster.gateway(0).signal(Signal::TERM);
    let ends = sessions.join_all().await;
    assert!(ends.iter().all(|(is_closed, _)| *is_closed), "each session is closed with 4200");
    let ends: Vec<Instant> = ends.iter().map(|(_, end)| *end).collect();
    expect_even("ends of TCP", began, window, &ends);
    cluster.gateway_ends(0).await;
    cluster.stop().await;
}

#[tokio::test]
async fn the_rate_extends_a_window_that_is_too_short() {
    const CLIENTS: usize = 60;
    let mut cluster = a_gateway(&["window = \"100ms\"", "rate = 20"]).await;
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let mut raw = cluster.gateway(0).raw().await;
        clients.spawn(async move { raw.closed().await });
    }
    let began = Instant::now();
    cluster.gateway(0).signal(Signal::TERM);
    let ends: Vec<Instant> = clients.join_all().await.into_iter().map(|(_, _, ended)| ended).collect();
    expect_even("ends of TCP", began, Duration::from_secs(3), &ends);
    cluster.gateway_ends(0).await;
    cluster.stop().await;
}

#[tokio::test]
async fn an_unresponsive_client_is_disconnected_before_the_end_of_the_window() {
    let mut cluster =
        Cluster::start().gateways(1).setup(Setup::default().server("shards = 1").drain("window = \"60s\"")).await;
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(cluster.gateway(0).raw().await);
    }
    cluster.gateway(0).signal(Signal::TERM);
    // The first of them is closed early in the window.
    let mut ends = JoinSet::new();
    for mut raw in silent {
        ends.spawn(async move {
            assert_eq!(raw.message().await["event"], "pusher:error");
            assert_eq!(raw.close().await, 4200);
            let closed = Instant::now();
            raw.drain().await;
            closed.elapsed()
        });
    }
    let took = ends.join_next().await.expect("a client").expect("the client was closed");
    assert!(took < Duration::from_secs(10), "disconnected {took:?} after the close frame");
    ends.abort_all();
    // The second signal closes the other clients at once.
    cluster.gateway(0).signal(Signal::TERM);
    cluster.gateway_ends_with(0, 130).await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_publish_in_progress_is_answered_while_clients_are_closed() {
    const BODY: &[u8] = br#"{"name":"last","channel":"news","data":"1"}"#;
    let setup = Setup::default().server("shards = 1").drain("window = \"100ms\"");
    let mut cluster = Cluster::start().of_whole_nodes(1).setup(setup).await;
    let server = cluster.gateway(0);
    let query = signed_query(&server.app, "POST", "/apps/shop/events", &[], BODY, unix_us() / 1_000_000);
    let head = format!("POST /apps/shop/events?{query} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", BODY.len());
    let mut publish = server.tcp().await;
    publish.send(head.as_bytes()).await;
    publish.send(&BODY[..10]).await;
    let mut client = server.client().await;
    client.settle().await;
    server.signal(Signal::TERM);
    client.expect_close(4200).await;
    publish.send(&BODY[10..]).await;
    let reply: HttpReply = within("the response", publish.http_reply()).await;
    assert_eq!((reply.status, reply.body.as_str()), (200, "{}"));
    cluster.gateway_ends(0).await;
    cluster.stop().await;
}

#[tokio::test]
async fn sessions_are_closed_with_4200_in_a_cluster() {
    let mut cluster = a_gateway(&["window = \"200ms\""]).await;
    let (stream, _) = HttpSession::new(cluster.gateway(0)).open_stream().await;
    cluster.gateway(0).signal(Signal::TERM);
    assert_eq!(close_code(&stream.rest().await), 4200);
    cluster.gateway_ends(0).await;
    cluster.stop().await;
}
