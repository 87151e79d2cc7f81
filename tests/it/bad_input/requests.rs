//! HTTP requests that must be refused. Source: protocol reference 4.3.

use serde_json::{Value, json};
use shared::auth::request::signed_query;
use shared::cluster::envelope::unix_us;
use tests::raw::HttpReply;
use tests::{Server, Setup};

use super::start;

fn now_s() -> u64 {
    unix_us() / 1_000_000
}

/// A correctly signed request, of which a test changes a part.
struct Request<'a> {
    method: &'a str,
    path: &'a str,
    signed_body: &'a [u8],
    sent_body: &'a [u8],
    at_s: u64,
    /// Changes the query string.
    edit: fn(String) -> String,
}

impl<'a> Request<'a> {
    fn new(method: &'a str, path: &'a str, body: &'a [u8]) -> Self {
        Self { method, path, signed_body: body, sent_body: body, at_s: now_s(), edit: |query| query }
    }

    async fn send(self, server: &Server) -> HttpReply {
        let query = signed_query(&server.app, self.method, self.path, &[], self.signed_body, self.at_s);
        let query = (self.edit)(query);
        let (method, path, length) = (self.method, self.path, self.sent_body.len());
        let mut request =
            format!("{method} {path}?{query} HTTP/1.1\r\nHost: test\r\nContent-Length: {length}\r\n\r\n").into_bytes();
        request.extend_from_slice(self.sent_body);
        server.tcp().await.exchange(&request).await
    }
}

/// Returns the query without one of its parameters.
fn without(query: &str, name: &str) -> String {
    let prefix = format!("{name}=");
    query.split('&').filter(|pair| !pair.starts_with(&prefix)).collect::<Vec<_>>().join("&")
}

const EVENTS: &str = "/apps/shop/events";
const EVENT: &[u8] = br#"{"name":"hello","channel":"witness","data":"x"}"#;

fn is_one_line(reply: &HttpReply) -> bool {
    !reply.body.is_empty() && !reply.body.contains(['\r', '\n'])
}

