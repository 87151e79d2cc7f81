//! The one binary of Carillon: its arguments, its configuration, its commands.
//!
//! It reads the arguments and the configuration, puts the gateway, the publisher, the bus and the roster together, and
//! runs them.

pub mod args;
pub mod config;
pub mod output;

mod commands;
mod serve;

use crate::args::{AppCommand, Args, Command, Role};
use crate::commands::{app_new, check_config, doctor, healthcheck, listen, print_config, trigger, webhooks};
use crate::output::Failure;
use crate::serve::roles;

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
