//! The app key in a path.

use std::sync::Arc;

use percent_encoding::percent_decode_str;
use shared::app::{App, Apps};
use shared::serve::http;

/// Returns what follows `{prefix}/app/` in a path: an app key as the client wrote it, perhaps with slashes around it.
/// `None` where nothing but slashes follows.
pub(crate) fn key_in<'a>(path: &'a str, prefix: &str) -> Option<&'a str> {
    let key = http::below(path, prefix)?.strip_prefix("/app/")?;
    (!key.trim_matches('/').is_empty()).then_some(key)
}

/// Finds the app that a key in a path names.
///
/// A key may hold any character, slashes included, and a client may write each of them plainly or percent-encoded. So the
/// key is compared decoded and as it is, and only then without the slashes that a client's configuration has added.
pub(crate) fn find_app<'a>(apps: &'a Apps, key: &str) -> Option<&'a Arc<App>> {
    let find = |key: &str| apps.by_key(&percent_decode_str(key).decode_utf8_lossy()).or_else(|| apps.by_key(key));
    find(key).or_else(|| find(key.trim_end_matches('/'))).or_else(|| find(key.trim_matches('/')))
}

#[cfg(test)]
mod tests;
