//! The log on standard error, configured by `[log]`.

use std::io::IsTerminal;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;

use crate::config::{Mistake, Validate};

/// The log on standard error.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The lowest level that is written: `error`, `warn`, `info`, `debug` or `trace`. A filter in the form of
    /// `tracing-subscriber` sets it per target, like `info,gateway=debug`.
    pub level: String,
    /// The format of log lines: `text` for people, or `json` with one object per line.
    pub format: LogFormat,
}

/// The format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum LogFormat {
    /// Readable by people.
    Text,
    /// One JSON object per line.
    Json,
}

impl Default for Config {
    fn default() -> Self {
        Self { level: "info".into(), format: LogFormat::Text }
    }
}

impl Validate for Config {
    fn validate(&self) -> Vec<Mistake> {
        let Err(LogError { level, .. }) = filter(self) else { return Vec::new() };
        let complaint = format!("expected a level or a filter, like \"info\" or \"info,gateway=debug\", not {level:?}");
        vec![Mistake::new("log.level", complaint)]
    }
}

/// The error for a log filter that cannot be parsed.
#[derive(Debug, thiserror::Error)]
#[error("log.level: {level:?} is not a log filter")]
pub struct LogError {
    level: String,
    #[source]
    source: tracing_subscriber::filter::ParseError,
}

fn filter(config: &Config) -> Result<EnvFilter, LogError> {
    EnvFilter::try_new(&config.level).map_err(|source| LogError { level: config.level.clone(), source })
}

/// Starts the log on standard error. Lines that cannot be written are dropped, so that a full disk does not stop the
/// server.
///
/// # Errors
/// [`LogError`].
pub fn init(config: &Config) -> Result<(), LogError> {
    let builder = fmt()
        .with_env_filter(filter(config)?)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .log_internal_errors(false);
    match config.format {
        LogFormat::Text => builder.with_target(false).init(),
        LogFormat::Json => builder.json().init(),
    }
    Ok(())
}
