//! Every command that nodes give Redis, given once: what is not allowed, and what Redis cannot do now.
//!
//! A test holds this list against the sources of the bus, the roster and the webhooks, and against `deploy/redis/users.acl`.

use std::collections::BTreeMap;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, PushInfo, PushKind, RedisError, Script, Value, cmd};
use shared::cluster::redis::Connector;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::commands::doctor::finding::Finding;

/// How long what is written lives, in milliseconds, should it not come to deleting it: longer than a slow Redis takes for
/// all commands.
const LIFETIME_MS: &str = "60000";

/// What is to be tried.
pub(super) struct Trial<'a> {
    /// For a connection that hears.
    pub(super) connector: &'a Connector,
    /// For a connection, and for each answer.
    pub(super) patience: Duration,
    /// What all keys and topics begin with.
    pub(super) prefix: &'a str,
    /// Whether an app has webhooks, which are kept in streams.
    pub(super) has_webhooks: bool,
}

/// The commands that failed, by what Redis calls the failure.
#[derive(Default)]
struct Failures(BTreeMap<String, Failure>);

struct Failure {
    commands: Vec<String>,
    /// What Redis said to the first of them.
    words: String,
}

/// Does once what nodes do all the time, on keys and topics of its own under the same prefix.
pub(super) async fn examine(connection: &mut MultiplexedConnection, trial: &Trial<'_>) -> Vec<Finding> {
    let mut failures = Failures::default();
    // Many may look at once, as init containers do, and in each of those every process has the same id.
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
            // What only says that there is no group says nothing new where none could be made.
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
    // Last, since a transaction that may not be ended swallows all that follows.
    if failures.run(connection, &cmd("MULTI")).await {
        let queued = failures.run(connection, &with("PUBLISH", &[&key("topic"), "x"])).await;
        failures.run_unless(connection, &cmd("EXEC"), |code| !queued && code == "EXECABORT").await;
    }
    failures.told(trial.prefix)
}

/// What writes a key comes first of those on it, and then what lets it end by itself: a doctor may be killed at any time.
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
    /// Whether the command succeeded.
    async fn run(&mut self, connection: &mut MultiplexedConnection, command: &Cmd) -> bool {
        self.run_unless(connection, command, |_| false).await
    }

    /// The same; failures that merely follow from an earlier one are not told again.
    async fn run_unless(
        &mut self,
        connection: &mut MultiplexedConnection,
        command: &Cmd,
        follows: impl Fn(&str) -> bool,
    ) -> bool {
        let answer: Result<Value, RedisError> = command.query_async(connection).await;
        match answer {
            Ok(_) => true,
            Err(error) => {
                if !error.code().is_some_and(follows) {
                    self.add(name_of(command), &error);
                }
                false
            }
        }
    }

    /// Scripts are loaded, and then called by their hashes; never sent with each call.
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

    /// What is published must come back to who subscribed.
    async fn run_topic(&mut self, connection: &mut MultiplexedConnection, trial: &Trial<'_>, topic: &str) {
        let (hear, mut heard) = mpsc::unbounded_channel::<PushInfo>();
        let settings = AsyncConnectionConfig::new().set_push_sender(hear);
        let mut ear = match trial.connector.connect(settings).await {
            Ok(ear) => ear,
            Err(error) => return self.add("a second connection".into(), &error),
        };
        let subscribed = self.run(&mut ear, &with("SUBSCRIBE", &[topic])).await;
        let published = self.run(connection, &with("PUBLISH", &[topic, "x"])).await;
        if subscribed && published {
            let message = async { while heard.recv().await.is_some_and(|push| push.kind != PushKind::Message) {} };
            if timeout(trial.patience, message).await.is_err() {
                let words = format!("what was published did not come back within {:?}", trial.patience);
                self.0.insert("silence".into(), Failure { commands: vec!["PUBLISH".into()], words });
            }
        }
        self.run(&mut ear, &with("UNSUBSCRIBE", &[topic])).await;
    }

    fn add(&mut self, command: String, error: &RedisError) {
        let cause = match error.code() {
            // EXEC says why it ended the transaction in its words only.
            Some("EXECABORT") if error.to_string().contains("NOPERM") => "NOPERM",
            code => code.unwrap_or("connection"),
        };
        let failure = self
            .0
            .entry(cause.to_owned())
            .or_insert_with(|| Failure { commands: Vec::new(), words: error.to_string() });
        if !failure.commands.contains(&command) {
            failure.commands.push(command);
        }
    }

    fn told(self, prefix: &str) -> Vec<Finding> {
        if self.0.is_empty() {
            return vec![Finding::good("redis rights", "everything that a node does is allowed, and works")];
        }
        let told = self.0.into_iter().map(|(cause, failure)| {
            let commands = failure.commands.join(", ");
            if cause == "NOPERM" {
                let text = format!("not allowed on keys and topics that begin with \"{prefix}:\": {commands}");
                return Finding::problem("redis rights", text);
            }
            let advice = advice(&cause).unwrap_or(&failure.words);
            Finding::problem("redis commands", format!("{advice} ({cause}, on {commands})"))
        });
        told.collect()
    }
}

/// What is wrong with a Redis that answers with this code, and what to do about it; `None` where its words have to do.
pub(super) fn advice(code: &str) -> Option<&'static str> {
    Some(match code {
        "OOM" => "its memory is full: raise maxmemory, or see what else it keeps",
        "MISCONF" => "it takes no writes while it cannot write its own file: see its log and its disk",
        "READONLY" => "it is a replica and takes no writes: redis.url must lead to the master",
        "MASTERDOWN" => "it is a replica that has lost its master: redis.url must lead to the master",
        "NOREPLICAS" => "it takes no writes while too few replicas follow it: see min-replicas-to-write",
        "LOADING" => "it still reads its data: try again when it has",
        "BUSY" => "a script keeps it busy: find whose it is, then SCRIPT KILL",
        "MOVED" | "ASK" | "TRYAGAIN" | "CROSSSLOT" | "CLUSTERDOWN" => {
            "it is one of a Redis Cluster: expected a single Redis"
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
