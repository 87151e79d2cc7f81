//! What a client finds at the public address, through whatever stands in front.

use std::error::Error;
use std::time::{Duration, UNIX_EPOCH};

use shared::app::AppKey;
use tokio::time::timeout;

use super::finding::{CLOCK, ClockLimit, Finding, compare_clocks};
use client::{Client, ClientError, Options, ServerUrl, Trust};

/// How long a server may take to greet a client.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Connects as a client does. This protocol refuses clients after the upgrade, so only the server's greeting is success.
/// Then its clock is looked at too.
pub(super) async fn examine(url: &ServerUrl, key: &AppKey, trust: Trust) -> Vec<Finding> {
    const SUBJECT: &str = "public address";
    let options = Options { trust, ..Options::default() };
    let problem = match timeout(TIMEOUT, Client::connect(url, key.as_str(), &options)).await {
        Ok(Ok(client)) => {
            let clock = clock(client.date());
            // It has said what was to be known.
            let _ = timeout(TIMEOUT, client.close()).await;
            return vec![Finding::good(SUBJECT, format!("{url} opens WebSockets and greets clients")), clock];
        }
        Ok(Err(error)) => problem(&error),
        Err(_) => format!("does not greet a client within {TIMEOUT:?}"),
    };
    vec![Finding::problem(SUBJECT, format!("{url} {problem}"))]
}

/// Signed requests are refused when clocks are ten minutes apart; this is half of it.
const CLOCK_LIMIT: ClockLimit = (300, "signed requests will be refused");

/// The clock of whoever answered there, which may be a balancer.
fn clock(date: Option<&str>) -> Finding {
    let since = date.and_then(|date| httpdate::parse_http_date(date).ok()?.duration_since(UNIX_EPOCH).ok());
    match since {
        Some(since) => compare_clocks(since.as_secs(), "the public address", CLOCK_LIMIT),
        None => Finding::good(CLOCK, "not compared with that of the public address, which tells no Date"),
    }
}

fn problem(error: &ClientError) -> String {
    match error {
        ClientError::NotUpgraded { status, .. } if status.as_u16() == 426 => {
            "is reached, but the upgrade is not: the proxy must pass Upgrade and Connection on".into()
        }
        ClientError::NotUpgraded { status, .. } => {
            format!("answers {status} to a WebSocket handshake: is this server behind it?")
        }
        ClientError::Refused { code, message: words } | ClientError::Closed { code, reason: words } => {
            let said = match code {
                Some(code) if words.is_empty() => code.to_string(),
                Some(code) => format!("{code} {words:?}"),
                None => format!("{words:?}"),
            };
            format!("opens a WebSocket, then refuses the client with {said}: {}", advice(*code))
        }
        ClientError::Protocol(_) => format!("opens a WebSocket, but does not greet clients: {error}"),
        error => {
            let mut cause: &dyn Error = error;
            while let Some(inner) = cause.source() {
                cause = inner;
            }
            format!("cannot be reached: {cause}")
        }
    }
}

/// What a refusal says of how the server there is configured. Source: protocol reference 1.3.
fn advice(code: Option<u16>) -> &'static str {
    match code {
        Some(4001) => "the server there has other apps than this configuration",
        Some(4003) => "the app is switched off there",
        Some(4004) => "the app has as many connections as its limits.connections allows",
        Some(4005) => "expected the path up to /app, and server.path_prefix to be the same there",
        Some(4006 | 4007) => "what answers speaks another version of the protocol",
        Some(4009) => "server.allow, server.deny or trusted_proxies there do not let this client in",
        Some(4100) => {
            "it is full, it restarts, or the app may be over limits.connections: try again, then add gateways or raise server.connections_max"
        }
        Some(4200..=4299) => "a node that is leaving answered: try again when another one is ready",
        _ => "see the log of the server there",
    }
}

#[cfg(test)]
mod tests;
