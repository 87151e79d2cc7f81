//! The transitions of a primary's state, without IO and without a clock.

use std::time::{Duration, Instant};

use super::{Generation, NotReady, State};
use crate::cluster::redis::error::Refusal;
use crate::cluster::redis::identity::RunId;

/// The publishing connection is made again at most this often because another connection leads elsewhere: an address that
/// leads to two servers in turn must not keep nodes busy with connecting.
const MOVE_INTERVAL: Duration = Duration::from_secs(1);

/// The known state of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Server {
    /// It does not answer.
    Unreachable,
    /// It has accepted a write, and nothing was reported since.
    Serving,
    /// It must not be used.
    Refusing(Refusal),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Subscriptions {
    /// This node subscribes to nothing.
    None,
    Down,
    InPlace,
}

#[derive(Debug)]
pub(super) struct Machine {
    server: Server,
    subscriptions: Subscriptions,
    /// Whether the server has ever accepted a write.
    has_served: bool,
    /// Whether the state has ever been [`State::Live`].
    has_been_live: bool,
    generation: Generation,
    run_id: Option<RunId>,
    /// When a connection to another server last ended the generation.
    moved: Option<Instant>,
}

impl Default for Machine {
    fn default() -> Self {
        Self {
            server: Server::Unreachable,
            subscriptions: Subscriptions::None,
            has_served: false,
            has_been_live: false,
            generation: Generation::default(),
            run_id: None,
            moved: None,
        }
    }
}

impl Machine {
    pub(super) fn state(&self) -> State {
        match (self.server, self.subscriptions) {
            (Server::Refusing(refusal), _) => State::Refusing(refusal),
            (Server::Unreachable, _) => State::Connecting,
            (Server::Serving, Subscriptions::Down) => State::Resynchronizing,
            (Server::Serving, Subscriptions::None | Subscriptions::InPlace) => State::Live,
        }
    }

    /// Whether the server answers, be it with refusals.
    pub(super) fn answers(&self) -> bool {
        self.server != Server::Unreachable
    }

    pub(super) fn accepts_events(&self) -> bool {
        self.has_served && !matches!(self.server, Server::Refusing(_))
    }

    pub(super) fn ready(&self) -> Result<(), NotReady> {
        match self.state() {
            State::Live => Ok(()),
            State::Refusing(refusal) => Err(NotReady::Refused(refusal)),
            State::Connecting if self.has_been_live => Ok(()),
            State::Connecting => Err(NotReady::NotConnected),
            State::Resynchronizing if self.has_been_live => Err(NotReady::SubscriptionDown),
            State::Resynchronizing => Err(NotReady::NotSubscribed),
        }
    }

    pub(super) fn generation(&self) -> Generation {
        self.generation
    }

    pub(super) fn will_subscribe(&mut self) {
        if self.subscriptions == Subscriptions::None {
            self.subscriptions = Subscriptions::Down;
        }
    }

    pub(super) fn subscribed(&mut self) {
        self.subscriptions = Subscriptions::InPlace;
        self.record_live();
    }

    /// The end of a subscription that was in place is often the first sign that the server is away, so it counts as away until
    /// the probe has asked it. Returns whether the probe should.
    pub(super) fn unsubscribed(&mut self) -> bool {
        let was_in_place = self.subscriptions == Subscriptions::InPlace;
        self.subscriptions = Subscriptions::Down;
        let is_in_doubt = was_in_place && self.server == Server::Serving;
        if is_in_doubt {
            self.server = Server::Unreachable;
        }
        is_in_doubt
    }

    /// Returns whether the server is another one than before.
    pub(super) fn adopt(&mut self, run_id: Option<&RunId>) -> bool {
        let Some(run_id) = run_id else { return false };
        let is_other = self.run_id.as_ref().is_some_and(|known| known != run_id);
        self.run_id = Some(run_id.clone());
        if is_other {
            self.end_generation();
        }
        is_other
    }

    /// Ends the generation when another connection leads to another server, unless that happened a moment ago.
    pub(super) fn is_same_server(&mut self, run_id: Option<&RunId>, now: Instant) -> bool {
        let Some(run_id) = run_id else { return true };
        let known = self.run_id.get_or_insert_with(|| run_id.clone());
        if known == run_id {
            return true;
        }
        if self.moved.is_none_or(|moved| now.saturating_duration_since(moved) >= MOVE_INTERVAL) {
            self.moved = Some(now);
            self.end_generation();
        }
        false
    }

    /// Returns whether this is news. A refusal on a connection of an earlier generation is not: that server is not used any more.
    pub(super) fn refused(&mut self, refusal: Refusal, generation: Generation) -> bool {
        if generation != self.generation || self.server == Server::Refusing(refusal) {
            return false;
        }
        self.server = Server::Refusing(refusal);
        if refusal.ends_connections() {
            self.end_generation();
        }
        true
    }

    /// Whether a command without an answer is news.
    pub(super) fn is_serving(&self) -> bool {
        self.server == Server::Serving
    }

    pub(super) fn unreachable(&mut self) {
        self.server = Server::Unreachable;
    }

    pub(super) fn accepted_a_write(&mut self, generation: Generation) {
        if generation != self.generation {
            return;
        }
        self.server = Server::Serving;
        self.has_served = true;
        self.record_live();
    }

    fn record_live(&mut self) {
        self.has_been_live |= self.state() == State::Live;
    }

    fn end_generation(&mut self) {
        self.generation = Generation(self.generation.0 + 1);
    }
}

#[cfg(test)]
mod tests;
