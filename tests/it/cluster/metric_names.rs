//! Checks that a running cluster exports every metric of the rules and the dashboard in `deploy/`.

use std::collections::BTreeSet;

use client::ApiClient;
use serde_json::json;
use shared::secret::Secret;
use tests::command::workspace;
use tests::raw::Raw;
use tests::setup::app;
use tests::{Cluster, Receiver, Setup, eventually};

/// The labels that scrape configurations add to every series: those of the Prometheus operator and of Prometheus
/// itself, the `role` of the chart's ServiceMonitor, and common external labels. Prometheus renames a label of the same
/// name in a metric to `exported_…`. Rules and dashboards would not find it.
const LABELS_OF_SCRAPES: [&str; 12] = [
    "cluster",
    "container",
    "endpoint",
    "instance",
    "job",
    "namespace",
    "node",
    "pod",
    "prometheus",
    "prometheus_replica",
    "role",
    "service",
];

#[tokio::test]
async fn every_metric_of_the_rules_and_the_dashboard_is_exported() {
    let output = std::process::Command::new(workspace().join("deploy/metric-names.sh")).output().expect("a script");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let named: BTreeSet<String> = String::from_utf8(output.stdout).expect("names").lines().map(str::to_owned).collect();
    assert!(named.len() > 30, "{named:?}");
    assert!(named.contains("process_open_fds"), "the metrics of the process are included: {named:?}");

    let receiver = Receiver::start().await;
    let setup = Setup::default().limit("client_events_per_second = 1").more(&receiver.endpoint(""));
    let cluster = Cluster::start().setup(setup).await;
    let mut client = cluster.client(0).await;
    client.join("presence-room", "ana").await;
    // Counters by kind exist only after the first event of the kind.
    for _ in 0..5 {
        client.whisper("presence-room", "client-x", &json!({}));
    }
    client.expect_error().await;
    client.send("no JSON");
    client.send_event("pusher:subscribe", &json!({ "channel": "private-room", "auth": "wrong:wrong" }));
    let mut refused = Raw::connect(cluster.gateway(0).public).await;
    assert_eq!(refused.upgrade("/app/unknown?protocol=7", &[]).await.status, 101);
    refused.expect_close(4001).await;
    cluster.redis.publish("carillon:{0}:c:shop/presence-room", b"nonsense").await;
    let _: redis::Value = cluster.redis.run("SET carillon:{0}:pm:shop/presence-damaged nonsense").await;
    client.ask("presence-damaged", Some(&json!({ "user_id": "ana" })));
    let _: redis::Value = cluster.redis.run("CLIENT KILL TYPE pubsub").await;
    drop(cluster.client(0).await);
    let mut liar = app();
    liar.secret = Secret::new("another");
    let mut api = ApiClient::new(cluster.publisher().public.into(), liar);
    assert_eq!(api.get("/channels", &[]).await.expect("an answer").status, 401);
    cluster.publish("presence-room", "event", "data").await;
    receiver.events(2).await;

    let exported = async || {
        let mut names = BTreeSet::new();
        for server in cluster.servers() {
            names.extend(server.metrics().await.names().map(str::to_owned));
        }
        names
    };
    eventually("all are exported", async || {
        let exported = exported().await;
        let missing: Vec<&String> = named.iter().filter(|name| !exported.contains(*name)).collect();
        if !missing.is_empty() {
            eprintln!("missing: {missing:?}");
        }
        missing.is_empty()
    })
    .await;
    let mut labels = BTreeSet::new();
    for server in cluster.servers() {
        labels.extend(server.metrics().await.labels().map(str::to_owned));
    }
    for used in ["app", "route", "webhook_endpoint", "le"] {
        assert!(labels.contains(used), "{used} is not in {labels:?}");
    }
    let collisions: Vec<&str> = LABELS_OF_SCRAPES.into_iter().filter(|label| labels.contains(*label)).collect();
    assert!(collisions.is_empty(), "scrape configurations set these labels too: {collisions:?}");
    let publisher = cluster.publisher().metrics().await;
    let of_subscriber = ["carillon_redis_subscriber_live", "carillon_redis_subscribed_topics"];
    let zeros: Vec<&str> = publisher.names().filter(|name| of_subscriber.contains(name)).collect();
    assert!(zeros.is_empty(), "a publisher has no subscriptions and exports no metric of them: {zeros:?}");
    cluster.stop().await;
}
