//! The bounds of this crate and their policies.
//!
//! Calculations assume a gateway with 100,000 connections.

/// Connections of the pool to Redis. Commands wait for one, as long as a command may take; beyond that they fail. More
/// connections would only queue in Redis.
pub(crate) const POOL_SIZE: usize = 4;

/// Commands in flight on one connection to Redis before callers wait. The library's 50 would hold up a stream of publishes.
pub(crate) const PIPELINE_DEPTH: usize = 1024;

/// Subscriptions that are sent to Redis together, one command each. A command of 60 bytes makes this 30 KiB in the
/// connection's buffer, and 100,000 topics 196 round trips.
pub(crate) const SUBSCRIBE_BATCH: usize = 512;

/// Topics that a node subscribes to. Beyond it a subscription fails and its client gets an error. Existing
/// subscriptions stay.
///
/// 100,000 connections with 10 channels each, none shared, are 1,000,000 topics. A topic takes about 300 bytes here (its
/// name twice, its entry in the map, and one waiting subscription), so all of them take 300 MB at most. While Redis is away
/// nothing else is kept: the list of changes to be sent begins with the next connection.
pub(crate) const TOPICS_MAX: usize = 1_000_000;

const _: () = assert!(SUBSCRIBE_BATCH <= PIPELINE_DEPTH);
const _: () = assert!(TOPICS_MAX >= 10 * 100_000);
const _: () = assert!(TOPICS_MAX / SUBSCRIBE_BATCH < 2_000);
