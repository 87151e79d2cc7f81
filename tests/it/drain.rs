//! Drains that lose no client.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use shared::auth::request::signed_query;
use shared::cluster::envelope::unix_us;
use tests::raw::HttpReply;
use tests::setup::APP_KEY;
use tests::{Raw, Server, Setup, eventually, within};

/// A server without a cluster. It closes all clients with 4100 at once, whatever the window is, and exits.
async fn all_clients_are_closed_with_4100(signal: Signal) {
    const CLIENTS: usize = 60;
    let server = Server::start(Setup::default().drain("window = \"60s\"")).await;
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let mut client = server.client().await;
        client.subscribe("news").await;
        clients.push(client);
    }
    server.signal(signal);
    for client in &mut clients {
        client.expect_close(4100).await;
    }
    let log = server.ended().await;
    assert!(log.contains("shutting down"), "{log}");
}

#[tokio::test]
async fn sigterm_closes_every_socket_with_4100_at_once_and_exits_0() {
    all_clients_are_closed_with_4100(Signal::TERM).await;
}

#[tokio::test]
async fn sigint_does_the_same() {
    all_clients_are_closed_with_4100(Signal::INT).await;
}

/// Clients are served while the request is in progress.
#[tokio::test]
async fn a_single_server_answers_requests_before_it_closes_clients() {
    let server = Server::start(Setup::default().server("shards = 1")).await;
    let (mut publish, rest) = begin_publish(&server).await;
    let mut client = server.client().await;
    client.subscribe("news").await;
    server.signal(Signal::TERM);
    eventually("draining", async || server.admin_get("/readyz").await.status == 503).await;
    let mut late = server.client().await;
    publish.send(rest).await;
    let reply: HttpReply = within("the response", publish.http_reply()).await;
    assert_eq!((reply.status, reply.body.as_str()), (200, "{}"));
    client.expect_event("news", "last", "1").await;
    client.expect_close(4100).await;
    late.expect_close(4100).await;
    server.ended().await;
}

#[tokio::test]
async fn unresponsive_clients_do_not_delay_the_exit_of_a_single_server() {
    let server = Server::plain().await;
    let mut silent = Vec::new();
    for _ in 0..10 {
        silent.push(server.raw().await);
    }
    let slow = server.tcp().await;
    server.signal(Signal::TERM);
    server.ended().await;
    for client in &mut silent {
        assert_eq!(client.message().await["event"], "pusher:error");
        assert_eq!(client.close().await, 4100, "the close frame arrives although the process has exited");
    }
    drop(slow);
}

/// A refusal that depends on the configuration is left to the next node.
#[tokio::test]
async fn a_node_that_shuts_down_refuses_no_client_permanently() {
    let server =
        Server::start(Setup::default().app("allowed_origins = [\"shop.example\"]").drain("accept = \"3s\"")).await;
    let refusal = async |target: &str, origin: &str| {
        let mut raw = server.tcp().await;
        raw.upgrade(target, &[("Origin", origin)]).await;
        let message = raw.message().await;
        message["data"]["code"].as_u64()
    };
    let (known, unknown) = (format!("/app/{APP_KEY}?protocol=7"), "/app/new-key?protocol=7");
    assert_eq!(refusal(unknown, "http://shop.example").await, Some(4001));
    assert_eq!(refusal(&known, "http://other.example").await, Some(4009));
    server.signal(Signal::TERM);
    eventually("draining", async || server.admin_get("/readyz").await.status == 503).await;
    assert_eq!(refusal(unknown, "http://shop.example").await, Some(4100));
    assert_eq!(refusal(&known, "http://other.example").await, Some(4100));
    server.ended().await;
}

#[tokio::test]
async fn an_idle_server_exits_at_once() {
    let server = Server::plain().await;
    let started = Instant::now();
    server.stop().await;
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
}

#[tokio::test]
async fn connections_without_a_request_do_not_delay_the_exit() {
    let server = Server::plain().await;
    let mut idle = server.tcp().await;
    let mut kept = server.tcp().await;
    assert_eq!(kept.exchange(b"GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n").await.status, 404);
    let started = Instant::now();
    server.stop().await;
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    idle.drain().await;
    kept.drain().await;
}

#[tokio::test]
async fn a_client_that_does_not_answer_the_close_is_disconnected_after_the_grace_period() {
    let server = Server::plain().await;
    let mut silent = server.raw().await;
    let started = Instant::now();
    server.stop().await;
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    assert_eq!(silent.message().await["event"], "pusher:error");
    assert_eq!(silent.close().await, 4100);
}

