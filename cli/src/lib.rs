//! The `carillon` command: its arguments, configuration and subcommands.
//!
//! It reads the arguments and the configuration, and it assembles and runs the gateway, the publisher, the bus and the
//! roster.

pub mod args;
pub mod config;
pub mod output;

mod commands;
mod serve;

use crate::args::{AppCommand, Args, Command, Role};
use crate::commands::{app_new, check_config, doctor, healthcheck, listen, print_config, trigger, webhooks};
use crate::output::Failure;
use crate::serve::roles;

/// Runs a command to its end.
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

/// Runs a command on a runtime with one thread.
///
/// A gateway starts a thread for each shard. A publisher that needs more than one thread is scaled by more publishers.
fn wait_for(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Other(anyhow::Error::new(error).context("cannot start the runtime")))?;
    let result = runtime.block_on(command);
    // Dropping the runtime would wait for blocking tasks, like a DNS query without a response.
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
    fn a_command_ends_although_a_task_still_blocks() {
        const BLOCKS: Duration = Duration::from_secs(30);
        let (release, released) = mpsc::channel::<()>();
        let began = Instant::now();
        let done = wait_for(async move {
            let (enter, entered) = oneshot::channel();
            tokio::task::spawn_blocking(move || {
                let _ = enter.send(());
                let _ = released.recv_timeout(BLOCKS);
            });
            entered.await.expect("the task blocks");
            Ok(())
        });
        assert!(done.is_ok() && began.elapsed() < BLOCKS / 2, "{:?}", began.elapsed());
        drop(release);
    }
}
