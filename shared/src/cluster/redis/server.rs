//! A redis-server for tests, on a Unix socket in a temporary directory.

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use redis::AsyncConnectionConfig;
use redis::aio::MultiplexedConnection;
use tempfile::TempDir;
use tokio::runtime::Handle;

use super::metrics::Metrics;
use super::{Config, Link, Probe, State};
use crate::cluster::bus::contract::Cluster;
use crate::cluster::bus::redis::subscriber::Subscriber;
use crate::cluster::bus::{Bus, EnvelopeSink, RedisBus};
use crate::cluster::roster::{RedisRoster, Roster};
use crate::cluster::webhook::{DeadLetters, EventTypes, RedisQueues};
use crate::secret::Secret;
use crate::serve::telemetry::metrics::Registry;

/// A server process. It is killed when dropped.
pub(crate) struct RedisServer {
    process: Child,
    folder: TempDir,
}

impl RedisServer {
    /// Starts a server without persistence.
    ///
    /// # Panics
    /// If `redis-server` is not installed.
    pub(crate) fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap())
    }

    fn start_in(folder: TempDir) -> Self {
        let process = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--appendonly", "no", "--daemonize", "no"])
            .arg("--unixsocket")
            .arg(folder.path().join("redis.sock"))
            .arg("--dir")
            .arg(folder.path())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is installed");
        Self { process, folder }
    }

    /// Reserves the socket of a server that is started later.
    pub(crate) fn start_later() -> AbsentServer {
        AbsentServer { folder: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn config(&self) -> Config {
        config_in(&self.folder)
    }

    /// Connects when the server has started.
    pub(crate) async fn connect(&self) -> MultiplexedConnection {
        let connector = self.config().connector().unwrap();
        loop {
            match connector.connect(AsyncConnectionConfig::new()).await {
                Ok(connection) => return connection,
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    }
}

/// The socket of a server that has not been started.
pub(crate) struct AbsentServer {
    folder: TempDir,
}

impl AbsentServer {
    pub(crate) fn config(&self) -> Config {
        config_in(&self.folder)
    }

    pub(crate) fn begin(self) -> RedisServer {
        RedisServer::start_in(self.folder)
    }
}

fn config_in(folder: &TempDir) -> Config {
    let url = format!("redis+unix://{}", folder.path().join("redis.sock").display());
    Config { url: Secret::new(url), ..Config::default() }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        // The process may have exited already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Returns a link to a server, with separate metrics.
fn link_to(server: &RedisServer) -> Link {
    Link::new(&server.config(), Handle::current(), Metrics::new(&Registry::new(), true)).unwrap()
}

/// A cluster of nodes on one server.
pub(crate) struct RedisCluster {
    server: RedisServer,
    event_types: EventTypes,
}

impl RedisCluster {
    pub(crate) async fn new() -> Self {
        Self::with_event_types(EventTypes::default()).await
    }

    /// Creates a cluster with webhooks.
    pub(crate) async fn with_event_types(event_types: EventTypes) -> Self {
        let server = RedisServer::start();
        let link = link_to(&server);
        while link.run::<()>("ping", redis::cmd("PING")).await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Self { server, event_types }
    }

    /// Returns webhook queues of a new dispatcher.
    pub(crate) fn queues_of(&self, event_types: EventTypes) -> Arc<RedisQueues> {
        RedisQueues::new(link_to(&self.server), event_types)
    }

    /// Returns a link to the server.
    pub(crate) fn link(&self) -> Link {
        link_to(&self.server)
    }

    /// Returns the configuration for this server.
    pub(crate) fn config(&self) -> Config {
        self.server.config()
    }

    /// Returns webhook queues that remove unknown endpoints after `grace`.
    pub(crate) fn queues_with_grace(&self, event_types: EventTypes, grace: Duration) -> Arc<RedisQueues> {
        RedisQueues::with_grace(link_to(&self.server), event_types, grace)
    }

    /// Returns the dead letters of an app.
    pub(crate) fn dead_letters(&self, app: &str) -> DeadLetters {
        DeadLetters::new(link_to(&self.server), app.into())
    }

    /// Runs a command and returns its reply.
    pub(crate) async fn query<T: redis::FromRedisValue + Send + 'static>(&self, command: &str, words: &[&str]) -> T {
        let mut command = redis::cmd(command);
        command.arg(words);
        link_to(&self.server).run("query", command).await.unwrap()
    }
}

impl Cluster for RedisCluster {
    async fn start(&self, sink: Arc<dyn EnvelopeSink>) -> (Arc<dyn Bus>, Arc<dyn Roster>) {
        let link = link_to(&self.server);
        let bus = RedisBus::new(link.clone(), Subscriber::new(link.clone()));
        bus.deliver_to(sink);
        tokio::spawn(Probe::new(link.clone()).run());
        link.primary().wait_for_state(|state| state == State::Live).await;
        (bus, RedisRoster::new(link, self.event_types.clone()))
    }
}
