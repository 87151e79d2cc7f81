//! Two hundred users join and leave at random during faults. Every observer checks each message. At the end
//! the observers, Redis and the real members must agree.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use client::{Options, ServerUrl};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;
use tests::proxy::Mode;
use tests::setup::app;
use tests::{Cluster, PATIENCE, Setup, TestClient, View, eventually, eventually_within, within};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::{ROOM, swept_again};

const USERS: usize = 200;

/// Every fourth user has a second tab.
const SECOND_TABS: usize = USERS / 4;

/// The longest pause of a user between two actions.
const PAUSE_MAX: Duration = Duration::from_secs(4);

/// The duration: `CHURN_SECONDS`, or long enough for every fault.
fn duration() -> Duration {
    let seconds = std::env::var_os("CHURN_SECONDS").and_then(|seconds| seconds.to_str()?.parse().ok());
    Duration::from_secs(seconds.unwrap_or(25))
}

/// The seed: `CHURN_SEED`, or a random one. It is printed for a repetition.
fn seed() -> u64 {
    let seed = std::env::var_os("CHURN_SEED").and_then(|seed| seed.to_str()?.parse().ok());
    let seed = seed.unwrap_or_else(|| rand::rng().random());
    println!("CHURN_SEED={seed}");
    seed
}

/// The addresses of the running gateways.
type Gateways = Arc<Mutex<Vec<Option<ServerUrl>>>>;

/// One tab of one user.
struct Tab {
    user: String,
    gateways: Gateways,
    rng: StdRng,
    connection: Option<Connection>,
}

struct Connection {
    client: TestClient,
    gateway: usize,
    view: View,
    /// Whether it is a member or has requested to join.
    joined: bool,
}

impl Tab {
    /// Joins and leaves at random until it is stopped.
    async fn live(mut self, mut stop: watch::Receiver<bool>) -> Self {
        loop {
            let pause = self.rng.random_range(Duration::ZERO..PAUSE_MAX);
            let until = Instant::now() + pause;
            tokio::select! {
                () = stop_requested(&mut stop) => return self,
                () = self.listen(until) => self.act().await,
            }
        }
    }

    async fn listen(&mut self, until: Instant) {
        while let Some(connection) = &mut self.connection {
            match timeout_at(until, connection.client.next_if_any()).await {
                Ok(Some(message)) => connection.view.apply(&message),
                Ok(None) => self.connection = None,
                Err(_) => return,
            }
        }
        tokio::time::sleep_until(until).await;
    }

    async fn act(&mut self) {
        match &mut self.connection {
            Some(connection) if connection.joined => match self.rng.random_range(0..10) {
                0..4 => {
                    connection.client.unsubscribe(ROOM);
                    // The remaining messages belong to the old subscription.
                    connection.view.members = None;
                    connection.joined = false;
                }
                4..7 => self.connection = None,
                _ => {}
            },
            Some(_) => self.join(),
            None => {
                self.connect().await;
                self.join();
            }
        }
    }

    fn join(&mut self) {
        let Some(connection) = &mut self.connection else { return };
        connection.client.ask(ROOM, Some(&json!({ "user_id": self.user })));
        connection.joined = true;
    }

    async fn connect(&mut self) {
        let running = self.running();
        let (gateway, url) = running[self.rng.random_range(0..running.len())].clone();
        // The gateway can be exiting. The tab tries again later.
        let Ok(client) = TestClient::try_connect(&url, &app(), &Options::default()).await else { return };
        self.connection = Some(Connection { client, gateway, view: View::default(), joined: false });
    }

    fn running(&self) -> Vec<(usize, ServerUrl)> {
        let gateways = self.gateways.lock().expect("the lock is not poisoned");
        gateways.iter().enumerate().filter_map(|(index, url)| Some((index, url.clone()?))).collect()
    }

    /// Waits for the response to the last request. A closed connection has none.
    async fn settle(&mut self) {
        while let Some(connection) = &mut self.connection
            && connection.joined
            && connection.view.members.is_none()
        {
            match within("the response to a join", connection.client.next_if_any()).await {
                Some(message) => connection.view.apply(&message),
                None => self.connection = None,
            }
        }
    }

    fn member(&self) -> Option<&Connection> {
        self.connection.as_ref().filter(|connection| connection.joined)
    }

    fn member_mut(&mut self) -> Option<&mut Connection> {
        self.connection.as_mut().filter(|connection| connection.joined)
    }
}

impl Connection {
    async fn listen_to_marker(&mut self, data: &str) {
        loop {
            let message = self.client.next().await;
            if message.event == "marker" && message.data == data {
                return;
            }
            self.view.apply(&message);
        }
    }
}

