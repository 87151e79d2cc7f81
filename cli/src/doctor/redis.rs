//! What Redis must be, and must let us do.

use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use redis::aio::MultiplexedConnection;
use redis::{Cmd, RedisError, Value, cmd};
use shared::redis::Config;
use tokio::time::timeout;

use super::Finding;

/// The oldest version that is served.
const VERSION_MIN: (u32, u32) = (7, 0);

/// Round trips that are timed.
const PINGS: usize = 20;

/// A round trip that takes longer shows in every publish.
const SLOW: Duration = Duration::from_millis(5);

/// Clocks that are further apart confuse whoever reads logs and latencies.
const CLOCK_WARNING_S: u64 = 2;

/// Signed requests are refused when clocks are ten minutes apart; this is half of it.
const CLOCK_PROBLEM_S: u64 = 300;

/// How long what the check writes lives, should it not come to deleting it.
const LIFETIME_MS: u64 = 10_000;

/// Every check of one Redis.
pub(super) async fn examine(config: &Config) -> Vec<Finding> {
    let mut connection = match connect(config).await {
        Ok(connection) => connection,
        Err(text) => return vec![Finding::problem("redis", text)],
    };
    let mut findings = vec![latency(&mut connection).await];
    findings.extend(version_and_role(&mut connection).await);
    findings.extend(settings(&mut connection).await);
    findings.push(clock(&mut connection).await);
    findings.push(permissions(&mut connection, &config.prefix).await);
    findings
}

async fn connect(config: &Config) -> Result<MultiplexedConnection, String> {
    let address = config.address().map_err(|error| error.to_string())?;
    let client = config.client().map_err(|error| error.to_string())?;
    match timeout(config.connect_timeout * 2, client.get_multiplexed_async_connection()).await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(error)) => Err(format!("{address} cannot be used: {error}")),
        Err(_) => Err(format!("{address} did not answer within {:?}", config.connect_timeout * 2)),
    }
}

async fn latency(connection: &mut MultiplexedConnection) -> Finding {
    const SUBJECT: &str = "redis latency";
    let mut times = Vec::with_capacity(PINGS);
    for _ in 0..PINGS {
        let began = Instant::now();
        if let Err(error) = cmd("PING").exec_async(connection).await {
            return Finding::problem(SUBJECT, format!("PING failed: {error}"));
        }
        times.push(began.elapsed());
    }
    times.sort();
    let (median, longest) = (times[PINGS / 2], times[PINGS - 1]);
    let text = format!("a round trip takes {median:.1?}, at most {longest:.1?}");
    if median > SLOW { Finding::warning(SUBJECT, text) } else { Finding::good(SUBJECT, text) }
}

async fn version_and_role(connection: &mut MultiplexedConnection) -> Vec<Finding> {
    let info: String = match cmd("INFO").query_async(connection).await {
        Ok(info) => info,
        Err(error) => return vec![Finding::warning("redis version", format!("INFO may not be asked: {error}"))],
    };
    let info: HashMap<&str, &str> = info.lines().filter_map(|line| line.split_once(':')).collect();
    let mut findings = vec![version(info.get("redis_version").copied().unwrap_or_default())];
    findings.push(match info.get("role") {
        Some(&"master") => Finding::good("redis role", "master"),
        Some(role) => {
            Finding::problem("redis role", format!("{role}: expected a master, since a replica takes no writes"))
        }
        None => Finding::warning("redis role", "it does not tell its role"),
    });
    if info.get("cluster_enabled") == Some(&"1") {
        findings.push(Finding::problem("redis mode", "expected a single Redis, not one of a Redis Cluster"));
    }
    findings
}

fn version(text: &str) -> Finding {
    const SUBJECT: &str = "redis version";
    let mut numbers = text.split('.').map(str::parse::<u32>);
    let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else {
        return Finding::warning(SUBJECT, format!("it tells no version that can be read, but {text:?}"));
    };
    if (major, minor) < VERSION_MIN {
        return Finding::problem(SUBJECT, format!("{text}: expected 7.0 or newer"));
    }
    Finding::good(SUBJECT, text)
}

async fn settings(connection: &mut MultiplexedConnection) -> Vec<Finding> {
    let asked: Result<HashMap<String, String>, RedisError> = cmd("CONFIG")
        .arg("GET")
        .arg("maxmemory-policy")
        .arg("client-output-buffer-limit")
        .query_async(connection)
        .await;
    let settings = match asked {
        Ok(settings) => settings,
        Err(_) => {
            let text = "CONFIG may not be asked; see that maxmemory-policy is noeviction";
            return vec![Finding::warning("redis settings", text)];
        }
    };
    let policy = settings.get("maxmemory-policy").map_or("", String::as_str);
    let eviction = match policy {
        "noeviction" => Finding::good("redis eviction", policy),
        _ if policy.starts_with("volatile") => Finding::warning(
            "redis eviction",
            format!("{policy}: when memory is short members vanish for a while; expected noeviction"),
        ),
        _ => Finding::problem(
            "redis eviction",
            format!("{policy}: when memory is short members and webhooks vanish; expected noeviction"),
        ),
    };
    vec![eviction, output_buffer(settings.get("client-output-buffer-limit").map_or("", String::as_str))]
}

