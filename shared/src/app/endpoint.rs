//! Where an app's webhooks go, and which of them.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use regex::Regex;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};
use url::Url;

use crate::cluster::redis::keys::fnv;
use crate::cluster::webhook::event::{WebhookEvent, WebhookKind};
use crate::secret::Secret;

/// Requests of one endpoint that may be under way at once, at most.
pub const CONCURRENCY_MAX: usize = 256;

/// A URL of the application, and what it wants to be told.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Endpoint {
    /// Takes POST requests: `http` or `https`.
    #[serde(serialize_with = "masked")]
    pub url: Url,
    /// The name of the endpoint in Redis, logs and metrics; by default one is made from the URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Kinds that are told; all when there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub event_types: Vec<WebhookKind>,
    /// Channels that are told of.
    #[serde(default)]
    pub filter: Filter,
    /// Further headers of each request; never those that carry key and signature.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, Secret>,
    /// Files to read the values of further such headers from; the last line break of each is not part of it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub header_files: BTreeMap<String, PathBuf>,
    /// Whether one request may tell of several occurrences.
    #[serde(default)]
    pub batch: bool,
    /// Requests that may be under way at once; those of one channel follow each other.
    #[serde(default = "concurrency")]
    pub concurrency: usize,
}

/// Which channels an endpoint is told of: those that fit everything that is set. The names with `channel_name_` are
/// soketi's, the others Sockudo's. Source: protocol reference 5.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Filter {
    /// What the channel's name begins with.
    #[serde(alias = "channel_name_starts_with", skip_serializing_if = "Option::is_none")]
    pub channel_prefix: Option<String>,
    /// What it ends with.
    #[serde(alias = "channel_name_ends_with", skip_serializing_if = "Option::is_none")]
    pub channel_suffix: Option<String>,
    /// A regular expression that some part of it matches.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channel_pattern: Option<Pattern>,
}

/// A regular expression over channel names.
#[derive(Clone, Debug)]
pub struct Pattern(Regex);

/// The name of an endpoint in Redis, logs and metrics: the configured one, or else host, port, and a hash of the whole URL.
///
/// It depends on nothing but the endpoint itself, so an endpoint keeps its queue when others are added or removed. The hash
/// hides passwords and tokens in the URL.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Label(Arc<str>);

impl Endpoint {
    /// The kinds that it wants.
    pub fn kinds(&self) -> impl Iterator<Item = WebhookKind> {
        WebhookKind::ALL.into_iter().filter(|kind| self.wants_kind(*kind))
    }

    /// Whether it wants to be told.
    pub fn wants(&self, event: &WebhookEvent) -> bool {
        self.wants_kind(event.occurrence.kind()) && self.filter.fits(event.channel.as_str())
    }

    /// Returns the endpoints of an app with their labels. The labels are unique if [`Endpoint::check_labels`] finds nothing.
    pub fn labelled(endpoints: &[Self]) -> Vec<(Label, &Self)> {
        endpoints.iter().map(|endpoint| (endpoint.label(), endpoint)).collect()
    }

    /// Finds the labels that cannot be used: by the place of the endpoint in the list, and the reason.
    pub fn check_labels(endpoints: &[Self]) -> Vec<(usize, LabelError)> {
        let labelled = Self::labelled(endpoints);
        let mut mistakes = Vec::new();
        for (number, (label, endpoint)) in labelled.iter().enumerate() {
            if endpoint.label.as_deref().is_some_and(|label| !is_label(label)) {
                mistakes.push((number, LabelError::Form));
            } else if labelled[..number].iter().any(|(other, _)| other == label) {
                mistakes.push((number, LabelError::Taken(label.clone())));
            }
        }
        mistakes
    }

    fn label(&self) -> Label {
        if let Some(label) = &self.label {
            return Label::from(label.as_str());
        }
        let url = &self.url;
        let has_secrets = url.query().is_some() || !url.username().is_empty() || url.password().is_some();
        // A hash that can be inverted would not hide the secrets.
        let hash = if has_secrets {
            let digest = Sha256::digest(url.as_str().as_bytes());
            u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]])
        } else {
            (fnv(url.as_str().bytes()) & 0xffff_ffff) as u32
        };
        let (host, port) = (url.host_str().unwrap_or_default(), url.port_or_known_default().unwrap_or_default());
        Label(format!("{host}:{port}-{hash:08x}").into())
    }

    fn wants_kind(&self, kind: WebhookKind) -> bool {
        self.event_types.is_empty() || self.event_types.contains(&kind)
    }
}

/// A label that an endpoint cannot have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LabelError {
    /// It has other characters, or too many.
    #[error("expected 1 to {LABEL_LENGTH_MAX} letters, digits, dots, colons, hyphens or underscores")]
    Form,
    /// Another endpoint of the app has it.
    #[error(
        "expected a label that differs from {0}, which another endpoint of the app has; endpoints with the same URL need one each"
    )]
    Taken(Label),
}

/// Characters of a configured label, at most.
const LABEL_LENGTH_MAX: usize = 64;

fn is_label(text: &str) -> bool {
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b':' | b'-' | b'_');
    (1..=LABEL_LENGTH_MAX).contains(&text.len()) && text.bytes().all(is_good)
}

impl Filter {
    /// Whether a channel of this name fits.
    pub fn fits(&self, channel: &str) -> bool {
        self.channel_prefix.as_ref().is_none_or(|prefix| channel.starts_with(prefix.as_str()))
            && self.channel_suffix.as_ref().is_none_or(|suffix| channel.ends_with(suffix.as_str()))
            && self.channel_pattern.as_ref().is_none_or(|pattern| pattern.0.is_match(channel))
    }
}

impl Pattern {
    /// The expression as configured.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl Serialize for Pattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Regex::new(&text).map(Self).map_err(serde::de::Error::custom)
    }
}

impl Label {
    /// The name as text.
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

/// A URL may be printed without what lets others use it: its user, password and query.
fn masked<S: Serializer>(url: &Url, serializer: S) -> Result<S::Ok, S::Error> {
    let mut bare = place_of(url);
    if url.query().is_some() {
        bare.set_query(Some("***"));
    }
    serializer.serialize_str(bare.as_str())
}

/// A URL without user, password and query.
fn place_of(url: &Url) -> Url {
    let mut bare = url.clone();
    // A URL with a host takes both.
    let _ = bare.set_username("");
    let _ = bare.set_password(None);
    bare.set_query(None);
    bare
}

fn concurrency() -> usize {
    8
}
