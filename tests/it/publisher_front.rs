//! The steps between a TCP connection and its first request at a publisher, which has a separate listener.

use std::os::unix::fs::PermissionsExt;
use std::time::Instant;

use client::ApiClient;
use rustix::process::Signal;
use tests::command::binary;
use tests::raw::Raw;
use tests::redis::tls::Certificates;
use tests::server::{Launch, Role};
use tests::setup::app;
use tests::tunnel::Tunnel;
use tests::{Redis, Server, Setup, eventually};

const UP: &[u8] = b"GET /up HTTP/1.1\r\nHost: x\r\n\r\n";

async fn start(redis: &Redis, setup: Setup) -> Server {
    let setup = setup.redis(&format!("url = {:?}", redis.url()));
    let publisher = Launch::new(Role::Publisher).setup(&setup).start().await;
    publisher.ready().await;
    publisher
}

async fn status(server: &Server, header: &str) -> u16 {
    server.http(&format!("GET /up HTTP/1.1\r\nHost: x\r\n{header}\r\n")).await.status
}

/// Publishes through the tunnel.
async fn publish(tunnel: &Tunnel, data: &str) {
    let reply = ApiClient::new(tunnel.address.into(), app()).trigger(&["room"], "e", data, None).await;
    assert_eq!(reply.expect("an answer").status, 200);
}

