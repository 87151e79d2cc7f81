//! What Redis must be, and must let us do.

mod commands;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, RedisError, cmd};
use shared::cluster::redis::{Config, Connector};
use tokio::time::timeout;

use super::finding::{CLOCK, ClockLimit, Finding, compare_clocks};

/// The oldest version that is served.
const VERSION_MIN: (u32, u32) = (7, 0);

/// Round trips that are timed.
const PINGS: usize = 20;

/// A round trip that takes longer shows in every publish.
const SLOW: Duration = Duration::from_millis(5);

/// Every check of one Redis. `has_webhooks`: whether an app has some.
pub(super) async fn examine(config: &Config, has_webhooks: bool) -> Vec<Finding> {
    let (connector, mut connection) = match connect(config).await {
        Ok(connected) => connected,
        Err(text) => return vec![Finding::problem("redis", text)],
    };
    let mut findings = vec![latency(&mut connection).await];
    findings.extend(information(&mut connection).await);
    findings.push(output_buffer(&mut connection).await);
    findings.push(clock(&mut connection).await);
    let (prefix, patience) = (config.prefix.as_str(), config.command_timeout);
    let trial = commands::Trial { connector: &connector, patience, prefix, has_webhooks };
    findings.extend(commands::examine(&mut connection, &trial).await);
    findings
}

async fn connect(config: &Config) -> Result<(Connector, MultiplexedConnection), String> {
    let address = config.address().map_err(|error| error.to_string())?;
    let connector = config.connector().map_err(|error| error.to_string())?;
    match timeout(config.connect_timeout * 2, connector.connect(AsyncConnectionConfig::new())).await {
        Ok(Ok(connection)) => Ok((connector, connection)),
        Ok(Err(error)) => Err(format!("{address} cannot be used: {}", told(&error))),
        Err(_) => Err(format!("{address} did not answer within {:?}", config.connect_timeout * 2)),
    }
}

async fn latency(connection: &mut MultiplexedConnection) -> Finding {
    const SUBJECT: &str = "redis latency";
    let mut times = Vec::with_capacity(PINGS);
    for _ in 0..PINGS {
        let began = Instant::now();
        if let Err(error) = cmd("PING").exec_async(connection).await {
            return Finding::problem(SUBJECT, format!("PING failed: {}", told(&error)));
        }
        times.push(began.elapsed());
    }
    times.sort();
    let (median, longest) = (times[PINGS / 2], times[PINGS - 1]);
    let text = format!("a round trip takes {median:.1?}, at most {longest:.1?}");
    if median > SLOW { Finding::warning(SUBJECT, text) } else { Finding::good(SUBJECT, text) }
}

/// An error in words that say what to do, where it is a known one.
fn told(error: &RedisError) -> String {
    error.code().and_then(commands::advice).map_or_else(|| error.to_string(), str::to_owned)
}

/// What it tells of itself: version, role, mode, and what it does when its memory is full.
async fn information(connection: &mut MultiplexedConnection) -> Vec<Finding> {
    let info: String = match cmd("INFO").query_async(connection).await {
        Ok(info) => info,
        Err(error) => {
            let text =
                format!("INFO may not be asked ({error}); see that it is 7.0 or newer, a master, and never evicts");
            return vec![Finding::warning("redis version", text)];
        }
    };
    let info: HashMap<&str, &str> = info.lines().filter_map(|line| line.split_once(':')).collect();
    let mut findings = vec![version(&info)];
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
    findings.push(eviction(info.get("maxmemory_policy").copied()));
    findings
}

/// Checks the version of Redis that the server is compatible with, and names the server. Other servers that speak the protocol
/// of Redis report that version as `redis_version`, and their own as `valkey_version` with `server_name:valkey`.
fn version(info: &HashMap<&str, &str>) -> Finding {
    const SUBJECT: &str = "redis version";
    let text = info.get("redis_version").copied().unwrap_or_default();
    let named = match server(info) {
        Some((name, own)) => format!("{name} {own}, compatible with Redis {text}"),
        None => text.to_owned(),
    };
    let mut numbers = text.split('.').map(str::parse::<u32>);
    let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else {
        return Finding::warning(SUBJECT, format!("cannot read the version {text:?}; expected 7.0 or newer"));
    };
    if (major, minor) < VERSION_MIN {
        return Finding::problem(SUBJECT, format!("{named}: expected Redis 7.0 or newer, or Valkey"));
    }
    Finding::good(SUBJECT, named)
}

