//! Load for servers of the Pusher Channels protocol, on loopback, bounded in count and time.
//!
//! Figures stand next to those of [`floor`]: a process that does little but write the same bytes to the same
//! sockets. CPU times are read from the server's processes, so the generator's own cost does not count; it is shown.

mod clock;
mod compare;
mod figure;
mod floor;
mod frame;
mod growth;
mod latency;
mod machine;
mod meter;
mod metrics;
mod pace;
mod payload;
mod plan;
mod polls;
mod process;
mod progress;
mod publisher;
mod receipts;
mod run;
mod scenario;
mod smoke;
mod sockets;
mod started;
mod subject;
mod subscription;
mod table;
mod tally;
mod timer;
mod worker;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use shared::serve::descriptors;

use compare::Compare;
use growth::Growth;
use run::Against;
use scenario::{Bursts, ClientEvents, Fanout, Idle, Polls, Presence, Routing, Scenario, SlowReaders, Storm};
use smoke::Smoke;

#[derive(Parser)]
#[command(about = "Load generator for servers of the Pusher Channels protocol (loopback only)")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Idle(Against<Idle>),
    Fanout(Against<Fanout>),
    Bursts(Against<Bursts>),
    Routing(Against<Routing>),
    Presence(Against<Presence>),
    Storm(Against<Storm>),
    ClientEvents(Against<ClientEvents>),
    SlowReaders(Against<SlowReaders>),
    Polls(Against<Polls>),
    Compare(Compare),
    Growth(Growth),
    Smoke(Smoke),
    /// The yardstick; started by the scenarios themselves
    #[command(hide = true)]
    Floor,
    /// Holds what one process may not; started by the scenarios themselves
    #[command(hide = true)]
    Worker,
}

fn main() -> ExitCode {
    match run_command() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run_command() -> Result<()> {
    descriptors::raise_limit()?;
    started::end_with_this_program()?;
    match Cli::parse().command {
        Command::Idle(it) => run::run(Scenario::Idle(it.scenario), it.target, &it.how),
        Command::Fanout(it) => run::run(Scenario::Fanout(it.scenario), it.target, &it.how),
        Command::Bursts(it) => run::run(Scenario::Bursts(it.scenario), it.target, &it.how),
        Command::Routing(it) => run::run(Scenario::Routing(it.scenario), it.target, &it.how),
        Command::Presence(it) => run::run(Scenario::Presence(it.scenario), it.target, &it.how),
        Command::Storm(it) => run::run(Scenario::Storm(it.scenario), it.target, &it.how),
        Command::ClientEvents(it) => run::run(Scenario::ClientEvents(it.scenario), it.target, &it.how),
        Command::SlowReaders(it) => run::run(Scenario::SlowReaders(it.scenario), it.target, &it.how),
        Command::Polls(it) => run::run(Scenario::Polls(it.scenario), it.target, &it.how),
        Command::Compare(compare) => compare.run(),
        Command::Growth(growth) => growth.run(),
        Command::Smoke(smoke) => smoke.run(),
        Command::Floor => floor::serve(),
        Command::Worker => worker::serve(),
    }
}
