//! Tests of the commands with a real Redis.

use std::process::{Child, Command, Stdio};

use shared::cluster::redis::Config;
use shared::secret::Secret;
use tempfile::TempDir;

use super::*;
use crate::commands::doctor::finding::Verdict;

/// A redis-server on a socket in a temporary directory. It ends when dropped.
struct Server {
    process: Child,
    connector: Connector,
    _folder: TempDir,
}

impl Server {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("redis.sock");
        let process = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket"])
            .arg(&socket)
            .arg("--dir")
            .arg(folder.path())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is installed");
        let url = Secret::new(format!("redis+unix://{}", socket.display()));
        let timeout = Duration::from_secs(10);
        let config = Config { url, command_timeout: timeout, connect_timeout: timeout, ..Config::default() };
        let connector = config.connector().unwrap();
        while connector.connect(AsyncConnectionConfig::new()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Self { process, connector, _folder: folder }
    }

    async fn connect(&self) -> MultiplexedConnection {
        self.connector.connect(AsyncConnectionConfig::new()).await.unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test]
async fn concurrent_doctors_do_not_interfere() {
    let server = Server::start().await;
    let mut doctors = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (connector, mut connection) = (server.connector.clone(), server.connect().await);
        doctors.spawn(async move {
            let timeout = Duration::from_secs(20);
            let trial = Trial { connector: &connector, timeout, prefix: "carillon", has_webhooks: true };
            for _ in 0..5 {
                for finding in examine(&mut connection, &trial).await {
                    assert_eq!(finding.verdict, Verdict::Good, "{}", finding.text);
                }
            }
        });
    }
    doctors.join_all().await;
    let left: u64 = cmd("DBSIZE").query_async(&mut server.connect().await).await.unwrap();
    assert_eq!(left, 0, "all keys are deleted");
}

#[tokio::test]
async fn every_written_key_gets_an_expiry_at_once() {
    let server = Server::start().await;
    let mut connection = server.connect().await;
    let keys = ["text", "hash", "set", "sorted", "stream"].map(str::to_owned);
    for commands in [on_keys(&keys), on_streams(&keys[4])] {
        for (index, command) in commands.iter().enumerate() {
            let _: Result<Value, RedisError> = command.query_async(&mut connection).await;
            for key in &keys {
                let left: i64 = with("PTTL", &[key]).query_async(&mut connection).await.unwrap();
                let next = commands.get(index + 1).map(name_of);
                assert!(left != -1 || next.as_deref() == Some("PEXPIRE"), "{key} after {}", name_of(command));
            }
        }
    }
}
