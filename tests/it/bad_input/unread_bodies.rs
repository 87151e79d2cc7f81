//! Refused requests with bodies. Neither the refusal nor the next request on the connection can be lost.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use shared::auth::request::signed_query;
use shared::cluster::envelope::unix_us;
use tests::nginx::Nginx;
use tests::raw::{HttpReply, Raw};
use tests::server::{Launch, Role};
use tests::{Redis, Server, Setup, command, within};
use tokio::io::AsyncWriteExt;

use super::start;

const EVENTS: &str = "/apps/shop/events";
const EVENT: &str = r#"{"name":"hello","channel":"unheard","data":"x"}"#;

/// Returns the head of a publish of `body` without its length. `edit` changes the query.
fn head(server: &Server, body: &[u8], edit: impl Fn(String) -> String) -> String {
    let query = signed_query(&server.app, "POST", EVENTS, &[], body, unix_us() / 1_000_000);
    format!("POST {EVENTS}?{} HTTP/1.1\r\nHost: test\r\n", edit(query))
}

/// Returns a publish that is accepted.
fn good(server: &Server) -> Vec<u8> {
    let head = head(server, EVENT.as_bytes(), |query| query);
    format!("{head}Content-Length: {}\r\n\r\n{EVENT}", EVENT.len()).into_bytes()
}

/// Returns a publish that is signed with another secret.
fn forged(query: String) -> String {
    query.replace("auth_signature=", "auth_signature=00").chars().take(query.len()).collect()
}

/// Sends a head, its body a moment later, and then a valid publish. Returns both responses.
async fn refused_then_good(server: &Server, head: &str, body: &[u8]) -> (HttpReply, HttpReply) {
    let mut raw = server.tcp().await;
    raw.send(format!("{head}Content-Length: {}\r\n\r\n", body.len()).as_bytes()).await;
    // Two packets, like those of a client that writes head and body with two calls.
    tokio::time::sleep(Duration::from_millis(20)).await;
    raw.send(body).await;
    let refused = raw.http_reply().await;
    (refused, raw.exchange(&good(server)).await)
}

async fn a_request_after_a_refusal_is_answered(server: &Server) {
    let body = vec![b'x'; 30 * 1024];
    let other_app = head(server, &body, |query| query).replace("/apps/shop/", "/apps/unknown/");
    let put = head(server, &body, |query| query).replace("POST", "PUT");
    let get = "GET /nothing HTTP/1.1\r\nHost: test\r\n".to_owned();
    for (head, status) in [
        (head(server, &body, forged), 401),
        (head(server, &body, |_| String::new()), 401),
        (head(server, b"", |query| query), 401),
        (other_app, 404),
        (put, 405),
        (head(server, &body, |query| query), 400),
        (get, 404),
    ] {
        let (refused, good) = refused_then_good(server, &head, &body).await;
        assert_eq!((refused.status, good.status), (status, 200), "{head}: {}, {}", refused.body, good.body);
        assert_eq!(refused.header("connection"), None, "{head}");
    }
}

#[tokio::test]
async fn both_roles_serve_the_next_request_on_a_connection_after_a_refusal() {
    let (server, mut witnesses) = start(Setup::default()).await;
    a_request_after_a_refusal_is_answered(&server).await;
    witnesses.are_served(&server).await;
    server.stop().await;
    let redis = Redis::start().await;
    let setup = Setup::default().redis(&format!("url = {:?}", redis.url()));
    let publisher = Launch::new(Role::Publisher).setup(&setup).start().await;
    publisher.ready().await;
    a_request_after_a_refusal_is_answered(&publisher).await;
    publisher.stop().await;
}

