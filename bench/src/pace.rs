//! Schedules for steady rates.

/// Due times at equal intervals. They are computed from the start time, which prevents delays from adding up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    start_ns: u64,
    /// Nanoseconds between due times; 0 if everything is due at once.
    interval_ns: f64,
}

impl Pace {
    /// `per_second` is the rate; 0 means that everything is due at once.
    ///
    /// `offset`, from 0 to 1, is the part of the first interval that passes before the first due time. Senders that share
    /// a rate use different offsets.
    pub(crate) fn new(start_ns: u64, per_second: f64, offset: f64) -> Self {
        let interval_ns = if per_second > 0.0 { 1e9 / per_second } else { 0.0 };
        Self { start_ns: start_ns + (interval_ns * offset) as u64, interval_ns }
    }

    /// Returns whether there is a rate.
    pub(crate) fn is_steady(&self) -> bool {
        self.interval_ns > 0.0
    }

    /// Returns the due time of item `index`, counted from 0.
    pub(crate) fn due_ns(&self, index: u64) -> u64 {
        self.start_ns + (self.interval_ns * index as f64) as u64
    }
}

#[cfg(test)]
mod tests;
