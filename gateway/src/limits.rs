//! The budgets of a gateway: what can grow, how far, and what the gateway does at the bound.
//!
//! Limits that an operator or an application sets are in [`crate::config`] and `shared::app`. Deadlines of the protocol
//! are in the module that applies them.
//!
//! The sums are for one node with [`SOCKETS`] connections on [`SHARDS`] shards and the default configuration:
//!
//! | what | bound | sum |
//! |---|---|---|
//! | idle connections | 1.4 KiB each | 137 MiB |
//! | read buffers | [`READ_BUFFER_BYTES`] per shard | 128 KiB |
//! | incomplete messages | [`PARTIAL_BYTES_MAX`] | 64 MiB |
//! | cluster work under way | [`TASKS_AT_ONCE`] of 10 KiB per shard, with [`WATCHES_AT_ONCE`] of 1 KiB at worst | 84 MiB |
//! | cluster work that waits | [`TASKS_WAITING_MAX`] of 128 bytes, while Redis is slow or away | 128 MiB |
//! | bursts | [`BURST_COST_MAX`] links of 12 bytes, [`BURST_BYTES_MAX`] of frames per shard | 8 MiB |
//! | inboxes | [`INBOX_BYTES_MAX`] | 16 MiB |
//! | received kept events | [`shared::cluster::bus::memory::KEPT_BYTES_MAX`] | 64 MiB |
//! | slow clients | `server.outbox_bytes` (1 MiB) each, and member lists that are larger; broadcasts share their bytes | depends on how many are slow |
//! | client events that wait for the bus | [`PUBLISHES_MAX`] per shard, `message_bytes` each | 512 MiB at worst |
//! | handshakes that wait for a quota | [`QUOTA_WAITING_MAX`] of 64 bytes per app with a quota | 256 KiB per app |
//! | fallback sessions | [`SESSIONS_PER_TCP_CONNECTION`]; `server.fallback_sessions_per_address` (2,000) | `server.connections_max` |
//! | bodies of fallback requests | [`SMALL_BODY_BYTES_MAX`] each, [`LARGE_BODIES_BYTES_MAX`] for all larger ones | 64 MiB besides small ones |
//! | early presence changes | [`EARLY_CHANGES_MAX`] per presence channel | only while a list is on its way |

use std::mem::size_of;

use shared::app::{App, as_usize};

/// Connections that the sums are for.
pub(crate) const SOCKETS: usize = 100_000;

/// Shards that the sums are for.
pub(crate) const SHARDS: usize = 8;

/// Shards of a node: more threads than any machine has cores. A larger number is a mistake in the configuration.
pub(crate) const SHARDS_MAX: usize = 1024;

/// Bytes that a shard reads from one client at a time. The buffer is shared by all connections of the shard. It bounds
/// how long one client occupies the shard: 16 KiB of small messages with signatures take well under a millisecond.
pub(crate) const READ_BUFFER_BYTES: usize = 16 * 1024;

/// Reads from one client in one turn of its task. The second read usually finds nothing. A client that sends more waits
/// until all others had a turn.
pub(crate) const READS_PER_TURN: usize = 2;

/// Bytes that are read from a client after the close frame was sent, until its answer arrives. More than a client in good
/// order can have had under way. Beyond it the connection is dropped.
pub(crate) const CLOSING_BYTES_MAX: usize = 1024 * 1024;

/// Connections that a drain closes at a time, before others on the shard have their turn: about 10 ms.
pub(crate) const CLOSES_PER_TURN: usize = 1024;

/// How long a client may take to send one message, from its first byte to its last, in seconds. Beyond it: 1008.
pub(crate) const PARTIAL_TIMEOUT_S: u32 = 30;

/// Bytes of incomplete messages of all clients of a node: a thousand messages of the default size. Beyond it the oldest
/// are given up, and their connections closed with 4100. A client in good order sends its message in one round trip, so
/// the oldest are those that never end. Each shard has an equal share.
pub(crate) const PARTIAL_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Messages of the largest size that the share of a shard has room for, however small it is.
pub(crate) const PARTIALS_MIN: usize = 8;

/// Subscriptions and sign-ins of one connection per second, on average. Beyond it they are refused with 4301. An
/// interactive page needs a few; each costs a signature check and up to three commands in Redis.
pub(crate) const REQUESTS_PER_SECOND: u32 = 50;

/// Subscriptions and sign-ins that a connection may send at once besides `channels_per_connection` subscriptions. After a
/// reconnect pusher-js sends all of its channels, a sign-in and the user's channel.
pub(crate) const REQUESTS_EXTRA: u32 = 100;

/// Messages that a shard takes from its inbox at a time.
pub(crate) const INBOX_BATCH: usize = 256;

