//! The primary of one primary: whether this node can use a Redis server, as one state machine.
//!
//! All connections of the node report here. Readiness, the metrics `carillon_redis_up`, `carillon_redis_state` and
//! `carillon_redis_refusing`, and the log lines about the server come from here.

mod machine;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use futures_util::FutureExt;
use tokio::sync::{Notify, watch};

use super::error::Refusal;
use super::identity::RunId;
use super::metrics::Metrics;
use machine::Machine;

/// The state of a primary, as this node sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The server does not answer, or has not answered a write yet.
    Connecting,
    /// The server accepts writes, and the subscriptions of this node are not in place.
    Resynchronizing,
    /// The server accepts writes, and everything that this node subscribes to is subscribed to.
    Live,
    /// The server answers, and must not be used.
    Refusing(Refusal),
}

impl State {
    /// All states as metric labels.
    pub const LABELS: [&'static str; 4] = ["connecting", "resynchronizing", "live", "refusing"];

    /// The state as a metric label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Resynchronizing => "resynchronizing",
            Self::Live => "live",
            Self::Refusing(_) => "refusing",
        }
    }
}

/// Identifies the connections that may be used: those of an earlier generation lead to a server that was left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Generation(u64);

/// Why a node is not ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotReady {
    /// No write has succeeded since the start.
    #[error("redis has not answered yet")]
    NotConnected,
    /// The subscriptions were never in place.
    #[error("not subscribed in redis yet")]
    NotSubscribed,
    /// The subscriptions of this node are down, and the server answers.
    #[error("the subscription in redis is down although redis answers")]
    SubscriptionDown,
    /// The server must not be used.
    #[error("redis cannot be used: {0}")]
    Refused(Refusal),
}

/// The state machine of one primary, shared by all connections to it.
pub struct PrimaryState {
    machine: Mutex<Machine>,
    view: watch::Sender<View>,
    /// Wakes the probe.
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
    /// The state of a primary that has not answered yet, visible in these metrics.
    pub(crate) fn new(metrics: Metrics) -> Self {
        let machine = Machine::default();
        metrics.state_changed(machine.state(), machine.answers());
        let view = watch::Sender::new(view_of(&machine));
        Self { machine: Mutex::new(machine), view, probe_requests: Notify::new(), metrics }
    }

    /// The state now.
    pub fn state(&self) -> State {
        self.view.borrow().state
    }

    /// Why the server must not be used; `None` when it may be, or does not answer.
    pub fn refusal(&self) -> Option<Refusal> {
        match self.state() {
            State::Refusing(refusal) => Some(refusal),
            _ => None,
        }
    }

    /// Whether events may be published: the server is known to accept writes, or did so before it stopped answering.
    pub fn accepts_events(&self) -> bool {
        self.view.borrow().accepts_events
    }

    /// Whether new clients should come to a node with this primary.
    ///
    /// A node is not ready before the primary was live for the first time, while it refuses, and while the subscriptions of
    /// this node alone are down. When the server does not answer at all every node stays ready: taking all of them out
    /// would turn a short outage into a herd of reconnecting clients.
    ///
    /// # Errors
    /// [`NotReady`].
    pub fn ready(&self) -> Result<(), NotReady> {
        self.lock().ready()
    }

    /// Resolves when the state is one for which `is_wanted` returns true.
    pub async fn wait_for_state(&self, mut is_wanted: impl FnMut(State) -> bool) {
        let mut view = self.view.subscribe();
        // The sender is part of `self`.
        let _ = view.wait_for(|view| is_wanted(view.state)).await;
    }

    /// Resolves when it is known whether events may be published. That is so at once, except before the server has answered
    /// for the first time.
    pub(crate) async fn verdict_known(&self) {
        let mut view = self.view.subscribe();
        // The sender is part of `self`.
        let _ = view.wait_for(|view| view.accepts_events || matches!(view.state, State::Refusing(_))).await;
    }

    /// The generation of connections that are made now.
    pub(crate) fn generation(&self) -> Generation {
        self.view.borrow().generation
    }

