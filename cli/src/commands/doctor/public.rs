//! Checks the public address with the connection of a client, through all proxies.

use std::error::Error;
use std::time::{Duration, UNIX_EPOCH};

use shared::app::AppKey;
use tokio::time::timeout;

use super::finding::{CLOCK, ClockLimit, Finding, compare_clocks};
use client::{Client, ClientError, Options, ServerUrl, Trust};

/// How long a server may take to establish a connection.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Connects like a client and compares the clocks.
///
/// The server refuses clients after the upgrade, so only `pusher:connection_established` means success.
pub(super) async fn examine(url: &ServerUrl, key: &AppKey, trust: Trust) -> Vec<Finding> {
    const SUBJECT: &str = "public address";
    let options = Options { trust, ..Options::default() };
    let problem = match timeout(TIMEOUT, Client::connect(url, key.as_str(), &options)).await {
        Ok(Ok(client)) => {
            let clock = clock(client.date());
            // The result is known, so an error of the close is ignored.
            let _ = timeout(TIMEOUT, client.close()).await;
            return vec![
                Finding::good(SUBJECT, format!("{url} accepts WebSockets and establishes connections")),
                clock,
            ];
        }
        Ok(Err(error)) => problem(&error),
        Err(_) => format!("does not establish a connection within {TIMEOUT:?}"),
    };
    vec![Finding::problem(SUBJECT, format!("{url} {problem}"))]
}

/// Half of the clock difference at which the server refuses signed requests.
const CLOCK_LIMIT: ClockLimit = (300, "signed requests will be refused");

/// Compares the clock of the server or the load balancer that responded.
fn clock(date: Option<&str>) -> Finding {
    let since = date.and_then(|date| httpdate::parse_http_date(date).ok()?.duration_since(UNIX_EPOCH).ok());
    match since {
        Some(since) => compare_clocks(since.as_secs(), "the public address", CLOCK_LIMIT),
        None => Finding::good(CLOCK, "not compared, because the public address sends no Date header"),
    }
}

fn problem(error: &ClientError) -> String {
    match error {
        ClientError::NotUpgraded { status, .. } if status.as_u16() == 426 => {
            "responds, but does not upgrade: the proxy must forward the headers Upgrade and Connection".into()
        }
        ClientError::NotUpgraded { status, .. } => {
            format!("responds with {status} to a WebSocket handshake: check that it forwards to this server")
        }
        ClientError::Refused { code, message: words } | ClientError::Closed { code, reason: words } => {
            let said = match code {
                Some(code) if words.is_empty() => code.to_string(),
                Some(code) => format!("{code} {words:?}"),
                None => format!("{words:?}"),
            };
            format!("accepts the WebSocket, then refuses the client with {said}: {}", advice(*code))
        }
        ClientError::Protocol(_) => format!("accepts the WebSocket, but does not establish a connection: {error}"),
        error => {
            let mut cause: &dyn Error = error;
            while let Some(inner) = cause.source() {
                cause = inner;
            }
            format!("cannot be reached: {cause}")
        }
    }
}

/// Returns the probable cause of a close code. Source: protocol reference 1.3.
fn advice(code: Option<u16>) -> &'static str {
    match code {
        Some(4001) => "the server has no app with this key",
        Some(4003) => "the app is disabled on the server",
        Some(4004) => "the app has reached its limits.connections",
        Some(4005) => "expected the part of the path before /app to equal server.path_prefix of the server",
        Some(4006 | 4007) => "the server supports other protocol versions",
        Some(4009) => "the server refuses this client by server.allow, server.deny or server.trusted_proxies",
        Some(4100) => {
            "the server is full or restarts, or the app may have reached limits.connections; retry, then add gateways or raise server.connections_max"
        }
        Some(4200..=4299) => "a node that shuts down responded; retry when another one is ready",
        _ => "see the log of the server",
    }
}

#[cfg(test)]
mod tests;
