//! The admin listener: metrics, health, and the absence of secrets.

use serde_json::json;
use tests::setup::APP_SECRET;
use tests::{Server, Setup, eventually};

/// The metrics that a single node without Redis and webhooks exports.
const REQUIRED: [&str; 27] = [
    "carillon_build_info",
    "carillon_connections",
    "carillon_connections_max",
    "carillon_descriptors_max",
    "carillon_connections_opened_total",
    "carillon_connections_closed_total",
    "carillon_handshakes_rejected_total",
    "carillon_subscriptions",
    "carillon_channels",
    "carillon_messages_received_total",
    "carillon_messages_sent_total",
    "carillon_received_bytes_total",
    "carillon_sent_bytes_total",
    "carillon_delivery_seconds",
    "carillon_fanout_subscribers",
    "carillon_outbox_bytes",
    "carillon_slow_consumers_total",
    "carillon_protocol_errors_total",
    "carillon_rate_limited_total",
    "carillon_auth_failures_total",
    "carillon_presence_members",
    "carillon_presence_joins_total",
    "carillon_presence_leaves_total",
    "carillon_publisher_requests_total",
    "carillon_publisher_request_seconds",
    "carillon_events_published_total",
    "carillon_event_loop_lag_seconds",
];

/// Sends valid and invalid requests of every kind, so that every counter has a series.
async fn use_everything(server: &Server) {
    let (mut ana, mut bo) = (server.client().await, server.client().await);
    ana.join("presence-room", "ana").await;
    bo.join("presence-room", "bo").await;
    ana.expect("pusher_internal:member_added").await;
    ana.whisper("presence-room", "client-hi", &json!("never-log-this-data"));
    bo.expect("client-hi").await;
    server.publish("presence-room", "hello", "never-log-this-data").await;
    for client in [&mut ana, &mut bo] {
        client.expect("hello").await;
        client.sign_in(&json!({ "id": "visitor" })).await;
    }
    ana.send("not json");
    ana.expect_error().await;
    let wrong = format!("shop-key:{}", "0".repeat(64));
    ana.send_event("pusher:subscribe", &json!({ "channel": "private-a", "auth": wrong }));
    ana.expect_refusal("private-a", 4009).await;
    ana.ask("presence-full", Some(&json!({ "user_id": "1", "user_info": "x".repeat(2_000) })));
    ana.expect_refusal("presence-full", 4301).await;
    ana.whisper("presence-room", "client-big", &json!("x".repeat(20_000)));
    ana.expect_error().await;
    let mut refused = server.tcp().await;
    refused.upgrade("/app/unknown", &[]).await;
    refused.expect_close(4001).await;
    assert_eq!(server.http("POST /apps/shop/events HTTP/1.1\r\nHost: a\r\n\r\n").await.status, 401);
    drop((ana, bo));
    server.metric_reaches("carillon_connections", 0.0).await;
}

#[tokio::test]
async fn metrics_are_valid_and_complete() {
    let server = Server::plain().await;
    use_everything(&server).await;
    let reply = server.admin_get("/metrics").await;
    assert!(reply.header("content-type").is_some_and(|kind| kind.starts_with("text/plain")), "{:?}", reply.headers);
    let metrics = server.metrics().await;
    let names: Vec<&str> = metrics.names().collect();
    for name in &names {
        assert!(name.starts_with("carillon_") || name.starts_with("process_"), "{name}");
    }
    let missing: Vec<&&str> = REQUIRED.iter().filter(|name| !names.contains(name)).collect();
    assert!(missing.is_empty(), "missing: {missing:?}");
    assert!(metrics.value("process_resident_memory_bytes") > 0.0);
    for label in ["presence-room", "private-a", "visitor", "client-hi"] {
        assert!(!reply.body.contains(label), "labels contain no names: {label}");
    }
    server.stop().await;
}

