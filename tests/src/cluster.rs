//! A whole cluster: Redis, gateways and publishers as processes, with methods that cause faults.

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

/// A running cluster. A test must call [`Cluster::stop`] at its end. If the test panics earlier, all processes are killed.
pub struct Cluster {
    /// The Redis that the nodes share.
    pub redis: Redis,
    gateways: Vec<Node>,
    publishers: Vec<Node>,
    /// Logs of killed nodes. Those of stopped nodes are checked together with their exit codes.
    setup: Setup,
}

/// A node of the cluster, which can be running or not.
struct Node {
    role: Role,
    server: Option<Server>,
    /// The proxy between the node and Redis, if the cluster has proxies.
    proxy: Option<Proxy>,
}

/// The parts of a cluster to start.
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
    /// Sets the number of gateways. The default is two.
    pub fn gateways(self, gateways: usize) -> Self {
        Self { gateways, ..self }
    }

    /// Sets the number of publishers. The default is one.
    pub fn publishers(self, publishers: usize) -> Self {
        Self { publishers, ..self }
    }

    /// Uses nodes that are gateway and publisher in one.
    pub fn of_whole_nodes(self, whole: usize) -> Self {
        Self { gateways: 0, publishers: 0, whole, ..self }
    }

    /// Sets how nodes authenticate to Redis.
    pub fn access(self, access: Access) -> Self {
        Self { access, ..self }
    }

    /// Starts the cluster without Redis.
    pub fn without_redis(self) -> Self {
        Self { redis_runs: false, ..self }
    }

    /// Puts a separate proxy between each node and Redis.
    pub fn proxied(self) -> Self {
        Self { proxied: true, ..self }
    }

    /// Sets the configuration of every node.
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
    /// Plans two gateways, a publisher and Redis. Awaiting the plan starts them.
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
    /// Panics if a node does not become ready.
    pub async fn ready(&self) {
        for server in self.servers() {
            server.ready().await;
        }
    }

    /// Returns a gateway by its index. Nodes of both roles count as gateways.
    ///
    /// # Panics
    /// Panics if the gateway does not run.
    pub fn gateway(&self, index: usize) -> &Server {
        self.gateways[index].server.as_ref().expect("the gateway is running")
    }

    /// Returns all running gateways.
    pub fn gateways(&self) -> impl Iterator<Item = &Server> {
        self.gateways.iter().filter_map(|node| node.server.as_ref())
    }

    /// Returns the first publisher, or the first node of both roles.
    ///
    /// # Panics
    /// Panics if it does not run.
    pub fn publisher(&self) -> &Server {
        self.publisher_at(0)
    }

    /// Returns a publisher by its index, or a node of both roles.
    ///
    /// # Panics
    /// Panics if it does not run.
    pub fn publisher_at(&self, index: usize) -> &Server {
        let publishers = if self.publishers.is_empty() { &self.gateways } else { &self.publishers };
        publishers[index].server.as_ref().expect("the publisher is running")
    }

    /// Returns all running nodes.
    pub fn servers(&self) -> impl Iterator<Item = &Server> {
        self.gateways.iter().chain(&self.publishers).filter_map(|node| node.server.as_ref())
    }

    /// Returns the proxy of a gateway.
    ///
    /// # Panics
    /// Panics if the cluster has no proxies.
    pub fn gateway_proxy(&mut self, index: usize) -> &mut Proxy {
        self.gateways[index].proxy.as_mut().expect("the cluster is proxied")
    }

    /// Returns the proxy of a publisher.
    ///
    /// # Panics
    /// Panics if the cluster has no proxies.
    pub fn publisher_proxy(&mut self, index: usize) -> &mut Proxy {
        self.publishers[index].proxy.as_mut().expect("the cluster is proxied")
    }

    /// Connects a client to a gateway.
    pub async fn client(&self, gateway: usize) -> TestClient {
        self.gateway(gateway).client().await
    }

    /// Connects a client to each running gateway and subscribes it to a channel.
    pub async fn subscribers(&self, channel: &str) -> Vec<TestClient> {
        let mut clients = Vec::new();
        for gateway in self.gateways() {
            let mut client = gateway.client().await;
            client.subscribe(channel).await;
            clients.push(client);
        }
        clients
    }

    /// Returns an API client for the first publisher.
    pub fn api_client(&self) -> ApiClient {
        self.publisher().api_client()
    }

    /// Publishes one event through the first publisher.
    ///
    /// # Panics
    /// Panics if it does not answer 200.
    pub async fn publish(&self, channel: &str, event: &str, data: &str) {
        self.publisher().publish(channel, event, data).await;
    }

    /// Publishes one event to all connections except one.
    ///
    /// # Panics
    /// Panics if the publisher does not answer 200.
    pub async fn publish_except(&self, channel: &str, event: &str, data: &str, except: SocketId) {
        self.publisher().publish_except(channel, event, data, Some(except)).await;
    }

    /// Tries to publish one event.
    ///
    /// # Panics
    /// Panics if the publisher does not answer.
    pub async fn try_publish(&self, channel: &str, event: &str, data: &str) -> Reply {
        self.publisher().post("/events", &json!({ "name": event, "channel": channel, "data": data })).await
    }

    /// Sends a signed GET below `/apps/ID`, which must succeed.
    pub async fn get(&self, path: &str) -> Value {
        self.publisher().get(path).await
    }

    /// Returns the users of a presence channel from the HTTP API.
    pub async fn users(&self, channel: &str) -> BTreeSet<String> {
        let reply = self.get(&format!("/channels/{channel}/users")).await;
        let users = reply["users"].as_array().expect("a list").iter();
        users.map(|user| user["id"].as_str().expect("ids are strings").to_owned()).collect()
    }

    /// Waits until the HTTP API returns exactly these users.
    ///
    /// # Panics
    /// Panics if it does not within the deadline.
    pub async fn users_become(&self, channel: &str, users: &[&str]) {
        let expected: BTreeSet<String> = users.iter().map(|user| (*user).to_owned()).collect();
        eventually(&format!("the users of {channel} are {users:?}"), async || self.users(channel).await == expected)
            .await;
    }

    /// Waits until each running gateway has a lease and no dead node waits for a sweep.
    ///
    /// # Panics
    /// Panics if this takes too long.
    pub async fn swept(&self) {
        let gateways = self.gateways().count();
        let swept = async || {
            let leases: usize = self.redis.run("ZCARD carillon:nodes").await;
            let dead: usize = self.redis.run("ZCARD carillon:dead").await;
            (leases, dead) == (gateways, 0)
        };
        eventually_within(PATIENCE, "no node waits for a sweep", swept).await;
    }

    /// Kills a gateway with SIGKILL and returns its standard error.
    ///
    /// # Panics
    /// Panics if it does not run.
    pub async fn kill_gateway(&mut self, index: usize) -> String {
        self.gateways[index].server.take().expect("the gateway is running").kill().await
    }

    /// Kills a publisher with SIGKILL and returns its standard error.
    ///
    /// # Panics
    /// Panics if it does not run.
    pub async fn kill_publisher(&mut self, index: usize) -> String {
        self.publishers[index].server.take().expect("the publisher is running").kill().await
    }

    /// Starts a gateway that is not running and waits until it is ready.
    ///
    /// # Panics
    /// Panics if it does not start.
    pub async fn start_gateway(&mut self, index: usize) {
        self.gateways[index].start(&self.redis, &self.setup).await;
        self.gateway(index).ready().await;
    }

    /// Starts a publisher that is not running and waits until it is ready.
    ///
    /// # Panics
    /// Panics if it does not start.
    pub async fn start_publisher(&mut self, index: usize) {
        self.publishers[index].start(&self.redis, &self.setup).await;
        self.publisher_at(index).ready().await;
    }

    /// Stops a gateway with SIGTERM and returns its standard error.
    ///
    /// # Panics
    /// Panics if its exit code is not 0.
    pub async fn stop_gateway(&mut self, index: usize) -> String {
        self.gateways[index].server.take().expect("the gateway is running").stop().await
    }

    /// Waits for the exit of a gateway that has received a signal.
    ///
    /// # Panics
    /// Panics if its exit code is not 0.
    pub async fn gateway_ends(&mut self, index: usize) -> String {
        self.gateways[index].server.take().expect("the gateway is running").ended().await
    }

    /// Waits for the exit of a gateway with this code, after it has received its signals.
    ///
    /// # Panics
    /// Panics if the exit code is another.
    pub async fn gateway_ends_with(&mut self, index: usize, code: i32) -> String {
        self.gateways[index].server.take().expect("the gateway is running").ended_with(code).await
    }

    /// Stops a publisher with SIGTERM and returns its standard error.
    ///
    /// # Panics
    /// Panics if its exit code is not 0.
    pub async fn stop_publisher(&mut self, index: usize) -> String {
        self.publishers[index].server.take().expect("the publisher is running").stop().await
    }

    /// Pauses the process of a gateway.
    pub fn pause_gateway(&self, index: usize) {
        self.gateway(index).signal(Signal::STOP);
    }

    /// Resumes a paused gateway.
    pub fn resume_gateway(&self, index: usize) {
        self.gateway(index).signal(Signal::CONT);
    }

    /// Stops all nodes with SIGTERM, then Redis. Returns the standard error of the nodes, gateways first.
    ///
    /// # Panics
    /// Panics if the exit code of a node is not 0, or if a node panicked.
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
        assert!(self.server.is_none(), "the node is already running");
        let port = self.proxy.as_ref().map_or(redis.port, |proxy| proxy.port);
        let launch = Launch::new(self.role).setup(setup).args(&["--redis", &redis.url_at(port)]);
        self.server = Some(launch.start().await);
    }
}
