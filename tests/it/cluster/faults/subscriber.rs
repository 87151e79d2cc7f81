//! Faults of the connection on which a gateway receives events: broken, silent, or closed by Redis.

use std::time::{Duration, Instant};

use tests::proxy::{Mode, Scope};
use tests::{Cluster, Observer, Server, eventually, eventually_within};

use super::{ROOM, converge, live, mark, set};

/// The promise is fifteen seconds. The machine can be busy.
const NOTICED: Duration = Duration::from_secs(20);

const RECONNECTS: &str = "carillon_redis_reconnects_total";

async fn reconnects(gateway: &Server, reason: &str) -> f64 {
    gateway.metric(&format!("{RECONNECTS}{{reason=\"{reason}\"}}")).await
}

/// Two observers, and the changes on the far gateway while the near one receives no messages.
async fn observers(cluster: &Cluster) -> [Observer; 2] {
    let near = Observer::join(cluster.gateway(0), ROOM, "near").await;
    let far = Observer::join(cluster.gateway(1), ROOM, "far").await;
    let mut observers = [near, far];
    mark(cluster, &mut observers).await;
    observers
}

async fn expect_both_views(cluster: &Cluster, observers: &mut [Observer; 2], users: &[&str]) {
    cluster.users_become(ROOM, users).await;
    converge(cluster, observers, &set(users)).await;
}

/// While the gateway receives nothing, a member joins and a member leaves on the other one, and events are published.
async fn change_meanwhile(cluster: &Cluster) -> tests::TestClient {
    let mut comes = cluster.client(1).await;
    comes.join(ROOM, "comes").await;
    let mut passes = cluster.client(1).await;
    passes.join(ROOM, "passes").await;
    drop(passes);
    cluster.users_become(ROOM, &["near", "far", "comes"]).await;
    comes
}

#[tokio::test]
async fn a_broken_connection_is_restored_and_missed_changes_are_resynchronized() {
    let mut cluster = Cluster::start().proxied().await;
    let mut observers = observers(&cluster).await;
    // The gateway cannot reconnect at once. It therefore misses messages.
    cluster.gateway_proxy(0).set(Mode::Refuse).await;
    cluster.gateway_proxy(0).cut();
    cluster.gateway(0).metric_reaches("carillon_redis_subscriber_live", 0.0).await;
    let _comes = change_meanwhile(&cluster).await;
    cluster.gateway_proxy(0).set(Mode::Pass).await;
    live(&cluster).await;
    assert_eq!(reconnects(cluster.gateway(0), "disconnected").await, 1.0);
    assert_eq!(reconnects(cluster.gateway(1), "disconnected").await, 0.0);
    assert!(cluster.gateway(0).metric("carillon_redis_resubscribe_seconds_count").await >= 2.0);
    expect_both_views(&cluster, &mut observers, &["near", "far", "comes"]).await;
    cluster.stop().await;
}