async fn stop_requested(stop: &mut watch::Receiver<bool>) {
    // The sender outlives all tabs.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// The fault during the churn.
struct Churn {
    cluster: Cluster,
    gateways: Gateways,
    stop: watch::Sender<bool>,
    tabs: JoinSet<Tab>,
    ends: Instant,
    rng: StdRng,
}

impl Churn {
    async fn begin(cluster: Cluster) -> Self {
        let mut rng = StdRng::seed_from_u64(seed());
        let urls = cluster.gateways().map(|gateway| Some(gateway.url.clone())).collect();
        let gateways: Gateways = Arc::new(Mutex::new(urls));
        let (stop, stopping) = watch::channel(false);
        let mut tabs = JoinSet::new();
        for number in (0..USERS).chain(0..SECOND_TABS) {
            let rng = StdRng::seed_from_u64(rng.random());
            let tab = Tab { user: format!("user-{number:03}"), gateways: gateways.clone(), rng, connection: None };
            tabs.spawn(tab.live(stopping.clone()));
        }
        Self { cluster, gateways, stop, tabs, ends: Instant::now() + duration(), rng }
    }

    /// Waits for a part of the whole duration.
    async fn pass(&self, part: f64) {
        tokio::time::sleep(duration().mul_f64(part)).await;
    }

    fn is_over(&self) -> bool {
        Instant::now() >= self.ends
    }

    async fn kill_gateway(&mut self, index: usize) {
        self.gateways.lock().expect("the lock is not poisoned")[index] = None;
        self.cluster.kill_gateway(index).await;
    }

    async fn start_gateway(&mut self, index: usize) {
        self.cluster.start_gateway(index).await;
        let url = self.cluster.gateway(index).url.clone();
        self.gateways.lock().expect("the lock is not poisoned")[index] = Some(url);
    }

    /// Stops all changes. All parties must agree on the members.
    async fn end(mut self) {
        tokio::time::sleep_until(self.ends).await;
        self.stop.send_replace(true);
        let mut tabs = Vec::new();
        while let Some(tab) = self.tabs.join_next().await {
            tabs.push(tab.expect("the messages of each client are consistent"));
        }
        for tab in &mut tabs {
            tab.settle().await;
        }
        let truth: BTreeSet<String> =
            tabs.iter().filter(|tab| tab.member().is_some()).map(|tab| tab.user.clone()).collect();
        let cluster = &self.cluster;
        println!("{} users stay", truth.len());
        let agreed = async || cluster.users(ROOM).await == truth;
        eventually_within(PATIENCE, "the member list is correct", agreed).await;
        expect_truth_in_redis(cluster, &tabs).await;
        swept_again(cluster).await;
        assert_eq!(cluster.users(ROOM).await, truth);
        expect_truth_in_redis(cluster, &tabs).await;

        let agreed = async {
            for round in 1.. {
                cluster.publish(ROOM, "marker", &round.to_string()).await;
                for member in tabs.iter_mut().filter_map(Tab::member_mut) {
                    member.listen_to_marker(&round.to_string()).await;
                }
                if tabs.iter().filter_map(Tab::member).all(|member| member.view.members.as_ref() == Some(&truth)) {
                    return;
                }
            }
        };
        within("every member has the correct list", agreed).await;
        // No reference remains after all members have left.
        drop(tabs);
        cluster.users_become(ROOM, &[]).await;
        let empty = async || cluster.get("/channels").await == json!({ "channels": {} });
        eventually("no channel is occupied", empty).await;
        self.cluster.stop().await;
    }
}

/// The length of a node id. Redis stores the ids of a user's nodes in a row.
const NODE_LETTERS: usize = 32;

/// Each user has one reference per gateway with a socket of that user, and all sockets are counted.
async fn expect_truth_in_redis(cluster: &Cluster, tabs: &[Tab]) {
    let mut holders: BTreeMap<String, BTreeSet<usize>> = BTreeMap::new();
    for tab in tabs {
        if let Some(connection) = tab.member() {
            holders.entry(tab.user.clone()).or_default().insert(connection.gateway);
        }
    }
    let expected: BTreeMap<String, usize> = holders.into_iter().map(|(user, by)| (user, by.len())).collect();
    let key = format!("carillon:{{0}}:pr:shop/{ROOM}");
    let referenced = async || {
        let holders: BTreeMap<String, String> = cluster.redis.run(&format!("HGETALL {key}")).await;
        let counts = holders.into_iter().map(|(user, nodes)| (user, nodes.len() / NODE_LETTERS));
        counts.collect::<BTreeMap<_, _>>() == expected
    };
    eventually_within(PATIENCE, "Redis has the users of each node", referenced).await;
    let sockets = tabs.iter().filter(|tab| tab.member().is_some()).count();
    let path = format!("/channels/{ROOM}?info=subscription_count");
    let counted = async || cluster.get(&path).await["subscription_count"] == sockets;
    eventually_within(PATIENCE, "all sockets are counted", counted).await;
}

fn setup() -> Setup {
    Setup::default().limit("presence_members = 300")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_users_join_and_leave_while_a_gateway_is_killed_and_started() {
    let mut churn = Churn::begin(Cluster::start().setup(setup()).await).await;
    churn.pass(0.3).await;
    churn.kill_gateway(0).await;
    churn.pass(0.2).await;
    churn.start_gateway(0).await;
    churn.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_users_join_and_leave_while_connections_to_redis_break() {
    let mut churn = Churn::begin(Cluster::start().proxied().setup(setup()).await).await;
    while !churn.is_over() {
        let gateway = churn.rng.random_range(0..2);
        let fault = churn.rng.random_range(0..4);
        let lasts = churn.rng.random_range(Duration::ZERO..Duration::from_secs(3));
        let proxy = churn.cluster.gateway_proxy(gateway);
        match fault {
            0 => proxy.cut(),
            1 => proxy.set(Mode::Stall).await,
            2 => proxy.set(Mode::HalfOpen).await,
            _ => {
                proxy.set(Mode::Refuse).await;
                proxy.cut();
            }
        }
        tokio::time::sleep(lasts).await;
        churn.cluster.gateway_proxy(gateway).set(Mode::Pass).await;
    }
    churn.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_users_join_and_leave_while_redis_is_killed_and_restarts_empty() {
    let mut churn = Churn::begin(Cluster::start().setup(setup()).await).await;
    for _ in 0..2 {
        churn.pass(0.3).await;
        churn.cluster.redis.kill().await;
        churn.pass(0.1).await;
        churn.cluster.redis.start_again().await;
    }
    churn.end().await;
}
