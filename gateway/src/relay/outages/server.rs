//! A redis-server for tests of failures.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use redis::{Client, FromRedisValue};
use shared::cluster::redis::Config;
use shared::secret::Secret;
use tempfile::TempDir;

/// A server on a Unix socket in a temporary folder. It logs every write, and is killed when it is dropped.
pub(super) struct Server {
    process: Option<Child>,
    folder: TempDir,
    /// The data at the time of [`Server::remember`].
    older: TempDir,
}

impl Server {
    pub(super) async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut server = Self { process: None, folder, older: tempfile::tempdir().expect("a temporary folder") };
        server.launch().await;
        server
    }

    pub(super) fn config(&self) -> Config {
        Config {
            url: Secret::new(format!("redis+unix://{}", self.socket().display())),
            command_timeout: Duration::from_millis(500),
            connect_timeout: Duration::from_millis(300),
            ..Config::default()
        }
    }

    /// Kills the process.
    pub(super) fn stop(&mut self) {
        let mut process = self.process.take().expect("the server is running");
        process.kill().expect("the server can be killed");
        process.wait().expect("the server ends");
    }

    /// Starts the process with its current data.
    pub(super) async fn launch(&mut self) {
        // The socket of a killed server would look like a running server.
        let _ = std::fs::remove_file(self.socket());
        let process = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--appendonly", "yes", "--appendfsync", "always", "--daemonize", "no"])
            .arg("--unixsocket")
            .arg(self.socket())
            .arg("--dir")
            .arg(self.folder.path())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is installed");
        self.process = Some(process);
        while self.try_query::<String>(&["PING"]).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Copies the data.
    pub(super) fn remember(&self) {
        copy(&self.data(), self.older.path());
    }

    /// Replaces the data of a stopped server by the copy, like a failover to a lagging replica.
    pub(super) fn fall_back(&self) {
        self.lose_data();
        std::fs::create_dir(self.data()).expect("the data folder can be created");
        copy(self.older.path(), &self.data());
    }

    /// Deletes the data of a stopped server.
    pub(super) fn lose_data(&self) {
        std::fs::remove_dir_all(self.data()).expect("the data can be deleted");
    }

    /// Sends a signal to the process.
    pub(super) fn signal(&self, name: &str) {
        let id = self.process.as_ref().expect("the server is running").id().to_string();
        let sent = Command::new("kill").args([&format!("-{name}"), &id]).status().expect("kill is installed");
        assert!(sent.success());
    }

    pub(super) async fn query<T: FromRedisValue>(&self, words: &[&str]) -> T {
        self.try_query(words).await.unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    /// Simulates a jump of the clock: moves leases into the past or the future, and changes the times to live of keys.
    /// `nodes`: the number of leases that are moved.
    pub(super) async fn jump(&self, milliseconds: i64, nodes: usize) {
        let script = "
            local jump = tonumber(ARGV[1])
            for _, node in ipairs(redis.call('ZRANGE', 'carillon:nodes', 0, ARGV[2] - 1)) do
              redis.call('ZINCRBY', 'carillon:nodes', -jump, node)
            end
            for _, key in ipairs(redis.call('KEYS', '*')) do
              local left = redis.call('PTTL', key)
              if left > 0 then redis.call('PEXPIRE', key, left - jump) end
            end
            return 1";
        self.query::<i64>(&["EVAL", script, "0", &milliseconds.to_string(), &nodes.to_string()]).await;
    }

    async fn try_query<T: FromRedisValue>(&self, words: &[&str]) -> Result<T, redis::RedisError> {
        let client = Client::open(format!("redis+unix://{}", self.socket().display()))?;
        let mut connection = client.get_multiplexed_async_connection().await?;
        redis::cmd(words[0]).arg(&words[1..]).query_async(&mut connection).await
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("redis.sock")
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("appendonlydir")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            // A server that has crashed has failed the test already.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name");
        std::fs::copy(&path, to.join(name)).expect("a copy");
    }
}
