//! The opening of sessions, and the headers for browsers. Source: protocol reference 6.3, rules 1, 15 and 16.

use serde_json::{Value, json};
use tests::fallback::{HttpSession, Line, TRANSPORTS, Transport};
use tests::raw::HttpReply;
use tests::{Server, Setup};

use super::server;

#[tokio::test]
async fn the_first_response_opens_the_session_and_names_the_socket() {
    let server = Server::start(Setup::default().server("activity_timeout = \"75s\"")).await;
    for transport in TRANSPORTS {
        let session = HttpSession::new(&server);
        let (stream, established) = session.open(transport).await;
        let data: Value = serde_json::from_str(established["data"].as_str().expect("a string")).expect("JSON");
        assert_eq!(data["activity_timeout"], 75);
        let id = data["socket_id"].as_str().and_then(|id| id.split_once('.')).expect("a socket id");
        assert!(id.0.parse::<u64>().is_ok() && id.1.parse::<u64>().is_ok(), "{id:?}");
        let series = format!("carillon_connections{{app=\"shop\",transport=\"{}\"}}", transport.label());
        server.metric_reaches(&series, 1.0).await;
        drop(stream);
    }
    server.stop().await;
}

#[tokio::test]
async fn a_poll_is_a_complete_response_and_its_connection_stays_open() {
    let server = server().await;
    let session = HttpSession::new(&server);
    let mut raw = server.tcp().await;
    for round in 0..3 {
        raw.send(session.request(Transport::Poll).as_bytes()).await;
        let mut response = tests::fallback::Response::of(raw).await;
        assert!(response.head.header("content-length").is_some(), "{:?}", response.head);
        assert_eq!(response.head.header("connection"), None);
        if round == 0 {
            assert_eq!(response.line().await, Some(Line::Open));
            response.expect("pusher:connection_established").await;
        } else {
            response.expect("pusher:pong").await;
        }
        assert_eq!(response.line().await, None);
        raw = response.into_raw();
        session.send_event("pusher:ping", &json!({})).await;
    }
    server.stop().await;
}

#[track_caller]
fn expect_for_any_origin(reply: &HttpReply, status: u16) {
    assert_eq!(reply.status, status, "{}", reply.body);
    assert_eq!(reply.header("access-control-allow-origin"), Some("*"), "{status}");
    assert_eq!(reply.header("access-control-allow-credentials"), None);
}

#[tokio::test]
async fn preflights_are_answered_204_for_every_request() {
    let server = server().await;
    let session = HttpSession::new(&server);
    for verb in ["xhr", "xhr_streaming", "xhr_send"] {
        let head = session.head("OPTIONS", verb);
        let request = format!(
            "{head}Origin: https://page.example\r\nAccess-Control-Request-Method: POST\r\n\
             Access-Control-Request-Headers: content-type\r\nConnection: close\r\n\r\n"
        );
        let reply = server.http(&request).await;
        expect_for_any_origin(&reply, 204);
        assert_eq!(reply.header("access-control-allow-methods"), Some("POST, OPTIONS"));
        assert_eq!(reply.header("access-control-allow-headers"), Some("content-type"));
        assert_eq!(reply.body, "");
    }
    assert_eq!(server.metric("carillon_fallback_requests_total{kind=\"preflight\"}").await, 3.0);
    assert_eq!(server.metric("carillon_connections_opened_total").await, 0.0, "a preflight opens no connection");
    server.stop().await;
}

#[tokio::test]
async fn every_response_allows_all_origins() {
    let server = server().await;
    let mut session = HttpSession::new(&server);
    session.headers = "Origin: https://page.example\r\n".into();
    expect_for_any_origin(&session.send_body(b"[]").await, 404);
    session.open_poll().await;
    expect_for_any_origin(&session.send_body(b"[]").await, 204);
    expect_for_any_origin(&session.send_body(b"{").await, 400);
    expect_for_any_origin(&session.send_body(&vec![b' '; 256 * 1024 + 1]).await, 413);
    let get = session.head("GET", "xhr") + "Connection: close\r\n\r\n";
    expect_for_any_origin(&server.http(&get).await, 405);
    session.path = session.path.replace("shop-key", "other-key");
    expect_for_any_origin(&session.send_body(b"[]").await, 404);
    server.stop().await;
}
