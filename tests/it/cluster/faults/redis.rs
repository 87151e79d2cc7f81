//! A Redis that is unavailable, paused, or restarted empty.

use std::time::{Duration, Instant};

use serde_json::json;
use tests::{Cluster, Observer, TestClient, eventually};

use super::{ROOM, converge, live, mark, set};

const RECONNECTS: &str = "carillon_redis_reconnects_total";

/// Members and subscribers on both gateways. Some of them join and leave while Redis is unavailable.
struct Crowd {
    observers: Vec<Observer>,
    news: Vec<TestClient>,
    /// A socket of this user on each gateway.
    both: Vec<TestClient>,
    leaver: TestClient,
}

impl Crowd {
    async fn gather(cluster: &Cluster) -> Self {
        let mut observers = vec![
            Observer::join(cluster.gateway(0), ROOM, "near").await,
            Observer::join(cluster.gateway(1), ROOM, "far").await,
        ];
        let news = cluster.subscribers("news").await;
        let mut both = Vec::new();
        for gateway in 0..2 {
            let mut client = cluster.client(gateway).await;
            client.join(ROOM, "both").await;
            both.push(client);
        }
        let mut leaver = cluster.client(1).await;
        leaver.join(ROOM, "leaver").await;
        mark(cluster, &mut observers).await;
        for observer in &mut observers {
            assert_eq!(observer.members(), &set(&["near", "far", "both", "leaver"]));
            observer.take_changes();
        }
        Self { observers, news, both, leaver }
    }

    /// Redis is unavailable: sockets stay open, publishes are refused, subscriptions wait, and clients can leave.
    async fn change_during_outage(mut self, cluster: &Cluster) -> Waiting {
        let reply = cluster.try_publish("news", "lost", "1").await;
        assert_eq!(reply.status.as_u16(), 503, "{}", reply.body);
        for client in &mut self.news {
            client.settle().await;
        }
        let (mut newcomer, mut fresh) = (cluster.client(0).await, cluster.client(1).await);
        newcomer.ask(ROOM, Some(&json!({ "user_id": "newcomer" })));
        fresh.ask("fresh", None);
        for client in [&mut newcomer, &mut fresh] {
            client.settle().await;
        }
        drop(self.leaver);
        self.both.pop();
        Waiting { observers: self.observers, news: self.news, both: self.both, newcomer, fresh }
    }
}

struct Waiting {
    observers: Vec<Observer>,
    news: Vec<TestClient>,
    both: Vec<TestClient>,
    newcomer: TestClient,
    fresh: TestClient,
}

impl Waiting {
    /// The state is as before, except for the clients that joined and left.
    async fn expect_all_members_restored(mut self, cluster: &Cluster) {
        self.newcomer.expect("pusher_internal:subscription_succeeded").await;
        self.fresh.expect("pusher_internal:subscription_succeeded").await;
        let truth = set(&["near", "far", "both", "newcomer"]);
        eventually("the member list is correct", async || cluster.users(ROOM).await == truth).await;
        let counts = json!({ "channels": {
            "fresh": { "subscription_count": 1 },
            "news": { "subscription_count": 2 },
            (ROOM): { "subscription_count": 4 },
        }});
        let counted = async || cluster.get("/channels?info=subscription_count").await == counts;
        eventually("all are counted", counted).await;
        cluster.swept().await;
        converge(cluster, &mut self.observers, &truth).await;
        for observer in &mut self.observers {
            let changes = observer.take_changes();
            println!("delivered meanwhile: {changes:?}");
        }
        for (channel, clients) in [("news", &mut self.news[..]), ("fresh", std::slice::from_mut(&mut self.fresh))] {
            cluster.publish(channel, "received", "2").await;
            for client in clients {
                while client.next().await.event != "received" {}
                client.settle().await;
            }
        }
        // Each user has one reference per gateway: the last socket removes the user.
        drop((self.both, self.newcomer));
        cluster.users_become(ROOM, &["near", "far"]).await;
        converge(cluster, &mut self.observers, &set(&["near", "far"])).await;
        for gateway in cluster.gateways() {
            assert_eq!(gateway.readiness().await.0, 200);
        }
    }
}

