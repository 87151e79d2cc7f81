//! How far senders may be ahead of receivers when they go as fast as they can: without a bound, a benchmark would measure
//! how long a server's queues may get.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::clock;
use crate::plan::Plan;
use crate::publisher::sleep_until;

/// Events that may be under way.
const EVENTS_MAX: u64 = 1_000;
/// Bytes that may be under way to one socket: a quarter of what servers keep for one that is slow.
const BYTES_MAX: u64 = 256 * 1024;
/// What an event's frame takes besides its data, roughly.
const FRAME_BYTES: u64 = 64;
/// Between two looks.
const PAUSE_NS: u64 = 200_000;
/// Deliveries that have not come for so long are lost, and not waited for.
const PATIENCE_NS: u64 = 1_000_000_000;

/// Counts what was sent and what has arrived; shared by senders and the receiver.
pub(crate) struct Backlog {
    /// Deliveries that one event makes.
    fan_out: u64,
    /// Deliveries that may be due; `u64::MAX` for steady rates, which must not wait for anyone.
    limit: u64,
    /// Deliveries that were caused.
    sent: AtomicU64,
    /// Deliveries that have arrived, or are not waited for any more.
    settled: AtomicU64,
}

impl Backlog {
    /// For a plan that makes `fan_out` deliveries of each event.
    pub(crate) fn new(plan: &Plan, fan_out: u64) -> Self {
        let per_channel = BYTES_MAX / (plan.data_bytes as u64 + FRAME_BYTES);
        let events = per_channel.saturating_mul(plan.channels as u64).clamp(plan.batch.max(1) as u64, EVENTS_MAX);
        let limit = if plan.rate > 0.0 { u64::MAX } else { events * fan_out };
        Self { fan_out, limit, sent: AtomicU64::new(0), settled: AtomicU64::new(0) }
    }

    /// Waits until `events` more may be sent, and counts them.
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
            } else if now_ns - since_ns > PATIENCE_NS {
                self.settled.fetch_max(self.sent.load(Ordering::Relaxed).saturating_sub(added), Ordering::Relaxed);
                return;
            }
        }
    }

    /// Tells that `count` more deliveries have arrived.
    pub(crate) fn arrived(&self, count: u64) {
        self.settled.fetch_add(count, Ordering::Relaxed);
    }
}