/// Returns the name and the version of a server that is not Redis itself.
fn server<'a>(info: &HashMap<&str, &'a str>) -> Option<(String, &'a str)> {
    let own_version = |name: &str| info.get(format!("{name}_version").as_str()).copied();
    let name = match info.get("server_name").copied() {
        Some(name) if name != "redis" => name,
        // Valkey with `extended-redis-compatibility` calls itself "redis". Dragonfly sends no name.
        _ => ["valkey", "dragonfly"].into_iter().find(|name| own_version(name).is_some())?,
    };
    let version = own_version(name).unwrap_or("of an unknown version");
    let mut letters = name.chars();
    let capitalized = letters.next().map(char::to_uppercase).into_iter().flatten().chain(letters).collect();
    Some((capitalized, version))
}

fn eviction(policy: Option<&str>) -> Finding {
    const SUBJECT: &str = "redis eviction";
    match policy {
        None => Finding::warning(SUBJECT, "it does not tell its maxmemory_policy; see that it is noeviction"),
        Some("noeviction") => Finding::good(SUBJECT, "noeviction"),
        Some(policy) if policy.starts_with("volatile") => Finding::warning(
            SUBJECT,
            format!("{policy}: when memory is short members vanish for a while; expected noeviction"),
        ),
        Some(policy) => Finding::problem(
            SUBJECT,
            format!("{policy}: when memory is short members and webhooks vanish; expected noeviction"),
        ),
    }
}

/// How much may wait for a subscriber. INFO does not tell; CONFIG does, which a node's user needs for nothing else.
async fn output_buffer(connection: &mut MultiplexedConnection) -> Finding {
    const NAME: &str = "client-output-buffer-limit";
    let asked: Result<HashMap<String, String>, RedisError> =
        cmd("CONFIG").arg("GET").arg(NAME).query_async(connection).await;
    match asked {
        Ok(settings) => buffers(settings.get(NAME).map_or("", String::as_str)),
        Err(_) => Finding::warning(
            BUFFERS,
            "CONFIG may not be asked; see that client-output-buffer-limit pubsub allows 32 MiB or more",
        ),
    }
}

const BUFFERS: &str = "redis buffers";

/// The limit for subscribers: class, hard bytes, soft bytes, soft seconds.
fn buffers(limits: &str) -> Finding {
    const HARD_MIN: u64 = 32 * 1024 * 1024;
    let words: Vec<&str> = limits.split_whitespace().collect();
    let of_subscribers = words.windows(2).find(|pair| pair[0] == "pubsub").and_then(|pair| pair[1].parse::<u64>().ok());
    match of_subscribers {
        Some(0) => Finding::good(BUFFERS, "subscribers may have any amount waiting"),
        Some(hard) if hard < HARD_MIN => Finding::warning(
            BUFFERS,
            format!("a subscriber is cut off at {hard} bytes waiting, and then misses events; expected 32 MiB or more"),
        ),
        Some(hard) => Finding::good(BUFFERS, format!("a subscriber is cut off at {} MiB waiting", hard >> 20)),
        None => Finding::warning(BUFFERS, "client-output-buffer-limit cannot be read"),
    }
}

/// Gateways do not take from each other what was passed on more than a minute ago. All nodes compare with the same Redis, so
/// this is half of it.
const CLOCK_LIMIT: ClockLimit = (30, "gateways a minute apart refuse each other's requests");

async fn clock(connection: &mut MultiplexedConnection) -> Finding {
    let asked: Result<(u64, u64), RedisError> = cmd("TIME").query_async(connection).await;
    match asked {
        Ok((seconds, _)) => compare_clocks(seconds, "Redis", CLOCK_LIMIT),
        Err(error) => Finding::warning(CLOCK, format!("TIME may not be asked: {error}")),
    }
}

#[cfg(test)]
mod tests;
