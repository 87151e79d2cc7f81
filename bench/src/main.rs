//! A load generator for servers of the Pusher Channels protocol. It connects only to loopback addresses, and every
//! scenario is bounded in events and time.
//!
//! Most scenarios also run against [`floor`], a process that only writes the same bytes to the same sockets. CPU times
//! are read from the server's processes and exclude the generator. The generator's own CPU is reported separately.

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
use run::ScenarioArgs;
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
    Idle(ScenarioArgs<Idle>),
    Fanout(ScenarioArgs<Fanout>),
    Bursts(ScenarioArgs<Bursts>),
    Routing(ScenarioArgs<Routing>),
    Presence(ScenarioArgs<Presence>),
    Storm(ScenarioArgs<Storm>),
    ClientEvents(ScenarioArgs<ClientEvents>),
    SlowReaders(ScenarioArgs<SlowReaders>),
    Polls(ScenarioArgs<Polls>),
    Compare(Compare),
    Growth(Growth),
    Smoke(Smoke),
    /// Runs the baseline server; started by the scenarios
    #[command(hide = true)]
    Floor,
    /// Holds the sockets beyond the limit of one process; started by the scenarios
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
    started::end_servers_on_signal()?;
    match Cli::parse().command {
        Command::Idle(it) => run::run(Scenario::Idle(it.scenario), it.target, &it.options),
        Command::Fanout(it) => run::run(Scenario::Fanout(it.scenario), it.target, &it.options),
        Command::Bursts(it) => run::run(Scenario::Bursts(it.scenario), it.target, &it.options),
        Command::Routing(it) => run::run(Scenario::Routing(it.scenario), it.target, &it.options),
        Command::Presence(it) => run::run(Scenario::Presence(it.scenario), it.target, &it.options),
        Command::Storm(it) => run::run(Scenario::Storm(it.scenario), it.target, &it.options),
        Command::ClientEvents(it) => run::run(Scenario::ClientEvents(it.scenario), it.target, &it.options),
        Command::SlowReaders(it) => run::run(Scenario::SlowReaders(it.scenario), it.target, &it.options),
        Command::Polls(it) => run::run(Scenario::Polls(it.scenario), it.target, &it.options),
        Command::Compare(compare) => compare.run(),
        Command::Growth(growth) => growth.run(),
        Command::Smoke(smoke) => smoke.run(),
        Command::Floor => floor::serve(),
        Command::Worker => worker::serve(),
    }
}
