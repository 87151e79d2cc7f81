//! The states of a primary.

use super::error::Refusal;

/// The state of a primary as seen by this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The server does not reply, or has not accepted a write yet.
    Connecting,
    /// The server accepts writes, but the subscriptions of this node are not confirmed.
    Resynchronizing,
    /// The server accepts writes, and all subscriptions of this node are confirmed.
    Live,
    /// The server replies, but must not be used.
    Refusing(Refusal),
}

impl State {
    /// The metric labels of all states.
    pub const LABELS: [&'static str; 4] = ["connecting", "resynchronizing", "live", "refusing"];

    /// Returns the metric label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Resynchronizing => "resynchronizing",
            Self::Live => "live",
            Self::Refusing(_) => "refusing",
        }
    }
}
