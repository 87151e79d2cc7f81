//! `carillon doctor`: looks for what would go wrong before it does.

mod redis;

use std::fmt;
use std::time::Duration;

use shared::descriptors;

use crate::args::Doctor;
use crate::config::{Config, Role};
use crate::{Failure, say};

/// How long a server may take to answer at its public address.
const PUBLIC_TIMEOUT: Duration = Duration::from_secs(5);

/// What a check found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    Good,
    /// It runs, but not as it should.
    Warning,
    /// It does not run, or loses something.
    Problem,
}

/// What was found, in words, and what to do about it.
struct Finding {
    verdict: Verdict,
    subject: &'static str,
    text: String,
}

impl Finding {
    fn good(subject: &'static str, text: impl Into<String>) -> Self {
        Self { verdict: Verdict::Good, subject, text: text.into() }
    }

    fn warning(subject: &'static str, text: impl Into<String>) -> Self {
        Self { verdict: Verdict::Warning, subject, text: text.into() }
    }

    fn problem(subject: &'static str, text: impl Into<String>) -> Self {
        Self { verdict: Verdict::Problem, subject, text: text.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match self.verdict {
            Verdict::Good => "ok",
            Verdict::Warning => "warning",
            Verdict::Problem => "problem",
        };
        writeln!(f, "{verdict:<8} {:<14} {}", self.subject, self.text)
    }
}

/// Prints what each check found; fails when one found a problem.
pub(crate) async fn run(args: &Doctor) -> Result<(), Failure> {
    let config = Config::load(&args.settings, args.role.into())?;
    let mut worst = Verdict::Good;
    let mut tell = |finding: Finding| {
        worst = worst.max(finding.verdict);
        say(&finding.to_string());
    };
    tell(Finding::good("configuration", format!("valid; apps: {}", config.apps.len())));
    tell(descriptors_of(&config, args.role.into()));
    if config.redis.is_set() {
        for finding in redis::examine(&config.redis).await {
            tell(finding);
        }
    } else {
        tell(Finding::good("redis", "none is configured: the state is in the memory of one process"));
    }
    if let Some(url) = &args.url {
        tell(public(url, &config).await);
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
    let (room, wanted) =
        (descriptors::connections_max(limit, config.tls.cert.is_some()), config.server.connections_max);
    let text = format!("{limit} are allowed, which leaves room for {room} connections");
    if role == Role::Publisher {
        return Finding::good(SUBJECT, format!("{limit} are allowed"));
    }
    if wanted > room {
        let text = format!("{text}, fewer than server.connections_max, which is {wanted}: raise the limit");
        return Finding::problem(SUBJECT, text);
    }
    if room < 10_000 && wanted == 0 {
        return Finding::warning(SUBJECT, format!("{text}: raise the limit, as with LimitNOFILE or ulimit -n"));
    }
    Finding::good(SUBJECT, text)
}

/// Asks at the public address, as a client would reach it: through whatever stands in front.
async fn public(url: &reqwest::Url, config: &Config) -> Finding {
    const SUBJECT: &str = "public address";
    match ask(url, config).await {
        Ok(text) => Finding::good(SUBJECT, text),
        Err(text) => Finding::problem(SUBJECT, text),
    }
}

async fn ask(url: &reqwest::Url, config: &Config) -> Result<String, String> {
    let client = reqwest::Client::builder()
        .http1_only()
        .timeout(PUBLIC_TIMEOUT)
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .map_err(|error| error.to_string())?;
    let app = config.apps.first().ok_or("no app is configured")?;
    let base = url.as_str().trim_end_matches('/');
    let address = format!("{base}{}/app/{}?protocol=7&client=doctor", config.server.path_prefix, app.key);
    let request = client
        .get(&address)
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "Y2FyaWxsb24tZG9jdG9yIQ==");
    let answer = request.send().await.map_err(|error| {
        let mut cause: &dyn std::error::Error = &error;
        while let Some(inner) = cause.source() {
            cause = inner;
        }
        format!("{url} cannot be reached: {cause}")
    })?;
    match answer.status().as_u16() {
        101 => Ok(format!("{url} opens WebSockets")),
        426 => Err(format!("{url} is reached, but the upgrade is not: the proxy must pass Upgrade and Connection on")),
        status => Err(format!("{url} answered {status} to a WebSocket handshake: is this server behind it?")),
    }
}
