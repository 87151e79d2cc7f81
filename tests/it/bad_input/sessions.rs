//! Many fallback sessions of one client.

use rustix::fd::AsFd;
use shared::protocol::SocketId;
use tests::raw::Raw;
use tests::{Server, Setup, eventually};

use super::start;

/// The limit of one TCP connection.
const PER_TCP_CONNECTION: usize = 64;

fn open(verb: &str, name: usize, headers: &str) -> String {
    let target = format!("/pusher/app/shop-key/{}/s{name}/{verb}", name % 1000);
    format!("POST {target}?protocol=7 HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n{headers}\r\n")
}

async fn is_ready(server: &Server) -> bool {
    server.admin_get("/readyz").await.status == 200
}

#[tokio::test]
async fn one_tcp_connection_cannot_fill_a_node() {
    const SESSIONS: usize = 20_000;
    let (server, mut witnesses) = start(Setup::default().server("connections_max = 5000")).await;
    let requests: String = (0..SESSIONS).map(|name| open("xhr", name, "")).collect();
    let raw = server.tcp().await;
    let (mut reader, mut writer) = raw.stream.into_split();
    let sending = tokio::spawn(async move {
        let _ = tokio::io::AsyncWriteExt::write_all(&mut writer, requests.as_bytes()).await;
        writer
    });
    let mut taken = Vec::new();
    let mut most = 0.0_f64;
    let count = |taken: &[u8], what: &str| String::from_utf8_lossy(taken).matches(what).count();
    while count(&taken, "HTTP/1.1 200") < SESSIONS / 10 {
        let mut chunk = vec![0; 64 * 1024];
        let read = tests::within("responses", tokio::io::AsyncReadExt::read(&mut reader, &mut chunk)).await;
        taken.extend_from_slice(&chunk[..read.expect("the connection is open")]);
        most = most.max(server.metric("carillon_connections").await);
    }
    assert!(most <= (PER_TCP_CONNECTION + 2) as f64, "{most} connections");
    assert!(count(&taken, "c[4100,") > SESSIONS / 20, "the other sessions are refused with a code that allows a retry");
    assert!(is_ready(&server).await && server.metric("carillon_rate_limited_total").await > 0.0);
    server.client().await.settle().await;
    witnesses.are_served(&server).await;
    drop((sending.await.expect("it does not panic"), reader));
    server.metric_reaches("carillon_connections", 2.0).await;
    server.stop().await;
}

#[tokio::test]
async fn sessions_opened_in_sequence_on_one_connection_are_bounded() {
    let server = Server::plain().await;
    let mut raw = server.tcp().await;
    let mut opened = 0;
    for name in 0..2 * PER_TCP_CONNECTION {
        let reply = raw.exchange(open("xhr", name, "").as_bytes()).await;
        opened += usize::from(reply.body.contains("connection_established"));
        assert!(reply.body.contains("connection_established") || reply.body.contains("c[4100,"), "{}", reply.body);
    }
    assert_eq!(opened, PER_TCP_CONNECTION);
    // The limit of another connection of the same client is separate.
    let reply = server.tcp().await.exchange(open("xhr", 9999, "").as_bytes()).await;
    assert!(reply.body.contains("connection_established"), "{}", reply.body);
    // Closed sessions free capacity.
    server.metric_reaches("carillon_connections", 0.0).await;
    let reply = raw.exchange(open("xhr", 10_000, "").as_bytes()).await;
    assert!(reply.body.contains("connection_established"), "{}", reply.body);
    server.stop().await;
}

