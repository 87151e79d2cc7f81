//! The steps from the upgrade to the first message or the refusal. Source: protocol reference 1.

use client::Options;
use serde_json::Value;
use tests::setup::APP_KEY;
use tests::{Raw, Server, Setup};

/// Upgrades at `target` and expects a refusal with `code`.
async fn refused(server: &Server, target: &str, headers: &[(&str, &str)], code: u16) {
    let mut raw = server.tcp().await;
    assert_eq!(raw.upgrade(target, headers).await.status, 101, "refusals come after the upgrade: {target}");
    raw.expect_close(code).await;
    let rejected = format!("carillon_handshakes_rejected_total{{code=\"{code}\"}}");
    assert!(server.metric(&rejected).await >= 1.0, "{rejected}");
}

async fn accepted(server: &Server, target: &str, headers: &[(&str, &str)]) -> Raw {
    let mut raw = server.tcp().await;
    assert_eq!(raw.upgrade(target, headers).await.status, 101, "{target}");
    let first = raw.message().await;
    assert_eq!(first["event"], "pusher:connection_established", "{target} {headers:?}: {first}");
    raw
}

#[tokio::test]
async fn the_first_message_names_the_socket_and_the_activity_timeout() {
    let server = Server::start(Setup::default().server("activity_timeout = \"77s\"")).await;
    let mut raw = server.tcp().await;
    let head = raw.upgrade(&format!("/app/{APP_KEY}?protocol=7&client=js&version=8.6.0&flash=false"), &[]).await;
    assert_eq!(
        head.header("sec-websocket-accept"),
        Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
        "the value of RFC 6455, section 1.3"
    );
    assert_eq!(head.header("sec-websocket-protocol"), None, "none was offered");
    assert_eq!(head.header("sec-websocket-extensions"), None);
    let first = raw.message().await;
    assert_eq!(first["event"], "pusher:connection_established");
    assert_eq!(first.get("channel"), None);
    let data: Value =
        serde_json::from_str(first["data"].as_str().expect("data is a string")).expect("the data is JSON");
    assert_eq!(data["activity_timeout"], 77);
    let socket_id = data["socket_id"].as_str().expect("a text");
    let (left, right) = socket_id.split_once('.').expect("two parts");
    for digits in [left, right] {
        assert!(!digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()), "{socket_id}");
    }
    server.stop().await;
}

#[tokio::test]
async fn socket_ids_differ() {
    let server = Server::plain().await;
    let mut seen = std::collections::HashSet::new();
    for _ in 0..50 {
        assert!(seen.insert(server.client().await.socket_id));
    }
    server.stop().await;
}

#[tokio::test]
async fn unsupported_protocol_versions_are_refused() {
    let server = Server::plain().await;
    for accepted_version in ["?protocol=7", "?protocol=6", "?protocol=5", "?protocol=4", "", "?client=js"] {
        accepted(&server, &format!("/app/{APP_KEY}{accepted_version}"), &[]).await;
    }
    for (version, code) in
        [("8", 4007), ("3", 4007), ("0", 4007), ("seven", 4006), ("", 4006), ("7.0", 4006), ("-7", 4006)]
    {
        refused(&server, &format!("/app/{APP_KEY}?protocol={version}"), &[], code).await;
    }
    server.stop().await;
}

#[tokio::test]
async fn an_unknown_key_is_refused_with_4001() {
    let server = Server::plain().await;
    for key in ["unknown", "SHOP-KEY", "shop-key%00", "%ff%fe", "shop"] {
        refused(&server, &format!("/app/{key}?protocol=7"), &[], 4001).await;
    }
    server.stop().await;
}

#[tokio::test]
async fn a_very_long_key_is_refused_with_a_reason_that_fits() {
    let server = Server::plain().await;
    refused(&server, &format!("/app/{}?protocol=7", "%C3%A9".repeat(500)), &[], 4001).await;
    server.stop().await;
}

#[tokio::test]
async fn another_path_is_refused_with_4005() {
    let server = Server::plain().await;
    for path in ["/", "/app", "/app/", "/app//", "/elsewhere", "/apps/shop/events"] {
        refused(&server, path, &[], 4005).await;
    }
    server.stop().await;
}

#[tokio::test]
async fn a_disabled_app_is_refused_with_4003() {
    let server = Server::start(Setup::default().app("enabled = false")).await;
    refused(&server, &format!("/app/{APP_KEY}"), &[], 4003).await;
    assert_eq!(server.post("/events", &serde_json::json!({})).await.status.as_u16(), 403);
    server.stop().await;
}

