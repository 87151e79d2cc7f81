//! The connection on which a gateway hears is cut, goes dead, or is ended by Redis.

use std::time::{Duration, Instant};

use tests::proxy::{Mode, Whom};
use tests::{Cluster, Observer, Server, eventually, eventually_within};

use super::{ROOM, converge, live, mark, set};

/// Fifteen seconds are promised; the machine may be busy.
const NOTICED: Duration = Duration::from_secs(20);

const RECONNECTS: &str = "carillon_redis_reconnects_total";

async fn reconnects(gateway: &Server, reason: &str) -> f64 {
    gateway.metric(&format!("{RECONNECTS}{{reason=\"{reason}\"}}")).await
}

/// Two observers, and what happens on the far gateway while the near one hears nothing.
async fn observers(cluster: &Cluster) -> [Observer; 2] {
    let near = Observer::join(cluster.gateway(0), ROOM, "near").await;
    let far = Observer::join(cluster.gateway(1), ROOM, "far").await;
    let mut observers = [near, far];
    mark(cluster, &mut observers).await;
    observers
}

async fn expect_both_know(cluster: &Cluster, observers: &mut [Observer; 2], users: &[&str]) {
    cluster.users_become(ROOM, users).await;
    converge(cluster, observers, &set(users)).await;
}

/// While the gateway is deaf: one member comes and one goes elsewhere, and events are published.
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
async fn a_connection_that_is_cut_is_made_again_and_what_was_missed_is_made_up_for() {
    let mut cluster = Cluster::start().proxied().await;
    let mut observers = observers(&cluster).await;
    // While it cannot come back at once, there is something to miss.
    cluster.gateway_proxy(0).set(Mode::Refuse).await;
    cluster.gateway_proxy(0).cut();
    cluster.gateway(0).metric_reaches("carillon_redis_subscriber_live", 0.0).await;
    let _comes = change_meanwhile(&cluster).await;
    cluster.gateway_proxy(0).set(Mode::Pass).await;
    live(&cluster).await;
    assert_eq!(reconnects(cluster.gateway(0), "disconnected").await, 1.0);
    assert_eq!(reconnects(cluster.gateway(1), "disconnected").await, 0.0);
    assert!(cluster.gateway(0).metric("carillon_redis_resubscribe_seconds_count").await >= 2.0);
    expect_both_know(&cluster, &mut observers, &["near", "far", "comes"]).await;
    cluster.stop().await;
}

#[tokio::test]
async fn thirty_cuts_in_a_row_lose_nobody() {
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
    expect_both_know(&cluster, &mut observers, &["near", "far"]).await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_half_open_connection_is_noticed_and_made_again() {
    let mut cluster = Cluster::start().proxied().await;
    let mut observers = observers(&cluster).await;
    cluster.gateway_proxy(0).set(Mode::HalfOpen).await;
    let broken = Instant::now();
    let _comes = change_meanwhile(&cluster).await;
    let near = cluster.gateway(0);
    let noticed = async || near.metric("carillon_redis_subscriber_live").await == 0.0;
    eventually_within(NOTICED, "noticed", noticed).await;
    println!("noticed after {:?}", broken.elapsed());
    assert_eq!(reconnects(near, "ping").await + reconnects(near, "probe").await, 1.0);
    assert_eq!(near.readiness().await, (200, "ok".into()), "for all it knows Redis is away as a whole");
    cluster.gateway_proxy(0).set(Mode::Pass).await;
    live(&cluster).await;
    expect_both_know(&cluster, &mut observers, &["near", "far", "comes"]).await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_node_cut_off_for_longer_than_its_lease_is_swept_and_comes_back() {
    let mut cluster = Cluster::start().proxied().await;
    let mut observers = observers(&cluster).await;
    cluster.gateway_proxy(0).set(Mode::HalfOpen).await;
    let only_far = set(&["far"]);
    let swept = async || cluster.users(ROOM).await == only_far;
    eventually_within(Duration::from_secs(40), "it is swept", swept).await;
    observers[0].client.settle().await;
    cluster.gateway_proxy(0).set(Mode::Pass).await;
    live(&cluster).await;
    expect_both_know(&cluster, &mut observers, &["near", "far"]).await;
    assert_eq!(cluster.gateway(0).metric("carillon_presence_fenced_total").await, 1.0);
    let expected = [(false, "near".to_owned()), (true, "near".to_owned())];
    assert_eq!(observers[1].take_changes(), expected);
    cluster.stop().await;
}

#[tokio::test]
async fn a_connection_that_answers_but_delivers_nothing_is_found_out_by_the_probe() {
    let mut cluster = Cluster::start().proxied().await;
    let mut observers = observers(&cluster).await;
    cluster.gateway_proxy(0).set_for(Whom::Subscribers, Mode::Mute).await;
    let _comes = change_meanwhile(&cluster).await;
    let near = cluster.gateway(0);
    eventually_within(NOTICED, "noticed", async || reconnects(near, "probe").await >= 1.0).await;
    cluster.gateway_proxy(0).set(Mode::Pass).await;
    live(&cluster).await;
    expect_both_know(&cluster, &mut observers, &["near", "far", "comes"]).await;
    cluster.stop().await;
}

#[tokio::test]
async fn redis_ends_the_subscriber_for_its_output_buffer_and_the_gateway_makes_up_for_it() {
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
        // The other gateway keeps up, and so does its client.
        news[1].expect("large").await;
        subscribers().await == 1
    };
    let mut flood = flood;
    while !flood().await {}
    cluster.resume_gateway(0);
    eventually("noticed", async || reconnects(cluster.gateway(0), "disconnected").await >= 1.0).await;
    live(&cluster).await;
    expect_both_know(&cluster, &mut observers, &["near", "far", "comes"]).await;
    cluster.publish("news", "heard", "1").await;
    for client in &mut news {
        while client.next().await.event != "heard" {}
    }
    assert_eq!(reconnects(cluster.gateway(1), "disconnected").await, 0.0);
    assert_eq!(cluster.gateway(0).metric("carillon_presence_fenced_total").await, 0.0);
    cluster.stop().await;
}
