//! Gateways that crash or appear to crash.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::{Cluster, Observer, PATIENCE, TestClient, eventually, eventually_within};

use super::{ROOM, converge, mark, set, swept_again};

/// The promise is thirty seconds. The machine can be busy.
const STALE_MEMBERS_REMOVED: Duration = Duration::from_secs(40);

async fn nodes(cluster: &Cluster) -> BTreeSet<String> {
    cluster.redis.run::<Vec<String>>("ZRANGE carillon:nodes 0 -1").await.into_iter().collect()
}

async fn member(cluster: &Cluster, gateway: usize, user: &str, channels: &[&str]) -> TestClient {
    let mut client = cluster.client(gateway).await;
    for channel in channels {
        client.subscribe(channel).await;
    }
    client.join(ROOM, user).await;
    client
}

async fn sum(cluster: &Cluster, metric: &str) -> f64 {
    let mut sum = 0.0;
    for gateway in cluster.gateways() {
        sum += gateway.metric(metric).await;
    }
    sum
}

#[tokio::test]
async fn users_of_a_killed_gateway_are_removed_once_although_five_gateways_sweep() {
    const GONE: usize = 25;
    const ELSEWHERE: usize = 10;
    let mut cluster = Cluster::start().gateways(6).await;
    let before = nodes(&cluster).await;
    let mut watcher = cluster.client(1).await;
    watcher.sign_in(&json!({ "id": "watcher", "watchlist": ["zoe", "yan"] })).await;
    watcher.expect("pusher_internal:watchlist_events").await;
    let mut held = Vec::new();
    for number in 0..GONE {
        held.push(member(&cluster, 0, &format!("gone-{number:02}"), &["only-there", "everywhere"]).await);
    }
    for number in 0..ELSEWHERE {
        let user = format!("elsewhere-{number:02}");
        held.push(member(&cluster, 0, &user, &["everywhere"]).await);
        held.push(member(&cluster, 1 + number % 5, &user, &["everywhere"]).await);
    }
    for (gateway, user) in [(0, "zoe"), (0, "yan"), (1, "yan")] {
        let mut client = cluster.client(gateway).await;
        client.sign_in(&json!({ "id": user })).await;
        held.push(client);
    }
    for _ in 0..2 {
        watcher.expect("pusher_internal:watchlist_events").await;
    }
    let mut observers = Vec::new();
    for gateway in 1..6 {
        let observer = Observer::join(cluster.gateway(gateway), ROOM, &format!("observer-{gateway}")).await;
        observers.push(observer);
    }
    mark(&cluster, &mut observers).await;
    let all_users = observers[0].members().clone();
    assert_eq!(all_users.len(), GONE + ELSEWHERE + 5);
    for observer in &mut observers {
        assert_eq!(observer.members(), &all_users);
        observer.take_changes();
    }

    let killed_at = Instant::now();
    cluster.kill_gateway(0).await;
    let (gone, truth): (BTreeSet<String>, BTreeSet<String>) =
        all_users.into_iter().partition(|user| user.starts_with("gone-"));
    let no_stale_members = async || cluster.users(ROOM).await == truth;
    eventually_within(STALE_MEMBERS_REMOVED, "no stale member remains", no_stale_members).await;
    println!("the last stale member was removed after {:?}", killed_at.elapsed());

    swept_again(&cluster).await;
    mark(&cluster, &mut observers).await;
    let expected: Vec<(bool, String)> = gone.iter().map(|user| (false, user.clone())).collect();
    for observer in &mut observers {
        assert_eq!(observer.take_changes(), expected, "each user of the killed gateway, once, and no others");
        assert_eq!(observer.members(), &truth);
    }
    let channels = json!({ "channels": {
        "everywhere": { "subscription_count": ELSEWHERE },
        (ROOM): { "subscription_count": ELSEWHERE + 5 },
    }});
    assert_eq!(cluster.get("/channels?info=subscription_count").await, channels);
    let offline: Value = serde_json::from_str(&watcher.next().await.data).expect("JSON");
    assert_eq!(offline, json!({ "events": [{ "name": "offline", "user_ids": ["zoe"] }] }));
    cluster.publish("#server-to-user-watcher", "marker", "").await;
    watcher.expect("marker").await;
    assert_eq!(sum(&cluster, "carillon_presence_evictions_total").await, 1.0);
    assert_eq!(sum(&cluster, "carillon_presence_evicted_members_total").await, GONE as f64);

    let after = nodes(&cluster).await;
    let dead: Vec<&String> = before.difference(&after).collect();
    assert_eq!((dead.len(), after.len()), (1, 5));
    let left = cluster.redis.keys(&format!("*{}*", dead[0])).await;
    assert!(left.iter().all(|key| key.contains(":t:")), "only its tombstones remain: {left:?}");
    cluster.swept().await;
    assert_eq!(cluster.redis.run::<Vec<u64>>("HVALS carillon:conn:shop").await.iter().sum::<u64>(), 10 + 5 + 1 + 1);
    drop(held);
    cluster.stop().await;
}

