//! Refused clients. Source: protocol reference 6.3, rule 11.

use tests::fallback::{HttpSession, Line, TRANSPORTS, Transport, close_code};
use tests::{Server, Setup};

use super::{pending, server};

/// Checks that every request is refused with this code, in one response.
#[track_caller]
fn expect_refusal(lines: &[Line], code: u16) {
    assert_eq!(lines.first(), Some(&Line::Open), "{lines:?}");
    assert_eq!(close_code(&lines[1..]), code);
}

async fn refused(session: &HttpSession, code: u16) {
    for transport in TRANSPORTS {
        expect_refusal(&session.receive(transport).await.rest().await, code);
    }
    // The name stays free. The response does not reveal that a session exists.
    assert!(matches!(session.send_body(b"[]").await.status, 403 | 404));
}

#[tokio::test]
async fn an_unknown_key_is_refused_with_4001() {
    let server = server().await;
    for key in ["unknown", "SHOP-KEY", "%ff%fe", &"x".repeat(2_000)] {
        let mut session = HttpSession::new(&server);
        session.path = session.path.replace("shop-key", key);
        refused(&session, 4001).await;
    }
    assert_eq!(server.metric("carillon_handshakes_rejected_total{code=\"4001\"}").await, 8.0);
    server.stop().await;
}

#[tokio::test]
async fn a_disabled_app_is_refused_with_4003() {
    let server = Server::start(Setup::default().app("enabled = false")).await;
    refused(&HttpSession::new(&server), 4003).await;
    server.stop().await;
}

#[tokio::test]
async fn unsupported_protocol_versions_are_refused() {
    let server = server().await;
    for (version, code) in [("8", 4007), ("3", 4007), ("seven", 4006), ("", 4006)] {
        for transport in TRANSPORTS {
            let session = HttpSession::new(&server);
            let request = session.request(transport).replace("protocol=7", &format!("protocol={version}"));
            let mut raw = server.tcp().await;
            raw.send(request.as_bytes()).await;
            expect_refusal(&tests::fallback::Response::of(raw).await.rest().await, code);
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn another_origin_is_refused_with_4009() {
    let server = Server::start(Setup::default().app(r#"allowed_origins = ["shop.example"]"#)).await;
    let mut session = HttpSession::new(&server);
    session.headers = "Origin: https://evil.example\r\n".into();
    refused(&session, 4009).await;
    session.headers = "Origin: https://shop.example\r\n".into();
    session.open_poll().await;
    server.stop().await;
}

#[tokio::test]
async fn connections_above_the_quota_are_refused_with_4004_until_one_closes() {
    let server = Server::start(Setup::default().limit("connections = 2")).await;
    let web = server.client().await;
    let (stream, _) = HttpSession::new(&server).open_stream().await;
    refused(&HttpSession::new(&server), 4004).await;
    drop(web);
    server.metric_reaches("carillon_connections", 1.0).await;
    HttpSession::new(&server).open_poll().await;
    drop(stream);
    server.stop().await;
}

#[tokio::test]
async fn a_full_node_refuses_with_4100() {
    let server = Server::start(Setup::default().server("connections_max = 2")).await;
    let _web = server.client().await;
    let (stream, _) = HttpSession::new(&server).open_stream().await;
    refused(&HttpSession::new(&server), 4100).await;
    assert_eq!(server.admin_get("/readyz").await.status, 200);
    drop(stream);
    server.stop().await;
}

#[tokio::test]
async fn a_network_that_is_not_allowed_is_refused_with_4009() {
    let setup = Setup::default().server("trusted_proxies = [\"127.0.0.1\"]").server("deny = [\"203.0.113.0/24\"]");
    let server = Server::start(setup).await;
    let mut session = HttpSession::new(&server);
    session.headers = "X-Forwarded-For: 198.51.100.7\r\n".into();
    session.open_poll().await;
    let mut denied = session.at(&server);
    denied.headers = "X-Forwarded-For: 203.0.113.7\r\n".into();
    refused(&denied, 4009).await;
    let reply = denied.send(&["{}"]).await;
    assert_eq!((reply.status, reply.header("access-control-allow-origin")), (403, Some("*")));
    assert_eq!(session.send_body(b"[]").await.status, 204, "a refused request does not affect the session");
    server.stop().await;
}

#[tokio::test]
async fn simultaneous_requests_are_all_refused() {
    let server = Server::start(Setup::default().limit("connections = 1")).await;
    let _web = server.client().await;
    let session = HttpSession::new(&server);
    let mut raws = Vec::new();
    for _ in 0..10 {
        raws.push(pending(&server, &session, Transport::Poll).await);
    }
    for raw in raws {
        expect_refusal(&tests::fallback::Response::of(raw).await.rest().await, 4004);
    }
    server.stop().await;
}
