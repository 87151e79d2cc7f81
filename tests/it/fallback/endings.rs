//! Ends of sessions. Source: protocol reference 6.3, rules 12 and 13.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;
use shared::auth::sign_user;
use tests::fallback::{HttpSession, Response, TRANSPORTS, Transport, close_code};
use tests::{HttpClient, Server, Setup};

use super::{pending, server};

#[tokio::test]
async fn sigterm_closes_every_session_with_4100_and_the_server_exits_0() {
    let server = Server::start(Setup::default().server("shards = 2").drain("window = \"200ms\"")).await;
    let mut clients = Vec::new();
    for number in 0..20 {
        clients.push(HttpClient::connect(&server, TRANSPORTS[number % 2]).await);
    }
    // No request waits for messages of these sessions.
    for _ in 0..5 {
        HttpSession::new(&server).open_poll().await;
    }
    let began = Instant::now();
    server.signal(Signal::TERM);
    for client in &mut clients {
        client.expect_close(4100).await;
    }
    server.ended().await;
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

#[tokio::test]
async fn an_end_within_one_response_is_whole() {
    let server = Server::start(Setup::default().drain("window = \"200ms\"")).await;
    let (stream, _) = HttpSession::new(&server).open_stream().await;
    let session = HttpSession::new(&server);
    session.open_poll().await;
    let poll = pending(&server, &session, Transport::Poll).await;
    server.signal(Signal::TERM);
    assert_eq!(close_code(&stream.rest().await), 4100);
    assert_eq!(close_code(&Response::of(poll).await.rest().await), 4100);
    server.ended().await;
}

#[tokio::test]
async fn clients_are_closed_after_a_while_to_retry_a_websocket() {
    let server = Server::start(Setup::default().server("fallback_reconnect = \"1s\"")).await;
    let mut web = server.client().await;
    for transport in TRANSPORTS {
        let mut client = HttpClient::connect(&server, transport).await;
        client.expect_close(4200).await;
    }
    web.settle().await;
    assert_eq!(server.metric("carillon_connections").await, 1.0);
    server.stop().await;
}

#[tokio::test]
async fn termination_closes_the_sessions_of_the_user_with_4009() {
    let server = server().await;
    let mut clients = Vec::new();
    for transport in TRANSPORTS {
        let mut client = HttpClient::connect(&server, transport).await;
        client.sign_in("ana").await;
        clients.push(client);
    }
    let mut other = HttpClient::connect(&server, Transport::Stream).await;
    other.sign_in("bo").await;
    assert_eq!(server.post("/users/ana/terminate_connections", &json!({})).await.status.as_u16(), 200);
    for client in &mut clients {
        client.expect_close(4009).await;
    }
    other.settle().await;
    server.metric_reaches("carillon_connections_closed_total{code=\"4009\"}", 2.0).await;
    drop(other);
    server.stop().await;
}

/// Opens a session of the user `ana` that has no pending request.
async fn signed_in(server: &Server) -> HttpSession {
    let session = HttpSession::new(server);
    let established = session.open_poll().await;
    let data: serde_json::Value =
        serde_json::from_str(established["data"].as_str().expect("a string")).expect("data is JSON");
    let socket_id = data["socket_id"].as_str().and_then(|id| id.parse().ok()).expect("a socket id");
    let user_data = json!({ "id": "ana" }).to_string();
    let auth = sign_user(&server.app, socket_id, &user_data);
    session.send_event("pusher:signin", &json!({ "auth": auth, "user_data": user_data })).await;
    let lines = session.poll().await;
    assert_eq!(tests::fallback::messages(&lines)[0]["event"], "pusher:signin_success");
    session
}

async fn terminate(server: &Server) {
    assert_eq!(server.post("/users/ana/terminate_connections", &json!({})).await.status.as_u16(), 200);
}

#[tokio::test]
async fn the_end_of_a_session_waits_for_its_client() {
    let server = server().await;
    for transport in TRANSPORTS {
        let session = signed_in(&server).await;
        terminate(&server).await;
        assert_eq!(close_code(&session.receive(transport).await.rest().await), 4009);
        server.metric_reaches("carillon_connections", 0.0).await;
        session.open_poll().await;
        server.metric_reaches("carillon_connections", 0.0).await;
    }
    server.stop().await;
}

#[tokio::test]
async fn the_end_of_a_session_is_delivered_once() {
    let server = server().await;
    for transport in TRANSPORTS {
        let session = signed_in(&server).await;
        terminate(&server).await;
        server.metric_reaches("carillon_connections", 0.0).await;
        assert_eq!(session.send_body(b"[]").await.status, 404, "messages arrive too late");
        assert_eq!(close_code(&session.receive(transport).await.rest().await), 4009);
        session.open_poll().await;
        server.metric_reaches("carillon_connections", 0.0).await;
    }
    server.stop().await;
}
