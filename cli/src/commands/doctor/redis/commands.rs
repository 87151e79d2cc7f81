//! Runs every Redis command of a node once, to find missing permissions and commands that fail.
//!
//! A test compares this list with the sources of the bus, the roster and the webhooks, and with
//! `deploy/redis/users.acl`.

use std::collections::BTreeMap;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, PushInfo, PushKind, RedisError, Script, Value, cmd};
use shared::cluster::redis::Connector;
use tokio::sync::mpsc;
use tokio::time;

use crate::commands::doctor::finding::Finding;

/// The time to live of written keys in milliseconds, in case they are not deleted. A slow Redis executes all commands
/// in less.
const LIFETIME_MS: &str = "60000";

/// The settings of the test commands.
pub(super) struct Trial<'a> {
    /// The connector for a subscriber connection.
    pub(super) connector: &'a Connector,
    /// The timeout of a connection and of each response.
    pub(super) timeout: Duration,
    /// The prefix of all keys and topics.
    pub(super) prefix: &'a str,
    /// Whether an app has webhooks, which are stored in streams.
    pub(super) has_webhooks: bool,
}

/// The failed commands by error code.
#[derive(Default)]
struct Failures(BTreeMap<String, Failure>);

struct Failure {
    commands: Vec<String>,
    /// The error text of the first failed command.
    text: String,
}

/// Runs every command of a node once, on temporary keys and topics with the same prefix.
pub(super) async fn examine(connection: &mut MultiplexedConnection, trial: &Trial<'_>) -> Vec<Finding> {
    let mut failures = Failures::default();
    // Several doctors can run at once in init containers, where each process has the same id.
    let name: u128 = rand::random();
    let key = |kind: &str| format!("{}:{{0}}:doctor:{kind}:{name:032x}", trial.prefix);
    let keys = ["text", "hash", "set", "sorted", "stream"].map(key);
    for command in on_keys(&keys) {
        failures.run(connection, &command).await;
    }
    if trial.has_webhooks {
        let stream = &keys[4];
        let has_group = failures.run(connection, &with("XGROUP", &["CREATE", stream, "g", "0", "MKSTREAM"])).await;
        failures.run(connection, &expire(stream)).await;
        for command in on_streams(stream) {
            // An error about a missing group follows from the failure to create it.
            let follows = |code: &str| !has_group && matches!(code, "NOGROUP" | "ERR");
            failures.run_unless(connection, &command, follows).await;
        }
    }
    failures.run_script(connection, &keys[1], &key("topic")).await;
    failures.run_topic(connection, trial, &key("topic")).await;
    for key in &keys {
        failures.run(connection, &expire(key)).await;
        failures.run(connection, &with("DEL", &[key])).await;
    }
    // The transaction is last, because an unfinished one would queue all later commands.
    if failures.run(connection, &cmd("MULTI")).await {
        let queued = failures.run(connection, &with("PUBLISH", &[&key("topic"), "x"])).await;
        failures.run_unless(connection, &cmd("EXEC"), |code| !queued && code == "EXECABORT").await;
    }
    failures.findings(trial.prefix)
}

/// Returns the commands on keys. The first command on a key writes it, and the next sets its expiry, because the doctor
/// can be killed at any time.
fn on_keys([text, hash, set, sorted, _]: &[String; 5]) -> Vec<Cmd> {
    vec![
        with("UNWATCH", &[]),
        with("ROLE", &[]),
        with("TIME", &[]),
        with("SET", &[text, "1", "NX", "PX", LIFETIME_MS]),
        with("GET", &[text]),
        with("PTTL", &[text]),
        with("EXISTS", &[text]),
        with("HSET", &[hash, "a", "1"]),
        expire(hash),
        with("HGET", &[hash, "a"]),
        with("HGETALL", &[hash]),
        with("HLEN", &[hash]),
        with("HEXISTS", &[hash, "a"]),
        with("HINCRBY", &[hash, "n", "1"]),
        with("HDEL", &[hash, "n"]),
        with("SADD", &[set, "a"]),
        expire(set),
        with("SMEMBERS", &[set]),
        with("SSCAN", &[set, "0"]),
        with("SCARD", &[set]),
        with("SREM", &[set, "b"]),
        with("SPOP", &[set, "1"]),
        with("ZADD", &[sorted, "1", "a"]),
        expire(sorted),
        with("ZSCORE", &[sorted, "a"]),
        with("ZCARD", &[sorted]),
        with("ZRANGE", &[sorted, "0", "-1"]),
        with("ZRANGEBYSCORE", &[sorted, "-inf", "0"]),
        with("ZREM", &[sorted, "b"]),
    ]
}

fn on_streams(stream: &str) -> Vec<Cmd> {
    vec![
        with("XADD", &[stream, "MAXLEN", "~", "10", "*", "a", "1"]),
        expire(stream),
        with("XREADGROUP", &["GROUP", "g", "sender", "COUNT", "1", "STREAMS", stream, ">"]),
        with("XACK", &[stream, "g", "0-1"]),
        with("XPENDING", &[stream, "g"]),
        with("XINFO", &["GROUPS", stream]),
        with("XRANGE", &[stream, "-", "+"]),
        with("XLEN", &[stream]),
        with("XTRIM", &[stream, "MINID", "1"]),
        with("XDEL", &[stream, "0-1"]),
        with("XGROUP", &["DESTROY", stream, "g"]),
    ]
}

