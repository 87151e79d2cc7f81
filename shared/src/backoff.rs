//! Waits between retries.

use std::time::Duration;

use rand::Rng;

/// The waits between retries: random, with an upper bound that doubles after each.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    ceiling: Duration,
    min: Duration,
    max: Duration,
}

impl Backoff {
    /// Creates waits whose upper bound grows from `min` to `max`.
    pub const fn new(min: Duration, max: Duration) -> Self {
        Self { ceiling: min, min, max }
    }

    /// Returns the next wait, between zero and the upper bound.
    pub fn next_wait(&mut self) -> Duration {
        let ceiling = self.advance();
        rand::rng().random_range(Duration::ZERO..=ceiling)
    }

    /// Returns the next wait, between half of the upper bound and the upper bound.
    pub fn next_long_wait(&mut self) -> Duration {
        let ceiling = self.advance();
        rand::rng().random_range(ceiling / 2..=ceiling)
    }

    /// Resets the upper bound to the minimum.
    pub fn reset(&mut self) {
        self.ceiling = self.min;
    }

    fn advance(&mut self) -> Duration {
        let ceiling = self.ceiling;
        self.ceiling = (ceiling * 2).min(self.max);
        ceiling
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_up_to_the_maximum_and_start_again_after_a_reset() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(5));
        for ceiling in [1, 2, 4, 5, 5] {
            let ceiling = Duration::from_secs(ceiling);
            assert!((ceiling / 2..=ceiling).contains(&backoff.next_long_wait()));
        }
        backoff.reset();
        assert!(backoff.next_wait() <= Duration::from_secs(1));
    }
}
