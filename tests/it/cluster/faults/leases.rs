//! Six gateways. Faults of Redis must not declare any of them dead. One gateway is killed meanwhile.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use tests::{Cluster, Observer, TestClient, eventually_within};

use super::{ROOM, live, mark};

const GATEWAYS: usize = 6;

/// The promise is thirty seconds. The machine can be busy.
const STALE_MEMBERS_REMOVED: Duration = Duration::from_secs(40);

/// An observer on each gateway, a user on it alone, and a user that is on the next one too.
struct Crowd {
    cluster: Cluster,
    observers: Vec<Observer>,
    held: Vec<Vec<TestClient>>,
}

impl Crowd {
    async fn gather() -> Self {
        let cluster = Cluster::start().gateways(GATEWAYS).await;
        let (mut observers, mut held) = (Vec::new(), Vec::new());
        for gateway in 0..GATEWAYS {
            let observer = format!("observer-{gateway}");
            observers.push(Observer::join(cluster.gateway(gateway), ROOM, &observer).await);
            let mut clients = Vec::new();
            for user in [gateway.to_string(), format!("both-{gateway}"), format!("both-{}", (gateway + 1) % GATEWAYS)] {
                let mut client = cluster.client(gateway).await;
                client.join(ROOM, &user).await;
                clients.push(client);
            }
            held.push(clients);
        }
        mark(&cluster, &mut observers).await;
        for observer in &mut observers {
            observer.take_changes();
        }
        Self { cluster, observers, held }
    }

    /// Kills the first running gateway.
    async fn kill_one(&mut self) {
        let victim = GATEWAYS - self.observers.len();
        self.cluster.kill_gateway(victim).await;
        self.observers.remove(0);
        self.held[victim].clear();
    }

    /// Returns the users of killed gateways, and those of the others.
    fn removed_and_added(&self) -> (BTreeSet<String>, BTreeSet<String>) {
        let dead = GATEWAYS - self.observers.len();
        let all = (0..GATEWAYS).flat_map(|user| [user.to_string(), format!("both-{user}"), format!("observer-{user}")]);
        all.partition(|name| match name.rsplit_once('-') {
            // This user is on its own gateway and on the previous one.
            Some(("both", user)) => {
                let user: usize = user.parse().expect("a number");
                user < dead && (user + GATEWAYS - 1) % GATEWAYS < dead
            }
            Some((_, user)) => user.parse::<usize>().expect("a number") < dead,
            None => name.parse::<usize>().expect("a number") < dead,
        })
    }

    /// Waits until the users of dead gateways are removed. `since` is when Redis was available again, or the last kill.
    async fn stale_members_are_removed(&self, since: Instant) {
        let (_, there) = self.removed_and_added();
        let is_true = async || self.cluster.users(ROOM).await == there;
        eventually_within(STALE_MEMBERS_REMOVED, "the users of dead gateways are removed", is_true).await;
        println!("the last stale member was removed after {:?}", since.elapsed());
        self.cluster.swept().await;
    }

    /// Checks that the users of dead gateways are removed in time, and no others.
    async fn only_members_of_killed_nodes_are_removed(&mut self, since: Instant) {
        self.stale_members_are_removed(since).await;
        let (gone, there) = self.removed_and_added();
        mark(&self.cluster, &mut self.observers).await;
        let expected: Vec<(bool, String)> = gone.into_iter().map(|user| (false, user)).collect();
        for observer in &mut self.observers {
            assert_eq!(observer.take_changes(), expected, "the users of dead gateways, once, and no others");
            assert_eq!(observer.members(), &there);
        }
        let mut evictions = 0.0;
        for gateway in self.cluster.gateways() {
            evictions += gateway.metric("carillon_presence_evictions_total").await;
            assert_eq!(gateway.metric("carillon_presence_fenced_total").await, 0.0);
        }
        let dead = GATEWAYS - self.observers.len();
        assert_eq!(evictions, dead as f64, "each dead gateway is swept once");
    }
}

#[tokio::test]
async fn an_unreachable_redis_for_longer_than_a_lease_removes_no_members() {
    let mut crowd = Crowd::gather().await;
    crowd.cluster.redis.become_durable().await;
    crowd.cluster.redis.kill().await;
    tokio::time::sleep(Duration::from_secs(11)).await;
    // The gateway is killed permanently while Redis is unavailable.
    crowd.kill_one().await;
    tokio::time::sleep(Duration::from_secs(11)).await;
    crowd.cluster.redis.start_again().await;
    let since = Instant::now();
    live(&crowd.cluster).await;
    crowd.only_members_of_killed_nodes_are_removed(since).await;
    crowd.cluster.stop().await;
}

#[tokio::test]
async fn a_redis_paused_for_longer_than_a_lease_removes_no_members() {
    let mut crowd = Crowd::gather().await;
    crowd.cluster.redis.pause();
    tokio::time::sleep(Duration::from_secs(25)).await;
    crowd.cluster.redis.resume();
    let since = Instant::now();
    crowd.kill_one().await;
    live(&crowd.cluster).await;
    crowd.only_members_of_killed_nodes_are_removed(since).await;
    crowd.cluster.stop().await;
}

#[tokio::test]
async fn a_clock_jump_of_redis_removes_no_members() {
    let mut crowd = Crowd::gather().await;
    let nodes: Vec<String> = crowd.cluster.redis.run("ZRANGE carillon:nodes 0 -1").await;
    // First all leases seem to have expired long ago, then to expire in an hour, then some to have expired.
    for (milliseconds, count) in [(-40_000, GATEWAYS), (3_600_000, GATEWAYS), (-3_600_000, 3)] {
        for node in &nodes[..count] {
            crowd.cluster.redis.run::<String>(&format!("ZINCRBY carillon:nodes {milliseconds} {node}")).await;
        }
        tokio::time::sleep(Duration::from_secs(8)).await;
    }
    crowd.kill_one().await;
    let since = Instant::now();
    for node in &nodes {
        crowd.cluster.redis.run::<String>(&format!("ZINCRBY carillon:nodes -40000 {node}")).await;
    }
    crowd.only_members_of_killed_nodes_are_removed(since).await;
    crowd.cluster.stop().await;
}

#[tokio::test]
async fn a_redis_without_memory_removes_no_members_and_keeps_no_stale_ones() {
    let mut crowd = Crowd::gather().await;
    crowd.cluster.redis.run::<()>("CONFIG SET maxmemory 1").await;
    crowd.kill_one().await;
    let since = Instant::now();
    // The users of the dead gateway are removed while the memory is full.
    crowd.stale_members_are_removed(since).await;
    tokio::time::sleep(Duration::from_secs(30).saturating_sub(since.elapsed())).await;
    crowd.cluster.redis.run::<()>("CONFIG SET maxmemory 0").await;
    live(&crowd.cluster).await;
    crowd.only_members_of_killed_nodes_are_removed(since).await;
    let mut late = crowd.cluster.client(1).await;
    late.join(ROOM, "late").await;
    drop(late);
    crowd.cluster.stop().await;
}