#[tokio::test]
async fn networks_apply_to_the_caller_address_from_a_trusted_proxy() {
    let redis = Redis::start().await;
    let setup = Setup::default().server("trusted_proxies = [\"127.0.0.1\"]").server("deny = [\"203.0.113.0/24\"]");
    let publisher = start(&redis, setup).await;
    assert_eq!(status(&publisher, "").await, 200);
    assert_eq!(status(&publisher, "X-Forwarded-For: 198.51.100.7\r\n").await, 200);
    assert_eq!(status(&publisher, "X-Forwarded-For: 203.0.113.7\r\n").await, 403);
    assert_eq!(
        status(&publisher, "X-Forwarded-For: 203.0.113.7, 198.51.100.7\r\n").await,
        200,
        "only the last forwarded address is trusted"
    );
    publisher.publish("room", "e", "1").await;
    publisher.stop().await;

    let filtered = Setup::default().server("trusted_proxies = [\"127.0.0.1\"]").server("allow = [\"198.51.100.0/24\"]");
    let publisher = start(&redis, filtered).await;
    assert_eq!(status(&publisher, "").await, 200, "the health check of the proxy");
    assert_eq!(publisher.http("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.status, 200);
    assert_eq!(publisher.http("GET /apps/shop/channels HTTP/1.1\r\nHost: x\r\n\r\n").await.status, 403);
    assert_eq!(status(&publisher, "X-Forwarded-For: 198.51.100.7\r\n").await, 200);
    assert_eq!(status(&publisher, "X-Forwarded-For: 203.0.113.7\r\n").await, 403);
    publisher.stop().await;

    let publisher = start(&redis, Setup::default().server("allow = [\"203.0.113.0/24\"]")).await;
    let mut raw = publisher.tcp().await;
    raw.send(b"GET /up HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 203.0.113.7\r\n\r\n").await;
    assert_eq!(raw.until_end().await, b"", "closed without a response");
    publisher.metric_reaches("carillon_connections_dropped_total{reason=\"network\"}", 1.0).await;
    publisher.stop().await;
}

#[tokio::test]
async fn the_proxy_protocol_names_the_client_address() {
    let redis = Redis::start().await;
    let setup = Setup::default().server("proxy_protocol = true").server("deny = [\"203.0.113.0/24\"]");
    let publisher = start(&redis, setup.server("trusted_proxies = [\"127.0.0.1\"]")).await;
    let answer = async |header: &str| {
        let mut raw = publisher.tcp().await;
        raw.send(&[header.as_bytes(), UP].concat()).await;
        raw.until_end().await
    };
    for header in ["PROXY TCP4 198.51.100.7 127.0.0.1 4660 80\r\n", "PROXY UNKNOWN\r\n"] {
        assert!(answer(header).await.starts_with(b"HTTP/1.1 200"), "{header}");
    }
    for header in ["PROXY TCP4 203.0.113.7 127.0.0.1 4660 80\r\n", "", "PROXY TCP4 nonsense\r\n"] {
        assert_eq!(answer(header).await, b"", "{header:?}");
    }
    publisher.metric_reaches("carillon_connections_dropped_total{reason=\"proxy_header\"}", 2.0).await;
    publisher.metric_reaches("carillon_connections_dropped_total{reason=\"network\"}", 1.0).await;
    publisher.stop().await;
}

#[tokio::test]
async fn connections_are_accepted_no_faster_than_configured() {
    let redis = Redis::start().await;
    let publisher = start(&redis, Setup::default().server("accept_rate = 20")).await;
    let began = Instant::now();
    for _ in 0..30 {
        assert_eq!(status(&publisher, "").await, 200);
    }
    assert!(began.elapsed().as_millis() >= 1300, "30 connections were accepted in {:?}", began.elapsed());
    publisher.stop().await;
}

#[tokio::test]
async fn certificates_are_reloaded_on_a_signal_and_invalid_ones_are_ignored() {
    let redis = Redis::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let other = tempfile::tempdir().expect("a folder");
    let certificates = Certificates::make(folder.path());
    let tls = format!("[tls]\ncert = {:?}\nkey = {:?}", certificates.certificate, certificates.key);
    let publisher = start(&redis, Setup::default().more(&tls)).await;
    let tunnel = Tunnel::start(publisher.public, &certificates.authority).await;
    publish(&tunnel, &"x".repeat(10_000)).await;
    let first = tunnel.certificate();
    let mut plain = Raw::connect(publisher.public).await;
    plain.send(UP).await;
    let answer = plain.until_end().await;
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    publisher.metric_reaches("carillon_connections_dropped_total{reason=\"tls\"}", 1.0).await;
    std::fs::write(&certificates.certificate, "nonsense").expect("the file can be written");
    publisher.signal(Signal::HUP);
    eventually("the error is in the log", async || publisher.log().contains("the old ones stay in use")).await;
    publish(&tunnel, "1").await;
    assert_eq!(tunnel.certificate(), first);
    let renewed = Certificates::make(other.path());
    for (from, to) in [(&renewed.certificate, &certificates.certificate), (&renewed.key, &certificates.key)] {
        std::fs::copy(from, to).expect("the files can be written");
    }
    publisher.signal(Signal::HUP);
    eventually("the messages are read", async || publisher.log().contains("certificates reloaded")).await;
    let tunnel = Tunnel::start(publisher.public, &renewed.authority).await;
    publish(&tunnel, "2").await;
    assert_ne!(tunnel.certificate(), first);
    publisher.stop().await;
}

#[tokio::test]
async fn a_health_check_releases_its_connection() {
    let redis = Redis::start().await;
    let publisher = start(&redis, Setup::default()).await;
    let mut raw = publisher.tcp().await;
    raw.send(UP).await;
    let answer = String::from_utf8(raw.until_end().await).expect("text").to_lowercase();
    assert!(answer.starts_with("http/1.1 200") && answer.contains("connection: close"), "{answer}");
    publisher.metric_reaches("carillon_http_connections", 0.0).await;
    assert_eq!(publisher.metric("carillon_http_connections_max").await, 10_000.0);
    publisher.stop().await;
}

#[tokio::test]
async fn a_publisher_exports_the_delay_of_its_timers() {
    let redis = Redis::start().await;
    let publisher = start(&redis, Setup::default()).await;
    let looks = async || publisher.metric("carillon_event_loop_lag_seconds_count").await;
    eventually("the lookup is repeated", async || looks().await >= 3.0).await;
    publisher.stop().await;
}

#[tokio::test]
async fn a_full_publisher_logs_once_and_serves_queued_connections_later() {
    let redis = Redis::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let program = folder.path().join("narrow");
    let text = format!("#!/bin/sh\nulimit -n 300\nexec {} \"$@\"\n", binary().display());
    std::fs::write(&program, text).expect("the file can be written");
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755))
        .expect("the file belongs to the current user");
    let setup = Setup::default().redis(&format!("url = {:?}", redis.url()));
    let publisher = Launch::of(program, Role::Publisher).setup(&setup).start().await;
    publisher.ready().await;
    let places = publisher.metric("carillon_http_connections_max").await;
    assert_eq!(places, 240.0, "four fifths of the descriptors are for connections");
    let said = || publisher.log().matches("connection limit reached; new connections are queued").count();
    let mut callers = Vec::new();
    for _ in 0..240 {
        callers.push(publisher.tcp().await);
    }
    publisher.metric_reaches("carillon_http_connections", places).await;
    eventually("the message is in the log", async || said() == 1).await;
    // Each of these connections replaces one that closes. It is still the same episode.
    for _ in 0..5 {
        let mut waiting = publisher.tcp().await;
        waiting.send(UP).await;
        callers.pop();
        assert!(waiting.until_end().await.starts_with(b"HTTP/1.1 200"));
        callers.push(publisher.tcp().await);
        publisher.metric_reaches("carillon_http_connections", places).await;
    }
    assert_eq!(said(), 1, "{}", publisher.log());
    callers.clear();
    publisher.metric_reaches("carillon_http_connections", 0.0).await;
    publisher.publish("room", "e", "1").await;
    publisher.stop().await;
}
