//! `bench smoke`: runs small versions of the scenarios against a server that it starts. Tests this tool and the server.
//!
//! `slow-readers` is excluded, because filling the kernel's socket buffers takes too long.

use anyhow::{Result, ensure};
use clap::Args;

use crate::compare::{Selection, run_once};
use crate::publisher::Sending;
use crate::scenario::{Bursts, ClientEvents, Fanout, Idle, Polls, Presence, Routing, Scenario, Storm};
use crate::subject::Subject;

/// Runs small versions of all scenarios but slow-readers; fails if events are lost or duplicated, or lists are wrong
#[derive(Args, Clone, Debug)]
pub(crate) struct Smoke {
    #[command(flatten)]
    selection: Selection,
}

impl Smoke {
    pub(crate) fn run(self) -> Result<()> {
        let mut servers = self.selection.servers()?;
        if self.selection.servers.is_empty() {
            servers.truncate(1);
        }
        for scenario in scenarios() {
            if scenario.has_floor() {
                check(&scenario, "floor", &scenario.run(&Subject::floor()?)?)?;
            }
            for server in &servers {
                check(&scenario, &server.name, &run_once(&scenario, server)?)?;
            }
        }
        Ok(())
    }
}

fn check(scenario: &Scenario, subject: &str, measurement: &crate::figure::Measurement) -> Result<()> {
    ensure!(measurement.is_clean(), "{} on {subject}: {:?}", scenario.title(), measurement);
    println!("ok  {subject}: {}", scenario.title());
    Ok(())
}

/// Returns the scenarios, each of which takes one or two seconds.
fn scenarios() -> Vec<Scenario> {
    let sending = Sending::default();
    let spread = Sending { connections: 2, in_flight: 1 };
    vec![
        Scenario::Idle(Idle { sockets: 200, in_flight: 16, hold_s: 0 }),
        Scenario::Fanout(Fanout { subscribers: 100, rate: 200.0, events: 100, data_bytes: 100, sending }),
        Scenario::Bursts(Bursts { subscribers: 100, batch: 10, rate: 0.0, events: 500, data_bytes: 100, sending }),
        Scenario::Routing(Routing {
            channels: 100,
            batch: 10,
            rate: 0.0,
            events_per_channel: 20,
            data_bytes: 100,
            sending: spread,
        }),
        Scenario::Presence(Presence { members: 50 }),
        Scenario::Storm(Storm { sockets: 200, waves: 2, in_flight: 50, channels: 3 }),
        Scenario::ClientEvents(ClientEvents {
            channels: 20,
            members: 4,
            rate: 8.0,
            events_per_channel: 8,
            data_bytes: 100,
        }),
        Scenario::Polls(Polls { clients: 50, rate: 20.0, events: 20, data_bytes: 100 }),
    ]
}