#[tokio::test]
async fn the_state_is_restored_within_seconds_after_redis_restarts_empty() {
    let mut cluster = Cluster::start().await;
    let crowd = Crowd::gather(&cluster).await;
    cluster.redis.kill().await;
    let waiting = crowd.change_during_outage(&cluster).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    cluster.redis.start_again().await;
    let answered = Instant::now();
    let users = set(&["near", "far", "both", "newcomer"]);
    live(&cluster).await;
    let lives = answered.elapsed();
    eventually("the member list is correct", async || cluster.users(ROOM).await == users).await;
    println!("after Redis answered: live {lives:?}, members {:?}", answered.elapsed());
    // The promise is three seconds. The machine can be busy.
    assert!(lives < Duration::from_secs(6), "{lives:?}");
    waiting.expect_all_members_restored(&cluster).await;
    cluster.stop().await;
}

#[tokio::test]
async fn the_state_is_restored_after_three_immediate_restarts_of_redis() {
    let mut cluster = Cluster::start().await;
    let mut crowd = Crowd::gather(&cluster).await;
    for _ in 0..3 {
        let mut before = Vec::new();
        for gateway in cluster.gateways() {
            before.push(gateway.metric(RECONNECTS).await);
        }
        cluster.redis.kill().await;
        cluster.redis.start_again().await;
        for (gateway, before) in cluster.gateways().zip(before) {
            eventually("the fault is detected", async || gateway.metric(RECONNECTS).await > before).await;
        }
        live(&cluster).await;
    }
    let users = set(&["near", "far", "both", "leaver"]);
    eventually("the member list is correct", async || cluster.users(ROOM).await == users).await;
    cluster.swept().await;
    converge(&cluster, &mut crowd.observers, &users).await;
    drop((crowd.both, crowd.leaver));
    cluster.users_become(ROOM, &["near", "far"]).await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_pause_of_redis_for_10_s_is_detected_and_the_state_converges() {
    let cluster = Cluster::start().await;
    let crowd = Crowd::gather(&cluster).await;
    cluster.redis.pause();
    let paused = Instant::now();
    let waiting = crowd.change_during_outage(&cluster).await;
    for gateway in cluster.gateways() {
        gateway.metric_reaches("carillon_redis_subscriber_live", 0.0).await;
    }
    println!("noticed after {:?}", paused.elapsed());
    tokio::time::sleep(Duration::from_secs(10).saturating_sub(paused.elapsed())).await;
    cluster.redis.resume();
    live(&cluster).await;
    waiting.expect_all_members_restored(&cluster).await;
    for gateway in cluster.gateways() {
        assert!(gateway.metric("carillon_redis_reconnects_total").await >= 1.0);
        assert_eq!(gateway.metric("carillon_presence_fenced_total").await, 0.0);
    }
    cluster.stop().await;
}

#[tokio::test]
async fn a_slow_redis_is_not_treated_as_unavailable() {
    let mut cluster = Cluster::start().proxied().await;
    for gateway in 0..2 {
        cluster.gateway_proxy(gateway).set(tests::proxy::Mode::Delay(Duration::from_millis(200))).await;
    }
    let mut observer = Observer::join(cluster.gateway(0), ROOM, "ana").await;
    let mut other = cluster.client(1).await;
    other.join(ROOM, "bo").await;
    for number in 0..10 {
        cluster.publish(ROOM, "e", &number.to_string()).await;
    }
    mark(&cluster, [&mut observer]).await;
    assert_eq!(observer.members(), &set(&["ana", "bo"]));
    tokio::time::sleep(Duration::from_secs(12)).await;
    for gateway in cluster.gateways() {
        assert_eq!(gateway.metric("carillon_redis_reconnects_total").await, 0.0);
        assert_eq!(gateway.readiness().await.0, 200);
    }
    cluster.stop().await;
}
