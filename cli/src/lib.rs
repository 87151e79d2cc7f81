//! The one binary of Carillon: its arguments, its configuration, its commands.
//!
//! It only chooses: it reads what was asked for, puts the gateway, the publisher, the bus and the roster together, and
//! runs them. [`client`] is the protocol's other side, for `trigger` and `listen` and for the project's own tests.

pub mod args;
pub mod client;
pub mod config;

mod app_new;
mod backbone;
mod banner;
mod certificates;
mod check_config;
mod credentials;
mod doctor;
mod healthcheck;
mod listen;
mod print_config;
mod roles;
mod signals;
mod trigger;
mod webhooks;

use std::fmt;
use std::io::Write;

use shared::config::ConfigError;

use crate::args::{AppCommand, Args, Command};
use crate::config::Role;

/// Why a command did not do what it was asked for.
#[derive(Debug)]
pub enum Failure {
    /// The configuration was refused.
    Config(ConfigError),
    /// Anything else.
    Other(anyhow::Error),
}

/// Runs one command to its end.
///
/// # Errors
/// [`Failure`].
pub fn run(args: Args) -> Result<(), Failure> {
    match args.command {
        Command::Up(settings) => wait_for(roles::run(Role::Up, &settings)),
        Command::Gateway(settings) => wait_for(roles::run(Role::Gateway, &settings)),
        Command::Publisher(settings) => wait_for(roles::run(Role::Publisher, &settings)),
        Command::CheckConfig(args) => check_config::run(&args),
        Command::PrintConfig(args) => print_config::run(&args),
        Command::App(AppCommand::New(new)) => app_new::run(&new),
        Command::Doctor(doctor) => wait_for(doctor::run(&doctor)),
        Command::Healthcheck(check) => wait_for(healthcheck::run(&check)),
        Command::Webhooks(command) => wait_for(webhooks::run(&command)),
        Command::Trigger(trigger) => wait_for(trigger::run(&trigger)),
        Command::Listen(listen) => wait_for(listen::run(&listen)),
    }
}

/// One thread is enough here: the gateway starts a thread of its own for each of its shards, and a publisher that is
/// short of one is joined by another publisher.
fn wait_for(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Other(anyhow::Error::new(error).context("cannot start")))?;
    let result = runtime.block_on(command);
    // Dropped it would wait for what still blocks, as the look-up of a name that no server answers.
    runtime.shutdown_background();
    result
}

/// Writes to standard output. A reader that went away is no reason to stop, least of all for a server.
fn say(text: &str) {
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
fn warn(warnings: &[String]) {
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

impl From<client::ClientError> for Failure {
    fn from(error: client::ClientError) -> Self {
        Self::Other(error.into())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::{Duration, Instant};

    use tokio::sync::oneshot;

    use super::*;

    #[test]
    fn a_command_ends_though_something_still_blocks() {
        const BLOCKS: Duration = Duration::from_secs(30);
        let (release, released) = mpsc::channel::<()>();
        let began = Instant::now();
        let done = wait_for(async move {
            let (enter, entered) = oneshot::channel();
            tokio::task::spawn_blocking(move || {
                let _ = enter.send(());
                let _ = released.recv_timeout(BLOCKS);
            });
            entered.await.expect("it blocks");
            Ok(())
        });
        assert!(done.is_ok() && began.elapsed() < BLOCKS / 2, "{:?}", began.elapsed());
        drop(release);
    }
}
