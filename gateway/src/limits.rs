//! The limits of a gateway: the bound of everything that can grow, and the behavior at the bound.
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
//! | cluster tasks in progress | [`TASKS_AT_ONCE`] of 10 KiB per shard, with at most [`WATCHES_AT_ONCE`] of 1 KiB | 84 MiB |
//! | queued cluster tasks | [`TASKS_WAITING_MAX`] of 128 bytes, while Redis is slow or unavailable | 128 MiB |
//! | bursts | [`BURST_COST_MAX`] links of 12 bytes, [`BURST_BYTES_MAX`] of frames per shard | 8 MiB |
//! | inboxes | [`INBOX_BYTES_MAX`] | 16 MiB |
//! | received cached events | [`shared::cluster::bus::memory::CACHED_BYTES_MAX`] | 64 MiB |
//! | slow clients | `server.outbox_bytes` (1 MiB) each, and member lists that are larger; broadcasts share their bytes | depends on how many are slow |
//! | client events queued for the bus | [`PUBLISHES_MAX`] per shard, `message_bytes` each | at most 512 MiB |
//! | handshakes that wait for their quota | [`QUOTA_WAITING_MAX`] of 64 bytes per app with a quota | 256 KiB per app |
//! | fallback sessions | [`SESSIONS_PER_TCP_CONNECTION`]; `server.fallback_sessions_per_address` (2,000) | `server.connections_max` |
//! | bodies of fallback requests | [`SMALL_BODY_BYTES_MAX`] each, [`LARGE_BODIES_BYTES_MAX`] for all larger ones | 64 MiB and the small ones |
//! | early presence changes | [`EARLY_CHANGES_MAX`] per presence channel | only while a list is being read |

use std::mem::size_of;

use shared::app::{App, as_usize};

/// The number of connections for the sums.
pub(crate) const SOCKETS: usize = 100_000;

/// The number of shards for the sums.
pub(crate) const SHARDS: usize = 8;

/// The maximum number of shards of a node. It is more than any machine has cores, and a larger number is a mistake.
pub(crate) const SHARDS_MAX: usize = 1024;

/// Bytes that a shard reads from one client at a time. The buffer is shared by all connections of the shard. It bounds
/// how long one client occupies the shard: 16 KiB of small messages with signatures take well under a millisecond.
pub(crate) const READ_BUFFER_BYTES: usize = 16 * 1024;

/// Reads from one client in one turn of its task. The second read usually finds nothing. Then all other
/// clients have their turn.
pub(crate) const READS_PER_TURN: usize = 2;

/// Bytes that are read from a client between the server's close frame and its own. A correct client has fewer in
/// transit. Beyond it the connection is dropped.
pub(crate) const CLOSING_BYTES_MAX: usize = 1024 * 1024;

/// Connections that a drain closes in one turn of the shard, which takes about 10 ms.
pub(crate) const CLOSES_PER_TURN: usize = 1024;

/// How long a client may take to send one message, from its first byte to its last, in seconds. Beyond it: 1008.
pub(crate) const PARTIAL_TIMEOUT_S: u32 = 30;

/// Bytes of incomplete messages of all clients of a node: a thousand messages of the default size. Each shard has an
/// equal share. Beyond it the connections with the oldest messages are closed with 4100. A correct client sends its
/// message in one round trip, and the oldest messages are those that will never be complete.
pub(crate) const PARTIAL_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Messages of the largest size that fit into the share of every shard.
pub(crate) const PARTIALS_MIN: usize = 8;

/// Subscriptions and sign-ins of one connection per second, on average. Beyond it they are refused with 4301. An
/// interactive page needs a few; each costs a signature check and up to three commands in Redis.
pub(crate) const REQUESTS_PER_SECOND: u32 = 50;

/// Subscriptions and sign-ins that a connection may send at once, in addition to `channels_per_connection`
/// subscriptions. After a reconnect pusher-js subscribes to all of its channels, signs in and subscribes to the user's
/// channel.
pub(crate) const REQUESTS_EXTRA: u32 = 100;

