//! Requests that resemble WebSocket handshakes but are invalid. Source: RFC 6455, 4.2.1.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr};

use tests::raw::Raw;
use tests::{Server, Setup};

use super::start;

const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
const GOOD: [&str; 5] = ["Host: test", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", KEY];

/// Returns a handshake in which these lines replace those of the same name.
fn handshake(method: &str, version: &str, replaced: &str, lines: &[&str]) -> String {
    let mut request = format!("{method} /app/shop-key?protocol=7 {version}\r\n");
    let kept = GOOD.iter().filter(|line| !line.starts_with(replaced) || replaced.is_empty());
    for line in kept.chain(lines) {
        let _ = write!(request, "{line}\r\n");
    }
    request + "\r\n"
}

#[tokio::test]
async fn each_kind_of_refusal_has_a_status_a_text_a_counter_and_a_log_line() {
    let (server, mut witnesses) = start(Setup::default().flag("--debug")).await;
    let two_versions = ["Sec-WebSocket-Version: 13", "Sec-WebSocket-Version: 13"];
    let cases: [(String, u16, &str, &str); 13] = [
        (handshake("GET", "HTTP/1.0", "", &[]), 426, "http_1_0", "proxy_http_version 1.1"),
        (handshake("POST", "HTTP/1.1", "", &["Content-Length: 0"]), 405, "method", "GET"),
        (handshake("HEAD", "HTTP/1.1", "", &[]), 405, "method", ""),
        (
            handshake("GET", "HTTP/1.1", "Connection", &["Connection: close"]),
            426,
            "upgrade_removed",
            "proxy_set_header",
        ),
        (handshake("GET", "HTTP/1.1", "Upgrade", &["Upgrade: h2c"]), 426, "upgrade_removed", "Upgrade: websocket"),
        (handshake("GET", "HTTP/1.1", "Host", &[]), 400, "host", "Host"),
        (handshake("GET", "HTTP/1.1", "Sec-WebSocket-Version", &[]), 426, "version", "13"),
        (handshake("GET", "HTTP/1.1", "Sec-WebSocket-Version", &["Sec-WebSocket-Version: 8"]), 426, "version", "13"),
        (
            handshake("GET", "HTTP/1.1", "Sec-WebSocket-Version", &two_versions),
            400,
            "repeated",
            "Sec-WebSocket-Version",
        ),
        (handshake("GET", "HTTP/1.1", "Sec-WebSocket-Key", &[]), 400, "key", "16 bytes"),
        (handshake("GET", "HTTP/1.1", "Sec-WebSocket-Key", &["Sec-WebSocket-Key: c2hvcnQ="]), 400, "key", "16 bytes"),
        (handshake("GET", "HTTP/1.1", "Sec-WebSocket-Key", &[KEY, KEY]), 400, "repeated", "Sec-WebSocket-Key"),
        (handshake("GET", "HTTP/1.1", "", &["Content-Length: 4"]) + "body", 400, "body", "no body"),
    ];
    for (request, status, reason, text) in &cases {
        let counted = format!("carillon_handshakes_invalid_total{{reason=\"{reason}\"}}");
        let before = server.metric(&counted).await;
        let mut raw = server.tcp().await;
        raw.send(request.as_bytes()).await;
        let reply = if request.starts_with("HEAD") { raw.take_head().await } else { raw.http_reply().await };
        assert_eq!(reply.status, *status, "{request}: {}", reply.body);
        assert!(reply.body.contains(text), "{request}: {}", reply.body);
        assert_eq!(reply.header("upgrade"), (*status == 426).then_some("websocket"), "{request}");
        assert_eq!(reply.header("sec-websocket-version"), (*reason == "version").then_some("13"), "{request}");
        assert_eq!(reply.header("allow"), (*status == 405).then_some("GET"), "{request}");
        assert_eq!(server.metric(&counted).await, before + 1.0, "{request}");
        assert_eq!(raw.until_end().await, b"");
    }
    witnesses.are_served(&server).await;
    assert_eq!(server.metric("carillon_connections").await, 2.0, "a failed handshake does not count as a connection");
    let log = server.stop().await;
    assert_eq!(log.matches("WebSocket handshake rejected as invalid").count(), cases.len(), "{log}");
}

#[tokio::test]
async fn a_proxy_without_http_1_1_is_logged_at_a_limited_rate() {
    let server = Server::plain().await;
    for _ in 0..50 {
        let reply = server.http(&handshake("GET", "HTTP/1.0", "Connection", &["Connection: close"])).await;
        assert_eq!(reply.status, 426, "{}", reply.body);
    }
    assert_eq!(server.metric("carillon_handshakes_invalid_total{reason=\"http_1_0\"}").await, 50.0);
    let log = server.stop().await;
    assert_eq!(log.matches("a proxy breaks WebSocket handshakes").count(), 1, "{log}");
    assert!(log.contains("proxy_http_version 1.1"), "{log}");
}

/// nginx with only `proxy_pass`, like the first example of its documentation.
#[tokio::test]
async fn a_response_through_a_misconfigured_nginx_names_the_missing_settings() {
    let server = Server::plain().await;
    for settings in ["", "proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection \"upgrade\";"] {
        let location = format!("location / {{ proxy_pass http://{}; {settings} }}", server.public);
        let nginx = tests::nginx::Nginx::with(IpAddr::V4(Ipv4Addr::LOCALHOST), &location).await;
        let mut raw = Raw::connect(nginx.address).await;
        raw.send(handshake("GET", "HTTP/1.1", "", &[]).as_bytes()).await;
        let reply = raw.http_reply().await;
        assert_eq!(reply.status, 426, "{}", reply.body);
        assert!(reply.body.contains("proxy_http_version 1.1"), "{}", reply.body);
        nginx.stop().await;
    }
    server.stop().await;
}

#[tokio::test]
async fn header_tokens_are_found_in_any_case_and_in_several_lines() {
    let server = Server::plain().await;
    for (replaced, lines) in [
        ("Connection", &["Connection: keep-alive", "connection: UPGRADE"][..]),
        ("Connection", &["Connection: foo ,  upgrade , keep-alive"]),
        ("Upgrade", &["Upgrade: WebSocket"]),
        ("Upgrade", &["Upgrade: h2c", "upgrade: websocket"]),
        ("", &["Content-Length: 0"]),
        ("", &["Sec-WebSocket-Protocol: a", "Sec-WebSocket-Extensions: x, y"]),
    ] {
        let mut raw = server.tcp().await;
        raw.send(handshake("GET", "HTTP/1.1", replaced, lines).as_bytes()).await;
        assert_eq!(raw.take_head().await.status, 101, "{lines:?}");
        assert_eq!(raw.message().await["event"], "pusher:connection_established");
    }
    server.stop().await;
}

#[tokio::test]
async fn paths_with_query_and_encoding_name_the_app() {
    for (prefix, paths) in [
        ("", &["/app/shop-key", "/app/shop-key/", "//app/shop-key", "/app/shop-key//", "/app/shop%2Dkey/"][..]),
        ("/ws", &["/ws/app/shop-key", "/ws/app/shop-key/", "/ws//app/shop-key", "//ws/app/shop-key/"]),
    ] {
        let server = Server::start(Setup::default().server(&format!("path_prefix = {prefix:?}"))).await;
        for path in paths {
            for query in ["", "?", "?protocol=7", "?protocol=7&client=js&version=8.6.0&flash=false&x=/a/b"] {
                let mut raw = server.tcp().await;
                assert_eq!(raw.upgrade(&format!("{path}{query}"), &[]).await.status, 101);
                assert_eq!(raw.message().await["event"], "pusher:connection_established", "{path}{query}");
            }
        }
        server.stop().await;
    }
}

#[tokio::test]
async fn no_request_can_forge_a_line_of_the_log() {
    let server = Server::start(Setup::default().flag("--debug")).await;
    let forged = "%0A2026-01-01T00:00:00Z%20ERROR%20forged%1B%5B31m%E2%80%AE%E2%80%A8";
    for path in [format!("/app/x{forged}"), format!("/nowhere{forged}"), format!("/app/{}", "x".repeat(5000))] {
        let mut raw = server.tcp().await;
        assert_eq!(raw.upgrade(&path, &[]).await.status, 101);
        raw.message().await;
    }
    for request in [
        format!("POST /pusher/app/x{forged}/1/a/xhr HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n"),
        format!("GET /app/x{forged} HTTP/1.1\r\nHost: test\r\n\r\n"),
        format!("POST /apps/x{forged}/events HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n"),
        format!("GET /apps/shop/channels/x{forged} HTTP/1.1\r\nHost: test\r\n\r\n"),
    ] {
        server.http(&request).await;
    }
    let mut client = server.client().await;
    client.send(r#"{"event":"client-a\n2026 ERROR forged","channel":"private-\u001b[31mx","data":1}"#);
    client.send(r#"{"event":"x\nERROR forged"}"#);
    client
        .send_event("pusher:subscribe", &serde_json::json!({ "channel": "private-a\nERROR forged", "auth": "\n:\n" }));
    for _ in 0..2 {
        client.expect_error().await;
    }
    client.expect("pusher:subscription_error").await;
    drop(client);
    let log = server.stop().await;
    for line in log.lines() {
        let level = line.split_whitespace().nth(1);
        let is_a_line = line.starts_with("20") && line.get(10..11) == Some("T") && level != Some("ERROR");
        let has_controls =
            line.chars().any(|character| character.is_control() || matches!(character, '\u{202e}' | '\u{2028}'));
        assert!(is_a_line && !has_controls && line.len() < 1000, "{line:?} in\n{log}");
    }
    assert!(log.contains("Connection refused") && log.contains("Message refused"), "{log}");
}