    /// Resolves when connections of this generation must not be used any more.
    pub(crate) async fn generation_ended(&self, generation: Generation) {
        let mut view = self.view.subscribe();
        // The sender is part of `self`.
        let _ = view.wait_for(|view| view.generation != generation).await;
    }

    /// Resolves when the probe should ask the server at once.
    pub(crate) async fn probe_requested(&self) {
        self.probe_requests.notified().await;
    }

    /// Forgets doubts that the probe has just answered.
    pub(crate) fn clear_probe_requests(&self) {
        let _ = self.probe_requests.notified().now_or_never();
    }

    /// Announces that this node subscribes, so that it is not live without its subscriptions.
    pub(crate) fn will_subscribe(&self) {
        self.change(Machine::will_subscribe);
    }

    /// Reports that the subscriptions of this node are in place.
    pub(crate) fn subscribed(&self) {
        self.change(Machine::subscribed);
    }

    /// Reports that the subscriptions of this node are not in place any more.
    pub(crate) fn unsubscribed(&self) {
        if self.change(Machine::unsubscribed) {
            self.probe_requests.notify_one();
        }
    }

    /// Reports the run id of the server that a new publishing connection leads to. Another one than before ends all
    /// connections to the earlier server. Returns the generation of the new connection.
    pub(crate) fn adopt(&self, run_id: Option<&RunId>) -> Generation {
        self.change(|machine| {
            if machine.adopt(run_id) {
                tracing::info!("another redis server answers at this address; moving all connections to it");
            }
            machine.generation()
        })
    }

    /// Whether a new connection that does not publish leads to the same server as the publishing one. If it does not, the
    /// publishing connection is made again, at most once a second.
    pub(crate) fn is_same_server(&self, run_id: Option<&RunId>) -> bool {
        let is_same = self.change(|machine| machine.is_same_server(run_id, Instant::now()));
        if !is_same {
            self.probe_requests.notify_one();
        }
        is_same
    }

    /// Reports that the server refused, on a connection of this generation, to be used. `cause`: in the server's words.
    pub(crate) fn refused(&self, refusal: Refusal, generation: Generation, cause: &str) {
        let is_news = self.change(|machine| {
            let is_news = machine.refused(refusal, generation);
            if is_news {
                tracing::error!(
                    reason = refusal.label(),
                    cause,
                    "redis cannot be used: {refusal}. Publishes are answered with 503 and this node is not ready. {}",
                    refusal.advice()
                );
            }
            is_news
        });
        if is_news {
            self.probe_requests.notify_one();
        }
    }

    /// Reports a command without an answer. The probe finds out whether the server is away.
    pub(crate) fn unanswered(&self) {
        if self.lock().is_serving() {
            self.probe_requests.notify_one();
        }
    }

    /// Reports that the probe could not reach the server.
    pub(crate) fn unreachable(&self) {
        self.change(Machine::unreachable);
    }

    /// Reports that the server accepted a write of the probe on a connection of this generation.
    pub(crate) fn accepted_a_write(&self, generation: Generation) {
        self.change(|machine| {
            let was_refusing = matches!(machine.state(), State::Refusing(_));
            machine.accepted_a_write(generation);
            if was_refusing && !matches!(machine.state(), State::Refusing(_)) {
                tracing::info!("redis accepts writes again");
            }
        });
    }

    /// Changes the machine. Everyone learns of the changes in the order in which they were made.
    fn change<T>(&self, change: impl FnOnce(&mut Machine) -> T) -> T {
        let mut machine = self.lock();
        let changed = change(&mut machine);
        let view = view_of(&machine);
        let is_news = self.view.send_if_modified(|before| std::mem::replace(before, view) != view);
        if is_news {
            self.metrics.state_changed(machine.state(), machine.answers());
        }
        changed
    }

    fn lock(&self) -> MutexGuard<'_, Machine> {
        // A panic under this lock leaves a machine that is whole: every change to it is a few plain assignments.
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn view_of(machine: &Machine) -> View {
    View { state: machine.state(), generation: machine.generation(), accepts_events: machine.accepts_events() }
}

#[cfg(test)]
mod tests;