/// Messages that a shard reads from its inbox at a time.
pub(crate) const INBOX_BATCH: usize = 256;

/// Bytes of broadcasts that may be queued in all inboxes of a node: 100,000 chat messages, or a tenth of a second of
/// the fastest measured publishing. Beyond it publishers wait.
pub(crate) const INBOX_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Bytes of a message in an inbox without its frame: its topic and its entry in the queue.
pub(crate) const INBOX_MESSAGE_BYTES: usize = 128;

/// The maximum cost of a burst, in deliveries. Beyond it the burst is written, and the shard serves its other clients.
/// One delivery in a large burst takes about half a microsecond, and this many take about 30 ms.
pub(crate) const BURST_COST_MAX: usize = 64 * 1024;

/// The cost of the system call for each connection that a burst is written to, in deliveries.
pub(crate) const WRITE_COST: usize = 16;

/// Bytes written that cost as much as one delivery.
pub(crate) const BYTES_PER_COST: usize = 512;

/// Tasks that a worker does before it yields to others.
pub(crate) const TASKS_PER_TURN: usize = 16;

/// Subscriptions, sign-ins and leaves of a shard that wait for the cluster at the same time. Each uses about 10 KiB.
/// With three round trips of 5 ms each, a shard does 17,000 of them per second.
pub(crate) const TASKS_AT_ONCE: usize = 256;

/// Queued subscriptions and sign-ins of all shards. Beyond it they are refused with 4302. It allows more than ten for
/// each of [`SOCKETS`], which suffices when all clients return at once.
pub(crate) const TASKS_WAITING_MAX: usize = 1024 * 1024;

/// Watched users of one sign-in whose topics are subscribed at the same time. Each uses about 1 KiB.
pub(crate) const WATCHES_AT_ONCE: usize = 32;

/// Bytes of distinct frames after which a burst is written. No connection receives more at a time. A client that keeps
/// up is therefore not considered slow.
pub(crate) const BURST_BYTES_MAX: usize = 256 * 1024;

/// Frames that are written in one call. Linux accepts 1,024, and a burst rarely has more than ten.
pub(crate) const WRITE_FRAMES_MAX: usize = 64;

/// Bytes of a queued frame without its payload. The measured value is 97 bytes for a pong of two bytes.
pub(crate) const FRAME_OVERHEAD_BYTES: usize = 96;

/// Handshakes of one app that may wait for its connection quota. Beyond it they are refused with 4100.
pub(crate) const QUOTA_WAITING_MAX: usize = 4096;

/// Apps whose connections are reported to the roster at a time.
pub(crate) const CONNECTION_REPORTS_AT_ONCE: usize = 16;

/// Apps whose counts other nodes may request between two reports. A node that receives no count refuses clients with
/// 4100 instead of 4004.
pub(crate) const RECOUNTS_MAX: usize = 4096;

/// Bytes of an app's id in such a request. No app of the cluster has a longer id.
pub(crate) const RECOUNT_BYTES_MAX: usize = 256;

/// Client events of a shard that may be queued for the bus. Beyond it they are refused.
pub(crate) const PUBLISHES_MAX: usize = 1024;

/// Client events that a shard publishes at a time.
pub(crate) const PUBLISH_BATCH: usize = 64;

/// Changes of one presence channel that may be queued until the list of members is read. Beyond it they are dropped.
/// The list then contains them, or it is read again.
pub(crate) const EARLY_CHANGES_MAX: usize = 4096;

/// Bytes of member changes of one channel that each of its subscribers on a node receives at once, and per second
/// afterward. Beyond it the changes of a second are sent together, without those that cancel each other. It is a
/// quarter of the bytes that a slow client reads per second, and enough for 1,500 members who join at once.
pub(crate) const MEMBER_BYTES_AT_ONCE: u32 = 256 * 1024;
pub(crate) const MEMBER_BYTES_PER_SECOND: u32 = 256 * 1024;

