//! Valid and invalid HTTP requests of clients and proxies. Source: protocol reference 6.1 and 6.3.

use serde_json::json;
use tests::fallback::{HttpSession, Line, Response, TRANSPORTS, Transport, close_code, messages};
use tests::{Server, Setup};

use super::{server, subscribed_poll, subscribed_stream};

const PING: &str = r#"["{\"event\":\"pusher:ping\",\"data\":{}}"]"#;

#[tokio::test]
async fn requests_with_messages_can_be_pipelined() {
    let server = server().await;
    let (session, mut stream) = subscribed_stream(&server).await;
    let mut requests = String::new();
    for number in 0..5 {
        let body =
            json!([json!({ "event": "pusher:subscribe", "data": { "channel": format!("c{number}") } }).to_string()]);
        let body = body.to_string();
        requests += &format!("{}Content-Length: {}\r\n\r\n{body}", session.head("POST", "xhr_send"), body.len());
    }
    let mut raw = server.tcp().await;
    raw.send(requests.as_bytes()).await;
    let mut channels = Vec::new();
    for _ in 0..5 {
        assert_eq!(raw.take_head().await.status, 204);
    }
    while channels.len() < 5 {
        let line = stream.line().await.expect("an answer, not the end");
        channels.extend(messages(&[line]).iter().map(|message| message["channel"].clone()));
    }
    assert_eq!(channels, ["c0", "c1", "c2", "c3", "c4"]);
    drop(stream);
    server.stop().await;
}

#[tokio::test]
async fn a_poll_and_messages_can_share_a_connection() {
    let server = server().await;
    let session = subscribed_poll(&server).await;
    let mut raw = server.tcp().await;
    let send = format!("{}Content-Length: {}\r\n\r\n{PING}", session.head("POST", "xhr_send"), PING.len());
    raw.send(
        format!("{send}{}{send}{}", session.request(Transport::Poll), session.request(Transport::Poll)).as_bytes(),
    )
    .await;
    for _ in 0..2 {
        assert_eq!(raw.take_head().await.status, 204);
        let reply = raw.http_reply().await;
        assert_eq!(reply.body, "a[\"{\\\"event\\\":\\\"pusher:pong\\\",\\\"data\\\":{}}\"]\n");
    }
    server.stop().await;
}

#[tokio::test]
async fn bodies_with_expect_continue_and_chunked_bodies_are_read() {
    let server = server().await;
    let (session, mut stream) = subscribed_stream(&server).await;
    let mut raw = server.tcp().await;
    let head = session.head("POST", "xhr_send");
    raw.send(format!("{head}Expect: 100-continue\r\nContent-Length: {}\r\n\r\n", PING.len()).as_bytes()).await;
    assert_eq!(raw.take_head().await.status, 100);
    raw.send(PING.as_bytes()).await;
    assert_eq!(raw.take_head().await.status, 204);
    stream.expect("pusher:pong").await;

    let head = session.head("POST", "xhr_send");
    raw.send(format!("{head}Transfer-Encoding: chunked\r\n\r\n").as_bytes()).await;
    for byte in PING.bytes() {
        raw.send(&[b"1\r\n", &[byte][..], b"\r\n"].concat()).await;
    }
    raw.send(b"0\r\n\r\n").await;
    assert_eq!(raw.take_head().await.status, 204);
    stream.expect("pusher:pong").await;

    let head = session.head("POST", "xhr");
    raw.send(format!("{head}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n").as_bytes()).await;
    assert_eq!(stream.line().await, None, "a request for messages can have an empty body of any form");
    server.stop().await;
}