#[tokio::test]
async fn sessions_are_bounded_per_address_over_all_connections() {
    let setup = Setup::default()
        .server("trusted_proxies = [\"127.0.0.1\"]")
        .server("fallback_sessions_per_address = 5")
        .server("connections_max = 100");
    let server = Server::start(setup).await;
    let opened_by = async |headers: &str, verb: &str, name: usize| {
        let mut raw = server.tcp().await;
        raw.send(open(verb, name, headers).as_bytes()).await;
        tests::fallback::Response::of(raw).await
    };
    let mut open_streams = Vec::new();
    for (round, address) in ["198.51.100.1", "198.51.100.2", "2001:db8::1"].into_iter().enumerate() {
        for number in 0..7 {
            let header = format!("X-Forwarded-For: {address}\r\n");
            let mut response = opened_by(&header, "xhr_streaming", round * 100 + number).await;
            assert_eq!(response.line().await, Some(tests::fallback::Line::Open));
            if number < 5 {
                response.expect("pusher:connection_established").await;
                open_streams.push(response);
            } else {
                assert_eq!(tests::fallback::close_code(&response.rest().await), 4100);
            }
        }
    }
    assert_eq!(server.metric("carillon_rate_limited_total{scope=\"fallback_sessions_per_address\"}").await, 6.0);
    assert_eq!(server.metric("carillon_handshakes_rejected_total{code=\"4100\"}").await, 6.0);
    drop(open_streams);
    server.stop().await;
}

/// Opens a WebSocket through a proxy that names the client. Returns the socket, or the code of the refusal.
async fn websocket(server: &Server, headers: &[(&str, &str)]) -> Result<Raw, u16> {
    let mut raw = server.tcp().await;
    assert_eq!(raw.upgrade("/app/shop-key?protocol=7", headers).await.status, 101);
    let first = raw.message().await;
    match first["event"].as_str() {
        Some("pusher:connection_established") => {
            let data: serde_json::Value =
                serde_json::from_str(first["data"].as_str().expect("a string")).expect("JSON");
            let _: SocketId = data["socket_id"].as_str().expect("an id").parse().expect("a socket id");
            Ok(raw)
        }
        _ => Err(raw.close().await),
    }
}

#[tokio::test]
async fn connections_per_address_counts_every_transport_by_client_address() {
    let setup = Setup::default().server("connections_per_address = 3");
    let server = Server::start(setup).await;
    let client = [("X-Forwarded-For", "203.0.113.9, 198.51.100.1")];
    let mut open_sockets = Vec::new();
    for _ in 0..2 {
        open_sockets.push(websocket(&server, &client).await.expect("room"));
    }
    let header = "X-Forwarded-For: 198.51.100.1\r\n";
    let mut raw = server.tcp().await;
    raw.send(open("xhr_streaming", 1, header).as_bytes()).await;
    let mut stream = tests::fallback::Response::of(raw).await;
    assert_eq!(stream.line().await, Some(tests::fallback::Line::Open));
    stream.expect("pusher:connection_established").await;
    // The fourth connection of the address, with either transport.
    assert_eq!(websocket(&server, &client).await.err(), Some(4100));
    let reply = server.tcp().await.exchange(open("xhr", 2, header).as_bytes()).await;
    assert!(reply.body.contains("c[4100,"), "{}", reply.body);
    assert_eq!(server.metric("carillon_rate_limited_total{scope=\"connections_per_address\"}").await, 2.0);
    // Other clients, and local clients without a forwarded address, are accepted.
    websocket(&server, &[("X-Forwarded-For", "198.51.100.2")]).await.expect("another address");
    for _ in 0..5 {
        open_sockets.push(websocket(&server, &[]).await.expect("no client is named"));
    }
    drop(open_sockets.swap_remove(0));
    eventually("the limit allows a connection again", async || websocket(&server, &client).await.is_ok()).await;
    drop((open_sockets, stream));
    server.stop().await;
}

#[tokio::test]
async fn sessions_end_at_once_if_their_connection_is_reset_before_any_read() {
    let server = Server::plain().await;
    for round in 0..20 {
        let mut raw = server.tcp().await;
        let requests: String = (0..20).map(|name| open("xhr", round * 100 + name, "")).collect();
        raw.send(requests.as_bytes()).await;
        server
            .metric_reaches(
                "carillon_connections_opened_total",
                f64::from(20 * (u32::try_from(round).expect("small") + 1)),
            )
            .await;
        // Unread responses cause a reset.
        let socket = socket2::SockRef::from(&raw.stream.as_fd()).set_linger(Some(std::time::Duration::ZERO));
        socket.expect("the system accepts the option");
        drop(raw);
        // Without a reset they would stay open for 5 s each.
        server.metric_reaches("carillon_connections", 0.0).await;
    }
    server.stop().await;
}
