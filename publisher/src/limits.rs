//! The fixed limits of the publisher, each with its reason.
//!
//! # Memory of request bodies
//!
//! The server keeps the body of a request only after it verified the signature. All other bodies are counted and
//! discarded. The concurrent bodies of an app take [`APP_BODY_BYTES_MAX`] = 64 MiB at most. These are 104 of the
//! largest bodies of the default limits (10 events of 60 KiB and their names). Further requests of the app wait. With
//! `--debug` the bodies of refused requests are kept until their channels are logged: [`LOGGED_BODIES_MAX`] ×
//! [`LOGGED_BODY_BYTES_MAX`] = 1 MiB.
//!
//! # Memory of connections
//!
//! 10,000 connections × (hyper's buffer of 8 KiB + 4 KiB of state) = 120 MiB when all of them are idle. If all of them
//! send large bodies, the buffers grow to 64 KiB each (`shared::serve::http::BUFFER_BYTES_MAX`), 640 MiB in total.
//!
//! # Time
//!
//! The server waits at most [`BODY_TIMEOUT`] for a body. Callers therefore receive the error before they reach their
//! own timeout, [`CALLER_TIMEOUT`].

use std::time::Duration;

use shared::serve::http::{DISCARD_TIMEOUT, HEAD_TIMEOUT};

/// Open connections of callers, which are application servers with a few connections each. Further connections wait in
/// the listen queue of the system.
pub(crate) const CONNECTIONS_MAX: usize = 10_000;

/// The response timeout of pusher-http-php, the shortest of the official libraries.
const CALLER_TIMEOUT: Duration = Duration::from_secs(30);

/// The time in which a body must arrive: a third of [`CALLER_TIMEOUT`].
pub(crate) const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes of concurrent request bodies of one app.
pub(crate) const APP_BODY_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The most permits that one request can take from the budget of its app, one per byte.
pub(crate) const BODY_PERMITS_MAX: usize = 1 << 29;

/// The largest body of a refused request that is kept for the log. A publish of the default size fits.
pub(crate) const LOGGED_BODY_BYTES_MAX: usize = 64 * 1024;

/// Concurrent bodies that are kept for the log. Further refused requests are logged without their channels.
pub(crate) const LOGGED_BODIES_MAX: usize = 16;

/// Channels in the log line of a request.
pub(crate) const LOGGED_CHANNELS_MAX: usize = 10;

/// The time for open requests to finish while the server drains: twice the timeout of a Redis command.
pub(crate) const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the server still reads from open connections after it stopped accepting: longer than the network delay of a
/// request. Not used without a load balancer that has to notice the drain.
pub(crate) const DRAIN_LINGER: Duration = Duration::from_secs(1);

/// The time for the PROXY header and the TLS handshake of a connection while the server drains.
pub(crate) const DRAIN_PREAMBLE_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a cache channel keeps its last event. Source: protocol reference 2.7.
pub(crate) const CACHED_EVENT_TTL: Duration = Duration::from_secs(30 * 60);

const _: () = {
    assert!(BODY_TIMEOUT.as_secs() * 3 <= CALLER_TIMEOUT.as_secs());
    // The body of a refused request is discarded for a shorter time than that of an accepted request is read.
    assert!(DISCARD_TIMEOUT.as_secs() < BODY_TIMEOUT.as_secs());
    assert!(HEAD_TIMEOUT.as_secs() + BODY_TIMEOUT.as_secs() < CALLER_TIMEOUT.as_secs());
    assert!(LOGGED_BODIES_MAX * LOGGED_BODY_BYTES_MAX <= 1024 * 1024);
    assert!(DRAIN_PREAMBLE_TIMEOUT.as_secs() <= DRAIN_TIMEOUT.as_secs());
    assert!(DRAIN_LINGER.as_secs() <= DRAIN_TIMEOUT.as_secs());
    assert!(BODY_PERMITS_MAX <= tokio::sync::Semaphore::MAX_PERMITS && BODY_PERMITS_MAX <= u32::MAX as usize);
};
