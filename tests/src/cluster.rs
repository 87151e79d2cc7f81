//! A whole cluster: Redis, gateways and publishers in processes of their own, and whatever can happen to them.

use std::collections::BTreeSet;
use std::future::IntoFuture;
use std::pin::Pin;

use client::{ApiClient, Reply};
use rustix::process::Signal;
use serde_json::{Value, json};
use shared::protocol::SocketId;

use crate::client::TestClient;
use crate::proxy::Proxy;
use crate::redis::{Access, Redis};
use crate::server::{Launch, Role, Server};
use crate::setup::Setup;
use crate::{PATIENCE, eventually, eventually_within, within};

/// A running cluster. [`Cluster::stop`] must be called at the end; a test that panics before that kills all of it.
pub struct Cluster {
    /// What the nodes share.
    pub redis: Redis,
    gateways: Vec<Node>,
    publishers: Vec<Node>,
    /// Exit codes of nodes that were stopped are checked then; logs of those that were killed are kept.
    setup: Setup,
}

/// A place in the cluster, with a process in it or not.
struct Node {
    role: Role,
    server: Option<Server>,
    /// Between it and Redis, if asked for.
    proxy: Option<Proxy>,
}

/// What a cluster is to be made of.
pub struct Plan {
    gateways: usize,
    publishers: usize,
    whole: usize,
    access: Access,
    redis_runs: bool,
    proxied: bool,
    setup: Setup,
}

impl Plan {
    /// So many gateways; two unless said otherwise.
    pub fn gateways(self, gateways: usize) -> Self {
        Self { gateways, ..self }
    }

    /// So many publishers; one unless said otherwise.
    pub fn publishers(self, publishers: usize) -> Self {
        Self { publishers, ..self }
    }

    /// Nodes that are gateway and publisher in one, instead of others.
    pub fn of_whole_nodes(self, whole: usize) -> Self {
        Self { gateways: 0, publishers: 0, whole, ..self }
    }

    /// How Redis lets nodes in.
    pub fn access(self, access: Access) -> Self {
        Self { access, ..self }
    }

    /// Redis is not there yet.
    pub fn without_redis(self) -> Self {
        Self { redis_runs: false, ..self }
    }

    /// Every node reaches Redis through a proxy of its own.
    pub fn proxied(self) -> Self {
        Self { proxied: true, ..self }
    }

    /// What is in every node's configuration.
    pub fn setup(self, setup: Setup) -> Self {
        Self { setup, ..self }
    }

    async fn start(self) -> Cluster {
        let redis = if self.redis_runs { Redis::with(self.access).await } else { Redis::absent(self.access) };
        let mut setup = self.setup;
        if !redis.tls_lines().is_empty() {
            setup = setup.redis(&redis.tls_lines());
        }
        let mut cluster = Cluster { redis, gateways: Vec::new(), publishers: Vec::new(), setup };
        let roles = [(Role::Gateway, self.gateways), (Role::Publisher, self.publishers), (Role::Up, self.whole)];
        for role in roles.into_iter().flat_map(|(role, count)| std::iter::repeat_n(role, count)) {
            let proxy = if self.proxied { Some(Proxy::start(cluster.redis.port).await) } else { None };
            let mut node = Node { role, server: None, proxy };
            node.start(&cluster.redis, &cluster.setup).await;
            let place = if role == Role::Publisher { &mut cluster.publishers } else { &mut cluster.gateways };
            place.push(node);
        }
        if self.redis_runs {
            cluster.ready().await;
        }
        cluster
    }
}

impl IntoFuture for Plan {
    type Output = Cluster;
    type IntoFuture = Pin<Box<dyn Future<Output = Cluster>>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.start())
    }
}

impl Cluster {
    /// Two gateways, a publisher and Redis, once awaited.
    pub fn start() -> Plan {
        Plan {
            gateways: 2,
            publishers: 1,
            whole: 0,
            access: Access::Open,
            redis_runs: true,
            proxied: false,
            setup: Setup::default(),
        }
    }

    /// Waits until every node is ready.
    ///
    /// # Panics
    /// When one does not come to that.
    pub async fn ready(&self) {
        for server in self.servers() {
            server.ready().await;
        }
    }

