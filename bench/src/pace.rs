//! When things are due that happen at a steady rate.

/// Due times at even distances, counted from the start, so that lateness never adds up and nothing bunches.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    start_ns: u64,
    /// Nanoseconds between two; 0 means that everything is due at once.
    interval_ns: f64,
}

impl Pace {
    /// `per_second`: how many are due each second; 0 means as fast as it goes.
    ///
    /// `offset`: which part of the first interval passes before the first, from 0 to 1; several senders that share a rate
    /// take turns by it.
    pub(crate) fn new(start_ns: u64, per_second: f64, offset: f64) -> Self {
        let interval_ns = if per_second > 0.0 { 1e9 / per_second } else { 0.0 };
        Self { start_ns: start_ns + (interval_ns * offset) as u64, interval_ns }
    }

    /// Whether there is a rate to keep.
    pub(crate) fn is_steady(&self) -> bool {
        self.interval_ns > 0.0
    }

    /// When number `index`, counted from 0, is due.
    pub(crate) fn due_ns(&self, index: u64) -> u64 {
        self.start_ns + (self.interval_ns * index as f64) as u64
    }
}

#[cfg(test)]
mod tests;
