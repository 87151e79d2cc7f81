//! Finds the app key in a path.

use std::sync::Arc;

use percent_encoding::percent_decode_str;
use shared::app::{App, Apps};
use shared::serve::http;

/// Returns the app key that follows `{prefix}/app/` in a path. It is not decoded and may have slashes around it.
/// Returns `None` if only slashes follow.
pub(crate) fn key_in<'a>(path: &'a str, prefix: &str) -> Option<&'a str> {
    let key = http::below(path, prefix)?.strip_prefix("/app/")?;
    (!key.trim_matches('/').is_empty()).then_some(key)
}

/// Finds the app with a key from a path.
///
/// A key may contain any character, including slashes, and a client may percent-encode each of them. The key is
/// therefore compared decoded and as it is. If that fails, it is compared without slashes, which some client
/// configurations add.
pub(crate) fn find_app<'a>(apps: &'a Apps, key: &str) -> Option<&'a Arc<App>> {
    let find = |key: &str| apps.by_key(&percent_decode_str(key).decode_utf8_lossy()).or_else(|| apps.by_key(key));
    find(key).or_else(|| find(key.trim_end_matches('/'))).or_else(|| find(key.trim_matches('/')))
}

#[cfg(test)]
mod tests;