    /// A gateway by its place; whole nodes count as gateways.
    ///
    /// # Panics
    /// When there is none.
    pub fn gateway(&self, index: usize) -> &Server {
        self.gateways[index].server.as_ref().expect("the gateway runs")
    }

    /// All gateways that run.
    pub fn gateways(&self) -> impl Iterator<Item = &Server> {
        self.gateways.iter().filter_map(|node| node.server.as_ref())
    }

    /// The first publisher; in a cluster of whole nodes the first of these.
    ///
    /// # Panics
    /// When there is none.
    pub fn publisher(&self) -> &Server {
        self.publisher_at(0)
    }

    /// A publisher by its place; in a cluster of whole nodes one of these.
    ///
    /// # Panics
    /// When there is none.
    pub fn publisher_at(&self, index: usize) -> &Server {
        let publishers = if self.publishers.is_empty() { &self.gateways } else { &self.publishers };
        publishers[index].server.as_ref().expect("the publisher runs")
    }

    /// All nodes that run.
    pub fn servers(&self) -> impl Iterator<Item = &Server> {
        self.gateways.iter().chain(&self.publishers).filter_map(|node| node.server.as_ref())
    }

    /// The proxy of a gateway.
    ///
    /// # Panics
    /// When the cluster was planned without.
    pub fn gateway_proxy(&mut self, index: usize) -> &mut Proxy {
        self.gateways[index].proxy.as_mut().expect("the cluster is proxied")
    }

    /// The proxy of a publisher.
    ///
    /// # Panics
    /// When the cluster was planned without.
    pub fn publisher_proxy(&mut self, index: usize) -> &mut Proxy {
        self.publishers[index].proxy.as_mut().expect("the cluster is proxied")
    }

    /// A client on a gateway.
    pub async fn client(&self, gateway: usize) -> TestClient {
        self.gateway(gateway).client().await
    }

    /// A client on each gateway that runs, subscribed to a channel.
    pub async fn subscribers(&self, channel: &str) -> Vec<TestClient> {
        let mut clients = Vec::new();
        for gateway in self.gateways() {
            let mut client = gateway.client().await;
            client.subscribe(channel).await;
            clients.push(client);
        }
        clients
    }

    /// A sender for the first publisher.
    pub fn api_client(&self) -> ApiClient {
        self.publisher().api_client()
    }

    /// Publishes one event through the first publisher.
    ///
    /// # Panics
    /// When it does not answer 200.
    pub async fn publish(&self, channel: &str, event: &str, data: &str) {
        self.publisher().publish(channel, event, data).await;
    }

    /// Publishes one event to all but one connection.
    ///
    /// # Panics
    /// When the publisher does not answer 200.
    pub async fn publish_except(&self, channel: &str, event: &str, data: &str, except: SocketId) {
        self.publisher().publish_except(channel, event, data, Some(except)).await;
    }

    /// Tries to publish one event.
    ///
    /// # Panics
    /// When the publisher does not answer.
    pub async fn try_publish(&self, channel: &str, event: &str, data: &str) -> Reply {
        self.publisher().post("/events", &json!({ "name": event, "channel": channel, "data": data })).await
    }

    /// A signed GET below `/apps/ID` that must succeed.
    pub async fn get(&self, path: &str) -> Value {
        self.publisher().get(path).await
    }

    /// The users of a presence channel, as the HTTP API tells them.
    pub async fn users(&self, channel: &str) -> BTreeSet<String> {
        let reply = self.get(&format!("/channels/{channel}/users")).await;
        let users = reply["users"].as_array().expect("a list").iter();
        users.map(|user| user["id"].as_str().expect("ids are strings").to_owned()).collect()
    }

    /// Waits until the HTTP API tells exactly these users.
    ///
    /// # Panics
    /// When it does not come to that.
    pub async fn users_become(&self, channel: &str, users: &[&str]) {
        let expected: BTreeSet<String> = users.iter().map(|user| (*user).to_owned()).collect();
        eventually(&format!("the users of {channel} are {users:?}"), async || self.users(channel).await == expected)
            .await;
    }

