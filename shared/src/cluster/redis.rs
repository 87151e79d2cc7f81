//! Redis: the `[redis]` section and the connections of a node.

pub mod command;
pub mod connector;
mod dialer;
pub mod error;
pub mod health;
pub mod identity;
pub mod keys;
pub mod link;
pub mod metrics;
mod pool;
pub mod primary_state;
pub mod probe;
pub mod scripts;
#[cfg(test)]
pub(crate) mod server;
mod state;
mod url;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use redis::io::tcp::TcpSettings;
use redis::{Client, ConnectionAddr, IntoConnectionInfo, ProtocolVersion};
use rustls::ClientConfig;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};

use crate::config::{self, Mistake, Validate, schema};
use crate::secret::Secret;
use crate::serve::tls::files::{self, FileError, PairError};
use crate::serve::tls::trust::Trust;

pub use command::Command;
pub use connector::Connector;
pub use health::RedisHealth;
pub use keys::Keys;
pub use link::Link;
pub use primary_state::PrimaryState;
pub use probe::Probe;
pub use state::State;

pub(crate) use error::is_damage;

/// The connection to the Redis that joins nodes to a cluster.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The URL of the server: `redis://user:password@host:6379/0`, `rediss://…` for TLS, or `redis+unix:///path?db=0`.
    /// The server is a Redis 7.0 or newer, a master, and not part of a Redis Cluster. Percent-encode special characters
    /// in user and password.
    #[serde(serialize_with = "masked", skip_serializing_if = "Secret::is_empty")]
    #[schemars(schema_with = "schema::secret")]
    pub url: Secret,
    /// A file to read the URL from, like a secret of Docker or Kubernetes. Its last line break is ignored. `--redis`
    /// overrides it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::path")]
    pub url_file: Option<PathBuf>,
    /// The prefix of all keys and topics: letters, digits, hyphens and underscores. Clusters with different prefixes
    /// can share a Redis. A different database number is not enough, because topics are shared by all databases of a
    /// server.
    #[serde(deserialize_with = "config::text")]
    #[schemars(schema_with = "schema::text")]
    pub prefix: String,
    /// The number of hash slots over which channels are spread, by a `{tag}` in their keys. It must be the same on
    /// every node. Change it only while no node runs.
    #[schemars(range(min = 1, max = PARTITIONS_MAX))]
    pub partitions: u32,
    /// A PEM file with the CA certificates that are trusted for the server, for `rediss://`. Without it, the public CAs
    /// are trusted.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::path")]
    pub ca_file: Option<PathBuf>,
    /// A PEM file with the client certificate, followed by the intermediate certificates. A Redis with
    /// `tls-auth-clients yes` requires it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::path")]
    pub cert_file: Option<PathBuf>,
    /// A PEM file with the private key of the client certificate. It must not be encrypted.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::path")]
    pub key_file: Option<PathBuf>,
    /// How long connecting may take. Between 10ms and 10s.
    #[serde(with = "humantime_serde")]
    #[schemars(schema_with = "schema::duration")]
    pub connect_timeout: Duration,
    /// How long one command may take. Between 10ms and 10s. A publish that takes longer fails with 503.
    #[serde(with = "humantime_serde")]
    #[schemars(schema_with = "schema::duration")]
    pub command_timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            url: Secret::new(""),
            url_file: None,
            prefix: "carillon".into(),
            partitions: 1,
            ca_file: None,
            cert_file: None,
            key_file: None,
            connect_timeout: Duration::from_secs(1),
            command_timeout: Duration::from_secs(2),
        }
    }
}

/// Serializes a URL without its credentials.
fn masked<S: Serializer>(url: &Secret, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&mask(url.reveal()))
}

fn mask(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return "***".into() };
    // The last at sign counts, because a password may contain one. A query may contain a password too.
    let bare = rest.rsplit_once('@').map(|(_, bare)| bare);
    let place = bare.unwrap_or(rest).split('?').next().unwrap_or_default();
    format!("{scheme}://{}{place}", if bare.is_some() { "***@" } else { "" })
}

