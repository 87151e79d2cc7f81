//! Rate limits.

use std::sync::LazyLock;
use std::time::Instant;

/// A token bucket that starts full and refills evenly. It has the size of one word, because each connection has
/// several.
#[derive(Clone, Copy, Debug)]
pub struct Allowance {
    /// The time at which the bucket is full again, in nanoseconds since [`START`].
    full_at_ns: i64,
}

/// The origin of all times. Earlier instants are negative.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

impl Default for Allowance {
    fn default() -> Self {
        Self { full_at_ns: i64::MIN }
    }
}

impl Allowance {
    /// Removes `count` tokens and returns whether enough were left. The bucket has the tokens of one second, and a
    /// larger `count` counts as that many. With `per_second` 0 there is no limit.
    pub fn take(&mut self, count: usize, per_second: u32, now: Instant) -> bool {
        self.take_of_burst(count, per_second, per_second, now)
    }

    /// Removes `count` tokens and returns whether enough were left. The bucket has `burst` tokens, and a larger `count`
    /// counts as that many. With `per_second` 0 there is no limit.
    pub fn take_of_burst(&mut self, count: usize, burst: u32, per_second: u32, now: Instant) -> bool {
        if per_second == 0 {
            return true;
        }
        let capacity_ns = refill_ns(burst as usize, per_second);
        let requested_ns = refill_ns(count, per_second).min(capacity_ns);
        let now_ns = since_start_ns(now);
        let full_at_ns = self.full_at_ns.max(now_ns);
        if full_at_ns - now_ns + requested_ns > capacity_ns {
            return false;
        }
        self.full_at_ns = full_at_ns + requested_ns;
        true
    }
}

/// Returns the time that `count` tokens need to refill. The result is at most 2^32 seconds, so that the sum of two does
/// not overflow.
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
