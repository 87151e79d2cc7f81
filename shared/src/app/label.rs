//! The label of a webhook endpoint.

use std::fmt;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use url::Url;

use crate::fnv::fnv1a;

/// The name of an endpoint in Redis, logs and metrics.
///
/// It is the configured label, or host, port and a hash of the whole URL. It depends on the endpoint alone, so an
/// endpoint keeps its queue when others are added or removed. The hash hides passwords and tokens of the URL.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Label(Arc<str>);

/// The reason why a label is not valid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LabelError {
    /// A character that is not allowed, or a wrong length.
    #[error("expected 1 to {LENGTH_MAX} letters, digits, dots, colons, hyphens or underscores")]
    Form,
    /// The label of another endpoint of the app.
    #[error("another endpoint of the app has the label {0}; endpoints with the same URL need different labels")]
    Taken(Label),
}

/// The longest configured label, in characters.
const LENGTH_MAX: usize = 64;

impl Label {
    /// Derives the label of an endpoint without a configured one.
    pub(super) fn of_url(url: &Url) -> Self {
        let has_secrets = url.query().is_some() || !url.username().is_empty() || url.password().is_some();
        // FNV-1a can be inverted, so it cannot hide secrets.
        let hash = if has_secrets {
            let digest = Sha256::digest(url.as_str().as_bytes());
            u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]])
        } else {
            (fnv1a(url.as_str().bytes()) & 0xffff_ffff) as u32
        };
        let (host, port) = (url.host_str().unwrap_or_default(), url.port_or_known_default().unwrap_or_default());
        Self(format!("{host}:{port}-{hash:08x}").into())
    }

    /// Checks whether a text can be a configured label.
    pub(super) fn is_valid(text: &str) -> bool {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b':' | b'-' | b'_');
        (1..=LENGTH_MAX).contains(&text.len()) && text.bytes().all(is_allowed)
    }

    /// Returns the label as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Label {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
