//! `[webhooks]`: how endpoints are told, whichever app they belong to.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// `[webhooks]`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// How long one request may take, from connecting to the answer.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
    /// For how long after something happened its endpoint is told of it again, when it does not answer with success.
    #[serde(with = "humantime_serde")]
    pub give_up_after: Duration,
    /// Whether endpoints in private networks, this machine included, are refused. Link-local addresses, where clouds keep
    /// their metadata, always are.
    pub refuse_private_networks: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(10),
            give_up_after: Duration::from_secs(300),
            refuse_private_networks: false,
        }
    }
}

/// A request that may take longer would hold up its channel for too long.
const TIMEOUT_MAX: Duration = Duration::from_secs(60);
const TIMEOUT_MIN: Duration = Duration::from_millis(10);

/// What waits longer only fills the queues.
const GIVE_UP_MAX: Duration = Duration::from_secs(24 * 3600);

impl Config {
    /// What is wrong, as key and complaint.
    pub fn mistakes(&self) -> Vec<(&'static str, &'static str)> {
        let mut mistakes = Vec::new();
        if !(TIMEOUT_MIN..=TIMEOUT_MAX).contains(&self.timeout) {
            mistakes.push(("webhooks.timeout", "expected between 10ms and 1m"));
        }
        if self.give_up_after > GIVE_UP_MAX {
            mistakes.push(("webhooks.give_up_after", "expected at most 1day"));
        }
        mistakes
    }
}
