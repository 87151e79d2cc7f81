//! The state of one primary: whether this node can use a Redis server.
//!
//! All connections of the node report to it. Readiness, the metrics `carillon_redis_up`, `carillon_redis_state` and
//! `carillon_redis_refusing`, and the log lines about the server come from here.

mod machine;

use std::sync::{Mutex, MutexGuard};
use std::time::Instant;

use futures_util::FutureExt;
use tokio::sync::{Notify, watch};

use super::error::Refusal;
use super::identity::RunId;
use super::metrics::Metrics;
use super::state::State;
use crate::sync::lock;
use machine::Machine;

/// The generation of a connection. Connections of an earlier generation must not be used, since the server has changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Generation(u64);

/// The reason why a node is not ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotReady {
    /// No write has succeeded since the start.
    #[error("no reply from redis yet")]
    NotConnected,
    /// The subscriptions were never confirmed.
    #[error("not subscribed in redis yet")]
    NotSubscribed,
    /// The subscriptions of this node are lost although the server replies.
    #[error("the subscriptions in redis are lost although redis replies")]
    SubscriptionDown,
    /// The server must not be used.
    #[error("redis cannot be used: {0}")]
    Refused(Refusal),
}

/// The state of one primary, shared by all connections to it.
pub struct PrimaryState {
    machine: Mutex<Machine>,
    view: watch::Sender<View>,
    /// Requests of other connections to probe the server.
    probe_requests: Notify,
    metrics: Metrics,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct View {
    state: State,
    generation: Generation,
    /// Whether events may be published.
    accepts_events: bool,
}

impl PrimaryState {
    /// Creates the state of a primary that has not replied yet, and reports it to `metrics`.
    pub(crate) fn new(metrics: Metrics) -> Self {
        let machine = Machine::default();
        metrics.state_changed(machine.state(), machine.replies());
        let view = watch::Sender::new(view_of(&machine));
        Self { machine: Mutex::new(machine), view, probe_requests: Notify::new(), metrics }
    }

    /// Returns the current state.
    pub fn state(&self) -> State {
        self.view.borrow().state
    }

    /// Returns the reason why the server must not be used, if any.
    pub fn refusal(&self) -> Option<Refusal> {
        match self.state() {
            State::Refusing(refusal) => Some(refusal),
            _ => None,
        }
    }

    /// Whether events may be published: the last known reply of the server accepted a write.
    pub fn accepts_events(&self) -> bool {
        self.view.borrow().accepts_events
    }

    /// Whether the node is ready for new clients.
    ///
    /// A node becomes ready when its primary is live for the first time. It is not ready while the server refuses, or
    /// while only the subscriptions of this node are lost. If the server does not reply, all nodes stay ready.
    /// Otherwise a short outage would make all clients reconnect.
    ///
    /// # Errors
    /// [`NotReady`].
    pub fn ready(&self) -> Result<(), NotReady> {
        self.lock().ready()
    }

    /// Resolves when `matches` returns true for the state.
    pub async fn wait_for_state(&self, mut matches: impl FnMut(State) -> bool) {
        let mut view = self.view.subscribe();
        // The sender is part of `self`.
        let _ = view.wait_for(|view| matches(view.state)).await;
    }

    /// Resolves when it is known whether events may be published. This waits only for the first reply of the server.
    pub(crate) async fn verdict_known(&self) {
        let mut view = self.view.subscribe();
        // The sender is part of `self`.
        let _ = view.wait_for(|view| view.accepts_events || matches!(view.state, State::Refusing(_))).await;
    }

    /// Returns the generation of new connections.
    pub(crate) fn generation(&self) -> Generation {
        self.view.borrow().generation
    }

    /// Resolves when connections of this generation must no longer be used.
    pub(crate) async fn generation_ended(&self, generation: Generation) {
        let mut view = self.view.subscribe();
        // The sender is part of `self`.
        let _ = view.wait_for(|view| view.generation != generation).await;
    }

    /// Resolves when a connection requests a probe.
    pub(crate) async fn probe_requested(&self) {
        self.probe_requests.notified().await;
    }

    /// Discards requests that were made before the last probe.
    pub(crate) fn clear_probe_requests(&self) {
        let _ = self.probe_requests.notified().now_or_never();
    }

    /// Declares that this node subscribes. The state is then live only with confirmed subscriptions.
    pub(crate) fn will_subscribe(&self) {
        self.change(Machine::will_subscribe);
    }

    /// Reports that all subscriptions of this node are confirmed.
    pub(crate) fn subscribed(&self) {
        self.change(Machine::subscribed);
    }

    /// Reports that the subscriptions of this node are lost.
    pub(crate) fn unsubscribed(&self) {
        if self.change(Machine::unsubscribed) {
            self.probe_requests.notify_one();
        }
    }

    /// Reports the run id of the server of a new publishing connection. A different run id than before ends all
    /// connections to the previous server. Returns the generation of the new connection.
    pub(crate) fn adopt(&self, run_id: Option<&RunId>) -> Generation {
        self.change(|machine| {
            if machine.adopt(run_id) {
                tracing::info!("the redis address leads to a different server; reconnecting all connections");
            }
            machine.generation()
        })
    }

    /// Whether a new connection leads to the server of the publishing connection. If not, the publishing connection is
    /// replaced, at most once per second.
    pub(crate) fn is_same_server(&self, run_id: Option<&RunId>) -> bool {
        let is_same = self.change(|machine| machine.is_same_server(run_id, Instant::now()));
        if !is_same {
            self.probe_requests.notify_one();
        }
        is_same
    }

    /// Reports a refusal on a connection of this generation. `cause` is the text of the server.
    pub(crate) fn refused(&self, refusal: Refusal, generation: Generation, cause: &str) {
        let has_changed = self.change(|machine| {
            let has_changed = machine.refused(refusal, generation);
            if has_changed {
                tracing::error!(
                    reason = refusal.label(),
                    cause,
                    "redis cannot be used: {refusal}. Publish requests fail with 503 and this node is not ready. {}",
                    refusal.advice()
                );
            }
            has_changed
        });
        if has_changed {
            self.probe_requests.notify_one();
        }
    }

    /// Reports a command without a reply. The probe then checks whether the server is unreachable.
    pub(crate) fn unanswered(&self) {
        if self.lock().is_serving() {
            self.probe_requests.notify_one();
        }
    }

    /// Reports that the server is unreachable for the probe.
    pub(crate) fn unreachable(&self) {
        self.change(Machine::unreachable);
    }

    /// Reports a successful write of the probe on a connection of this generation.
    pub(crate) fn accepted_a_write(&self, generation: Generation) {
        self.change(|machine| {
            let was_refusing = matches!(machine.state(), State::Refusing(_));
            machine.accepted_a_write(generation);
            if was_refusing && !matches!(machine.state(), State::Refusing(_)) {
                tracing::info!("redis accepts writes again");
            }
        });
    }

    /// Changes the state machine, and publishes changes in the order in which they were made.
    fn change<T>(&self, change: impl FnOnce(&mut Machine) -> T) -> T {
        let mut machine = self.lock();
        let changed = change(&mut machine);
        let view = view_of(&machine);
        let has_changed = self.view.send_if_modified(|before| std::mem::replace(before, view) != view);
        if has_changed {
            self.metrics.state_changed(machine.state(), machine.replies());
        }
        changed
    }

    fn lock(&self) -> MutexGuard<'_, Machine> {
        lock(&self.machine)
    }
}

fn view_of(machine: &Machine) -> View {
    View { state: machine.state(), generation: machine.generation(), accepts_events: machine.accepts_events() }
}

#[cfg(test)]
mod tests;
