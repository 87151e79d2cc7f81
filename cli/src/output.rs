//! What a command writes to the terminal, and the errors with which it ends.

use std::fmt;
use std::io::Write;

use client::ClientError;
use shared::config::ConfigError;

/// Why a command did not do what it was asked for.
#[derive(Debug)]
pub enum Failure {
    /// The configuration was refused.
    Config(ConfigError),
    /// Anything else.
    Other(anyhow::Error),
}

/// Writes to standard output. A reader that went away is no reason to stop, least of all for a server.
pub(crate) fn say(text: &str) {
    let mut stdout = std::io::stdout().lock();
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}

/// Writes to standard error, with the command's name before each line.
pub fn complain(text: &str) {
    let mut stderr = std::io::stderr().lock();
    for line in text.lines() {
        let _ = writeln!(stderr, "carillon: {line}");
    }
}

/// Writes warnings about the configuration to standard error.
pub(crate) fn warn(warnings: &[String]) {
    for warning in warnings {
        complain(&format!("warning: {warning}"));
    }
}

// === impl Failure ===

impl Failure {
    /// 2 for what the caller wrote, as for unknown flags; 1 for what happened.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) => 2,
            Self::Other(_) => 1,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(ConfigError::File { path, source }) => write!(f, "cannot read {path}: {source}"),
            Self::Config(error) => error.fmt(f),
            // All causes on one line.
            Self::Other(error) => write!(f, "{error:#}"),
        }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::Config(error)
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Other(error)
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        Self::Other(error.into())
    }
}