#[tokio::test]
async fn other_methods_are_answered_405_and_other_paths_404() {
    let server = server().await;
    let session = HttpSession::new(&server);
    for method in ["GET", "PUT", "DELETE"] {
        for verb in ["xhr", "xhr_streaming", "xhr_send"] {
            let reply = server.http(&(session.head(method, verb) + "Content-Length: 0\r\n\r\n")).await;
            assert_eq!((reply.status, reply.header("allow")), (405, Some("POST, OPTIONS")), "{method} {verb}");
        }
    }
    for path in [
        "/pusher/app/shop-key/1/a",
        "/pusher/app/shop-key/1/a/",
        "/pusher/app/shop-key/1/a/jsonp",
        "/pusher/app/shop-key//a/xhr",
        "/pusher/app/shop-key/1//xhr",
        "/pusher/app//1/a/xhr",
        "/pusher/app/shop-key/1/%2e%2e/xhr",
        "/pusher/app/shop-key/1/a-b/xhr",
        "/pusher/app/shop-key/info",
        "/pusher/info",
        "/pusher/app/shop-key/1/a/XHR",
        &format!("/pusher/app/shop-key/1/{}/xhr", "a".repeat(65)),
    ] {
        let reply = server.http(&format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")).await;
        assert_eq!(reply.status, 404, "{path}");
    }
    assert_eq!(server.metric("carillon_connections_opened_total").await, 0.0);
    server.stop().await;
}

#[tokio::test]
async fn a_path_prefix_applies_to_every_path() {
    let server = Server::start(Setup::default().server("path_prefix = \"/ws\"")).await;
    let session = HttpSession::new(&server);
    assert!(session.path.starts_with("/ws/pusher/app/"));
    session.open_poll().await;
    let mut bare = session.at(&server);
    bare.path = session.path.trim_start_matches("/ws").to_owned();
    assert_eq!(bare.send_body(b"[]").await.status, 404);
    assert_eq!(session.send_body(b"[]").await.status, 204);
    server.stop().await;
}

#[tokio::test]
async fn invalid_bodies_are_refused_and_the_session_stays_open() {
    let server = server().await;
    let session = subscribed_poll(&server).await;
    let deep = "[".repeat(100_000);
    for body in
        ["", " ", "{}", "null", "\"text\"", "7", "[7]", "[null]", "[[]]", "[\"a\"", "[\"a\",]", "[\"\\x\"]", &deep]
    {
        let reply = session.send_body(body.as_bytes()).await;
        assert_eq!(reply.status, 400, "{:.20}: {}", body, reply.body);
        assert_eq!(reply.body.lines().count(), 1, "{}", reply.body);
    }
    assert_eq!(session.send_body(b"[\"\xff\"]").await.status, 400, "not UTF-8");
    let mut large = PING.as_bytes().to_vec();
    large.resize(256 * 1024, b' ');
    assert_eq!(session.send_body(&large).await.status, 204, "the largest allowed body");
    large.push(b' ');
    assert_eq!(session.send_body(&large).await.status, 413);
    let head = session.head("POST", "xhr_send");
    let claim = server.http(&format!("{head}Content-Length: 99999999999\r\nConnection: close\r\n\r\n")).await;
    assert_eq!(claim.status, 413, "the length is checked before the body arrives");
    let Some(Line::Messages(answers)) = session.poll().await.pop() else { panic!("an answer to the ping") };
    assert_eq!((answers.len(), &answers[0]["event"]), (1, &json!("pusher:pong")), "only the ping was handled");
    assert!(server.metric("carillon_protocol_errors_total{kind=\"body\"}").await >= 13.0);
    server.stop().await;
}

#[tokio::test]
async fn a_truncated_body_sends_no_message() {
    let server = server().await;
    let (session, mut stream) = subscribed_stream(&server).await;
    let mut raw = server.tcp().await;
    raw.send(format!("{}Content-Length: 500\r\n\r\n{PING}", session.head("POST", "xhr_send")).as_bytes()).await;
    drop(raw);
    session.send_event("pusher:subscribe", &json!({ "channel": "marker" })).await;
    stream.expect("pusher_internal:subscription_succeeded").await;
    drop(stream);
    server.stop().await;
}

#[tokio::test]
async fn the_server_does_not_wait_for_a_missing_body() {
    let server = server().await;
    let session = HttpSession::new(&server);
    session.open_poll().await;
    let mut raw = server.tcp().await;
    raw.send(format!("{}Content-Length: 500\r\n\r\n{PING}", session.head("POST", "xhr_send")).as_bytes()).await;
    let reply = raw.http_reply().await;
    assert_eq!((reply.status, reply.header("access-control-allow-origin")), (408, Some("*")));
    server.stop().await;
}

#[tokio::test]
async fn a_message_above_the_limit_ends_the_session_with_1009() {
    let server = server().await;
    for transport in TRANSPORTS {
        let session = HttpSession::new(&server);
        let (stream, _) = session.open(transport).await;
        let large = json!({ "event": "pusher:ping", "data": "x".repeat(65 * 1024) }).to_string();
        assert_eq!(session.send(&["{\"event\":\"pusher:ping\"}", &large, "{}"]).await.status, 204);
        let lines = match stream {
            Some(stream) => stream.rest().await,
            None => session.poll().await,
        };
        assert!(matches!(lines[..], [Line::Messages(_), Line::Close(1009, _)]), "{lines:?}");
        server.metric_reaches("carillon_connections", 0.0).await;
        assert_eq!(session.send_body(b"[]").await.status, 404);
    }
    server.stop().await;
}

#[tokio::test]
async fn messages_for_an_unknown_session_are_answered_404() {
    let server = server().await;
    let session = HttpSession::new(&server);
    assert_eq!(session.send(&["{}"]).await.status, 404);
    session.open_poll().await;
    assert_eq!(session.send_body(b"[]").await.status, 204);
    server.stop().await;
}

#[tokio::test]
async fn a_refusal_keeps_its_connection_open() {
    let server = Server::start(Setup::default().app("enabled = false")).await;
    let session = HttpSession::new(&server);
    let mut raw = server.tcp().await;
    for _ in 0..3 {
        raw.send(session.request(Transport::Stream).as_bytes()).await;
        let mut response = Response::of(raw).await;
        let mut lines = Vec::new();
        while let Some(line) = response.line().await {
            lines.push(line);
        }
        assert_eq!(close_code(&lines[1..]), 4003);
        raw = response.into_raw();
    }
    server.stop().await;
}
