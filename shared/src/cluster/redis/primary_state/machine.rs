//! The state machine of a primary, without IO and without a clock.

use std::time::{Duration, Instant};

use super::{Generation, NotReady};
use crate::cluster::redis::error::Refusal;
use crate::cluster::redis::identity::RunId;
use crate::cluster::redis::state::State;

/// The shortest time between two replacements of the publishing connection because of another connection. It bounds the
/// reconnects if an address leads to two servers in turn.
const MOVE_INTERVAL: Duration = Duration::from_secs(1);

/// The known state of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Server {
    /// The server does not reply.
    Unreachable,
    /// The server has accepted a write, and no error was reported since.
    Serving,
    /// The server must not be used.
    Refusing(Refusal),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Subscriptions {
    /// This node does not subscribe.
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
    /// The time at which a connection to another server last ended the generation.
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

    /// Whether the server replies, even with errors.
    pub(super) fn replies(&self) -> bool {
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

    /// Records that the subscriptions are lost. This is often the first sign of an outage, and the server counts as
    /// unreachable until the next probe. Returns whether to request a probe.
    pub(super) fn unsubscribed(&mut self) -> bool {
        let was_in_place = self.subscriptions == Subscriptions::InPlace;
        self.subscriptions = Subscriptions::Down;
        let is_unverified = was_in_place && self.server == Server::Serving;
        if is_unverified {
            self.server = Server::Unreachable;
        }
        is_unverified
    }

    /// Records the server of the publishing connection. Returns whether it has changed.
    pub(super) fn adopt(&mut self, run_id: Option<&RunId>) -> bool {
        let Some(run_id) = run_id else { return false };
        let is_other = self.run_id.as_ref().is_some_and(|known| known != run_id);
        self.run_id = Some(run_id.clone());
        if is_other {
            self.end_generation();
        }
        is_other
    }

    /// Compares the server of another connection. Ends the generation if it differs, at most once per
    /// [`MOVE_INTERVAL`].
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

    /// Records a refusal. Returns whether it changes the state. Refusals on connections of an earlier generation are
    /// ignored.
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

    /// Whether the server is known to accept writes.
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
