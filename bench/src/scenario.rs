//! The load scenarios. Each runs with the same code against a server and against the floor.

mod client_events;
mod delivery;
mod idle;
mod polls;
mod presence;
mod slow_readers;
mod storm;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::figure::Measurement;
use crate::progress::Progress;
use crate::subject::Subject;

pub(crate) use client_events::ClientEvents;
pub(crate) use delivery::{Bursts, Fanout, Routing};
pub(crate) use idle::Idle;
pub(crate) use polls::Polls;
pub(crate) use presence::Presence;
pub(crate) use slow_readers::SlowReaders;
pub(crate) use storm::Storm;

/// A scenario with its parameters.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "scenario", rename_all = "kebab-case")]
pub(crate) enum Scenario {
    /// Subscribed sockets without events.
    Idle(Idle),
    /// Single events to many subscribers of one channel.
    Fanout(Fanout),
    /// Batches of events to many subscribers of one channel.
    Bursts(Bursts),
    /// Events to many channels with one subscriber each.
    Routing(Routing),
    /// Members that join one presence channel.
    Presence(Presence),
    /// Sockets that connect at the same time.
    Storm(Storm),
    /// Client events between sockets.
    ClientEvents(ClientEvents),
    /// Some sockets that stop reading, among others that continue.
    SlowReaders(SlowReaders),
    /// Clients of the HTTP polling transport.
    Polls(Polls),
}

impl Scenario {
    pub(crate) fn run(&self, subject: &Subject) -> Result<Measurement> {
        let mut progress = Progress::new(format!("{} {}", self.name(), subject.name));
        match self {
            Self::Idle(idle) => idle.run(subject, &mut progress),
            Self::Fanout(fanout) => fanout.delivery().run(subject, &mut progress),
            Self::Bursts(bursts) => bursts.delivery().run(subject, &mut progress),
            Self::Routing(routing) => routing.delivery().run(subject, &mut progress),
            Self::Presence(presence) => presence.run(subject, &mut progress),
            Self::Storm(storm) => storm.run(subject, &mut progress),
            Self::ClientEvents(client_events) => client_events.run(subject, &mut progress),
            Self::SlowReaders(slow_readers) => slow_readers.run(subject, &mut progress),
            Self::Polls(polls) => polls.run(subject, &mut progress),
        }
    }

    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Idle(_) => "idle",
            Self::Fanout(_) => "fanout",
            Self::Bursts(_) => "bursts",
            Self::Routing(_) => "routing",
            Self::Presence(_) => "presence",
            Self::Storm(_) => "storm",
            Self::ClientEvents(_) => "client events",
            Self::SlowReaders(_) => "slow readers",
            Self::Polls(_) => "polls",
        }
    }

    /// Returns the scenario's name and parameters as text.
    pub(crate) fn title(&self) -> String {
        match self {
            Self::Idle(idle) => idle.title(),
            Self::Fanout(fanout) => fanout.delivery().title(),
            Self::Bursts(bursts) => bursts.delivery().title(),
            Self::Routing(routing) => routing.delivery().title(),
            Self::Presence(presence) => presence.title(),
            Self::Storm(storm) => storm.title(),
            Self::ClientEvents(client_events) => client_events.title(),
            Self::SlowReaders(slow_readers) => slow_readers.title(),
            Self::Polls(polls) => polls.title(),
        }
    }

    /// Returns whether the floor supports the scenario. The floor has no limits for slow readers and no HTTP transports.
    pub(crate) fn has_floor(&self) -> bool {
        !matches!(self, Self::SlowReaders(_) | Self::Polls(_))
    }
}
