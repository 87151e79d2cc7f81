//! The configuration of a webhook endpoint: its URL, and which events it receives.

use std::collections::BTreeMap;
use std::path::PathBuf;

use regex::Regex;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use url::Url;

use super::kind::WebhookKind;
use super::label::{Label, LabelError};
use crate::config::schema;
use crate::secret::Secret;

/// The largest number of concurrent requests to one endpoint.
pub const CONCURRENCY_MAX: usize = 256;

/// An endpoint of an app: a URL that receives webhooks, and the events that it receives.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Endpoint {
    /// The URL that receives POST requests, with `http://` or `https://`.
    #[serde(serialize_with = "masked")]
    #[schemars(schema_with = "schema::url")]
    pub url: Url,
    /// The name of the endpoint in Redis, logs, metrics and commands: up to 64 letters, digits, `.`, `:`, `-` and `_`.
    /// With a label, the URL can change and the queue stays. Endpoints of one app with the same URL need one.
    ///
    /// The default consists of the host, the port and a hash of the whole URL. A change of the password or the query
    /// then makes a new endpoint with an empty queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// The events that the endpoint receives. An empty list means all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub event_types: Vec<WebhookKind>,
    /// The channels whose events the endpoint receives: those that match everything that is set. The default is all
    /// channels.
    #[serde(default)]
    pub filter: Filter,
    /// Additional headers of each request, like `{ Authorization = "Bearer …" }`. The headers of the key and the
    /// signature cannot be set.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::secrets")]
    pub headers: BTreeMap<String, Secret>,
    /// Files to read the values of additional headers from, like `{ Authorization = "/run/secrets/webhook" }`. The last
    /// line break of each is ignored. A header may not be in both tables.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::paths")]
    pub header_files: BTreeMap<String, PathBuf>,
    /// Whether one request may hold up to 100 events. The endpoint then gets one request at a time.
    #[serde(default)]
    pub batch: bool,
    /// The maximum number of concurrent requests to the endpoint. The events of one channel are always sent one after
    /// the other.
    #[serde(default = "concurrency")]
    #[schemars(range(min = 1, max = CONCURRENCY_MAX))]
    pub concurrency: usize,
}

/// A filter for channels. The `channel_name_` aliases come from soketi, the other names from Sockudo. Source: protocol
/// reference 5.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Filter {
    /// The beginning of the channel name. `channel_name_starts_with` has the same meaning.
    #[serde(alias = "channel_name_starts_with", skip_serializing_if = "Option::is_none")]
    pub channel_prefix: Option<String>,
    /// The end of the channel name. `channel_name_ends_with` has the same meaning.
    #[serde(alias = "channel_name_ends_with", skip_serializing_if = "Option::is_none")]
    pub channel_suffix: Option<String>,
    /// A regular expression that matches a part of the channel name.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::pattern")]
    pub channel_pattern: Option<Pattern>,
}

/// A regular expression for channel names.
#[derive(Clone, Debug)]
pub struct Pattern(Regex);

impl Endpoint {
    /// Returns the kinds of events that the endpoint receives.
    pub fn kinds(&self) -> impl Iterator<Item = WebhookKind> {
        WebhookKind::ALL.iter().copied().filter(|kind| self.has_kind(*kind))
    }

    /// Checks whether the endpoint receives events of a kind on a channel.
    pub fn accepts(&self, kind: WebhookKind, channel: &str) -> bool {
        self.has_kind(kind) && self.filter.matches(channel)
    }

    /// Returns the endpoints of an app with their labels. The labels are unique if [`Endpoint::check_labels`] finds
    /// nothing.
    pub fn labelled(endpoints: &[Self]) -> Vec<(Label, &Self)> {
        endpoints.iter().map(|endpoint| (endpoint.label(), endpoint)).collect()
    }

    /// Returns the invalid labels: the index of the endpoint in the list, and the reason.
    pub fn check_labels(endpoints: &[Self]) -> Vec<(usize, LabelError)> {
        let labelled = Self::labelled(endpoints);
        let mut mistakes = Vec::new();
        for (index, (label, endpoint)) in labelled.iter().enumerate() {
            if endpoint.label.as_deref().is_some_and(|label| !Label::is_valid(label)) {
                mistakes.push((index, LabelError::Form));
            } else if labelled[..index].iter().any(|(other, _)| other == label) {
                mistakes.push((index, LabelError::Taken(label.clone())));
            }
        }
        mistakes
    }

    fn label(&self) -> Label {
        self.label.as_deref().map_or_else(|| Label::of_url(&self.url), Label::from)
    }

    fn has_kind(&self, kind: WebhookKind) -> bool {
        self.event_types.is_empty() || self.event_types.contains(&kind)
    }
}

impl Filter {
    /// Checks whether a channel satisfies the filter.
    pub fn matches(&self, channel: &str) -> bool {
        self.channel_prefix.as_ref().is_none_or(|prefix| channel.starts_with(prefix.as_str()))
            && self.channel_suffix.as_ref().is_none_or(|suffix| channel.ends_with(suffix.as_str()))
            && self.channel_pattern.as_ref().is_none_or(|pattern| pattern.0.is_match(channel))
    }
}

impl Pattern {
    /// Returns the expression as configured.
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

/// Serializes a URL without its secrets: user and password are removed, the query is masked.
fn masked<S: Serializer>(url: &Url, serializer: S) -> Result<S::Ok, S::Error> {
    let mut bare = url.clone();
    // Fails only for URLs that cannot have a host.
    let _ = bare.set_username("");
    let _ = bare.set_password(None);
    if url.query().is_some() {
        bare.set_query(Some("***"));
    }
    serializer.serialize_str(bare.as_str())
}

fn concurrency() -> usize {
    8
}

#[cfg(test)]
mod tests;
