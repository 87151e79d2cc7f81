//! The configuration section `[webhooks]`.

use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use shared::config::{Mistake, Validate, schema};
use shared::serve::tls::files::FileError;
use shared::serve::tls::trust::Trust;

/// The delivery of webhooks.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// How long one request may take, from connecting to the end of the response. Between 10ms and 1m.
    #[serde(with = "humantime_serde")]
    #[schemars(schema_with = "schema::duration")]
    pub timeout: Duration,
    /// How long a webhook is retried after its event if the endpoint does not respond with 2xx. Then it becomes a dead
    /// letter. At most one day.
    #[serde(with = "humantime_serde")]
    #[schemars(schema_with = "schema::duration")]
    pub give_up_after: Duration,
    /// Whether endpoints in private networks and on loopback addresses are refused. Link-local addresses and the
    /// metadata services of cloud providers are always refused. The check applies to URLs and to the addresses that
    /// host names resolve to.
    pub refuse_private_networks: bool,
    /// A PEM file with CA certificates that are trusted for endpoints, in addition to the public CAs.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::path")]
    pub ca_file: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(10),
            give_up_after: Duration::from_secs(300),
            refuse_private_networks: false,
            ca_file: None,
        }
    }
}

/// The bounds of `timeout`. A longer request would delay the other events of its channel too long.
const TIMEOUT_MAX: Duration = Duration::from_secs(60);
const TIMEOUT_MIN: Duration = Duration::from_millis(10);

/// The largest `give_up_after`. Older events would only fill the queues.
const GIVE_UP_MAX: Duration = Duration::from_secs(24 * 3600);

impl Validate for Config {
    fn validate(&self) -> Vec<Mistake> {
        let mut mistakes = Vec::new();
        if !(TIMEOUT_MIN..=TIMEOUT_MAX).contains(&self.timeout) {
            mistakes.push(Mistake::new("webhooks.timeout", "expected between 10ms and 1m"));
        }
        if self.give_up_after > GIVE_UP_MAX {
            mistakes.push(Mistake::new("webhooks.give_up_after", "expected at most 1day"));
        }
        if let Err(error) = self.trust() {
            mistakes.push(Mistake::new("webhooks.ca_file", error.to_string()));
        }
        mistakes
    }
}

impl Config {
    /// Returns the CA certificates that are trusted for endpoints.
    pub(super) fn trust(&self) -> Result<Trust, FileError> {
        Trust::public_and(self.ca_file.as_deref())
    }
}
