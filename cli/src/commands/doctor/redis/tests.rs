//! Tests of the findings for responses of Redis.

use std::time::{SystemTime, UNIX_EPOCH};

use super::*;
use crate::commands::doctor::finding::Verdict;

#[track_caller]
fn check(finding: &Finding, verdict: Verdict, words: &str) {
    assert_eq!(finding.verdict, verdict, "{}", finding.text);
    assert!(finding.text.contains(words), "no {words:?} in {}", finding.text);
}

fn error(line: &str) -> RedisError {
    let value = redis::parse_redis_value(format!("-{line}\r\n").as_bytes()).unwrap();
    value.extract_error().unwrap_err()
}

#[test]
fn an_eviction_policy_other_than_noeviction_is_reported() {
    check(&eviction(Some("noeviction")), Verdict::Good, "noeviction");
    check(&eviction(Some("volatile-ttl")), Verdict::Warning, "for a while");
    check(&eviction(Some("allkeys-lru")), Verdict::Problem, "evicts members and webhooks");
    check(&eviction(None), Verdict::Warning, "maxmemory_policy");
}

#[test]
fn old_versions_are_problems() {
    let version = |text| version(&HashMap::from([("redis_version", text), ("redis_mode", "standalone")]));
    check(&version("7.0.0"), Verdict::Good, "7.0.0");
    check(&version("8.2.1"), Verdict::Good, "8.2.1");
    check(&version("6.2.14"), Verdict::Problem, "expected Redis 7.0");
    check(&version("seven"), Verdict::Warning, "seven");
}

#[test]
fn servers_other_than_redis_are_named_with_their_own_version() {
    let version = |lines: &[(&'static str, &'static str)]| version(&lines.iter().copied().collect());
    // The start of `INFO` of Valkey 8.1: the version of Redis stays at that of the fork.
    let valkey = [("redis_version", "7.2.4"), ("server_name", "valkey"), ("valkey_version", "8.1.3")];
    check(&version(&valkey), Verdict::Good, "Valkey 8.1.3, compatible with Redis 7.2.4");
    let compatible = [("redis_version", "7.2.4"), ("server_name", "redis"), ("valkey_version", "8.1.3")];
    check(&version(&compatible), Verdict::Good, "Valkey 8.1.3, compatible with Redis 7.2.4");
    let dragonfly = [("redis_version", "7.4.0"), ("dragonfly_version", "df-v1.34.2")];
    check(&version(&dragonfly), Verdict::Good, "Dragonfly df-v1.34.2, compatible with Redis 7.4.0");
    let old = [("redis_version", "6.2.14"), ("server_name", "valkey"), ("valkey_version", "7.0")];
    check(&version(&old), Verdict::Problem, "Valkey 7.0, compatible with Redis 6.2.14: expected Redis 7.0");
    check(
        &version(&[("redis_version", "7.2.4"), ("server_name", "fork")]),
        Verdict::Good,
        "Fork of an unknown version",
    );
}

#[test]
fn small_output_buffers_of_subscribers_are_reported() {
    let limits = |pubsub: &str| buffers(&format!("normal 0 0 0 slave 268435456 67108864 60 pubsub {pubsub}"));
    check(&limits("67108864 16777216 30"), Verdict::Good, "64 MiB");
    check(&limits("0 0 0"), Verdict::Good, "is unlimited");
    check(&limits("8388608 8388608 60"), Verdict::Warning, "loses events");
    check(&buffers(""), Verdict::Warning, "cannot be read");
}

#[test]
fn known_errors_of_redis_have_advice() {
    for (line, words) in [
        ("OOM command not allowed when used memory > 'maxmemory'.", "raise maxmemory"),
        ("MISCONF Redis is configured to save RDB snapshots, but it is unable to persist to disk.", "its disk"),
        ("READONLY You can't write against a read only replica.", "name the master"),
        ("MASTERDOWN Link with MASTER is down", "name the master"),
        ("NOREPLICAS Not enough good replicas to write.", "min-replicas-to-write"),
        ("LOADING Redis is loading the dataset in memory", "retry"),
        ("BUSY Redis is busy running a script.", "SCRIPT KILL"),
        ("CLUSTERDOWN Hash slot not served", "standalone Redis"),
        ("ERR unknown command 'XADD'", "unknown command"),
    ] {
        let text = explain(&error(line));
        assert!(text.contains(words), "no {words:?} in {text}");
    }
}

#[test]
fn clocks_of_gateways_are_within_half_a_minute_of_redis() {
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    check(&compare_clocks(now_s, "Redis", CLOCK_LIMIT), Verdict::Good, "s apart");
    check(&compare_clocks(now_s - 10, "Redis", CLOCK_LIMIT), Verdict::Warning, "apart from the clock of Redis");
    check(&compare_clocks(now_s + 60, "Redis", CLOCK_LIMIT), Verdict::Problem, "refuse each other");
}