/// The limit for subscribers: class, hard bytes, soft bytes, soft seconds.
fn output_buffer(limits: &str) -> Finding {
    const SUBJECT: &str = "redis buffers";
    const HARD_MIN: u64 = 32 * 1024 * 1024;
    let words: Vec<&str> = limits.split_whitespace().collect();
    let of_subscribers = words.windows(2).find(|pair| pair[0] == "pubsub").and_then(|pair| pair[1].parse::<u64>().ok());
    match of_subscribers {
        Some(0) => Finding::good(SUBJECT, "subscribers may have any amount waiting"),
        Some(hard) if hard < HARD_MIN => Finding::warning(
            SUBJECT,
            format!("a subscriber is cut off at {hard} bytes waiting, and then misses events; expected 32 MiB or more"),
        ),
        Some(hard) => Finding::good(SUBJECT, format!("a subscriber is cut off at {} MiB waiting", hard >> 20)),
        None => Finding::warning(SUBJECT, "client-output-buffer-limit cannot be read"),
    }
}

async fn clock(connection: &mut MultiplexedConnection) -> Finding {
    const SUBJECT: &str = "clock";
    let (seconds, _): (u64, u64) = match cmd("TIME").query_async(connection).await {
        Ok(time) => time,
        Err(error) => return Finding::warning(SUBJECT, format!("TIME may not be asked: {error}")),
    };
    let here = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let apart = here.abs_diff(seconds);
    let text = format!("{apart} s apart from that of Redis");
    match apart {
        CLOCK_PROBLEM_S.. => Finding::problem(SUBJECT, format!("{text}: signed requests will be refused")),
        CLOCK_WARNING_S.. => Finding::warning(SUBJECT, text),
        _ => Finding::good(SUBJECT, text),
    }
}

/// Does once what nodes do all the time, on keys of its own under the same prefix.
async fn permissions(connection: &mut MultiplexedConnection, prefix: &str) -> Finding {
    const SUBJECT: &str = "redis rights";
    let key = |kind: &str| format!("{prefix}:{{0}}:doctor:{kind}:{}", std::process::id());
    let (text, hash, set, sorted, stream) = (key("k"), key("h"), key("s"), key("z"), key("x"));
    let script = "redis.call('HSET', KEYS[1], 'a', '1') return redis.call('PUBLISH', ARGV[1], 'x')";
    let commands: Vec<Cmd> = vec![
        with("SET", &[&text, "1", "NX", "PX", "10000"]),
        with("GET", &[&text]),
        with("PTTL", &[&text]),
        with("EXISTS", &[&text]),
        with("HSET", &[&hash, "a", "1"]),
        with("HGET", &[&hash, "a"]),
        with("HGETALL", &[&hash]),
        with("HVALS", &[&hash]),
        with("HLEN", &[&hash]),
        with("HEXISTS", &[&hash, "a"]),
        with("HINCRBY", &[&hash, "n", "1"]),
        with("HDEL", &[&hash, "n"]),
        with("SADD", &[&set, "a"]),
        with("SMEMBERS", &[&set]),
        with("SSCAN", &[&set, "0"]),
        with("SCARD", &[&set]),
        with("SREM", &[&set, "b"]),
        with("SPOP", &[&set, "1"]),
        with("ZADD", &[&sorted, "1", "a"]),
        with("ZSCORE", &[&sorted, "a"]),
        with("ZCARD", &[&sorted]),
        with("ZRANGE", &[&sorted, "0", "-1"]),
        with("ZRANGEBYSCORE", &[&sorted, "-inf", "0"]),
        with("ZREM", &[&sorted, "b"]),
        with("XGROUP", &["CREATE", &stream, "g", "0", "MKSTREAM"]),
        with("XADD", &[&stream, "MAXLEN", "~", "10", "*", "a", "1"]),
        with("XREADGROUP", &["GROUP", "g", "sender", "COUNT", "1", "STREAMS", &stream, ">"]),
        with("XACK", &[&stream, "g", "0-1"]),
        with("XPENDING", &[&stream, "g"]),
        with("XINFO", &["GROUPS", &stream]),
        with("XRANGE", &[&stream, "-", "+"]),
        with("XLEN", &[&stream]),
        with("XTRIM", &[&stream, "MINID", "1"]),
        with("XDEL", &[&stream, "0-1"]),
        with("EVAL", &[script, "1", &hash, &key("c")]),
        with("PUBLISH", &[&key("c"), "x"]),
        with("ROLE", &[]),
    ];
    let mut refused = Vec::new();
    for command in commands {
        let answer: Result<Value, RedisError> = command.query_async(connection).await;
        if answer.is_err_and(|error| error.code() == Some("NOPERM")) {
            refused.extend(name_of(&command));
        }
    }
    let mut cleaning = redis::pipe();
    for key in [text, hash, set, sorted, stream] {
        cleaning.cmd("PEXPIRE").arg(&key).arg(LIFETIME_MS).ignore().cmd("DEL").arg(&key).ignore();
    }
    if cleaning.exec_async(connection).await.is_err() {
        refused.extend(["PEXPIRE".to_owned(), "DEL".to_owned()]);
    }
    if refused.is_empty() {
        return Finding::good(SUBJECT, "everything that a node does is allowed");
    }
    Finding::problem(SUBJECT, format!("not allowed on keys with {prefix:?}: {}", refused.join(", ")))
}

fn with(name: &str, words: &[&str]) -> Cmd {
    let mut command = cmd(name);
    command.arg(words);
    command
}

fn name_of(command: &Cmd) -> Option<String> {
    match command.args_iter().next()? {
        redis::Arg::Simple(name) => Some(String::from_utf8_lossy(name).into_owned()),
        _ => None,
    }
}