#[tokio::test]
async fn thirty_broken_connections_in_a_row_lose_no_members() {
    let mut cluster = Cluster::start().proxied().await;
    let mut observers = observers(&cluster).await;
    for number in 0..30 {
        for gateway in 0..2 {
            cluster.gateway_proxy(gateway).cut();
        }
        let mut client = cluster.client(number % 2).await;
        client.join(ROOM, "passes").await;
        drop(client);
    }
    live(&cluster).await;
    expect_both_views(&cluster, &mut observers, &["near", "far"]).await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_half_open_connection_is_detected_and_replaced() {
    let mut cluster = Cluster::start().proxied().await;
    let mut observers = observers(&cluster).await;
    cluster.gateway_proxy(0).set(Mode::HalfOpen).await;
    let broken = Instant::now();
    let _comes = change_meanwhile(&cluster).await;
    let near = cluster.gateway(0);
    let noticed = async || near.metric("carillon_redis_subscriber_live").await == 0.0;
    eventually_within(NOTICED, "the fault is detected", noticed).await;
    println!("noticed after {:?}", broken.elapsed());
    assert_eq!(reconnects(near, "ping").await + reconnects(near, "probe").await, 1.0);
    assert_eq!(near.readiness().await, (200, "ok".into()), "the node assumes that Redis is unavailable to all");
    cluster.gateway_proxy(0).set(Mode::Pass).await;
    live(&cluster).await;
    expect_both_views(&cluster, &mut observers, &["near", "far", "comes"]).await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_node_disconnected_for_longer_than_its_lease_is_swept_and_registers_again() {
    let mut cluster = Cluster::start().proxied().await;
    let mut observers = observers(&cluster).await;
    cluster.gateway_proxy(0).set(Mode::HalfOpen).await;
    let only_far = set(&["far"]);
    let swept = async || cluster.users(ROOM).await == only_far;
    eventually_within(Duration::from_secs(40), "it is swept", swept).await;
    observers[0].client.settle().await;
    cluster.gateway_proxy(0).set(Mode::Pass).await;
    live(&cluster).await;
    expect_both_views(&cluster, &mut observers, &["near", "far"]).await;
    assert_eq!(cluster.gateway(0).metric("carillon_presence_fenced_total").await, 1.0);
    let expected = [(false, "near".to_owned()), (true, "near".to_owned())];
    assert_eq!(observers[1].take_changes(), expected);
    cluster.stop().await;
}

#[tokio::test]
async fn the_probe_detects_a_connection_that_answers_but_delivers_nothing() {
    let mut cluster = Cluster::start().proxied().await;
    let mut observers = observers(&cluster).await;
    cluster.gateway_proxy(0).set_for(Scope::Subscribers, Mode::DropPushes).await;
    let _comes = change_meanwhile(&cluster).await;
    let near = cluster.gateway(0);
    eventually_within(NOTICED, "the fault is detected", async || reconnects(near, "probe").await >= 1.0).await;
    cluster.gateway_proxy(0).set(Mode::Pass).await;
    live(&cluster).await;
    expect_both_views(&cluster, &mut observers, &["near", "far", "comes"]).await;
    cluster.stop().await;
}

#[tokio::test]
async fn the_gateway_resynchronizes_after_redis_closes_the_subscriber_for_its_output_buffer() {
    const MESSAGE_BYTES: usize = 100_000;
    let cluster = Cluster::start().await;
    let mut observers = observers(&cluster).await;
    let mut news = cluster.subscribers("news").await;
    cluster.redis.query::<()>(&["CONFIG", "SET", "client-output-buffer-limit", "pubsub 1mb 1mb 1"]).await;
    let subscribers = async || cluster.redis.run::<String>("CLIENT LIST TYPE pubsub").await.lines().count();
    assert_eq!(subscribers().await, 2);
    cluster.pause_gateway(0);
    let _comes = change_meanwhile(&cluster).await;
    let frame = format!(r#"{{"event":"large","channel":"news","data":"{}"}}"#, "x".repeat(MESSAGE_BYTES));
    let message = format!("1 E - - 0 -\n{frame}");
    let flood = async || {
        cluster.redis.publish("carillon:{0}:c:shop/news", message.as_bytes()).await;
        // The other gateway and its client receive everything.
        news[1].expect("large").await;
        subscribers().await == 1
    };
    let mut flood = flood;
    while !flood().await {}
    cluster.resume_gateway(0);
    eventually("the fault is detected", async || reconnects(cluster.gateway(0), "disconnected").await >= 1.0).await;
    live(&cluster).await;
    expect_both_views(&cluster, &mut observers, &["near", "far", "comes"]).await;
    cluster.publish("news", "received", "1").await;
    for client in &mut news {
        while client.next().await.event != "received" {}
    }
    assert_eq!(reconnects(cluster.gateway(1), "disconnected").await, 0.0);
    assert_eq!(cluster.gateway(0).metric("carillon_presence_fenced_total").await, 0.0);
    cluster.stop().await;
}
