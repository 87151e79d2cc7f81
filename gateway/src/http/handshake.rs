//! Checks the handshake of a client, by any transport. Source: protocol reference 1.

use std::net::IpAddr;
use std::sync::Arc;

use hyper::Uri;
use hyper::header::{HeaderMap, ORIGIN};
use percent_encoding::percent_decode_str;
use shared::app::App;
use shared::excerpt::{MESSAGE_MAX, NAME_MAX, excerpt, logged};
use shared::protocol::{self, CloseCode};

use super::key::find_app;
use super::origin;
use crate::capacity::addresses::OverLimit;
use crate::node::Node;
use crate::reject::Farewell;

/// Checks the app key, the protocol version and the origin of a client.
///
/// `key`: as in the path. A node that is shutting down may have an outdated configuration. It therefore sends no final
/// close code, and the client tries another node.
///
/// # Errors
/// The farewell for the client.
pub(crate) fn check<'a>(node: &'a Node, key: &str, uri: &Uri, headers: &HeaderMap) -> Result<&'a Arc<App>, Farewell> {
    check_client(node, key, uri, headers)
        .map_err(|farewell| if node.is_draining() { farewell.not_final() } else { farewell })
}

fn check_client<'a>(node: &'a Node, key: &str, uri: &Uri, headers: &HeaderMap) -> Result<&'a Arc<App>, Farewell> {
    let Some(app) = find_app(&node.apps, key) else {
        let key = percent_decode_str(key).decode_utf8_lossy();
        let key = excerpt(&key, NAME_MAX);
        let text = format!("App key {key} not in this cluster. Did you forget to specify the cluster?");
        return Err(Farewell::new(CloseCode::UnknownApp, text));
    };
    check_version(uri.query().unwrap_or_default())?;
    if !app.enabled {
        return Err(Farewell::new(CloseCode::AppDisabled, "The app is disabled"));
    }
    let origin = headers.get(ORIGIN).map(|origin| String::from_utf8_lossy(origin.as_bytes()));
    if !origin::is_allowed(&app.allowed_origins, origin.as_deref()) {
        return Err(Farewell::new(CloseCode::Unauthorized, "Origin not allowed"));
    }
    Ok(app)
}

fn check_version(query: &str) -> Result<(), Farewell> {
    let version = form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "protocol").map(|(_, value)| value);
    let Some(version) = version else { return Ok(()) };
    match version.parse() {
        Ok(number) if protocol::VERSIONS.contains(&number) => Ok(()),
        Ok::<u32, _>(_) => Err(Farewell::new(
            CloseCode::UnsupportedVersion,
            format!("Unsupported protocol version {}; this server supports 7", excerpt(&version, NAME_MAX)),
        )),
        Err(_) => Err(Farewell::new(CloseCode::InvalidVersion, "Invalid protocol version: not a number")),
    }
}

/// Counts a client whose address reached a connection limit. Returns its farewell, after which the client retries.
pub(crate) fn refuse_over_limit(node: &Node, limit: OverLimit) -> Farewell {
    node.metrics.rate_limited(limit.label());
    Farewell::new(CloseCode::OverCapacity, "Too many connections from this address, try again later")
}

/// Counts and logs a refused client.
pub(crate) fn record_refusal(node: &Node, farewell: &Farewell, client: IpAddr) {
    node.metrics.handshake_rejected(farewell.code);
    tracing::debug!(
        target: "activity",
        {
            client.address = %client,
            code = farewell.code.code(),
            reason = %logged(&farewell.message, MESSAGE_MAX),
        },
        "Connection refused"
    );
}

#[cfg(test)]
mod tests;