#[tokio::test]
async fn refusals_on_other_paths_lose_no_request() {
    let server = Server::start(Setup::default().limit("events_per_second = 1")).await;
    let body = vec![b'x'; 30 * 1024];
    let up = b"GET /up HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n";
    for (target, status) in [
        ("POST /pusher/app/shop-key/1/a/xhr_send", 404),
        ("POST /pusher/app/unknown/1/a/xhr_send", 404),
        ("PUT /pusher/app/shop-key/1/a/xhr", 405),
        ("POST /pusher/app/shop-key/1/a/nothing", 404),
    ] {
        let mut raw = server.tcp().await;
        raw.send(format!("{target} HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes()).await;
        raw.send(&body).await;
        assert_eq!(raw.http_reply().await.status, status, "{target}");
        assert_eq!(raw.exchange(up).await.status, 200, "{target}");
    }
    // An app above its rate receives 429, and the connection stays open.
    let mut raw = server.tcp().await;
    let mut statuses = Vec::new();
    for _ in 0..5 {
        statuses.push(raw.exchange(&good(&server)).await.status);
    }
    assert!(statuses.starts_with(&[200, 429]), "{statuses:?}");
    assert_eq!(raw.exchange(up).await.status, 200);
    server.stop().await;
}

#[tokio::test]
async fn pipelined_requests_behind_a_refused_one_are_answered() {
    let server = Server::plain().await;
    let body = "x".repeat(1000);
    let mut requests = Vec::new();
    for _ in 0..10 {
        let head = head(&server, body.as_bytes(), forged);
        requests.extend(format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).bytes());
        requests.extend(good(&server));
    }
    let mut raw = server.tcp().await;
    raw.send(&requests).await;
    for _ in 0..10 {
        assert_eq!((raw.http_reply().await.status, raw.http_reply().await.status), (401, 200));
    }
    server.stop().await;
}

#[tokio::test]
async fn refused_chunked_bodies_are_read_to_their_end() {
    let server = Server::plain().await;
    let chunk = format!("400\r\n{}\r\n", "x".repeat(0x400));
    let head = format!("{}Transfer-Encoding: chunked\r\n\r\n", head(&server, b"", forged));
    let mut raw = server.tcp().await;
    raw.send(format!("{head}{}0\r\nTrailer: x\r\n\r\n", chunk.repeat(20)).as_bytes()).await;
    let refused = raw.http_reply().await;
    assert_eq!((refused.status, refused.header("connection")), (401, None));
    assert_eq!(raw.exchange(&good(&server)).await.status, 200);
    // A truncated body and an invalid body end the connection with the response.
    for rest in ["", "5\r\nxx", "nonsense\r\n"] {
        let mut raw = server.tcp().await;
        raw.send(format!("{head}{chunk}{rest}").as_bytes()).await;
        raw.stream.shutdown().await.expect("the connection is open");
        let refused = raw.http_reply().await;
        assert_eq!((refused.status, refused.header("connection")), (401, Some("close")), "{rest:?}");
        assert_eq!(raw.until_end().await, b"");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_body_that_is_too_large_closes_the_connection_after_the_response() {
    let server = Server::plain().await;
    let body = vec![b' '; 8 * 1024 * 1024];
    for (edit, status) in [(forged as fn(String) -> String, 401), (|query| query, 413)] {
        let mut raw = server.tcp().await;
        raw.send(format!("{}Content-Length: {}\r\n\r\n", head(&server, &body, edit), body.len()).as_bytes()).await;
        // The client writes the whole body before it reads. The server must read all of it.
        within("writing a large body", raw.stream.write_all(&body)).await.expect("no reset");
        let refused = raw.http_reply().await;
        assert_eq!((refused.status, refused.header("connection")), (status, Some("close")), "{}", refused.body);
        assert_eq!(raw.until_end().await, b"");
    }
    // An excessive announced length is refused without a body.
    let mut raw = server.tcp().await;
    raw.send(format!("{}Content-Length: 99999999999\r\n\r\n", head(&server, b"", forged)).as_bytes()).await;
    let refused = raw.http_reply().await;
    assert_eq!((refused.status, refused.header("connection")), (401, Some("close")));
    server.stop().await;
}

#[tokio::test]
async fn a_body_that_does_not_arrive_closes_the_connection_after_the_response() {
    let server = Server::plain().await;
    let mut raw = server.tcp().await;
    raw.send(format!("{}Content-Length: 100\r\n\r\nbeginning", head(&server, b"", forged)).as_bytes()).await;
    let refused = raw.http_reply().await;
    assert_eq!((refused.status, refused.header("connection")), (401, Some("close")));
    assert_eq!(raw.until_end().await, b"");
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_waits_for_100_continue_is_refused_without_it() {
    let server = Server::plain().await;
    let expect = |head: String| format!("{head}Expect: 100-continue\r\nContent-Length: {}\r\n\r\n", EVENT.len());
    let mut raw = server.tcp().await;
    raw.send(expect(head(&server, EVENT.as_bytes(), forged)).as_bytes()).await;
    let refused = raw.http_reply().await;
    assert_eq!((refused.status, refused.header("connection")), (401, Some("close")));
    // A client that does not wait also receives its response.
    let mut raw = server.tcp().await;
    raw.send((expect(head(&server, EVENT.as_bytes(), forged)) + EVENT).as_bytes()).await;
    assert_eq!(raw.http_reply().await.status, 401);
    let mut raw = server.tcp().await;
    raw.send(expect(head(&server, EVENT.as_bytes(), |query| query)).as_bytes()).await;
    assert_eq!(raw.take_head().await.status, 100);
    assert_eq!(raw.exchange(EVENT.as_bytes()).await.status, 200);
    server.stop().await;
}

#[tokio::test]
async fn http_1_0_gets_its_responses() {
    let server = Server::plain().await;
    for (edit, status) in [(forged as fn(String) -> String, 401), (|query| query, 200)] {
        let head = head(&server, EVENT.as_bytes(), edit).replace("HTTP/1.1", "HTTP/1.0");
        let mut raw = server.tcp().await;
        raw.send(format!("{head}Content-Length: {}\r\n\r\n", EVENT.len()).as_bytes()).await;
        raw.send(EVENT.as_bytes()).await;
        assert_eq!(raw.http_reply().await.status, status);
        assert_eq!(raw.until_end().await, b"");
    }
    server.stop().await;
}

#[tokio::test]
async fn many_unauthenticated_bodies_use_no_memory() {
    let (server, mut witnesses) = start(Setup::default()).await;
    let before = server.resident_bytes();
    let body = vec![b'x'; 500 * 1024];
    let mut clients = Vec::new();
    for number in 0..100 {
        let head = match number % 3 {
            0 => head(&server, &body, forged),
            1 => "POST /apps/unknown/events HTTP/1.1\r\nHost: test\r\n".to_owned(),
            _ => "POST /pusher/app/shop-key/1/a/xhr_send HTTP/1.1\r\nHost: test\r\n".to_owned(),
        };
        let mut raw = server.tcp().await;
        raw.send(format!("{head}Content-Length: {}\r\n\r\n", body.len()).as_bytes()).await;
        raw.send(&body[..400 * 1024]).await;
        clients.push(raw);
    }
    let grown = server.resident_bytes().saturating_sub(before);
    assert!(grown < 20 * 1024 * 1024, "{grown} bytes for bodies of 40 MiB");
    witnesses.are_served(&server).await;
    for mut raw in clients {
        raw.send(&body[400 * 1024..]).await;
        let status = raw.http_reply().await.status;
        assert!(matches!(status, 401 | 404), "{status}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_half_closed_request_is_answered_by_every_listener() {
    let server = Server::plain().await;
    let half_closed = async |mut raw: Raw, request: &[u8]| {
        raw.send(request).await;
        raw.stream.shutdown().await.expect("the connection is open");
        let reply = raw.http_reply().await;
        assert_eq!(raw.until_end().await, b"", "then the server closes its side");
        reply
    };
    let get = b"GET /up HTTP/1.1\r\nHost: test\r\n\r\n";
    assert_eq!(half_closed(server.tcp().await, get).await.body, r#"{"health":"OK"}"#);
    assert_eq!(half_closed(server.tcp().await, &good(&server)).await.body, "{}");
    let forged = format!("{}Content-Length: 3\r\n\r\nabc", head(&server, b"abc", forged));
    assert_eq!(half_closed(server.tcp().await, forged.as_bytes()).await.status, 401);
    let cut = format!("{}Content-Length: 30\r\n\r\nabc", head(&server, b"abc", |query| query));
    assert_eq!(half_closed(server.tcp().await, cut.as_bytes()).await.status, 400);
    let metrics = b"GET /metrics HTTP/1.1\r\nHost: test\r\n\r\n";
    let reply = half_closed(Raw::connect(server.admin).await, metrics).await;
    assert!(reply.status == 200 && reply.body.contains("carillon_connections"), "{}", reply.status);
    let two = b"GET /nothing HTTP/1.1\r\nHost: test\r\n\r\n".repeat(2);
    let mut raw = server.tcp().await;
    raw.send(&two).await;
    raw.stream.shutdown().await.expect("the connection is open");
    for _ in 0..2 {
        assert_eq!(raw.http_reply().await.status, 404);
    }
    // A half-closed HTTP client receives its responses. A WebSocket needs both directions and is closed.
    for (verb, name) in [("xhr", "a"), ("xhr_streaming", "b")] {
        let open =
            format!("POST /pusher/app/shop-key/1/{name}/{verb} HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n");
        let mut raw = server.tcp().await;
        raw.send(open.as_bytes()).await;
        raw.stream.shutdown().await.expect("the connection is open");
        let text = String::from_utf8(raw.until_end().await).expect("text");
        assert!(text.starts_with("HTTP/1.1 200") && text.contains("connection_established"), "{verb}: {text}");
    }
    let mut raw = server.tcp().await;
    raw.send((tests::raw::handshake("/app/shop-key?protocol=7") + "\r\n").as_bytes()).await;
    raw.stream.shutdown().await.expect("the connection is open");
    assert_eq!(raw.take_head().await.status, 101);
    assert_eq!(raw.message().await["event"], "pusher:connection_established");
    assert_eq!(raw.until_end().await, b"");
    server.metric_reaches("carillon_connections", 0.0).await;
    server.stop().await;
}

#[tokio::test]
async fn a_page_closed_during_a_poll_is_soon_disconnected() {
    let server = Server::plain().await;
    let session = tests::fallback::HttpSession::new(&server);
    session.open_poll().await;
    let mut raw = server.tcp().await;
    raw.send(session.request(tests::fallback::Transport::Poll).as_bytes()).await;
    server.metric_reaches("carillon_fallback_requests_total{kind=\"receive\"}", 2.0).await;
    drop(raw);
    server.metric_reaches("carillon_connections", 0.0).await;
    server.stop().await;
}

/// Refused requests of one application do not affect another one behind a proxy that shares connections.
#[tokio::test]
async fn refused_requests_through_nginx_do_not_affect_other_requests() {
    let server = Server::start(Setup::default().server("trusted_proxies = [\"127.0.0.1\"]")).await;
    let nginx = Nginx::start(IpAddr::V4(Ipv4Addr::LOCALHOST), 0, &[server.public], &[server.public]).await;
    let large = vec![b'x'; 300 * 1024];
    let noisy = async {
        let mut refused = 0;
        for number in 0..60 {
            let size = [300 * 1024, 30 * 1024, 100][number % 3];
            let head = head(&server, &large[..size], forged);
            let mut raw = Raw::connect(nginx.address).await;
            let request = format!("{head}Content-Length: {size}\r\n\r\n").into_bytes();
            let reply = raw.exchange(&[&request, &large[..size]].concat()).await;
            assert_eq!(reply.status, 401, "{}", reply.body);
            refused += 1;
        }
        refused
    };
    let quiet = async {
        let mut raw = Raw::connect(nginx.address).await;
        let mut accepted = 0;
        for _ in 0..200 {
            let reply = raw.exchange(&good(&server)).await;
            assert_eq!(reply.status, 200, "after {accepted}: {}", reply.body);
            accepted += 1;
        }
        accepted
    };
    assert_eq!(tokio::join!(noisy, quiet), (60, 200));
    nginx.stop().await;
    server.stop().await;
}

/// The HTTP client of Node with a persistent connection. A valid publish must arrive after each refused one.
const KEEP_ALIVE: &str = r#"
import http from 'node:http'
const [port, wrong, good, body] = process.argv.slice(2)
const agent = new http.Agent({ keepAlive: true, maxSockets: 1 })
const post = (path, data) => new Promise((resolve, reject) => {
    const headers = { 'content-type': 'application/json', 'content-length': Buffer.byteLength(data) }
    const request = http.request({ port, host: '127.0.0.1', path, method: 'POST', agent, headers }, (response) => {
        response.resume().on('end', () => resolve(response.statusCode)).on('error', reject)
    })
    request.on('error', reject)
    request.flushHeaders()
    setTimeout(() => request.end(data), 5)
})
let arrived = 0
for (let round = 0; round < 20; round++) {
    const refused = await post(wrong, 'x'.repeat(30_000))
    if (refused !== 401) throw new Error(`status ${refused}`)
    if (await post(good, body) === 200) arrived++
}
console.log(arrived)
agent.destroy()
"#;

#[tokio::test]
async fn a_keep_alive_agent_of_node_loses_no_event() {
    let server = Server::plain().await;
    let mut client = server.client().await;
    client.subscribe("unheard").await;
    let folder = tempfile::tempdir().expect("a folder");
    let script = folder.path().join("agent.mjs");
    std::fs::write(&script, KEEP_ALIVE).expect("a file in the folder");
    let target = |edit: fn(String) -> String| {
        let head = head(&server, EVENT.as_bytes(), edit);
        head.split(' ').nth(1).expect("a target").to_owned()
    };
    let mut node = command::tied(Path::new("node"));
    node.arg(&script).arg(server.public.port().to_string());
    node.args([&target(forged), &target(|query| query), &EVENT.to_owned()]);
    node.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = within("node", node.output()).await.expect("node is installed");
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(text.trim(), "20", "{}", String::from_utf8_lossy(&output.stderr));
    for _ in 0..20 {
        client.expect_event("unheard", "hello", "x").await;
    }
    server.stop().await;
}
