//! How late a runtime's timers fire: whether it has the CPU that it needs.

use std::convert::Infallible;
use std::time::Duration;

use prometheus::{Histogram, Registry};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::metrics::{latency, register};

/// How often a runtime is looked at.
const TICK: Duration = Duration::from_secs(1);

/// `carillon_event_loop_lag_seconds`, one for all runtimes of a process.
#[derive(Clone)]
pub struct EventLoopLag {
    seconds: Histogram,
}

impl EventLoopLag {
    /// Registers it.
    ///
    /// # Panics
    /// When the registry has one already.
    pub fn new(registry: &Registry) -> Self {
        let help = "How late a one-second timer fired, of a shard or of the thread that a process begins with.";
        let seconds = Histogram::with_opts(latency("carillon_event_loop_lag_seconds", help));
        Self { seconds: register(registry, seconds) }
    }

    /// A timer that was due then has fired. `due` must be what nothing but the runtime can have made late.
    pub fn observe(&self, due: Instant) {
        self.seconds.observe(due.elapsed().as_secs_f64());
    }

    /// Observes the current runtime for as long as the future lives.
    pub async fn keep(&self) -> Infallible {
        let mut tick = interval(TICK);
        // Each delay counts once, not for every second of it.
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
    async fn a_delay_is_observed_once_and_as_long_as_it_was() {
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
        // Due a second after the first, and four late.
        tokio::time::advance(Duration::from_secs(5)).await;
        look().await;
        assert_eq!(seen(), (2, 4.0));
        tokio::time::advance(Duration::from_millis(999)).await;
        look().await;
        assert_eq!(seen(), (2, 4.0));
        keeping.abort();
    }
}