fn with(name: &str, words: &[&str]) -> Cmd {
    let mut command = cmd(name);
    command.arg(words);
    command
}

fn expire(key: &str) -> Cmd {
    with("PEXPIRE", &[key, LIFETIME_MS])
}

fn name_of(command: &Cmd) -> String {
    match command.args_iter().next() {
        Some(redis::Arg::Simple(name)) => String::from_utf8_lossy(name).into_owned(),
        _ => String::new(),
    }
}

impl Failures {
    /// Runs a command. Returns whether it succeeded.
    async fn run(&mut self, connection: &mut MultiplexedConnection, command: &Cmd) -> bool {
        self.run_unless(connection, command, |_| false).await
    }

    /// Runs a command. Failures that follow from an earlier one are not recorded. Returns whether the command
    /// succeeded.
    async fn run_unless(
        &mut self,
        connection: &mut MultiplexedConnection,
        command: &Cmd,
        follows: impl Fn(&str) -> bool,
    ) -> bool {
        let response: Result<Value, RedisError> = command.query_async(connection).await;
        match response {
            Ok(_) => true,
            Err(error) => {
                if !error.code().is_some_and(follows) {
                    self.add(name_of(command), &error);
                }
                false
            }
        }
    }

    /// Loads a script and calls it by its hash, like a node.
    async fn run_script(&mut self, connection: &mut MultiplexedConnection, key: &str, topic: &str) {
        let text = "redis.call('HSET', KEYS[1], 'a', '1') return redis.call('PUBLISH', ARGV[1], 'x')";
        let loaded: Result<Value, RedisError> = cmd("SCRIPT").arg("LOAD").arg(text).query_async(connection).await;
        let is_loaded = loaded.is_ok();
        if let Err(error) = loaded {
            self.add("SCRIPT LOAD".into(), &error);
        }
        let call = with("EVALSHA", &[Script::new(text).get_hash(), "1", key, topic]);
        let called: Result<Value, RedisError> = call.query_async(connection).await;
        match called {
            Err(error) if is_loaded || error.code() != Some("NOSCRIPT") => self.add("EVALSHA".into(), &error),
            _ => {}
        }
    }

    /// Checks that a subscriber receives a published message.
    async fn run_topic(&mut self, connection: &mut MultiplexedConnection, trial: &Trial<'_>, topic: &str) {
        let (sender, mut pushes) = mpsc::unbounded_channel::<PushInfo>();
        let settings = AsyncConnectionConfig::new().set_push_sender(sender);
        let mut subscriber = match trial.connector.connect(settings).await {
            Ok(subscriber) => subscriber,
            Err(error) => return self.add("a second connection".into(), &error),
        };
        let subscribed = self.run(&mut subscriber, &with("SUBSCRIBE", &[topic])).await;
        let published = self.run(connection, &with("PUBLISH", &[topic, "x"])).await;
        if subscribed && published {
            let message = async { while pushes.recv().await.is_some_and(|push| push.kind != PushKind::Message) {} };
            if time::timeout(trial.timeout, message).await.is_err() {
                let text = format!("a subscriber did not receive a published message within {:?}", trial.timeout);
                self.0.insert("silence".into(), Failure { commands: vec!["PUBLISH".into()], text });
            }
        }
        self.run(&mut subscriber, &with("UNSUBSCRIBE", &[topic])).await;
    }

    fn add(&mut self, command: String, error: &RedisError) {
        let cause = match error.code() {
            // The error text of EXEC names the reason for the abort.
            Some("EXECABORT") if error.to_string().contains("NOPERM") => "NOPERM",
            code => code.unwrap_or("connection"),
        };
        let failure =
            self.0.entry(cause.to_owned()).or_insert_with(|| Failure { commands: Vec::new(), text: error.to_string() });
        if !failure.commands.contains(&command) {
            failure.commands.push(command);
        }
    }

    fn findings(self, prefix: &str) -> Vec<Finding> {
        if self.0.is_empty() {
            return vec![Finding::good("redis rights", "all commands of a node are allowed and work")];
        }
        let findings = self.0.into_iter().map(|(cause, failure)| {
            let commands = failure.commands.join(", ");
            if cause == "NOPERM" {
                let text = format!("not allowed on keys and topics that begin with \"{prefix}:\": {commands}");
                return Finding::problem("redis rights", text);
            }
            let advice = advice(&cause).unwrap_or(&failure.text);
            Finding::problem("redis commands", format!("{advice} ({cause}, on {commands})"))
        });
        findings.collect()
    }
}

/// Returns the meaning of an error code of Redis, and the advice for it. `None` if the code is unknown.
pub(super) fn advice(code: &str) -> Option<&'static str> {
    Some(match code {
        "OOM" => "the memory of Redis is full: raise maxmemory, or remove other data",
        "MISCONF" => "Redis refuses writes because it cannot save its file: check its log and its disk",
        "READONLY" => "Redis is a replica and refuses writes: redis.url must name the master",
        "MASTERDOWN" => "Redis is a replica without a connection to its master: redis.url must name the master",
        "NOREPLICAS" => "Redis refuses writes because it has too few replicas: check min-replicas-to-write",
        "LOADING" => "Redis is loading its data: retry later",
        "BUSY" => "Redis is busy with a script: find its client, then use SCRIPT KILL",
        "MOVED" | "ASK" | "TRYAGAIN" | "CROSSSLOT" | "CLUSTERDOWN" => {
            "Redis is a node of a Redis Cluster: expected a standalone Redis"
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
