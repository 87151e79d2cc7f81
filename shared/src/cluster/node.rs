//! The identity of a running process.

use std::fmt;

use uuid::Uuid;
use uuid::fmt::Simple;

/// The name of a running process. It is new at every start, so a restarted node is never confused with its predecessor.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(Uuid);

impl NodeId {
    /// The length of an id as text, in bytes.
    pub const LENGTH: usize = Simple::LENGTH;

    /// Returns a new id. Ids sort by the time at which they were created.
    pub fn fresh() -> Self {
        Self(Uuid::now_v7())
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.simple().fmt(f)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