#[tokio::test]
async fn requests_without_a_valid_signature_are_answered_401() {
    let (server, mut witnesses) = start(Setup::default()).await;
    let event = || Request::new("POST", EVENTS, EVENT);
    let cases: Vec<(&str, Request<'_>, &str)> = vec![
        ("no query", Request { edit: |_| String::new(), ..event() }, "Missing parameter: auth_key"),
        ("no key", Request { edit: |query| without(&query, "auth_key"), ..event() }, "Missing parameter: auth_key"),
        ("no version", Request { edit: |query| without(&query, "auth_version"), ..event() }, "Version required"),
        ("no timestamp", Request { edit: |query| without(&query, "auth_timestamp"), ..event() }, "Timestamp required"),
        (
            "no signature",
            Request { edit: |query| without(&query, "auth_signature"), ..event() },
            "Missing parameter: auth_signature",
        ),
        (
            "another key",
            Request { edit: |query| query.replace("shop-key", "other-key"), ..event() },
            "Unknown auth_key",
        ),
        (
            "another version",
            Request { edit: |query| query.replace("auth_version=1.0", "auth_version=2.0"), ..event() },
            "Version not supported",
        ),
        (
            "an empty signature",
            Request { edit: |query| without(&query, "auth_signature") + "&auth_signature=", ..event() },
            "Invalid signature",
        ),
        (
            "a wrong signature",
            Request {
                edit: |query| without(&query, "auth_signature") + "&auth_signature=" + &"0".repeat(64),
                ..event()
            },
            "Invalid signature",
        ),
        (
            "a parameter that was not signed",
            Request { edit: |query| query + "&info=user_count", ..event() },
            "Invalid signature",
        ),
        ("a repeated key", Request { edit: |query| query + "&auth_key=shop-key", ..event() }, "Parameter auth_key"),
        ("a stale timestamp", Request { at_s: now_s() - 601, ..event() }, "Timestamp expired"),
        ("a timestamp of the future", Request { at_s: now_s() + 660, ..event() }, "Timestamp expired"),
        ("a timestamp of 1970", Request { at_s: 0, ..event() }, "Timestamp expired"),
        ("no body_md5", Request { signed_body: b"", ..event() }, "Missing parameter: body_md5"),
        (
            "another body",
            Request { sent_body: br#"{"name":"hello","channel":"witness","data":"y"}"#, ..event() },
            "Invalid body_md5",
        ),
        ("no body", Request { sent_body: b"", ..event() }, "Invalid body_md5"),
    ];
    let count = cases.len();
    for (what, request, text) in cases {
        let reply = request.send(&server).await;
        assert_eq!(reply.status, 401, "{what}: {}", reply.body);
        assert!(reply.body.starts_with(text) && is_one_line(&reply), "{what}: {}", reply.body);
        witnesses.are_served(&server).await;
    }
    assert_eq!(server.metric("carillon_publisher_auth_failures_total").await, count as f64);
    assert_eq!(Request { at_s: now_s() - 590, ..event() }.send(&server).await.status, 200, "within the window");
    server.stop().await;
}

#[tokio::test]
async fn a_signature_for_another_method_or_path_is_refused() {
    let server = Server::plain().await;
    let query = signed_query(&server.app, "GET", "/apps/shop/channels", &[], b"", now_s());
    let reply = server.http(&format!("GET /apps/shop/channels/news?{query} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
    assert_eq!(reply.status, 401, "{}", reply.body);
    let reply = server.http(&format!("GET /apps/shop/channels?{query} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    server.stop().await;
}

#[tokio::test]
async fn apps_and_paths_that_do_not_exist_are_answered_404() {
    let (server, mut witnesses) = start(Setup::default()).await;
    for (method, path) in [
        ("POST", "/apps/unknown/events"),
        ("POST", "/apps/shop-key/events"),
        ("POST", "/apps//events"),
        ("GET", "/apps/%ff/channels"),
        ("GET", "/apps"),
        ("GET", "/apps/shop"),
        ("GET", "/apps/shop/nothing"),
        ("GET", "/apps/shop/channels/a/b"),
        ("GET", "/metrics"),
    ] {
        let reply = Request::new(method, path, b"").send(&server).await;
        assert_eq!(reply.status, 404, "{method} {path}: {}", reply.body);
    }
    witnesses.are_served(&server).await;
    server.stop().await;
}

#[tokio::test]
async fn other_methods_are_answered_405() {
    let (server, mut witnesses) = start(Setup::default()).await;
    for (method, path, allow) in [
        ("GET", EVENTS, "POST"),
        ("PUT", EVENTS, "POST"),
        ("DELETE", "/apps/shop/batch_events", "POST"),
        ("POST", "/apps/shop/channels", "GET"),
        ("POST", "/apps/shop/channels/a/users", "GET"),
        ("GET", "/apps/shop/users/1/terminate_connections", "POST"),
        ("POST", "/up", "GET, HEAD"),
    ] {
        let reply = Request::new(method, path, b"").send(&server).await;
        assert_eq!((reply.status, reply.header("allow")), (405, Some(allow)), "{method} {path}");
    }
    witnesses.are_served(&server).await;
    server.stop().await;
}

#[tokio::test]
async fn invalid_bodies_are_answered_400() {
    let (server, mut witnesses) = start(Setup::default()).await;
    let name = "x".repeat(201);
    let channels: Vec<String> = (0..101).map(|number| format!("c{number}")).collect();
    let bodies: Vec<String> = vec![
        String::new(),
        "{".into(),
        "not json".into(),
        "\u{0}".into(),
        "[]".into(),
        "{}".into(),
        "[".repeat(20_000),
        json!({ "name": "a", "channel": "witness" }).to_string(),
        json!({ "name": "a", "data": "x" }).to_string(),
        json!({ "data": "x", "channel": "witness" }).to_string(),
        json!({ "name": 7, "data": "x", "channels": 7 }).to_string(),
        json!({ "name": "a", "data": "x", "channels": [7] }).to_string(),
        json!({ "name": "a", "data": "x", "channels": [] }).to_string(),
        json!({ "name": "a", "data": "x", "channels": channels }).to_string(),
        json!({ "name": "a", "data": "x", "channel": "bad channel" }).to_string(),
        json!({ "name": "a", "data": "x", "channel": name }).to_string(),
        json!({ "name": name, "data": "x", "channel": "witness" }).to_string(),
        json!({ "name": "", "data": "x", "channel": "witness" }).to_string(),
        json!({ "name": "pusher:error", "data": "x", "channel": "witness" }).to_string(),
        json!({ "name": "pusher_internal:member_added", "data": "x", "channel": "witness" }).to_string(),
        json!({ "name": "a", "data": "x", "channel": "witness", "socket_id": "1" }).to_string(),
        json!({ "name": "a", "data": "x", "channel": "witness", "socket_id": "1.2:x" }).to_string(),
        json!(["a", "x", "witness"]).to_string(),
        json!(["a", "x", "witness", null, null, null]).to_string(),
    ];
    for body in &bodies {
        let reply = Request::new("POST", EVENTS, body.as_bytes()).send(&server).await;
        let start: String = body.chars().take(100).collect();
        assert_eq!(reply.status, 400, "{start}: {}", reply.body);
        assert!(is_one_line(&reply), "{}", reply.body);
    }
    let reply = Request::new("POST", EVENTS, b"{\"name\":\"\xff\"}").send(&server).await;
    assert_eq!(reply.status, 400, "not UTF-8: {}", reply.body);
    witnesses.are_served(&server).await;
    server.stop().await;
}

#[tokio::test]
async fn batches_are_published_whole_or_not_at_all() {
    let (server, mut witnesses) = start(Setup::default()).await;
    let good = json!({ "name": "a", "data": "x", "channel": "witness" });
    let batch = async |events: Vec<Value>| server.post("/batch_events", &json!({ "batch": events })).await;
    assert_eq!(batch(vec![good.clone(); 11]).await.status.as_u16(), 400);
    assert_eq!(batch(vec![good.clone(), json!({ "name": "a", "channel": "witness" })]).await.status.as_u16(), 400);
    let large = json!({ "name": "a", "data": "x".repeat(10_241), "channel": "witness" });
    assert_eq!(batch(vec![good, large]).await.status.as_u16(), 413);
    assert_eq!(server.post("/batch_events", &json!({ "batch": 7 })).await.status.as_u16(), 400);
    assert_eq!(server.post("/batch_events", &json!({})).await.status.as_u16(), 400);
    // None of the valid events was published.
    witnesses.are_served(&server).await;
    server.stop().await;
}

#[tokio::test]
async fn oversize_bodies_and_data_are_answered_413() {
    let (server, mut witnesses) = start(Setup::default()).await;
    let fits = json!({ "name": "a", "data": "\"".repeat(10_240), "channel": "unheard" }).to_string();
    assert_eq!(Request::new("POST", EVENTS, fits.as_bytes()).send(&server).await.status, 200);
    let data = json!({ "name": "a", "data": "x".repeat(10_241), "channel": "unheard" }).to_string();
    assert_eq!(Request::new("POST", EVENTS, data.as_bytes()).send(&server).await.status, 413);
    let body = vec![b' '; 2 * 1024 * 1024];
    assert_eq!(Request::new("POST", EVENTS, &body).send(&server).await.status, 413);
    let target = format!("{EVENTS}?{}", signed_query(&server.app, "POST", EVENTS, &[], EVENT, now_s()));
    // The length is checked before the body. No body is sent here.
    let claim = server.http(&format!("POST {target} HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999\r\n\r\n")).await;
    assert_eq!(claim.status, 413, "{}", claim.body);
    let mut chunked = format!("POST {target} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").into_bytes();
    for _ in 0..64 {
        chunked.extend(format!("{:x}\r\n{}\r\n", 16 * 1024, " ".repeat(16 * 1024)).bytes());
    }
    assert_eq!(server.tcp().await.exchange(&chunked).await.status, 413, "a body without an announced length");
    witnesses.are_served(&server).await;
    server.stop().await;
}

#[tokio::test]
async fn an_unsigned_request_is_refused_before_its_body_arrives() {
    let server = Server::plain().await;
    let head = format!("POST {EVENTS} HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n");
    let reply = server.http(&head).await;
    assert_eq!((reply.status, reply.header("connection")), (401, Some("close")));
    server.stop().await;
}

#[tokio::test]
async fn queries_that_do_not_apply_to_a_channel_are_answered_400() {
    let server = Server::plain().await;
    for (path, query) in [
        ("/channels", "info=user_count"),
        ("/channels/news", "info=user_count"),
        ("/channels/news/users", ""),
        ("/channels/bad%20name", ""),
    ] {
        let params: Vec<(&str, &str)> = query.split('&').filter_map(|pair| pair.split_once('=')).collect();
        let reply = server.api_client().get(path, &params).await.expect("the server answers");
        assert_eq!(reply.status.as_u16(), 400, "{path}?{query}: {}", reply.body);
    }
    assert_eq!(server.get("/channels").await, json!({ "channels": {} }));
    assert_eq!(server.get("/channels/presence-a/users").await, json!({ "users": [] }));
    assert_eq!(server.get("/channels/news").await, json!({ "occupied": false }));
    server.stop().await;
}

#[tokio::test]
async fn garbage_instead_of_http_is_refused() {
    let (server, mut witnesses) = start(Setup::default()).await;
    let garbage: [&[u8]; 7] = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a TLS hello",
        b"hello\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nBad Header: x\r\n\r\n",
        b"GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\x00\x00\x00\x00\r\n\r\n",
    ];
    for bytes in garbage {
        let mut raw = server.tcp().await;
        raw.send(bytes).await;
        // A 400, or a close without a response.
        let reply = raw.until_end().await;
        let text = String::from_utf8_lossy(&reply);
        assert!(reply.is_empty() || text.starts_with("HTTP/1.1 400"), "{:?}: {text}", String::from_utf8_lossy(bytes));
        witnesses.are_served(&server).await;
    }
    server.stop().await;
}

#[tokio::test]
async fn request_heads_above_the_limit_are_answered_431() {
    let (server, mut witnesses) = start(Setup::default()).await;
    let large = format!("GET /up HTTP/1.1\r\nHost: a\r\nX-Large: {}\r\n\r\n", "x".repeat(64 * 1024));
    let many = format!("GET /up HTTP/1.1\r\nHost: a\r\n{}\r\n", "X-Many: 1\r\n".repeat(200));
    for request in [large, many] {
        assert_eq!(server.http(&request).await.status, 431);
        witnesses.are_served(&server).await;
    }
    let long_path = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(64 * 1024));
    let status = server.http(&long_path).await.status;
    assert!(matches!(status, 414 | 431), "{status}");
    witnesses.are_served(&server).await;
    server.stop().await;
}

#[tokio::test]
async fn a_connection_stays_open_for_the_next_request_after_a_refusal() {
    let server = Server::plain().await;
    let mut raw = server.tcp().await;
    let refused = raw.exchange(b"POST /apps/shop/events HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}").await;
    assert_eq!(refused.status, 401);
    assert_eq!(raw.exchange(b"GET /up HTTP/1.1\r\nHost: a\r\n\r\n").await.body, r#"{"health":"OK"}"#);
    server.stop().await;
}