#[tokio::test]
async fn a_gateway_paused_for_40_s_is_fenced_and_registers_under_a_new_id() {
    let cluster = Cluster::start().await;
    let mut observers = vec![
        Observer::join(cluster.gateway(0), ROOM, "near").await,
        Observer::join(cluster.gateway(1), ROOM, "far").await,
    ];
    let mut held = Vec::new();
    for user in ["ana", "both", "leaver"] {
        held.push(member(&cluster, 0, user, &["news"]).await);
    }
    held.push(member(&cluster, 1, "both", &["news"]).await);
    let mut late = cluster.client(0).await;
    late.settle().await;
    mark(&cluster, &mut observers).await;
    for observer in &mut observers {
        observer.take_changes();
    }
    let before = nodes(&cluster).await;

    cluster.pause_gateway(0);
    let slept = Instant::now();
    // Changes during the pause: a channel that no sweep has removed, and a member that leaves.
    late.ask("presence-fresh", Some(&json!({ "user_id": "late" })));
    drop(held.remove(2));
    let alone = set(&["far", "both"]);
    eventually_within(STALE_MEMBERS_REMOVED, "the node is declared dead", async || cluster.users(ROOM).await == alone)
        .await;
    // A user of the paused gateway joins on another one.
    held.push(member(&cluster, 1, "ana", &[]).await);
    tokio::time::sleep(Duration::from_secs(40).saturating_sub(slept.elapsed())).await;
    cluster.resume_gateway(0);

    let truth = set(&["near", "far", "ana", "both"]);
    eventually_within(PATIENCE, "all clients are connected again", async || cluster.users(ROOM).await == truth).await;
    cluster.gateway(0).metric_reaches("carillon_presence_fenced_total", 1.0).await;
    late.expect("pusher_internal:subscription_succeeded").await;
    // The earlier id is valid until the grace period ends. It is swept then.
    let is_replaced = async || {
        let after = nodes(&cluster).await;
        (after.len(), before.intersection(&after).count()) == (2, 1)
    };
    eventually("one of two has a new id", is_replaced).await;
    swept_again(&cluster).await;
    converge(&cluster, &mut observers, &truth).await;
    let removed = |user: &str| (false, user.to_owned());
    let added = |user: &str| (true, user.to_owned());
    let expected = [removed("ana"), removed("leaver"), removed("near"), added("ana"), added("near")];
    assert_eq!(observers[1].take_changes(), expected, "the changes that the observer on the running gateway receives");
    assert_eq!(cluster.gateway(1).metric("carillon_presence_fenced_total").await, 0.0);
    let counts = json!({ "channels": {
        "news": { "subscription_count": 3 },
        (ROOM): { "subscription_count": 6 },
        "presence-fresh": { "subscription_count": 1 },
    }});
    let counted = async || cluster.get("/channels?info=subscription_count").await == counts;
    eventually("all are counted", counted).await;
    // The old id has no references. The last socket removes the user.
    drop((late, held));
    cluster.users_become(ROOM, &["near", "far"]).await;
    cluster.users_become("presence-fresh", &[]).await;
    cluster.swept().await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_gateway_killed_during_a_sweep_is_swept_together_with_its_target() {
    let mut cluster = Cluster::start().gateways(3).await;
    let mut observer = Observer::join(cluster.gateway(2), ROOM, "observer").await;
    let mut held = Vec::new();
    for gateway in 0..2 {
        for number in 0..10 {
            let channel = format!("only-{gateway}-{number}");
            held.push(member(&cluster, gateway, &format!("user-{gateway}-{number}"), &[&channel]).await);
        }
    }
    cluster.kill_gateway(0).await;
    // A claim that its owner never releases, because the sweeper crashed during its work.
    let first = set(&["observer"]);
    let dead: Vec<String> = loop {
        let dead: Vec<String> = cluster.redis.run("ZRANGE carillon:dead 0 -1").await;
        if !dead.is_empty() || cluster.users(ROOM).await.len() == 11 {
            break dead;
        }
        tokio::task::yield_now().await;
    };
    println!("dead when the second was killed: {dead:?}");
    cluster.kill_gateway(1).await;
    let gone = async || cluster.users(ROOM).await == first;
    eventually_within(2 * PATIENCE, "no stale member remains", gone).await;
    swept_again(&cluster).await;
    mark(&cluster, [&mut observer]).await;
    assert_eq!(observer.members(), &first);
    let channels = json!({ "channels": { (ROOM): {} } });
    eventually_within(PATIENCE, "only one is occupied", async || cluster.get("/channels").await == channels).await;
    drop(held);
    cluster.stop().await;
}
