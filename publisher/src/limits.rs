//! The bounds of the publisher that are no settings, each with its reason.
//!
//! # Memory of request bodies
//!
//! A body is kept only for a caller that knows the app's secret; every other body is counted and discarded.
//! Each app may have [`APP_BODY_BYTES_MAX`] bytes of bodies under way, 64 MiB, which is 104 of the largest bodies of the
//! default limits (10 events of 60 KiB and their names). A caller over that waits for its turn.
//! With `--debug` the bodies of refused requests are kept until their channels are logged:
//! [`LOGGED_BODIES_MAX`] × [`LOGGED_BODY_BYTES_MAX`] = 1 MiB.
//!
//! # Memory of connections
//!
//! 10,000 connections × (hyper's buffer of 8 KiB + 4 KiB of state) = 120 MiB when all of them are idle, and 640 MiB if
//! all of them send large bodies at once, for which the buffers grow to 64 KiB each (`shared::serve::http::BUFFER_BYTES_MAX`).
//!
//! # Time
//!
//! A response waits for its body for [`BODY_TIMEOUT`] at most, so that callers see it before they give up after
//! [`CALLER_TIMEOUT`].

use std::time::Duration;

use shared::serve::http::{DISCARD_TIMEOUT, HEAD_TIMEOUT};

/// Open connections of callers. They are applications' servers, each with a few; more wait in the system's queue.
pub(crate) const CONNECTIONS_MAX: usize = 10_000;

/// The time that pusher-http-php waits for a response, the shortest of the official libraries.
const CALLER_TIMEOUT: Duration = Duration::from_secs(30);

/// A body must arrive within this time: a third of [`CALLER_TIMEOUT`].
pub(crate) const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes of request bodies of one app that are kept at a time.
pub(crate) const APP_BODY_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The largest body of a refused request that is kept for the log. A publish of the default size fits.
pub(crate) const LOGGED_BODY_BYTES_MAX: usize = 64 * 1024;

/// Bodies that are kept for the log at a time. Beyond it refused requests are logged without their channels.
pub(crate) const LOGGED_BODIES_MAX: usize = 16;

/// Channels that the log line of a refused request names.
pub(crate) const LOGGED_CHANNELS_MAX: usize = 10;

/// A request that is under way when the server drains has this long to be answered: twice what a command to Redis takes.
pub(crate) const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// How long open connections are still read once no connection is accepted: longer than a request is on its way. Not
/// used where no balancer has to notice the drain.
pub(crate) const DRAIN_LINGER: Duration = Duration::from_secs(1);

/// The time that a connection has for its PROXY header and TLS while the server drains.
pub(crate) const DRAIN_PREAMBLE_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a cache channel keeps its last event. Source: protocol reference 2.7.
pub(crate) const KEPT_EVENT_TTL: Duration = Duration::from_secs(30 * 60);

const _: () = {
    assert!(BODY_TIMEOUT.as_secs() * 3 <= CALLER_TIMEOUT.as_secs());
    // A caller whose request is refused learns that before one whose body is read gives up.
    assert!(DISCARD_TIMEOUT.as_secs() < BODY_TIMEOUT.as_secs());
    assert!(HEAD_TIMEOUT.as_secs() + BODY_TIMEOUT.as_secs() < CALLER_TIMEOUT.as_secs());
    assert!(LOGGED_BODIES_MAX * LOGGED_BODY_BYTES_MAX <= 1024 * 1024);
    assert!(DRAIN_PREAMBLE_TIMEOUT.as_secs() <= DRAIN_TIMEOUT.as_secs());
    assert!(DRAIN_LINGER.as_secs() <= DRAIN_TIMEOUT.as_secs());
};
