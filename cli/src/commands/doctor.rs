//! `carillon doctor`: checks the configuration and the environment of a node.

mod finding;
mod public;
mod redis;

use shared::serve::descriptors;

use crate::args::{Doctor, Role};
use crate::commands::credentials;
use crate::config::Config;
use crate::output::{Failure, print};
use finding::{CLOCK, Finding, Verdict};

/// Prints the result of each check. Fails if there is a problem.
pub(crate) async fn run(args: &Doctor) -> Result<(), Failure> {
    let trust = credentials::trust(args.ca.as_deref())?;
    let config = Config::load(&args.settings, args.role)?;
    let mut worst = Verdict::Good;
    let mut report = |finding: Finding| {
        worst = worst.max(finding.verdict);
        print(&finding.to_string());
    };
    report(Finding::good("configuration", format!("valid; apps: {}", config.apps.len())));
    report(descriptors_of(&config, args.role));
    if config.redis.is_set() {
        let has_webhooks = config.apps.iter().any(|app| !app.webhooks.is_empty());
        for finding in redis::examine(&config.redis, has_webhooks).await {
            report(finding);
        }
    } else {
        report(Finding::good("redis", "not configured; the state is in the memory of one process"));
    }
    if let Some(url) = &args.url {
        // A disabled app is always refused. The configuration has at least one app.
        let app = config.apps.iter().find(|app| app.enabled).or(config.apps.first());
        if let Some(app) = app {
            for finding in public::examine(&url.below(&config.server.path_prefix), &app.key, trust).await {
                report(finding);
            }
        }
    }
    if !config.redis.is_set() && args.url.is_none() {
        report(Finding::good(CLOCK, "not compared, because neither Redis nor --url is given"));
    }
    match worst {
        Verdict::Problem => Err(anyhow::anyhow!("doctor found problems").into()),
        Verdict::Warning | Verdict::Good => Ok(()),
    }
}

fn descriptors_of(config: &Config, role: Role) -> Finding {
    const SUBJECT: &str = "descriptors";
    let limit = match descriptors::raise_limit() {
        Ok(limit) => limit,
        Err(error) => return Finding::problem(SUBJECT, error.to_string()),
    };
    if role == Role::Publisher {
        return Finding::good(SUBJECT, format!("{limit} are allowed"));
    }
    let (shards, with_tls) = (config.server.shard_count(), config.tls.cert.is_some());
    let room = match descriptors::connections_max(limit, shards, with_tls) {
        Ok(room) => room,
        Err(error) => return Finding::problem(SUBJECT, error.to_string()),
    };
    let configured = config.server.connections_max;
    let text = format!("{limit} are allowed, enough for {room} connections");
    if configured > room {
        let text = format!("{text}, but server.connections_max is {configured}; raise the limit");
        return Finding::problem(SUBJECT, text);
    }
    if room < 10_000 && configured == 0 {
        return Finding::warning(SUBJECT, format!("{text}; raise the limit with LimitNOFILE or ulimit -n"));
    }
    Finding::good(SUBJECT, text)
}
