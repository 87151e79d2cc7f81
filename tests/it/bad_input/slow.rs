//! Slow clients. Each of them takes 10 s, so all of them share one test.

use std::time::Duration;

use shared::auth::request::signed_query;
use shared::cluster::envelope::unix_us;
use tests::Setup;
use tests::raw::time_to_end;

use super::start;

#[tokio::test]
async fn slow_connections_are_closed() {
    let (server, mut witnesses) = start(Setup::default()).await;
    let head = format!("{}X-Slow: {}", tests::raw::handshake("/app/shop-key"), "x".repeat(60));
    let partial_head = b"GET /app/shop-key HTTP/1.1\r\nHost: te";
    let body = br#"{"name":"a","channel":"b","data":"c"}"#;
    let query = signed_query(&server.app, "POST", "/apps/shop/events", &[], body, unix_us() / 1_000_000);
    let length = body.len();
    let body_head = format!("POST /apps/shop/events?{query} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");

    let (mut halted, mut slow_body) = (server.tcp().await, server.tcp().await);
    halted.send(partial_head).await;
    slow_body.send(body_head.as_bytes()).await;
    slow_body.send(&body[..5]).await;
    let admin = tests::Raw::connect(server.admin).await;
    let (dripping, silent) = (server.tcp().await, server.tcp().await);
    let (dripping, halted, silent, admin, reply) = tokio::join!(
        time_to_end(dripping, Some(head.as_bytes())),
        time_to_end(halted, None),
        time_to_end(silent, None),
        time_to_end(admin, Some(head.as_bytes())),
        slow_body.http_reply(),
    );
    for (what, took) in [
        ("a head byte by byte", dripping),
        ("half a head", halted),
        ("nothing at all", silent),
        ("a head byte by byte to the admin listener", admin),
    ] {
        assert!((Duration::from_secs(8)..Duration::from_secs(15)).contains(&took), "{what}: ended after {took:?}");
    }
    assert_eq!(reply.status, 408, "{}", reply.body);
    witnesses.are_served(&server).await;
    server.stop().await;
}