/// Bytes of broadcasts that may wait in all inboxes of a node: 100,000 events of a chat, or a tenth of a second of the
/// fastest publishing measured. Beyond it publishers wait.
pub(crate) const INBOX_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Bytes that a message in an inbox takes besides its frame: its topic and its place in the queue.
pub(crate) const INBOX_MESSAGE_BYTES: usize = 128;

/// The cost of a burst, in deliveries, after which it is written although more waits, and after which the shard serves its
/// other clients. One delivery in a burst of many takes about half a microsecond, so this is about 30 ms.
pub(crate) const BURST_COST_MAX: usize = 64 * 1024;

/// The cost of the system call for each connection that a burst is written to, in deliveries.
pub(crate) const WRITE_COST: usize = 16;

/// Bytes written that cost as much as one delivery.
pub(crate) const BYTES_PER_COST: usize = 512;

/// Tasks of a worker after which it lets others have their turn.
pub(crate) const TASKS_PER_TURN: usize = 16;

/// Subscriptions, sign-ins and leaves of a shard that wait for the cluster at the same time. Each takes about 10 KiB while
/// it runs. At a round trip of 5 ms and three of them each, a shard does 17,000 a second.
pub(crate) const TASKS_AT_ONCE: usize = 256;

/// Subscriptions and sign-ins of all shards that may wait for their turn. Beyond it they are refused with 4302. It is more
/// than ten for each of [`SOCKETS`], which is what a node has to do when all of its clients return at once.
pub(crate) const TASKS_WAITING_MAX: usize = 1024 * 1024;

/// Watched users of one sign-in that are subscribed to at the same time. Each takes about 1 KiB while it runs.
pub(crate) const WATCHES_AT_ONCE: usize = 32;

/// Bytes of distinct frames after which a burst is written. No connection gets more than this at a time, so that a client
/// that keeps up is not taken for a slow one.
pub(crate) const BURST_BYTES_MAX: usize = 256 * 1024;

/// Frames that are given to the kernel in one call. Linux takes 1,024; a burst rarely has more than ten.
pub(crate) const WRITE_FRAMES_MAX: usize = 64;

/// Bytes that a waiting frame takes besides its payload: measured, 97 bytes for a pong of two.
pub(crate) const FRAME_OVERHEAD_BYTES: usize = 96;

/// Handshakes of one app that may wait for a place in its connection quota. Beyond it they are refused with 4100.
pub(crate) const QUOTA_WAITING_MAX: usize = 4096;

/// Apps whose connections are reported to the roster at a time.
pub(crate) const CONNECTION_REPORTS_AT_ONCE: usize = 16;

/// Apps that other nodes may ask about between two reports. A node that receives no answer refuses clients with 4100 in
/// place of 4004.
pub(crate) const RECOUNTS_MAX: usize = 4096;

/// Bytes of an app's id in such a question. Longer ones are not this cluster's.
pub(crate) const RECOUNT_BYTES_MAX: usize = 256;

/// Client events of a shard that may wait for the bus. Beyond it they are refused.
pub(crate) const PUBLISHES_MAX: usize = 1024;

/// Client events that a shard hands to the bus at a time.
pub(crate) const PUBLISH_BATCH: usize = 64;

/// Changes of one presence channel that may wait for the list of members. Beyond it the oldest are dropped: they are in
/// the list by then, or the list is fetched again.
pub(crate) const EARLY_CHANGES_MAX: usize = 4096;

/// Bytes of changes of the members of one channel that each of its subscribers on a node is sent at once, and per second
/// thereafter. Beyond it the changes of a second are sent together, without those that cancel each other. It is a quarter
/// of what a slow client reads in a second, and enough for 1,500 members who join at once.
pub(crate) const MEMBER_BYTES_AT_ONCE: u32 = 256 * 1024;
pub(crate) const MEMBER_BYTES_PER_SECOND: u32 = 256 * 1024;

/// Bytes of a notification of a changed member besides its id and info: the envelope, the channel and the frame.
pub(crate) const NOTIFICATION_BYTES: usize = 128;

/// Counts of subscriptions of one channel, of at most 100, that its subscribers are sent at once, and per second
/// thereafter. Beyond it they are sent the latest one once a second.
pub(crate) const COUNTS_AT_ONCE: u32 = 20;
pub(crate) const COUNTS_PER_SECOND: u32 = 10;

/// Late counts of subscriptions that are reported to the roster at a time.
pub(crate) const LATE_REPORTS_AT_ONCE: usize = 64;

/// Channels that are resynchronized at a time: enough to fill a connection to Redis, few enough to leave room for others.
pub(crate) const RESYNCS_AT_ONCE: usize = 64;

