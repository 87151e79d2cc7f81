//! The contracts between nodes and their Redis and in-memory forms.
//!
//! [`bus`] carries events, [`roster`] stores presence and counts, [`webhook`] queues webhooks, and [`directory`] locates
//! fallback sessions. A node of a cluster uses the implementations in Redis, a single process those in memory.

pub mod bus;
pub mod directory;
pub mod envelope;
pub mod node;
pub mod redis;
pub mod roster;
pub mod webhook;
