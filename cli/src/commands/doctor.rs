//! `carillon doctor`: looks for what would go wrong before it does.

mod finding;
mod public;
mod redis;

use shared::serve::descriptors;

use crate::args::{Doctor, Role};
use crate::commands::credentials;
use crate::config::Config;
use crate::output::{Failure, say};
use finding::{CLOCK, Finding, Verdict};

/// Prints what each check found; fails when one found a problem.
pub(crate) async fn run(args: &Doctor) -> Result<(), Failure> {
    let trust = credentials::trust(args.ca.as_deref())?;
    let config = Config::load(&args.settings, args.role)?;
    let mut worst = Verdict::Good;
    let mut tell = |finding: Finding| {
        worst = worst.max(finding.verdict);
        say(&finding.to_string());
    };
    tell(Finding::good("configuration", format!("valid; apps: {}", config.apps.len())));
    tell(descriptors_of(&config, args.role));
    if config.redis.is_set() {
        let has_webhooks = config.apps.iter().any(|app| !app.webhooks.is_empty());
        for finding in redis::examine(&config.redis, has_webhooks).await {
            tell(finding);
        }
    } else {
        tell(Finding::good("redis", "none is configured: the state is in the memory of one process"));
    }
    if let Some(url) = &args.url {
        // A switched-off app is refused whatever stands in front; the configuration is never without an app.
        let app = config.apps.iter().find(|app| app.enabled).or(config.apps.first());
        if let Some(app) = app {
            for finding in public::examine(&url.below(&config.server.path_prefix), &app.key, trust).await {
                tell(finding);
            }
        }
    }
    if !config.redis.is_set() && args.url.is_none() {
        tell(Finding::good(CLOCK, "not compared with another: there is neither Redis nor --url"));
    }
    match worst {
        Verdict::Problem => Err(anyhow::anyhow!("there are problems").into()),
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
    let wanted = config.server.connections_max;
    let text = format!("{limit} are allowed, which leaves room for {room} connections");
    if wanted > room {
        let text = format!("{text}, fewer than server.connections_max, which is {wanted}: raise the limit");
        return Finding::problem(SUBJECT, text);
    }
    if room < 10_000 && wanted == 0 {
        return Finding::warning(SUBJECT, format!("{text}: raise the limit, as with LimitNOFILE or ulimit -n"));
    }
    Finding::good(SUBJECT, text)
}