/// Members of one channel that are joined again at a time.
pub(crate) const REJOINS_AT_ONCE: usize = 32;

/// Bytes that a TLS connection copies at a time.
pub(crate) const TLS_COPY_BYTES: usize = 4096;

/// Requests of one fallback session that may wait. Beyond it they are refused.
pub(crate) const SESSION_REQUESTS_MAX: usize = 16;

/// Bytes of a fallback request per byte of `message_bytes`: a message inside a JSON string inside a JSON array. nginx is
/// configured to the same in `deploy/nginx`.
const FALLBACK_BODY_FACTOR: usize = 4;

/// Returns the maximum size of a fallback request body with messages, in bytes.
pub(crate) fn fallback_body_bytes_max(app: &App) -> usize {
    as_usize(app.limits.message_bytes).saturating_mul(FALLBACK_BODY_FACTOR)
}

/// Fallback sessions that one TCP connection may have opened and that are alive. A browser has one per page, and up to six
/// TCP connections to a host. A proxy that reuses its connections opens about one session for each of its hanging requests.
/// Beyond it a new session is refused with 4100.
pub(crate) const SESSIONS_PER_TCP_CONNECTION: usize = 64;

/// The default of `server.fallback_sessions_per_address`: the users of a large office behind one address, where no
/// WebSocket gets through.
pub(crate) const SESSIONS_PER_ADDRESS: usize = 2_000;

/// The part of a node's connections that the fallback sessions of one address may take: one in this many.
pub(crate) const SESSIONS_PER_ADDRESS_SHARE: usize = 2;

/// A request body up to this size is kept without a permit: hyper's own buffer for a request head is as large.
pub(crate) const SMALL_BODY_BYTES_MAX: usize = 16 * 1024;

/// Bytes of all larger bodies of fallback requests that a node keeps at a time: 256 of the largest by default. Further
/// requests wait for their turn.
pub(crate) const LARGE_BODIES_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Bytes of a request without messages that are discarded: pusher-js sends none.
pub(crate) const EMPTY_BODY_BYTES_MAX: usize = 64 * 1024;

/// Bytes of one piece of a streaming response, so that what waits stays in the outbox, where it is counted.
pub(crate) const STREAM_PIECE_BYTES: usize = 16 * 1024;

/// Messages of one fallback request that are handled before others on the shard have their turn. A body of 256 KiB may have
/// 87,381 of them, each answered with an error of a hundred bytes, and some with a signature to check.
pub(crate) const FALLBACK_MESSAGES_PER_TURN: usize = 128;

/// The default of `server.outbox_bytes`: the bytes that may be queued for one client.
const OUTBOX_BYTES_DEFAULT: usize = 1024 * 1024;

const _: () = assert!(4 * BURST_BYTES_MAX <= OUTBOX_BYTES_DEFAULT, "one burst must not make a client slow");
const _: () = assert!(TASKS_WAITING_MAX >= 10 * SOCKETS, "all clients may return at once");
const _: () =
    assert!(SHARDS * TASKS_AT_ONCE * (10 + WATCHES_AT_ONCE) / 1024 <= 84, "the sum of work under way, in MiB");
const _: () = assert!(PARTIAL_BYTES_MAX / SHARDS >= PARTIALS_MIN * 64 * 1024, "the default size of a message");
const _: () = assert!(
    MEMBER_BYTES_AT_ONCE as usize + MEMBER_BYTES_PER_SECOND as usize <= OUTBOX_BYTES_DEFAULT / 2,
    "changes of members must not make a client slow"
);
const _: () = assert!(PUBLISH_BATCH <= PUBLISHES_MAX);
const _: () = assert!(SHARDS <= SHARDS_MAX);
const _: () = assert!(SESSIONS_PER_TCP_CONNECTION < SESSIONS_PER_ADDRESS && SESSIONS_PER_ADDRESS < SOCKETS);
const _: () = assert!(SMALL_BODY_BYTES_MAX < EMPTY_BODY_BYTES_MAX && EMPTY_BODY_BYTES_MAX < LARGE_BODIES_BYTES_MAX);
const _: () = assert!(LARGE_BODIES_BYTES_MAX <= u32::MAX as usize, "a permit is counted in bytes");
const _: () = assert!(SHARDS * (BURST_COST_MAX * 12 + BURST_BYTES_MAX) <= 8 * 1024 * 1024, "the sum of the bursts");
const _: () = assert!(SOCKETS * 1434 / 1024 / 1024 <= 137, "the sum of idle connections");
const _: () = assert!(FRAME_OVERHEAD_BYTES >= size_of::<bytes::Bytes>(), "a waiting frame is at least a handle");
