//! Output to the terminal, and the errors of commands.

use std::fmt;
use std::io::Write;

use client::ClientError;
use shared::config::ConfigError;

/// The reason why a command failed.
#[derive(Debug)]
pub enum Failure {
    /// The configuration is invalid.
    Config(ConfigError),
    /// Any other error.
    Other(anyhow::Error),
}

/// Writes to standard output. Errors are ignored, so that a server continues if the reader of its output ends.
pub(crate) fn print(text: &str) {
    let mut stdout = std::io::stdout().lock();
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}

/// Writes to standard error, with `carillon: ` before each line.
pub fn print_error(text: &str) {
    let mut stderr = std::io::stderr().lock();
    for line in text.lines() {
        let _ = writeln!(stderr, "carillon: {line}");
    }
}

/// Writes the warnings about the configuration to standard error.
pub(crate) fn print_warnings(warnings: &[String]) {
    for warning in warnings {
        print_error(&format!("warning: {warning}"));
    }
}

// === impl Failure ===

impl Failure {
    /// Returns the exit code: 2 for invalid usage or configuration, like clap for unknown flags, and 1 for other
    /// errors.
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
            // All causes, on one line.
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
