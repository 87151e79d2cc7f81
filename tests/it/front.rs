//! The steps between a TCP connection and its first request: networks, proxies, TLS, and the accept rate.

use std::path::Path;
use std::time::Instant;

use client::Options;
use rustix::process::Signal;
use tests::raw::Raw;
use tests::redis::tls::Certificates;
use tests::server::{Launch, Role};
use tests::setup::app;
use tests::tunnel::Tunnel;
use tests::{PATIENCE, Server, Setup, TestClient, eventually, eventually_within, within_time};

const TARGET: &str = "/app/shop-key?protocol=7";

async fn is_accepted(server: &Server, headers: &[(&str, &str)]) -> bool {
    let mut raw = Raw::connect(server.public).await;
    assert_eq!(raw.upgrade(TARGET, headers).await.status, 101, "refusals come after the upgrade");
    let first = raw.message().await;
    match first["event"].as_str() {
        Some("pusher:connection_established") => true,
        Some("pusher:error") => {
            assert_eq!(first["data"]["code"], 4009, "{first}");
            assert_eq!(raw.close().await, 4009);
            false
        }
        _ => panic!("{first}"),
    }
}

async fn status(server: &Server, header: &str) -> u16 {
    server.http(&format!("GET /up HTTP/1.1\r\nHost: x\r\n{header}\r\n")).await.status
}

#[tokio::test]
async fn networks_apply_to_the_client_address_from_a_trusted_proxy() {
    let setup = Setup::default().server("trusted_proxies = [\"127.0.0.1\"]").server("deny = [\"203.0.113.0/24\"]");
    let server = Server::start(setup).await;
    assert!(is_accepted(&server, &[]).await);
    assert!(is_accepted(&server, &[("X-Forwarded-For", "198.51.100.7")]).await);
    assert!(!is_accepted(&server, &[("X-Forwarded-For", "203.0.113.7")]).await);
    assert!(!is_accepted(&server, &[("X-Forwarded-For", "198.51.100.7, 203.0.113.7")]).await);
    assert!(
        is_accepted(&server, &[("X-Forwarded-For", "203.0.113.7, 198.51.100.7")]).await,
        "only the last forwarded address is trusted"
    );
    assert_eq!(status(&server, "X-Forwarded-For: 203.0.113.7\r\n").await, 403);
    assert_eq!(status(&server, "").await, 200);
    server.stop().await;
}

/// The health check of a balancer comes from the balancer's address, which is not an allowed client address.
#[tokio::test]
async fn a_trusted_proxy_can_check_the_health_although_clients_are_filtered() {
    let filtered = Setup::default().server("trusted_proxies = [\"127.0.0.1\"]").server("allow = [\"198.51.100.0/24\"]");
    let server = Server::start(filtered.flag("--debug")).await;
    let status = async |method: &str, path: &str, header: &str| {
        let mut raw = server.tcp().await;
        raw.send(format!("{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n{header}\r\n").as_bytes()).await;
        raw.take_head().await.status
    };
    for path in ["/up", "/"] {
        assert_eq!(status("GET", path, "").await, 200, "{path}");
        assert_eq!(status("HEAD", path, "").await, 200, "{path}");
        assert_eq!(status("POST", path, "").await, 403, "{path}");
        assert_eq!(status("GET", path, "X-Forwarded-For: 198.51.100.7\r\n").await, 200, "{path}");
        for denied in ["203.0.113.7", "127.0.0.1", "", "unknown"] {
            assert_eq!(status("GET", path, &format!("X-Forwarded-For: {denied}\r\n")).await, 403, "{path} {denied}");
        }
    }
    assert_eq!(status("GET", "/apps/shop/channels", "").await, 403);
    assert_eq!(status("POST", "/apps/shop/events", "X-Forwarded-For: 203.0.113.7\r\n").await, 403);
    assert!(!is_accepted(&server, &[]).await, "the address of the proxy is not an allowed client address");
    assert!(is_accepted(&server, &[("X-Forwarded-For", "198.51.100.7")]).await);
    let log = server.stop().await;
    let line = log.lines().find(|line| line.contains("/apps/shop/events")).unwrap_or_else(|| panic!("{log}"));
    for part in ["Request refused", "203.0.113.7", "POST", "403", "network is not allowed"] {
        assert!(line.contains(part), "{part}: {line}");
    }
}