    /// Waits until there is one lease for each gateway that runs, and no dead node to be swept.
    ///
    /// # Panics
    /// When it does not come to that.
    pub async fn swept(&self) {
        let gateways = self.gateways().count();
        let swept = async || {
            let leases: usize = self.redis.run("ZCARD carillon:nodes").await;
            let dead: usize = self.redis.run("ZCARD carillon:dead").await;
            (leases, dead) == (gateways, 0)
        };
        eventually_within(PATIENCE, "nothing is left to sweep", swept).await;
    }

    /// Kills a gateway with SIGKILL; returns what it wrote to standard error.
    ///
    /// # Panics
    /// When it does not run.
    pub async fn kill_gateway(&mut self, index: usize) -> String {
        self.gateways[index].server.take().expect("the gateway runs").kill().await
    }

    /// Kills a publisher with SIGKILL; returns what it wrote to standard error.
    ///
    /// # Panics
    /// When it does not run.
    pub async fn kill_publisher(&mut self, index: usize) -> String {
        self.publishers[index].server.take().expect("the publisher runs").kill().await
    }

    /// Starts a gateway in a place where none runs, and waits until it is ready.
    ///
    /// # Panics
    /// When it does not come up.
    pub async fn start_gateway(&mut self, index: usize) {
        self.gateways[index].start(&self.redis, &self.setup).await;
        self.gateway(index).ready().await;
    }

    /// Starts a publisher in a place where none runs, and waits until it is ready.
    ///
    /// # Panics
    /// When it does not come up.
    pub async fn start_publisher(&mut self, index: usize) {
        self.publishers[index].start(&self.redis, &self.setup).await;
        self.publisher_at(index).ready().await;
    }

    /// Ends a gateway with SIGTERM; returns what it wrote to standard error.
    ///
    /// # Panics
    /// When it does not end with 0.
    pub async fn stop_gateway(&mut self, index: usize) -> String {
        self.gateways[index].server.take().expect("the gateway runs").stop().await
    }

    /// Waits for the end of a gateway that has had its signal.
    ///
    /// # Panics
    /// When it does not end with 0.
    pub async fn gateway_ends(&mut self, index: usize) -> String {
        self.gateways[index].server.take().expect("the gateway runs").ended().await
    }

    /// Waits for the end of a gateway that has had its signals, with this code.
    ///
    /// # Panics
    /// When it ends with another code.
    pub async fn gateway_ends_with(&mut self, index: usize, code: i32) -> String {
        self.gateways[index].server.take().expect("the gateway runs").ended_with(code).await
    }

    /// Ends a publisher with SIGTERM; returns what it wrote to standard error.
    ///
    /// # Panics
    /// When it does not end with 0.
    pub async fn stop_publisher(&mut self, index: usize) -> String {
        self.publishers[index].server.take().expect("the publisher runs").stop().await
    }

    /// Stops a gateway's process without ending it.
    pub fn pause_gateway(&self, index: usize) {
        self.gateway(index).signal(Signal::STOP);
    }

    /// Ends a gateway's pause.
    pub fn resume_gateway(&self, index: usize) {
        self.gateway(index).signal(Signal::CONT);
    }

    /// Ends all nodes with SIGTERM, then Redis; returns what the nodes wrote to standard error, gateways first.
    ///
    /// # Panics
    /// When a node does not end with 0, or has panicked.
    pub async fn stop(self) -> Vec<String> {
        let Self { redis, gateways, publishers, .. } = self;
        let mut servers: Vec<Server> = gateways.into_iter().chain(publishers).filter_map(|node| node.server).collect();
        for server in &servers {
            server.signal(Signal::TERM);
        }
        let mut logs = Vec::new();
        for server in servers.drain(..) {
            logs.push(within("the end of the cluster", server.ended()).await);
        }
        drop(redis);
        logs
    }
}

impl Node {
    async fn start(&mut self, redis: &Redis, setup: &Setup) {
        assert!(self.server.is_none(), "the node runs already");
        let port = self.proxy.as_ref().map_or(redis.port, |proxy| proxy.port);
        let launch = Launch::new(self.role).setup(setup).args(&["--redis", &redis.url_at(port)]);
        self.server = Some(launch.start().await);
    }
}