/// Bytes of a notification of a member change without the id and the info: the envelope, the channel and the frame.
pub(crate) const NOTIFICATION_BYTES: usize = 128;

/// Counts of subscriptions of one channel, up to 100, that its subscribers receive at once, and per second afterward.
/// Beyond it they receive the latest one once per second.
pub(crate) const COUNTS_AT_ONCE: u32 = 20;
pub(crate) const COUNTS_PER_SECOND: u32 = 10;

/// Delayed counts of subscriptions that are reported to the roster at a time.
pub(crate) const LATE_REPORTS_AT_ONCE: usize = 64;

/// Channels that are resynchronized at a time: enough to fill a connection to Redis, few enough to leave room for
/// others.
pub(crate) const RESYNCS_AT_ONCE: usize = 64;

/// Members of one channel that are registered again at a time.
pub(crate) const REJOINS_AT_ONCE: usize = 32;

/// Bytes that a TLS task copies at a time.
pub(crate) const TLS_COPY_BYTES: usize = 4096;

/// Queued requests of one fallback session. Beyond it they are refused.
pub(crate) const SESSION_REQUESTS_MAX: usize = 16;

/// Bytes of a fallback request per byte of `message_bytes`, because a message is inside a JSON string inside a JSON
/// array. The configuration in `deploy/nginx` has the same factor.
const FALLBACK_BODY_FACTOR: usize = 4;

/// Returns the maximum size of a fallback request body with messages, in bytes.
pub(crate) fn fallback_body_bytes_max(app: &App) -> usize {
    as_usize(app.limits.message_bytes).saturating_mul(FALLBACK_BODY_FACTOR)
}

/// Open fallback sessions that were opened through one TCP connection. A browser has one session per page, and up to
/// six TCP connections to a host. A proxy that reuses its connections opens about one session for each of its pending
/// requests. Beyond it a new session is refused with 4100.
pub(crate) const SESSIONS_PER_TCP_CONNECTION: usize = 64;

/// The default of `server.fallback_sessions_per_address`: the users of a large office behind one address, whose network
/// blocks WebSockets.
pub(crate) const SESSIONS_PER_ADDRESS: usize = 2_000;

/// The divisor of a node's connections that gives the maximum number of fallback sessions of one address.
pub(crate) const SESSIONS_PER_ADDRESS_SHARE: usize = 2;

/// The size up to which a request body is buffered without a permit. hyper's buffer for a request head has the same
/// size.
pub(crate) const SMALL_BODY_BYTES_MAX: usize = 16 * 1024;

/// Bytes of all larger bodies of fallback requests that a node buffers at a time: 256 of the largest by default.
/// Further requests wait for their turn.
pub(crate) const LARGE_BODIES_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Bytes of the body of a request without messages that are discarded. pusher-js sends no body.
pub(crate) const EMPTY_BODY_BYTES_MAX: usize = 64 * 1024;

/// Bytes of one piece of a streaming response. Frames beyond it remain in the outbox, where they count.
pub(crate) const STREAM_PIECE_BYTES: usize = 16 * 1024;

/// Messages of one fallback request that are handled in one turn of the shard. A body of 256 KiB may have 87,381
/// messages. Each can need a signature check and a reply of a hundred bytes.
pub(crate) const FALLBACK_MESSAGES_PER_TURN: usize = 128;

/// The default of `server.outbox_bytes`: the bytes that may be queued for one client.
const OUTBOX_BYTES_DEFAULT: usize = 1024 * 1024;

const _: () = assert!(4 * BURST_BYTES_MAX <= OUTBOX_BYTES_DEFAULT, "one burst must not make a client slow");
const _: () = assert!(TASKS_WAITING_MAX >= 10 * SOCKETS, "all clients may return at once");
const _: () =
    assert!(SHARDS * TASKS_AT_ONCE * (10 + WATCHES_AT_ONCE) / 1024 <= 84, "the sum of tasks in progress, in MiB");
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
const _: () = assert!(FRAME_OVERHEAD_BYTES >= size_of::<bytes::Bytes>(), "a queued frame is at least a handle");
