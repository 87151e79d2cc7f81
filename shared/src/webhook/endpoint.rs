//! Where an app's webhooks go, and which of them.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use regex::Regex;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use url::Url;

use super::entry::{Entry, Kind};
use crate::redis::keys::fnv;
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
    /// Kinds that are told; all when there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub event_types: Vec<Kind>,
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

/// Names an endpoint in Redis, logs and metrics, without what its URL may hold of secrets: host, port, and a hash of
/// scheme and path. The same in every process, and however filters, passwords and queries change.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Label(Arc<str>);

impl Endpoint {
    /// The kinds that it wants.
    pub fn kinds(&self) -> impl Iterator<Item = Kind> {
        Kind::ALL.into_iter().filter(|kind| self.wants_kind(*kind))
    }

    /// Whether it wants to be told.
    pub fn wants(&self, entry: &Entry) -> bool {
        self.wants_kind(entry.occurrence.kind()) && self.filter.fits(entry.channel.as_str())
    }

    /// The endpoints of an app with their names. Those at the same place are counted.
    pub fn labelled(endpoints: &[Self]) -> Vec<(Label, &Self)> {
        let mut labelled: Vec<(Label, &Self)> = Vec::with_capacity(endpoints.len());
        for endpoint in endpoints {
            let hash = fnv(place_of(&endpoint.url).as_str().bytes()) & 0xffff_ffff;
            let host = endpoint.url.host_str().unwrap_or_default();
            let port = endpoint.url.port_or_known_default().unwrap_or_default();
            let name = format!("{host}:{port}-{hash:08x}");
            let earlier = labelled.iter().filter(|(_, other)| place_of(&other.url) == place_of(&endpoint.url)).count();
            let label = if earlier == 0 { name } else { format!("{name}-{}", earlier + 1) };
            labelled.push((Label(label.into()), endpoint));
        }
        labelled
    }

    fn wants_kind(&self, kind: Kind) -> bool {
        self.event_types.is_empty() || self.event_types.contains(&kind)
    }
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
