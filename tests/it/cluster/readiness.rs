//! The readiness of nodes while Redis is available, unavailable, or partly available.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;
use shared::auth::request::signed_query;
use shared::cluster::envelope::unix_us;
use tests::proxy::{Mode, Scope};
use tests::raw::HttpReply;
use tests::{Cluster, Raw, Server, Setup, eventually};

/// Sends a signed publish and returns the response with its headers.
async fn publish_raw(server: &Server) -> HttpReply {
    const BODY: &[u8] = br#"{"name":"e","channel":"news","data":"1"}"#;
    let query = signed_query(&server.app, "POST", "/apps/shop/events", &[], BODY, unix_us() / 1_000_000);
    let head = format!("POST /apps/shop/events?{query} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", BODY.len());
    let mut raw = Raw::connect(server.public).await;
    raw.exchange(&[head.as_bytes(), BODY].concat()).await
}

async fn expect_unavailable(server: &Server) {
    let reply = publish_raw(server).await;
    assert_eq!(reply.status, 503, "{}", reply.body);
    let wait = reply.header("retry-after").and_then(|seconds| seconds.parse::<u32>().ok());
    assert!(wait.is_some_and(|seconds| seconds > 0), "{:?}", reply.headers);
}

async fn redis_is_unavailable_at_the_start(cluster: Cluster) {
    let mut cluster = cluster;
    for server in cluster.servers() {
        eventually("the message is in the log", async || server.log().contains("redis is unreachable")).await;
        let (status, reason) = server.readiness().await;
        assert!(status == 503 && reason.contains("redis"), "{status} {reason}");
        assert_eq!(server.admin_get("/livez").await.status, 200);
        assert_eq!(server.metric("carillon_redis_up").await, 0.0);
    }
    // No node serves clients alone: a subscription waits, and a publish is refused although a socket is on this node.
    let mut client = cluster.client(0).await;
    client.ask("news", None);
    client.ask("presence-room", Some(&json!({ "user_id": "ana" })));
    client.settle().await;
    expect_unavailable(cluster.publisher()).await;
    let reply = cluster.publisher().api_client().get("/channels", &[]).await.expect("an answer");
    assert_eq!(reply.status.as_u16(), 503, "{}", reply.body);
    client.settle().await;

    cluster.redis.start_again().await;
    cluster.ready().await;
    let mut answered = Vec::new();
    for _ in 0..2 {
        answered.push(client.expect("pusher_internal:subscription_succeeded").await.channel);
    }
    answered.sort();
    assert_eq!(answered, [Some("news".to_owned()), Some("presence-room".to_owned())]);
    cluster.publish("news", "e", "1").await;
    client.expect_event("news", "e", "1").await;
    for server in cluster.servers() {
        server.metric_reaches("carillon_redis_up", 1.0).await;
    }
    cluster.stop().await;
}

#[tokio::test]
async fn nodes_without_redis_are_not_ready_until_it_is_available() {
    redis_is_unavailable_at_the_start(Cluster::start().without_redis().await).await;
}

#[tokio::test]
async fn a_node_of_both_roles_without_redis_does_not_run_as_a_single_server() {
    redis_is_unavailable_at_the_start(Cluster::start().of_whole_nodes(1).without_redis().await).await;
}

#[tokio::test]
async fn every_node_stays_ready_while_redis_is_unavailable_to_all() {
    let mut cluster = Cluster::start().await;
    let mut client = cluster.client(0).await;
    client.subscribe("news").await;
    cluster.redis.kill().await;
    for server in cluster.servers() {
        server.metric_reaches("carillon_redis_up", 0.0).await;
    }
    // Long enough for every task of a node to run into the fault.
    let until = tokio::time::Instant::now() + Duration::from_secs(7);
    while tokio::time::Instant::now() < until {
        for server in cluster.servers() {
            assert_eq!(server.readiness().await, (200, "ok".into()));
            assert_eq!(server.admin_get("/livez").await.status, 200);
        }
        expect_unavailable(cluster.publisher()).await;
        client.settle().await;
    }
    cluster.redis.start_again().await;
    for server in cluster.servers() {
        server.metric_reaches("carillon_redis_up", 1.0).await;
    }
    eventually("published", async || cluster.try_publish("news", "e", "1").await.status.as_u16() == 200).await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_gateway_that_alone_receives_nothing_is_not_ready_until_it_receives_again() {
    let mut cluster = Cluster::start().proxied().await;
    let mut clients = cluster.subscribers("news").await;
    cluster.gateway_proxy(0).set_for(Scope::Subscribers, Mode::HalfOpen).await;
    let silent = cluster.gateway(0);
    eventually("not ready", async || silent.readiness().await.0 == 503).await;
    let (_, reason) = silent.readiness().await;
    assert!(reason.contains("subscription") && reason.contains("redis"), "{reason}");
    assert_eq!(silent.admin_get("/livez").await.status, 200);
    silent.metric_reaches("carillon_redis_subscriber_live", 0.0).await;
    assert_eq!(cluster.gateway(1).readiness().await.0, 200);
    assert_eq!(cluster.publisher().readiness().await.0, 200);
    cluster.publish("news", "missed", "1").await;
    clients[1].expect_event("news", "missed", "1").await;
    clients[0].settle().await;
    cluster.gateway_proxy(0).set(Mode::Pass).await;
    cluster.gateway(0).ready().await;
    cluster.publish("news", "received", "2").await;
    for client in &mut clients {
        client.expect_event("news", "received", "2").await;
    }
    cluster.stop().await;
}

#[tokio::test]
async fn a_draining_node_is_not_ready() {
    let mut cluster =
        Cluster::start().setup(Setup::default().drain("accept = \"2s\"").drain("window = \"100ms\"")).await;
    let mut client = cluster.client(0).await;
    client.subscribe("news").await;
    let gateway = cluster.gateway(0);
    gateway.signal(Signal::TERM);
    eventually("not ready", async || gateway.readiness().await == (503, "draining".into())).await;
    assert_eq!(gateway.admin_get("/livez").await.status, 200);
    cluster.publish("news", "e", "1").await;
    client.expect_event("news", "e", "1").await;
    client.expect_close(4200).await;
    // The gateway has received its signal. A second one would end it at once.
    cluster.gateway_ends(0).await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_gateway_shuts_down_in_time_while_redis_is_unavailable() {
    let mut cluster = Cluster::start().setup(Setup::default().drain("window = \"100ms\"")).await;
    let mut clients = Vec::new();
    for number in 0..20 {
        let mut client = cluster.client(0).await;
        client.join("presence-room", &number.to_string()).await;
        clients.push(client);
    }
    cluster.redis.kill().await;
    cluster.stop_gateway(0).await;
    cluster.stop_publisher(0).await;
    cluster.stop().await;
}
