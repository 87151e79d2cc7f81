//! The delay of timers, which shows whether a runtime gets enough CPU time.

use std::convert::Infallible;
use std::time::Duration;

use prometheus::Histogram;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::metrics::{latency, register};
use crate::serve::telemetry::metrics::Registry;

/// The interval of the observed timer.
const TICK: Duration = Duration::from_secs(1);

/// The metric `carillon_event_loop_lag_seconds`, shared by all runtimes of a process.
#[derive(Clone)]
pub struct EventLoopLag {
    seconds: Histogram,
}

impl EventLoopLag {
    /// Registers the metric.
    ///
    /// # Panics
    /// If the registry already has this metric.
    pub fn new(registry: &Registry) -> Self {
        let help = "Delay of a one-second timer in a shard or in the main thread.";
        let seconds = Histogram::with_opts(latency("carillon_event_loop_lag_seconds", help));
        Self { seconds: register(registry, seconds) }
    }

    /// Records the delay of a timer that was due at `due` and fires now. Only the runtime may delay that timer.
    pub fn observe(&self, due: Instant) {
        self.seconds.observe(due.elapsed().as_secs_f64());
    }

    /// Observes the current runtime until the future is dropped.
    pub async fn keep(&self) -> Infallible {
        let mut tick = interval(TICK);
        // A long delay counts once, not once per second.
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.observe(tick.tick().await);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_delay_is_observed_once_with_its_length() {
        let lag = EventLoopLag::new(&Registry::new());
        let seen = || (lag.seconds.get_sample_count(), lag.seconds.get_sample_sum().round());
        let look = async || {
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
        };
        let kept = lag.clone();
        let keeping = tokio::spawn(async move { match kept.keep().await {} });
        look().await;
        assert_eq!(seen(), (1, 0.0));
        // The second tick was due after one second and fires four seconds late.
        tokio::time::advance(Duration::from_secs(5)).await;
        look().await;
        assert_eq!(seen(), (2, 4.0));
        tokio::time::advance(Duration::from_millis(999)).await;
        look().await;
        assert_eq!(seen(), (2, 4.0));
        keeping.abort();
    }
}
