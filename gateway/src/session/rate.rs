//! How often a connection may do something.

use std::time::Instant;

/// A token bucket that holds one second's worth and refills evenly; it starts full.
#[derive(Default)]
pub(crate) struct Allowance {
    /// Since when, and what was left then; `None` before the first use, to keep idle connections small.
    last: Option<Box<(Instant, f64)>>,
}

impl Allowance {
    /// Takes one, if one is left. `per_second` 0 means that there is no limit.
    pub(crate) fn take(&mut self, per_second: u32, now: Instant) -> bool {
        if per_second == 0 {
            return true;
        }
        let capacity = f64::from(per_second);
        let (last, left) = &mut **self.last.get_or_insert_with(|| Box::new((now, capacity)));
        let refilled = (*left + now.saturating_duration_since(*last).as_secs_f64() * capacity).min(capacity);
        *last = now;
        *left = refilled;
        if refilled < 1.0 {
            return false;
        }
        *left -= 1.0;
        true
    }
}

#[cfg(test)]
mod tests;
