//! How often something may be done.

use std::sync::LazyLock;
use std::time::Instant;

/// A token bucket that refills evenly; it starts full. It is one word, so that every connection can have some.
#[derive(Clone, Copy, Debug)]
pub struct Allowance {
    /// When the bucket is full again, in nanoseconds since [`START`].
    full_at_ns: i64,
}

/// The instant from which times are counted. Instants before it are negative.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

impl Default for Allowance {
    fn default() -> Self {
        Self { full_at_ns: i64::MIN }
    }
}

impl Allowance {
    /// Takes `count` at once from a bucket that holds one second's worth, if so many are left; more than a second's worth
    /// counts as a second's worth. `per_second` 0 means that there is no limit.
    pub fn take(&mut self, count: usize, per_second: u32, now: Instant) -> bool {
        self.take_of_burst(count, per_second, per_second, now)
    }

    /// Takes `count` at once from a bucket that holds `burst`, if so many are left; more than `burst` counts as `burst`.
    /// `per_second` 0 means that there is no limit.
    pub fn take_of_burst(&mut self, count: usize, burst: u32, per_second: u32, now: Instant) -> bool {
        if per_second == 0 {
            return true;
        }
        let capacity_ns = refill_ns(burst as usize, per_second);
        let wanted_ns = refill_ns(count, per_second).min(capacity_ns);
        let now_ns = since_start_ns(now);
        let full_at_ns = self.full_at_ns.max(now_ns);
        if full_at_ns - now_ns + wanted_ns > capacity_ns {
            return false;
        }
        self.full_at_ns = full_at_ns + wanted_ns;
        true
    }
}

/// How long it takes to refill `count`. At most 2^32 seconds, so that sums of two stay in range.
fn refill_ns(count: usize, per_second: u32) -> i64 {
    const MAX_NS: u128 = (u32::MAX as u128) * 1_000_000_000;
    let ns = (count as u128).saturating_mul(1_000_000_000) / u128::from(per_second);
    i64::try_from(ns.min(MAX_NS)).unwrap_or(i64::MAX / 2)
}

fn since_start_ns(now: Instant) -> i64 {
    let start = *START;
    match now.checked_duration_since(start) {
        Some(after) => i64::try_from(after.as_nanos()).unwrap_or(i64::MAX / 2),
        None => -i64::try_from(start.saturating_duration_since(now).as_nanos()).unwrap_or(i64::MAX / 2),
    }
}

#[cfg(test)]
mod tests;