#[tokio::test]
async fn without_trusted_proxies_forwarded_addresses_are_ignored() {
    let server = Server::start(Setup::default().server("deny = [\"203.0.113.0/24\"]")).await;
    assert!(is_accepted(&server, &[("X-Forwarded-For", "203.0.113.7")]).await);
    server.stop().await;
    let server = Server::start(Setup::default().server("allow = [\"203.0.113.0/24\"]")).await;
    let mut raw = Raw::connect(server.public).await;
    raw.send(b"GET /up HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 203.0.113.7\r\n\r\n").await;
    assert_eq!(raw.until_end().await, b"", "closed without a response");
    server.metric_reaches("carillon_connections_dropped_total{reason=\"network\"}", 1.0).await;
    server.stop().await;
}

#[tokio::test]
async fn the_admin_listener_has_separate_allowed_networks() {
    let text = "[admin]\nallow = [\"203.0.113.0/24\"]";
    let server = Server::start(Setup::default().more(text)).await;
    let mut raw = Raw::connect(server.admin).await;
    let _ = raw.stream.try_write(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(raw.until_end().await, b"");
    assert_eq!(status(&server, "").await, 200);
    server.stop().await;
}

#[tokio::test]
async fn the_proxy_protocol_names_the_client_address() {
    let setup = Setup::default().server("proxy_protocol = true").server("deny = [\"203.0.113.0/24\"]");
    let setup = setup.server("trusted_proxies = [\"127.0.0.1\"]");
    let server = Server::start(setup).await;
    let mut ipv4 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c".to_vec();
    ipv4.extend_from_slice(&[198, 51, 100, 7, 127, 0, 0, 1, 0x12, 0x34, 0, 80]);
    for header in [b"PROXY TCP4 198.51.100.7 127.0.0.1 4660 80\r\n".as_slice(), b"PROXY UNKNOWN\r\n", &ipv4] {
        let mut raw = Raw::connect(server.public).await;
        raw.send(header).await;
        raw.establish(&app()).await;
        raw.subscribe("room").await;
    }
    let mut denied = b"PROXY TCP4 203.0.113.7 127.0.0.1 4660 80\r\n".to_vec();
    denied.extend_from_slice(b"GET /up HTTP/1.1\r\nHost: x\r\n\r\n");
    for bytes in [denied.as_slice(), b"GET /up HTTP/1.1\r\nHost: x\r\n\r\n", b"PROXY TCP4 nonsense\r\n"] {
        let mut raw = Raw::connect(server.public).await;
        raw.send(bytes).await;
        assert_eq!(raw.until_end().await, b"", "{}", String::from_utf8_lossy(bytes));
    }
    server.metric_reaches("carillon_connections_dropped_total{reason=\"proxy_header\"}", 2.0).await;
    server.metric_reaches("carillon_connections_dropped_total{reason=\"network\"}", 1.0).await;
    server.stop().await;
}

#[tokio::test]
async fn connections_are_accepted_no_faster_than_configured() {
    let server = Server::start(Setup::default().server("accept_rate = 20")).await;
    let began = Instant::now();
    let mut clients = Vec::new();
    for _ in 0..30 {
        clients.push(server.client().await);
    }
    assert!(began.elapsed().as_millis() >= 1300, "30 connections were accepted in {:?}", began.elapsed());
    server.stop().await;
}

fn setup_with(certificates: &Certificates) -> Setup {
    let tls = format!("[tls]\ncert = {:?}\nkey = {:?}", certificates.certificate, certificates.key);
    Setup::default().more(&tls)
}

async fn client_through(tunnel: &Tunnel) -> TestClient {
    TestClient::connect(&tunnel.address.into(), &app(), &Options::default()).await
}

#[tokio::test]
async fn sockets_and_the_api_work_over_tls() {
    let folder = tempfile::tempdir().expect("a folder");
    let certificates = Certificates::make(folder.path());
    let server = Server::start(setup_with(&certificates)).await;
    let tunnel = Tunnel::start(server.public, &certificates.authority).await;
    let mut client = client_through(&tunnel).await;
    client.subscribe("room").await;
    let mut api = client::ApiClient::new(tunnel.address.into(), app());
    let large = "x".repeat(10_000);
    for number in 0..200 {
        let reply = api.trigger(&["room"], &format!("e{number}"), &large, None).await.expect("an answer");
        assert_eq!(reply.status, 200, "{}", reply.body);
    }
    for number in 0..200 {
        client.expect_event("room", &format!("e{number}"), &large).await;
    }
    // Plain HTTP on the TLS port is refused and affects no other client.
    let mut plain = Raw::connect(server.public).await;
    plain.send(b"GET /up HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let answer = plain.until_end().await;
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    eventually("the event is counted", async || {
        server.metric("carillon_connections_dropped_total{reason=\"tls\"}").await == 1.0
    })
    .await;
    server.signal(Signal::TERM);
    client.expect_close(4100).await;
    server.ended().await;
}

#[tokio::test]
async fn silent_and_refused_tls_connections_release_all_state() {
    let folder = tempfile::tempdir().expect("a folder");
    let certificates = Certificates::make(folder.path());
    let server = Server::start(setup_with(&certificates)).await;
    let tunnel = Tunnel::start(server.public, &certificates.authority).await;
    let mut refused = Raw::connect(tunnel.address).await;
    assert_eq!(refused.upgrade("/app/unknown?protocol=7", &[]).await.status, 101);
    let before = server.metric("process_open_fds").await;
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(Raw::connect(tunnel.address).await);
    }
    eventually("all members are present", async || server.metric("process_open_fds").await >= before + 60.0).await;
    // Ten seconds without a request, and five seconds to close. The refused client never answers either.
    eventually_within(PATIENCE, "all are closed", async || server.metric("process_open_fds").await < before).await;
    drop((silent, refused));
    server.stop().await;
}

#[tokio::test]
async fn a_slow_tls_client_is_closed_within_its_memory_limits() {
    let folder = tempfile::tempdir().expect("a folder");
    let certificates = Certificates::make(folder.path());
    let setup = setup_with(&certificates).server("outbox_bytes = \"64KiB\"").limit("event_bytes = \"16KiB\"");
    let setup = setup.limit("presence_members = 10");
    let server = Server::start(setup).await;
    let tunnel = Tunnel::start(server.public, &certificates.authority).await;
    let before = server.metric("process_open_fds").await;
    let mut slow = Raw::connect_narrow(tunnel.address).await;
    slow.establish(&app()).await;
    slow.subscribe("room").await;
    let mut api = client::ApiClient::new(tunnel.address.into(), app());
    let event = "x".repeat(16 * 1024);
    // The system buffers some megabytes on the path.
    within_time(PATIENCE, "the slow client is closed", async {
        while server.metric("carillon_slow_consumers_total").await == 0.0 {
            for _ in 0..100 {
                api.trigger(&["room"], "flood", &event, None).await.expect("an answer");
            }
        }
    })
    .await;
    // Three descriptors of the API client can remain open.
    let is_released = async || server.metric("process_open_fds").await <= before + 3.0;
    eventually_within(PATIENCE, "its descriptors are released", is_released).await;
    assert_eq!(
        server.metric("carillon_slow_consumers_total").await,
        1.0,
        "either the shard or TLS counts it, not both"
    );
    server.stop().await;
}

#[tokio::test]
async fn certificates_are_reloaded_on_a_signal_and_invalid_ones_are_ignored() {
    let folder = tempfile::tempdir().expect("a folder");
    let other = tempfile::tempdir().expect("a folder");
    let certificates = Certificates::make(folder.path());
    let server = Server::start(setup_with(&certificates)).await;
    let tunnel = Tunnel::start(server.public, &certificates.authority).await;
    let mut before = client_through(&tunnel).await;
    before.subscribe("room").await;
    let first = tunnel.certificate();
    std::fs::write(&certificates.certificate, "nonsense").expect("the file can be written");
    server.signal(Signal::HUP);
    eventually("the error is in the log", async || server.log().contains("the old ones stay in use")).await;
    client_through(&tunnel).await;
    assert_eq!(tunnel.certificate(), first);
    let renewed = Certificates::make(other.path());
    for (from, to) in [(&renewed.certificate, &certificates.certificate), (&renewed.key, &certificates.key)] {
        std::fs::copy(from, to).expect("the files can be written");
    }
    server.signal(Signal::HUP);
    eventually("the messages are read", async || server.log().contains("certificates reloaded")).await;
    let tunnel = Tunnel::start(server.public, &renewed.authority).await;
    client_through(&tunnel).await;
    assert_ne!(tunnel.certificate(), first);
    let mut api = client::ApiClient::new(tunnel.address.into(), app());
    api.trigger(&["room"], "still", "here", None).await.expect("an answer");
    before.expect_event("room", "still", "here").await;
    server.stop().await;
}

#[tokio::test]
async fn an_unusable_certificate_is_reported_with_its_key() {
    let folder = tempfile::tempdir().expect("a folder");
    let certificates = Certificates::make(folder.path());
    let other = tempfile::tempdir().expect("a folder");
    let foreign = Certificates::make(other.path());
    let nowhere = Path::new("/nowhere/key.pem");
    for (cert, key, words) in [
        (Some(certificates.certificate.as_path()), None, vec!["tls.key", "tls.cert is set"]),
        (Some(certificates.certificate.as_path()), Some(nowhere), vec!["tls.key", "/nowhere/key.pem"]),
        (
            Some(certificates.key.as_path()),
            Some(certificates.key.as_path()),
            vec!["tls.cert", "no certificate", "swapped"],
        ),
        (Some(certificates.certificate.as_path()), Some(foreign.key.as_path()), vec!["tls.key", "does not belong to"]),
    ] {
        let line = |name: &str, path: Option<&Path>| path.map_or(String::new(), |path| format!("{name} = {path:?}\n"));
        let text = Setup::default().more(&format!("[tls]\n{}{}", line("cert", cert), line("key", key))).toml();
        std::fs::write(folder.path().join("carillon.toml"), text).expect("the file can be written");
        let finished = tests::command::run(folder.path(), &["check-config", "--config", "carillon.toml"], &[]).await;
        assert_eq!(finished.code, 2, "{finished:?}");
        for word in words {
            assert!(finished.stderr.contains(word), "no {word:?} in {}", finished.stderr);
        }
    }
}

#[tokio::test]
async fn a_client_that_never_reads_responses_is_disconnected() {
    let server = Server::start(Setup::default().server("outbox_timeout = \"1s\"")).await;
    let before = server.metric("process_open_fds").await;
    let mut greedy = Raw::connect_narrow(server.public).await;
    let requests = b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n".repeat(1000);
    within_time(PATIENCE, "the client is disconnected", async {
        use tokio::io::AsyncWriteExt;
        while greedy.stream.write_all(&requests).await.is_ok() {}
    })
    .await;
    eventually("its descriptors are released", async || server.metric("process_open_fds").await <= before).await;
    server.stop().await;
}

#[tokio::test]
async fn a_silent_balancer_connection_does_not_delay_the_exit_of_a_publisher() {
    let redis = tests::Redis::start().await;
    let setup = Setup::default().redis(&format!("url = {:?}", redis.url())).server("proxy_protocol = true");
    let publisher = Launch::new(Role::Publisher).setup(&setup).start().await;
    publisher.ready().await;
    let before = publisher.metric("process_open_fds").await;
    let silent = publisher.tcp().await;
    eventually("the connection is open", async || publisher.metric("process_open_fds").await > before).await;
    publisher.signal(Signal::TERM);
    let log = publisher.ended().await;
    assert!(!log.contains("before all open requests were finished"), "{log}");
    drop(silent);
}
