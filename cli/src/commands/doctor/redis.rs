//! Checks Redis: its version, role, settings, clock, and the commands that a node needs.

mod commands;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, RedisError, cmd};
use shared::cluster::redis::{Config, Connector};
use tokio::time::timeout;

use super::finding::{CLOCK, ClockLimit, Finding, compare_clocks};

/// The oldest supported version.
const VERSION_MIN: (u32, u32) = (7, 0);

/// The number of measured round trips.
const PINGS: usize = 20;

/// A longer round trip is noticeable in every publish.
const SLOW: Duration = Duration::from_millis(5);

/// Runs all checks of one Redis. `has_webhooks`: whether an app has webhooks.
pub(super) async fn examine(config: &Config, has_webhooks: bool) -> Vec<Finding> {
    let (connector, mut connection) = match connect(config).await {
        Ok(connected) => connected,
        Err(text) => return vec![Finding::problem("redis", text)],
    };
    let mut findings = vec![latency(&mut connection).await];
    findings.extend(information(&mut connection).await);
    findings.push(output_buffer(&mut connection).await);
    findings.push(clock(&mut connection).await);
    let (prefix, timeout) = (config.prefix.as_str(), config.command_timeout);
    let trial = commands::Trial { connector: &connector, timeout, prefix, has_webhooks };
    findings.extend(commands::examine(&mut connection, &trial).await);
    findings
}

async fn connect(config: &Config) -> Result<(Connector, MultiplexedConnection), String> {
    let address = config.address().map_err(|error| error.to_string())?;
    let connector = config.connector().map_err(|error| error.to_string())?;
    match timeout(config.connect_timeout * 2, connector.connect(AsyncConnectionConfig::new())).await {
        Ok(Ok(connection)) => Ok((connector, connection)),
        Ok(Err(error)) => Err(format!("{address} cannot be used: {}", explain(&error))),
        Err(_) => Err(format!("{address} did not respond within {:?}", config.connect_timeout * 2)),
    }
}

async fn latency(connection: &mut MultiplexedConnection) -> Finding {
    const SUBJECT: &str = "redis latency";
    let mut times = Vec::with_capacity(PINGS);
    for _ in 0..PINGS {
        let started = Instant::now();
        if let Err(error) = cmd("PING").exec_async(connection).await {
            return Finding::problem(SUBJECT, format!("PING failed: {}", explain(&error)));
        }
        times.push(started.elapsed());
    }
    times.sort();
    let (median, longest) = (times[PINGS / 2], times[PINGS - 1]);
    let text = format!("a round trip takes {median:.1?}, at most {longest:.1?}");
    if median > SLOW { Finding::warning(SUBJECT, text) } else { Finding::good(SUBJECT, text) }
}

/// Returns the advice for a known error, or the text of the error.
fn explain(error: &RedisError) -> String {
    error.code().and_then(commands::advice).map_or_else(|| error.to_string(), str::to_owned)
}

/// Checks the version, the role, the mode and the eviction policy.
async fn information(connection: &mut MultiplexedConnection) -> Vec<Finding> {
    let info: String = match cmd("INFO").query_async(connection).await {
        Ok(info) => info,
        Err(error) => {
            let text = format!(
                "INFO is not allowed ({error}); check that Redis is 7.0 or newer, a master, and has maxmemory-policy noeviction"
            );
            return vec![Finding::warning("redis version", text)];
        }
    };
    let info: HashMap<&str, &str> = info.lines().filter_map(|line| line.split_once(':')).collect();
    let mut findings = vec![version(&info)];
    findings.push(match info.get("role") {
        Some(&"master") => Finding::good("redis role", "master"),
        Some(role) => {
            Finding::problem("redis role", format!("{role}: expected a master, because a replica refuses writes"))
        }
        None => Finding::warning("redis role", "Redis does not report its role"),
    });
    if info.get("cluster_enabled") == Some(&"1") {
        findings.push(Finding::problem("redis mode", "expected a standalone Redis, not a node of a Redis Cluster"));
    }
    findings.push(eviction(info.get("maxmemory_policy").copied()));
    findings
}

/// Checks the version of Redis with which the server is compatible.
///
/// Servers other than Redis report that version as `redis_version`. Their own version is, for example, in
/// `valkey_version` with `server_name:valkey`.
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
        None => Finding::warning(SUBJECT, "Redis does not report its maxmemory_policy; check that it is noeviction"),
        Some("noeviction") => Finding::good(SUBJECT, "noeviction"),
        Some(policy) if policy.starts_with("volatile") => Finding::warning(
            SUBJECT,
            format!("{policy}: when memory is full, Redis evicts members for a while; expected noeviction"),
        ),
        Some(policy) => Finding::problem(
            SUBJECT,
            format!("{policy}: when memory is full, Redis evicts members and webhooks; expected noeviction"),
        ),
    }
}

/// Checks the output buffer limit of subscribers. Only CONFIG reports it, and the Redis user of a node may lack that
/// command.
async fn output_buffer(connection: &mut MultiplexedConnection) -> Finding {
    const NAME: &str = "client-output-buffer-limit";
    let response: Result<HashMap<String, String>, RedisError> =
        cmd("CONFIG").arg("GET").arg(NAME).query_async(connection).await;
    match response {
        Ok(settings) => buffers(settings.get(NAME).map_or("", String::as_str)),
        Err(_) => Finding::warning(
            BUFFERS,
            "CONFIG is not allowed; check that client-output-buffer-limit pubsub is 32 MiB or more",
        ),
    }
}

const BUFFERS: &str = "redis buffers";

/// Checks the limit for subscribers in a list of: class, hard limit in bytes, soft limit in bytes, seconds.
fn buffers(limits: &str) -> Finding {
    const HARD_MIN: u64 = 32 * 1024 * 1024;
    let words: Vec<&str> = limits.split_whitespace().collect();
    let of_subscribers = words.windows(2).find(|pair| pair[0] == "pubsub").and_then(|pair| pair[1].parse::<u64>().ok());
    match of_subscribers {
        Some(0) => Finding::good(BUFFERS, "the output buffer of subscribers is unlimited"),
        Some(hard) if hard < HARD_MIN => Finding::warning(
            BUFFERS,
            format!(
                "Redis disconnects a subscriber with {hard} bytes in its output buffer, which loses events; expected 32 MiB or more"
            ),
        ),
        Some(hard) => Finding::good(
            BUFFERS,
            format!("Redis disconnects a subscriber with {} MiB in its output buffer", hard >> 20),
        ),
        None => Finding::warning(BUFFERS, "client-output-buffer-limit cannot be read"),
    }
}

/// Half of the clock difference at which gateways refuse forwarded requests. Each node compares its clock with that of
/// Redis, so two nodes can differ by twice this limit.
const CLOCK_LIMIT: ClockLimit = (30, "gateways whose clocks differ by a minute refuse each other's requests");

async fn clock(connection: &mut MultiplexedConnection) -> Finding {
    let response: Result<(u64, u64), RedisError> = cmd("TIME").query_async(connection).await;
    match response {
        Ok((seconds, _)) => compare_clocks(seconds, "Redis", CLOCK_LIMIT),
        Err(error) => Finding::warning(CLOCK, format!("TIME is not allowed: {error}")),
    }
}

#[cfg(test)]
mod tests;
