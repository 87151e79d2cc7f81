//! Limits how many events are in flight at full speed. Without the limit, a benchmark would measure the length of a
//! server's queues.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::clock;
use crate::plan::Plan;
use crate::publisher::sleep_until;

/// The maximum of events in flight.
const EVENTS_MAX: u64 = 1_000;
/// The maximum of bytes in flight to one socket: a quarter of a server's queue for a slow client.
const BYTES_MAX: u64 = 256 * 1024;
/// The approximate size of an event's frame without its data.
const FRAME_BYTES: u64 = 64;
/// The interval between checks.
const PAUSE_NS: u64 = 200_000;
/// After this time without an arrival, outstanding deliveries count as lost.
const IDLE_TIMEOUT_NS: u64 = 1_000_000_000;

/// The deliveries sent and received. Senders and the receiver share it.
pub(crate) struct Backlog {
    /// The number of deliveries per event.
    fan_out: u64,
    /// The maximum of outstanding deliveries; `u64::MAX` at a steady rate, which never waits.
    limit: u64,
    /// The deliveries of all events sent.
    sent: AtomicU64,
    /// The deliveries that have arrived or count as lost.
    settled: AtomicU64,
}

impl Backlog {
    /// Creates the limit for a plan with `fan_out` deliveries per event.
    pub(crate) fn new(plan: &Plan, fan_out: u64) -> Self {
        let per_channel = BYTES_MAX / (plan.data_bytes as u64 + FRAME_BYTES);
        let events = per_channel.saturating_mul(plan.channels as u64).clamp(plan.batch.max(1) as u64, EVENTS_MAX);
        let limit = if plan.rate > 0.0 { u64::MAX } else { events * fan_out };
        Self { fan_out, limit, sent: AtomicU64::new(0), settled: AtomicU64::new(0) }
    }

    /// Waits until `events` more may be sent, and counts them as sent.
    pub(crate) fn admit(&self, events: usize) {
        let added = events as u64 * self.fan_out;
        let sent = self.sent.fetch_add(added, Ordering::Relaxed) + added;
        if self.limit == u64::MAX {
            return;
        }
        let (mut seen, mut since_ns) = (self.settled.load(Ordering::Relaxed), clock::now_ns());
        while sent.saturating_sub(seen) > self.limit {
            let now_ns = clock::now_ns();
            sleep_until(now_ns + PAUSE_NS);
            let settled = self.settled.load(Ordering::Relaxed);
            if settled != seen {
                (seen, since_ns) = (settled, now_ns);
            } else if now_ns - since_ns > IDLE_TIMEOUT_NS {
                self.settled.fetch_max(self.sent.load(Ordering::Relaxed).saturating_sub(added), Ordering::Relaxed);
                return;
            }
        }
    }

    /// Records `count` deliveries.
    pub(crate) fn arrived(&self, count: u64) {
        self.settled.fetch_add(count, Ordering::Relaxed);
    }
}
