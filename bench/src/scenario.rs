//! What a server is put through. Every scenario runs against a server and against the floor with the same code.

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
    /// Sockets that hear nothing.
    Idle(Idle),
    /// Events to many subscribers of one channel, one at a time.
    Fanout(Fanout),
    /// The same in batches.
    Bursts(Bursts),
    /// Many channels with one subscriber each.
    Routing(Routing),
    /// Members who join one channel.
    Presence(Presence),
    /// Sockets that connect all at once.
    Storm(Storm),
    /// Events that sockets send to each other.
    ClientEvents(ClientEvents),
    /// Sockets that stop reading among others that do not.
    SlowReaders(SlowReaders),
    /// Clients that poll over HTTP.
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

    /// The scenario with its parameters in words.
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

    /// Whether the floor can be put through it: it keeps no limits that a slow reader could meet, and speaks no HTTP.
    pub(crate) fn has_floor(&self) -> bool {
        !matches!(self, Self::SlowReaders(_) | Self::Polls(_))
    }
}
