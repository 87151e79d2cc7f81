//! Load for servers of the Pusher Channels protocol, on loopback, bounded in count and time.
//!
//! Every figure stands next to that of [`floor`]: a process that does nothing but write the same bytes to the same
//! number of sockets. CPU times are read from the server processes, so the generator's own cost does not count.

mod fanout;
mod floor;
mod idle;
mod payload;
mod process;
mod subscribers;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

#[derive(Parser)]
#[command(about = "Load generator for servers of the Pusher Channels protocol (loopback only)")]
struct Cli {
    #[command(subcommand)]
    scenario: Scenario,
}

#[derive(Subcommand)]
enum Scenario {
    /// Sockets on one channel that hear nothing: resident memory and CPU per socket.
    Idle(idle::Idle),
    /// Events to many subscribers: CPU per delivery against the floor, throughput, losses.
    Fanout(fanout::Fanout),
    /// The yardstick; started by the scenarios themselves.
    #[command(hide = true)]
    Floor(floor::Floor),
}

/// The server under load.
#[derive(Args, Clone)]
struct Target {
    /// Port on 127.0.0.1 that serves WebSockets and the HTTP API.
    #[arg(long)]
    port: u16,
    /// Process ids of the server, for its CPU time and memory.
    #[arg(long = "pid", required = true)]
    pids: Vec<u32>,
    #[arg(long, default_value = "app-id")]
    app_id: String,
    #[arg(long, default_value = "app-key")]
    app_key: String,
    #[arg(long, default_value = "app-secret")]
    app_secret: String,
}

fn main() -> Result<()> {
    match Cli::parse().scenario {
        Scenario::Idle(idle) => idle.run(),
        Scenario::Fanout(fanout) => fanout.run(),
        Scenario::Floor(floor) => floor.run(),
    }
}
