//! Where an app's webhooks go, and which of them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use url::Url;

use super::entry::{Entry, Kind};

/// A URL of the application, and what it wants to be told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Endpoint {
    /// Takes POST requests: `http` or `https`.
    pub url: Url,
    /// Kinds that are told; all when there are none.
    #[serde(default)]
    pub event_types: Vec<Kind>,
    /// Channels that are told of.
    #[serde(default)]
    pub filter: Filter,
    /// Further headers of each request; never those that carry key and signature.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// Whether one request may tell of several occurrences.
    #[serde(default)]
    pub batch: bool,
    /// Requests that may be under way at once; those of one channel follow each other.
    #[serde(default = "concurrency")]
    pub concurrency: usize,
}

/// Which channels an endpoint is told of: those that fit everything that is set. The names with `channel_name_` are
/// soketi's, the others Sockudo's. Source: protocol reference 5.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Filter {
    /// What the channel's name begins with.
    #[serde(alias = "channel_name_starts_with", skip_serializing_if = "Option::is_none")]
    pub channel_prefix: Option<String>,
    /// What it ends with.
    #[serde(alias = "channel_name_ends_with", skip_serializing_if = "Option::is_none")]
    pub channel_suffix: Option<String>,
}

impl Endpoint {
    /// The kinds that it wants.
    pub fn kinds(&self) -> impl Iterator<Item = Kind> {
        Kind::ALL.into_iter().filter(|kind| self.event_types.is_empty() || self.event_types.contains(kind))
    }

    /// Whether it wants to be told.
    pub fn wants(&self, entry: &Entry) -> bool {
        let kind = entry.occurrence.kind();
        (self.event_types.is_empty() || self.event_types.contains(&kind)) && self.filter.fits(entry.channel.as_str())
    }

    /// Names it in Redis, logs and metrics, without what its URL may hold of secrets: host, port, and a hash of the URL
    /// and the filter. The same in every process.
    pub fn label(&self) -> String {
        let text = format!("{}|{:?}|{:?}", self.url, self.filter.channel_prefix, self.filter.channel_suffix);
        let hash = crate::redis::keys::fnv(text.as_bytes());
        let host = self.url.host_str().unwrap_or("nowhere");
        match self.url.port_or_known_default() {
            Some(port) => format!("{host}:{port}-{hash:016x}"),
            None => format!("{host}-{hash:016x}"),
        }
    }
}

impl Filter {
    /// Whether a channel of this name fits.
    pub fn fits(&self, channel: &str) -> bool {
        let begins = self.channel_prefix.as_ref().is_none_or(|prefix| channel.starts_with(prefix.as_str()));
        begins && self.channel_suffix.as_ref().is_none_or(|suffix| channel.ends_with(suffix.as_str()))
    }
}

fn concurrency() -> usize {
    8
}