#[tokio::test]
async fn another_origin_is_refused_with_4009() {
    let server = Server::start(Setup::default().app(r#"allowed_origins = ["shop.example", "*.shop.example"]"#)).await;
    let target = format!("/app/{APP_KEY}");
    for origin in
        ["https://shop.example", "http://shop.example:8000", "https://www.shop.example", "HTTPS://SHOP.EXAMPLE"]
    {
        accepted(&server, &target, &[("Origin", origin)]).await;
    }
    accepted(&server, &target, &[]).await;
    for origin in ["https://evil.example", "https://shop.example.evil", "https://notshop.example", "null"] {
        refused(&server, &target, &[("Origin", origin)], 4009).await;
    }
    server.stop().await;
}

#[tokio::test]
async fn connections_above_the_quota_are_refused_with_4004_until_one_closes() {
    let second = "[[apps]]\nid = \"other\"\nkey = \"other-key\"\nsecret = \"other-secret\"";
    let server = Server::start(Setup::default().limit("connections = 2").more(second)).await;
    let target = format!("/app/{APP_KEY}");
    let (first, _second) = (server.client().await, server.client().await);
    refused(&server, &target, &[], 4004).await;
    accepted(&server, "/app/other-key", &[]).await;
    drop(first);
    server.metric_reaches("carillon_connections{app=\"shop\",transport=\"websocket\"}", 1.0).await;
    accepted(&server, &target, &[]).await;
    server.stop().await;
}

#[tokio::test]
async fn a_full_node_refuses_with_4100_and_stays_ready() {
    let server = Server::start(Setup::default().server("connections_max = 2")).await;
    assert_eq!(server.admin_get("/readyz").await.status, 200);
    let (first, _second) = (server.client().await, server.client().await);
    refused(&server, &format!("/app/{APP_KEY}"), &[], 4100).await;
    assert_eq!(server.admin_get("/readyz").await.status, 200);
    assert_eq!(server.admin_get("/livez").await.status, 200);
    drop(first);
    server.metric_reaches("carillon_connections", 1.0).await;
    let third = server.client().await;
    drop(third);
    server.stop().await;
}

#[tokio::test]
async fn only_an_offered_subprotocol_of_channels_is_echoed() {
    let server = Server::plain().await;
    let chosen = async |offer: &str| {
        let reply = server.tcp().await.upgrade(&format!("/app/{APP_KEY}"), &[("Sec-WebSocket-Protocol", offer)]).await;
        assert_eq!(reply.status, 101);
        reply.header("sec-websocket-protocol").map(str::to_owned)
    };
    assert_eq!(chosen("pusher-channels-protocol-7").await.as_deref(), Some("pusher-channels-protocol-7"));
    assert_eq!(chosen("mqtt, pusher-channels-protocol-5").await.as_deref(), Some("pusher-channels-protocol-5"));
    assert_eq!(chosen("mqtt").await, None);
    let client = server
        .client_with(&Options { subprotocol: Some("pusher-channels-protocol-7".into()), ..Options::default() })
        .await;
    assert_eq!(client.subprotocol.as_deref(), Some("pusher-channels-protocol-7"));
    server.stop().await;
}

#[tokio::test]
async fn a_plain_get_is_answered_426() {
    let server = Server::plain().await;
    let reply = server.http(&format!("GET /app/{APP_KEY} HTTP/1.1\r\nHost: test\r\n\r\n")).await;
    assert_eq!((reply.status, reply.header("upgrade")), (426, Some("websocket")));
    server.stop().await;
}

#[tokio::test]
async fn a_path_prefix_goes_before_everything_but_the_health_check() {
    let server = Server::start(Setup::default().server("path_prefix = \"/ws\"")).await;
    assert_eq!(server.url.prefix(), "/ws", "{}", server.banner);
    let mut client = server.client().await;
    client.subscribe("news").await;
    server.publish("news", "hello", "1").await;
    client.expect_event("news", "hello", "1").await;
    refused(&server, &format!("/app/{APP_KEY}"), &[], 4005).await;
    refused(&server, &format!("/ws2/app/{APP_KEY}"), &[], 4005).await;
    for (path, status) in [("/up", 200), ("/ws/up", 200), ("/apps/shop/channels", 404)] {
        let reply = server.http(&format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n")).await;
        assert_eq!(reply.status, status, "{path}");
    }
    server.stop().await;
}

#[tokio::test]
async fn messages_sent_with_the_handshake_are_read() {
    let server = Server::plain().await;
    let mut raw = server.tcp().await;
    let mut bytes = tests::raw::handshake(&format!("/app/{APP_KEY}")).into_bytes();
    bytes.extend(b"\r\n");
    let subscribe = br#"{"event":"pusher:subscribe","data":{"channel":"news"}}"#;
    bytes.extend(tests::raw::frame(tests::raw::FIN | tests::raw::TEXT, subscribe));
    // Half of another frame. It must wait for the rest.
    let ping = tests::raw::frame(tests::raw::FIN | tests::raw::PING, b"half");
    bytes.extend(&ping[..5]);
    raw.send(&bytes).await;
    // The head of the response, then the messages.
    assert_eq!(raw.take_head().await.status, 101);
    assert_eq!(raw.message().await["event"], "pusher:connection_established");
    assert_eq!(raw.message().await["event"], "pusher_internal:subscription_succeeded");
    raw.send(&ping[5..]).await;
    let pong = raw.frame().await.expect("a pong");
    assert_eq!((pong.opcode, pong.payload.as_slice()), (tests::raw::PONG, b"half".as_slice()));
    server.stop().await;
}

#[tokio::test]
async fn handshake_headers_of_browsers_are_accepted() {
    let server = Server::plain().await;
    for (connection, upgrade) in
        [("keep-alive, Upgrade", "websocket"), ("upgrade", "WebSocket"), ("Upgrade,foo", "websocket")]
    {
        let head = format!(
            "GET /app/{APP_KEY}?protocol=7 HTTP/1.1\r\nHost: test\r\nConnection: {connection}\r\nUpgrade: {upgrade}\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n"
        );
        let mut raw = server.tcp().await;
        raw.send(head.as_bytes()).await;
        let reply = raw.take_head().await;
        assert_eq!((reply.status, reply.header("sec-websocket-extensions")), (101, None), "{connection} {upgrade}");
        assert_eq!(raw.message().await["event"], "pusher:connection_established");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_persistent_http_connection_can_become_a_websocket() {
    let server = Server::plain().await;
    let mut raw = server.tcp().await;
    assert_eq!(raw.exchange(b"GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n").await.status, 404);
    raw.establish(&server.app).await;
    raw.subscribe("news").await;
    server.publish("news", "hello", "1").await;
    assert_eq!(raw.message().await["event"], "hello");
    drop(raw);
    server.stop().await;
}
