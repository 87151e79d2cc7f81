//! The bounds of this crate and their policies.
//!
//! Calculations assume a gateway with 100,000 connections.

use std::time::Duration;

/// Connections of the pool to Redis. A command waits for a free one up to the command timeout, and then fails. More
/// connections would only queue in Redis.
pub(crate) const POOL_SIZE: usize = 4;

/// Commands in flight on one connection to Redis before callers wait. The library's 50 would hold up a stream of
/// publishes.
pub(crate) const PIPELINE_DEPTH: usize = 1024;

/// Subscriptions that are sent to Redis together, one command each. A command of 60 bytes makes this 30 KiB in the
/// connection's buffer, and 100,000 topics 196 round trips.
pub(crate) const SUBSCRIBE_BATCH: usize = 512;

/// Topics that a node subscribes to. Beyond it a subscription fails and its client gets an error. Existing
/// subscriptions stay.
///
/// 100,000 connections with 10 channels each, none shared, are 1,000,000 topics. A topic takes about 300 bytes here
/// (its name twice, its entry in the map, and one waiting subscription), so all of them take 300 MB at most. While
/// Redis is unreachable, nothing else is stored: changes are listed only for an open connection.
pub(crate) const TOPICS_MAX: usize = 1_000_000;

/// Time to live of a channel's epochs and sequences after the last change. It is much longer than that of a channel:
/// every node resynchronizes a channel whose sequence restarts.
pub(crate) const CHANNEL_META_TTL: Duration = Duration::from_secs(24 * 3600);

/// The time for which `channel_vacated` and `member_removed` are held. If the channel is occupied again or the member
/// joins again in this time, neither event is sent. Source: protocol reference 5.
pub(crate) const WEBHOOK_HOLD: Duration = Duration::from_secs(3);

/// Held webhook events that one change enqueues, if they are due. The others are enqueued by later changes and by the
/// dispatcher.
pub(crate) const DUE_PER_CHANGE_MAX: usize = 100;

/// Subscription counts up to this number are sent with every change, larger ones once per [`COUNT_INTERVAL`].
pub(crate) const COUNT_IMMEDIATE_MAX: u64 = 100;

/// The interval between two webhooks with the count of a large channel.
pub(crate) const COUNT_INTERVAL: Duration = Duration::from_secs(5);

/// The shortest interval between two webhooks about a cache miss of one channel.
pub(crate) const CACHE_MISS_INTERVAL: Duration = Duration::from_secs(5);

/// Webhook events of one app and partition in Redis, and their bytes. Beyond it the oldest are dropped.
pub(crate) const WEBHOOK_QUEUE_MAX: usize = 1_000_000;
pub(crate) const WEBHOOK_QUEUE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Time to live of a queue in Redis without new events and without a publisher that serves it.
pub(crate) const WEBHOOK_QUEUE_TTL: Duration = Duration::from_secs(24 * 3600);

/// Bytes of an event in Redis, besides its fields.
pub(crate) const WEBHOOK_QUEUE_ENTRY_BYTES: usize = 128;

/// The limits of a queue in Redis are checked each time that this many bytes were added.
pub(crate) const WEBHOOK_QUEUE_CHECK_BYTES: usize = 64 * 1024;

const _: () = assert!(SUBSCRIBE_BATCH <= PIPELINE_DEPTH);
const _: () = assert!(TOPICS_MAX >= 10 * 100_000);
const _: () = assert!(TOPICS_MAX / SUBSCRIBE_BATCH < 2_000);