/// The error of an invalid `[redis]` section. No variant contains the URL, because it may contain a password.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The URL is invalid.
    #[error("{0}")]
    Url(&'static str),
    /// The trusted CA certificates cannot be used.
    #[error(transparent)]
    CaFile(FileError),
    /// The client certificate or its key cannot be used.
    #[error(transparent)]
    ClientCertificate(#[from] PairError),
    /// One of `redis.cert_file` and `redis.key_file` is set and the other is not.
    #[error("expected a file, since {set} is set")]
    Missing {
        /// The key that is set.
        set: &'static str,
        /// The key that is missing.
        missing: &'static str,
    },
    /// A file for TLS is configured and the connection does not use TLS.
    #[error("expected redis.url to begin with rediss://, since {key} is set")]
    Plain {
        /// The key that names the file.
        key: &'static str,
    },
    /// TLS cannot be set up.
    #[error("cannot set up TLS to Redis")]
    Tls(#[from] rustls::Error),
    /// The prefix has characters that keys use as separators.
    #[error("expected one or more letters, digits, hyphens or underscores")]
    Prefix,
    /// The number of partitions is out of range.
    #[error("expected between 1 and {PARTITIONS_MAX}")]
    Partitions,
    /// A timeout is out of range.
    #[error("expected between 10ms and 10s: a node's lease is 15s")]
    Timeout {
        /// The key.
        key: &'static str,
    },
}

impl ConfigError {
    /// Returns the key of the invalid value.
    pub fn key(&self) -> &'static str {
        match self {
            Self::Url(_) => "redis.url",
            Self::CaFile(_) => "redis.ca_file",
            Self::ClientCertificate(PairError::Key(_) | PairError::Mismatch { .. }) => "redis.key_file",
            Self::ClientCertificate(PairError::Certificate(_) | PairError::Order { .. }) => "redis.cert_file",
            Self::Missing { missing, .. } => missing,
            Self::Plain { key } => key,
            Self::Tls(_) => "redis",
            Self::Prefix => "redis.prefix",
            Self::Partitions => "redis.partitions",
            Self::Timeout { key } => key,
        }
    }
}

const CERT_FILE: &str = "redis.cert_file";
const KEY_FILE: &str = "redis.key_file";

/// The shortest timeout.
const TIMEOUT_MIN: Duration = Duration::from_millis(10);

/// The longest timeout. A node must detect that its lease has expired, even if a heartbeat times out.
const TIMEOUT_MAX: Duration = Duration::from_secs(10);

/// The largest number of partitions. A list of all channels reads one set for each.
const PARTITIONS_MAX: u32 = 4096;

/// TCP keep-alive detects a dead peer within 10 + 3 x 5 s, or within 15 s if data is in flight.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(10);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_RETRIES: u32 = 3;
const USER_TIMEOUT: Duration = Duration::from_secs(15);

impl Validate for Config {
    fn validate(&self) -> Vec<Mistake> {
        self.check().err().map(|error| Mistake::new(error.key(), error.to_string())).into_iter().collect()
    }
}

impl Config {
    /// Whether Redis is configured.
    pub fn is_set(&self) -> bool {
        !self.url.is_empty()
    }

    /// Validates the section without connecting.
    fn check(&self) -> Result<(), ConfigError> {
        let named = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if self.prefix.is_empty() || !self.prefix.bytes().all(named) {
            return Err(ConfigError::Prefix);
        }
        if !(1..=PARTITIONS_MAX).contains(&self.partitions) {
            return Err(ConfigError::Partitions);
        }
        for (key, timeout) in
            [("redis.connect_timeout", self.connect_timeout), ("redis.command_timeout", self.command_timeout)]
        {
            if !(TIMEOUT_MIN..=TIMEOUT_MAX).contains(&timeout) {
                return Err(ConfigError::Timeout { key });
            }
        }
        if self.is_set() {
            self.connector()?;
        }
        Ok(())
    }

    /// Creates the connector, which uses RESP3, `TCP_NODELAY` and TCP keep-alive.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn connector(&self) -> Result<Connector, ConfigError> {
        // `rustls` needs a default crypto provider. A second call has no effect.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let info = self.parse_url()?;
        if !matches!(info.addr(), ConnectionAddr::TcpTls { .. }) {
            let files = [("redis.ca_file", &self.ca_file), (CERT_FILE, &self.cert_file), (KEY_FILE, &self.key_file)];
            if let Some((key, _)) = files.into_iter().find(|(_, file)| file.is_some()) {
                return Err(ConfigError::Plain { key });
            }
        }
        let keepalive = redis::io::tcp::socket2::TcpKeepalive::new()
            .with_time(KEEPALIVE_IDLE)
            .with_interval(KEEPALIVE_INTERVAL)
            .with_retries(KEEPALIVE_RETRIES);
        let tcp = TcpSettings::default().set_nodelay(true).set_keepalive(keepalive).set_user_timeout(USER_TIMEOUT);
        // Skips CLIENT SETINFO. Redis 7.0 does not have the command, and its ACLs cannot permit it.
        let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3).set_skip_set_lib_name();
        let info = info.set_tcp_settings(tcp).set_redis_settings(settings);
        Connector::new(self, Client::open(info).map_err(|_| ConfigError::Url(url::EXPECTED))?)
    }

    /// Reads the certificate files and returns the TLS settings.
    fn tls(&self) -> Result<Arc<ClientConfig>, ConfigError> {
        let identity = match (&self.cert_file, &self.key_file) {
            (Some(certificate), Some(key)) => Some(files::certified_key(certificate, key)?),
            (None, None) => None,
            (Some(_), None) => return Err(ConfigError::Missing { set: CERT_FILE, missing: KEY_FILE }),
            (None, Some(_)) => return Err(ConfigError::Missing { set: KEY_FILE, missing: CERT_FILE }),
        };
        let trust = Trust::of(self.ca_file.as_deref()).map_err(ConfigError::CaFile)?;
        Ok(Arc::new(trust.client(identity)?))
    }

    /// Whether certificate files are configured.
    fn has_certificates(&self) -> bool {
        self.ca_file.is_some() || self.cert_file.is_some()
    }

    fn parse_url(&self) -> Result<redis::ConnectionInfo, ConfigError> {
        url::check(self.url.reveal()).map_err(ConfigError::Url)?;
        self.url.reveal().into_connection_info().map_err(|_| ConfigError::Url(url::EXPECTED))
    }

    /// Returns the address of the server without user and password.
    ///
    /// # Errors
    /// [`ConfigError::Url`].
    pub fn address(&self) -> Result<String, ConfigError> {
        Ok(self.parse_url()?.addr().to_string())
    }
}

#[cfg(test)]
mod tests;
