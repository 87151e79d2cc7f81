//! The contracts between nodes and their Redis and in-memory forms.
//!
//! [`bus`] carries events, [`roster`] holds presence and counts, [`webhook`] queues webhooks. A node uses either the
//! forms in [`redis`] or, for a single process, those in memory.

pub mod bus;
pub mod envelope;
pub mod node;
pub mod redis;
pub mod roster;
pub mod webhook;