#[tokio::test]
async fn a_draining_server_is_not_ready_but_still_accepts_connections() {
    let server = Server::start(Setup::default().drain("accept = \"2s\"").drain("window = \"100ms\"")).await;
    assert_eq!(server.admin_get("/readyz").await.status, 200);
    let mut early = server.client().await;
    early.subscribe("news").await;
    server.signal(Signal::TERM);
    eventually("not ready", async || server.admin_get("/readyz").await.status == 503).await;
    assert_eq!(server.admin_get("/readyz").await.body, "draining");
    assert_eq!(server.admin_get("/livez").await.status, 200);
    assert_eq!(server.metric("carillon_draining").await, 1.0);
    let mut late = server.client().await;
    late.subscribe("news").await;
    server.publish("news", "hello", "1").await;
    for client in [&mut early, &mut late] {
        client.expect_event("news", "hello", "1").await;
    }
    early.expect_close(4100).await;
    late.expect_close(4100).await;
    server.ended().await;
}

/// A publish whose head and half of whose body were sent.
async fn begin_publish(server: &Server) -> (Raw, &'static [u8]) {
    const BODY: &[u8] = br#"{"name":"last","channel":"news","data":"1"}"#;
    let query = signed_query(&server.app, "POST", "/apps/shop/events", &[], BODY, unix_us() / 1_000_000);
    let head = format!("POST /apps/shop/events?{query} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", BODY.len());
    let mut raw = server.tcp().await;
    raw.send(head.as_bytes()).await;
    raw.send(&BODY[..10]).await;
    (raw, &BODY[10..])
}

#[tokio::test]
async fn a_handshake_that_completes_during_a_drain_is_closed() {
    let server = Server::start(Setup::default().server("shards = 1").drain("window = \"100ms\"")).await;
    // This client does not answer the close for a while, which delays the end of the shard.
    let mut first = server.raw().await;
    let mut late = server.tcp().await;
    late.send(tests::raw::handshake(&format!("/app/{APP_KEY}")).as_bytes()).await;
    first.send_frame(tests::raw::FIN | tests::raw::PING, b"").await;
    assert_eq!(first.frame().await.expect("a pong").opcode, tests::raw::PONG);
    server.signal(Signal::TERM);
    assert_eq!(first.message().await["event"], "pusher:error");
    late.send(b"\r\n").await;
    assert_eq!(late.take_head().await.status, 101);
    let message = late.message().await;
    if message["event"] == "pusher:connection_established" {
        late.expect_close(4100).await;
    } else {
        assert_eq!(message["data"]["code"], 4100, "{message}");
        assert_eq!(late.close().await, 4100);
    }
    drop((first, late));
    server.ended().await;
}

#[tokio::test]
async fn clients_in_the_accept_queue_are_closed_like_the_others() {
    // The accept rate is so low that nearly all connections wait in the system's queue at the signal.
    let server = Server::start(Setup::default().server("accept_rate = 1")).await;
    let mut clients = Vec::new();
    for _ in 0..20 {
        let mut client = server.tcp().await;
        client.send((tests::raw::handshake(&format!("/app/{APP_KEY}")) + "\r\n").as_bytes()).await;
        clients.push(client);
    }
    server.signal(Signal::TERM);
    for client in &mut clients {
        assert_eq!(client.take_head().await.status, 101);
        assert_eq!(client.message().await["event"], "pusher:connection_established");
        client.expect_close(4100).await;
    }
    drop(clients);
    server.ended().await;
}

#[tokio::test]
async fn no_client_is_accepted_after_the_server_closes_its_sockets() {
    let server = Server::start(Setup::default().drain("window = \"100ms\"")).await;
    let mut silent = server.raw().await;
    server.signal(Signal::TERM);
    assert_eq!(silent.message().await["data"]["code"], 4100);
    let refused = tokio::net::TcpStream::connect(server.public).await;
    assert!(refused.is_err(), "the public listener still accepts");
    drop(silent);
    server.ended().await;
}

#[tokio::test]
async fn a_second_signal_ends_at_once() {
    let server = Server::start(Setup::default().drain("accept = \"60s\"")).await;
    let _client = server.client().await;
    server.signal(Signal::INT);
    eventually("the drain is logged", async || server.log().contains("shutting down")).await;
    server.signal(Signal::INT);
    // A shell reports this code for a command that SIGINT ended.
    server.ended_with(130).await;
}
