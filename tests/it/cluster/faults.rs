//! Faults of a cluster: real processes are killed, paused and disconnected. The tests mostly wait, so run
//! many at a time.

mod churn;
mod gateways;
mod leases;
mod publishers;
mod redis;
mod subscriber;
mod users_and_counts;

use std::collections::BTreeSet;

use tests::{Cluster, Observer, eventually, within};

const ROOM: &str = "presence-room";

fn set(users: &[&str]) -> BTreeSet<String> {
    users.iter().map(|user| (*user).to_owned()).collect()
}

/// Publishes a marker on [`ROOM`]. Every observer receives all earlier messages.
async fn mark<'a>(cluster: &Cluster, observers: impl IntoIterator<Item = &'a mut Observer>) {
    cluster.publish(ROOM, "marker", "").await;
    for observer in observers {
        observer.until("marker").await;
    }
}

/// Lets every observer receive messages until each has this list. A gateway that resynchronizes sends
/// changes when it has its new list, which can be after a marker.
async fn converge(cluster: &Cluster, observers: &mut [Observer], users: &BTreeSet<String>) {
    let what = format!("all observers see {users:?}");
    within(&what, async {
        mark(cluster, observers.iter_mut()).await;
        while observers.iter().any(|observer| observer.members() != users) {
            mark(cluster, observers.iter_mut()).await;
        }
    })
    .await;
    mark(cluster, observers.iter_mut()).await;
    for observer in observers {
        assert_eq!(observer.members(), users, "its changes: {:?}", observer.changes);
    }
}

/// Waits until every running gateway has checked for dead nodes twice more.
async fn swept_again(cluster: &Cluster) {
    const LOOKS: &str = "carillon_redis_command_seconds_count{command=\"claim\"}";
    let mut before = Vec::new();
    for gateway in cluster.gateways() {
        before.push(gateway.metric(LOOKS).await);
    }
    for (gateway, before) in cluster.gateways().zip(before) {
        eventually("two more checks", async || gateway.metric(LOOKS).await >= before + 2.0).await;
    }
}

/// Waits until all gateways are subscribed, all nodes reach Redis, and publishes succeed.
async fn live(cluster: &Cluster) {
    for server in cluster.servers() {
        server.metric_reaches("carillon_redis_up", 1.0).await;
    }
    for gateway in cluster.gateways() {
        gateway.metric_reaches("carillon_redis_subscriber_live", 1.0).await;
    }
    let published = async || cluster.try_publish("empty-room", "e", "1").await.status.as_u16() == 200;
    eventually("an event is accepted", published).await;
}
