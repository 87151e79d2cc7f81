//! Six gateways, none of which may be declared dead for what Redis does, and one that dies all the same.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use tests::{Cluster, Observer, TestClient, eventually_within};

use super::{ROOM, live, mark};

const GATEWAYS: usize = 6;

/// Thirty seconds are promised; the machine may be busy.
const GHOSTS_GONE: Duration = Duration::from_secs(40);

/// On each gateway an observer, a user of its own, and a user who is on the next one too.
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

    /// Kills the first gateway that lives.
    async fn kill_one(&mut self) {
        let victim = GATEWAYS - self.observers.len();
        self.cluster.kill_gateway(victim).await;
        self.observers.remove(0);
        self.held[victim].clear();
    }

    /// Returns the users of gateways that died, and those of the others.
    fn gone_and_there(&self) -> (BTreeSet<String>, BTreeSet<String>) {
        let dead = GATEWAYS - self.observers.len();
        let all = (0..GATEWAYS).flat_map(|user| [user.to_string(), format!("both-{user}"), format!("observer-{user}")]);
        all.partition(|name| match name.rsplit_once('-') {
            // Such a user is on its own gateway and on the one before it.
            Some(("both", user)) => {
                let user: usize = user.parse().expect("a number");
                user < dead && (user + GATEWAYS - 1) % GATEWAYS < dead
            }
            Some((_, user)) => user.parse::<usize>().expect("a number") < dead,
            None => name.parse::<usize>().expect("a number") < dead,
        })
    }

    /// Waits until the users of dead gateways are removed. `since`: when Redis was there again, or the last gateway died.
    async fn ghosts_are_gone(&self, since: Instant) {
        let (_, there) = self.gone_and_there();
        let is_true = async || self.cluster.users(ROOM).await == there;
        eventually_within(GHOSTS_GONE, "the users of dead gateways are gone", is_true).await;
        println!("the last ghost was gone after {:?}", since.elapsed());
        self.cluster.swept().await;
    }

    /// Checks that the users of dead gateways are removed in time, and no others.
    async fn only_the_dead_leave(&mut self, since: Instant) {
        self.ghosts_are_gone(since).await;
        let (gone, there) = self.gone_and_there();
        mark(&self.cluster, &mut self.observers).await;
        let expected: Vec<(bool, String)> = gone.into_iter().map(|user| (false, user)).collect();
        for observer in &mut self.observers {
            assert_eq!(observer.take_changes(), expected, "the users of dead gateways, once, and nobody else");
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
async fn redis_away_for_longer_than_a_lease_costs_nobody_their_membership() {
    let mut crowd = Crowd::gather().await;
    crowd.cluster.redis.become_durable().await;
    crowd.cluster.redis.kill().await;
    tokio::time::sleep(Duration::from_secs(11)).await;
    // It dies for good while Redis is away.
    crowd.kill_one().await;
    tokio::time::sleep(Duration::from_secs(11)).await;
    crowd.cluster.redis.start_again().await;
    let since = Instant::now();
    live(&crowd.cluster).await;
    crowd.only_the_dead_leave(since).await;
    crowd.cluster.stop().await;
}

#[tokio::test]
async fn a_redis_that_stops_turning_for_longer_than_a_lease_costs_nobody_their_membership() {
    let mut crowd = Crowd::gather().await;
    crowd.cluster.redis.pause();
    tokio::time::sleep(Duration::from_secs(25)).await;
    crowd.cluster.redis.resume();
    let since = Instant::now();
    crowd.kill_one().await;
    live(&crowd.cluster).await;
    crowd.only_the_dead_leave(since).await;
    crowd.cluster.stop().await;
}

#[tokio::test]
async fn a_jump_of_redis_clock_costs_nobody_their_membership() {
    let mut crowd = Crowd::gather().await;
    let nodes: Vec<String> = crowd.cluster.redis.run("ZRANGE carillon:nodes 0 -1").await;
    // All leases seem to have ended long ago, then all to end in an hour, then some to have ended.
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
    crowd.only_the_dead_leave(since).await;
    crowd.cluster.stop().await;
}

#[tokio::test]
async fn a_redis_without_memory_costs_nobody_their_membership_and_keeps_no_ghost() {
    let mut crowd = Crowd::gather().await;
    crowd.cluster.redis.run::<()>("CONFIG SET maxmemory 1").await;
    crowd.kill_one().await;
    let since = Instant::now();
    // The dead gateway's users leave while memory is full.
    crowd.ghosts_are_gone(since).await;
    tokio::time::sleep(Duration::from_secs(30).saturating_sub(since.elapsed())).await;
    crowd.cluster.redis.run::<()>("CONFIG SET maxmemory 0").await;
    live(&crowd.cluster).await;
    crowd.only_the_dead_leave(since).await;
    let mut late = crowd.cluster.client(1).await;
    late.join(ROOM, "late").await;
    drop(late);
    crowd.cluster.stop().await;
}
