//! How often someone may do something.

use std::time::Instant;

/// A token bucket that holds one second's worth and refills evenly; it starts full.
#[derive(Default)]
pub struct Allowance {
    /// Since when, and what was left then; `None` before the first use, so that those who never use it stay small.
    last: Option<Box<(Instant, f64)>>,
}

impl Allowance {
    /// Takes `count` at once, if so many are left; more than a second's worth counts as a second's worth. `per_second` 0
    /// means that there is no limit.
    pub fn take(&mut self, count: usize, per_second: u32, now: Instant) -> bool {
        if per_second == 0 {
            return true;
        }
        let capacity = f64::from(per_second);
        let wanted = (count as f64).min(capacity);
        let (last, left) = &mut **self.last.get_or_insert_with(|| Box::new((now, capacity)));
        let refilled = (*left + now.saturating_duration_since(*last).as_secs_f64() * capacity).min(capacity);
        if refilled < wanted {
            return false;
        }
        *last = now;
        *left = refilled - wanted;
        true
    }
}

#[cfg(test)]
mod tests;