#[tokio::test]
async fn metrics_count_connections_and_messages() {
    let server = Server::plain().await;
    let mut clients = Vec::new();
    for number in 0..5 {
        let mut client = server.client().await;
        client.subscribe("news").await;
        client.join("presence-room", &number.to_string()).await;
        clients.push(client);
    }
    server.publish("news", "hello", "1").await;
    for (number, client) in clients.iter_mut().enumerate() {
        for _ in number..4 {
            client.expect("pusher_internal:member_added").await;
        }
        client.expect_event("news", "hello", "1").await;
    }
    let metrics = server.metrics().await;
    for (series, value) in [
        ("carillon_connections{app=\"shop\",transport=\"websocket\"}", 5.0),
        ("carillon_connections_opened_total{app=\"shop\",transport=\"websocket\"}", 5.0),
        ("carillon_subscriptions{kind=\"public\"}", 5.0),
        ("carillon_subscriptions{kind=\"presence\"}", 5.0),
        ("carillon_presence_members", 5.0),
        ("carillon_presence_joins_total", 5.0),
        ("carillon_presence_leaves_total", 0.0),
        ("carillon_messages_received_total{kind=\"subscribe\"}", 10.0),
        ("carillon_events_published_total{app=\"shop\"}", 1.0),
        ("carillon_publisher_requests_total{code=\"200\",route=\"events\"}", 1.0),
        ("carillon_slow_consumers_total", 0.0),
        ("carillon_outbox_bytes", 0.0),
    ] {
        assert_eq!(metrics.value(series), value, "{series}");
    }
    // 5 greetings, 10 responses, 10 notifications of added members, and the event to each client.
    assert_eq!(metrics.value("carillon_messages_sent_total"), 30.0);
    assert!(metrics.value("carillon_delivery_seconds_count") >= 1.0);
    drop(clients);
    server.metric_reaches("carillon_presence_leaves_total", 5.0).await;
    server.metric_reaches("carillon_connections_closed_total{code=\"1006\"}", 5.0).await;
    server.metric_reaches("carillon_channels", 0.0).await;
    server.stop().await;
}

#[tokio::test]
async fn the_ceilings_are_printed_and_exported() {
    let server = Server::plain().await;
    let metrics = server.metrics().await;
    let (connections, descriptors) =
        (metrics.value("carillon_connections_max"), metrics.value("carillon_descriptors_max"));
    let limit = format!("{connections} connections ({descriptors} descriptors)");
    assert!(server.banner.contains(&limit), "{limit} is not in the banner:\n{}", server.banner);
    assert!(connections < descriptors);
    assert_eq!(descriptors, metrics.value("process_max_fds"), "the exported limit is the one in effect");
    server.stop().await;

    let server = Server::start(Setup::default().server("connections_max = 7")).await;
    assert_eq!(server.metric("carillon_connections_max").await, 7.0);
    assert!(!server.stop().await.contains("descriptor limit is too low"));

    let server = Server::start(Setup::default().server("connections_max = 2000000")).await;
    assert_eq!(server.metric("carillon_connections_max").await, connections);
    let log = server.stop().await;
    assert!(
        log.contains("the descriptor limit is too low for server.connections_max") && log.contains("2000000"),
        "{log}"
    );
}

#[tokio::test]
async fn both_listeners_serve_the_health_check() {
    let server = Server::plain().await;
    eventually("ready", async || server.admin_get("/readyz").await.status == 200).await;
    assert_eq!(server.admin_get("/livez").await.status, 200);
    assert_eq!(server.admin_get("/").await.status, 404);
    let up = server.http("GET /up HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!((up.status, up.body.as_str()), (200, r#"{"health":"OK"}"#));
    assert_eq!(up.header("content-type"), Some("application/json"));
    let head = server.tcp().await.request_head("/up").await;
    assert_eq!(head.status, 200);
    let post = tests::Raw::connect(server.admin).await.exchange(b"POST /metrics HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(post.status, 405);
    server.stop().await;
}

#[tokio::test]
async fn metrics_and_logs_contain_no_secrets_and_no_event_data() {
    for (flag, level) in [("--debug", "info"), ("--debug", "trace")] {
        let server = Server::start(Setup::default().more(&format!("[log]\nlevel = \"{level}\"")).flag(flag)).await;
        use_everything(&server).await;
        let metrics = server.admin_get("/metrics").await.body;
        assert!(!server.banner.contains(APP_SECRET), "in the banner");
        let log = server.stop().await;
        assert!(log.contains("Event published"), "the log is on: {log}");
        for forbidden in [APP_SECRET, "never-log-this-data"] {
            assert!(!metrics.contains(forbidden), "{forbidden} in the metrics");
            assert!(!log.contains(forbidden), "{forbidden} in the log at {level}:\n{log}");
        }
        if level == "info" {
            assert!(!log.contains("auth_signature"), "{log}");
            assert!(!log.contains(&"0".repeat(64)), "a signature in the log:\n{log}");
        }
    }
}
