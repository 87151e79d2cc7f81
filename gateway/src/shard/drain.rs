//! The drain of a shard: closing its connections at the planned pace.

use std::rc::Rc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::{DrainDeadlines, Shard};
use crate::inbox::{ConnectionKey, DrainPlan};
use crate::limits::CLOSES_PER_TURN;
use crate::reject::Farewell;

/// The minimum time between two groups of closes.
const STEP: Duration = Duration::from_millis(20);

/// The times at which the connections of one shard are closed. The shards of a node take turns, which spreads all
/// closes of the node evenly.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Schedule {
    window: Duration,
    count: usize,
    /// The offset of the shard's closes between those of the other shards, from 0 to 1.
    phase: f64,
}

impl Schedule {
    fn new(window: Duration, count: usize, shard: usize, shards: usize) -> Self {
        Self { window, count, phase: (shard as f64 + 0.5) / shards.max(1) as f64 }
    }

    /// Returns when a connection is due, counted from the start of the window.
    fn due(&self, index: usize) -> Duration {
        self.window.mul_f64(((index as f64 + self.phase) / self.count.max(1) as f64).min(1.0))
    }

    /// Returns the number of connections that are due after `elapsed`.
    fn due_after(&self, elapsed: Duration) -> usize {
        if elapsed >= self.window {
            return self.count;
        }
        let share = elapsed.as_secs_f64() / self.window.as_secs_f64();
        // The cast saturates.
        ((share * self.count as f64 - self.phase + 1.0).max(0.0) as usize).min(self.count)
    }
}

impl Shard {
    /// Closes all connections as planned. A socket is closed when its client answers the close frame, and not only at
    /// the end of the window.
    pub(super) fn drain(self: &Rc<Self>, plan: DrainPlan) {
        self.draining.set(true);
        let started = Instant::now();
        let window_ends = started + plan.window;
        let (idle_until, requests_until) = (started + plan.linger, window_ends + plan.grace);
        self.drain_deadlines.set(DrainDeadlines { idle_until, window_ends, requests_until });
        self.drain_started.cancel();
        let all: Vec<ConnectionKey> =
            self.connections.borrow().iter().map(|(_, connection)| self.key(connection)).collect();
        let schedule = Schedule::new(plan.window, all.len(), self.index, self.node.capacity.shards());
        let shard = self.clone();
        self.spawn_tracked(async move {
            let mut closed = 0;
            while closed < all.len() {
                sleep_until(started + schedule.due(closed)).await;
                let due = schedule.due_after(started.elapsed()).max(closed + 1).min(closed + CLOSES_PER_TURN);
                for key in &all[closed..due.min(all.len())] {
                    shard.close_for_drain(*key);
                }
                shard.flush();
                closed = due;
                if plan.window.is_zero() {
                    tokio::task::yield_now().await;
                } else {
                    tokio::time::sleep(STEP).await;
                }
            }
        });
    }

    fn close_for_drain(self: &Rc<Self>, key: ConnectionKey) {
        let Some(connection) = self.connection(key) else { return };
        self.close(&connection, &self.farewell());
        if !self.node.capacity.is_clustered() {
            // The process may end before every client has answered.
            connection.shut_down_after_close();
        }
    }

    /// Returns the reason that clients of a draining node receive.
    pub(crate) fn farewell(&self) -> Farewell {
        if self.node.capacity.is_clustered() { Farewell::going_away() } else { Farewell::restarting() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Returns when the connections of a node are closed, in milliseconds.
    fn closes_ms(window: Duration, counts: &[usize]) -> Vec<u128> {
        let shards = counts.iter().enumerate();
        let mut all: Vec<u128> = shards
            .flat_map(|(shard, count)| {
                let schedule = Schedule::new(window, *count, shard, counts.len());
                (0..*count).map(move |index| schedule.due(index).as_millis())
            })
            .collect();
        all.sort_unstable();
        all
    }

    #[test]
    fn closes_of_all_shards_are_spread_evenly() {
        assert_eq!(closes_ms(SECOND, &[1]), [500]);
        assert_eq!(closes_ms(SECOND, &[5]), [100, 300, 500, 700, 900]);
        assert_eq!(closes_ms(SECOND, &[2, 2]), [125, 375, 625, 875]);
        assert_eq!(closes_ms(SECOND, &[0, 2]), [375, 875]);
        assert_eq!(closes_ms(Duration::ZERO, &[2, 2]), [0; 4]);
    }

    #[test]
    fn connections_are_closed_when_they_are_due_within_the_window() {
        for count in [1, 2, 3, 49, 50, 51, 1000] {
            for (shard, shards) in [(0, 1), (0, 3), (2, 3)] {
                let schedule = Schedule::new(SECOND, count, shard, shards);
                for index in 0..count {
                    let due = schedule.due(index);
                    assert!(due < SECOND, "{count} {index}");
                    assert!(schedule.due_after(due + Duration::from_micros(1)) > index, "{count} {index}");
                    assert!(
                        schedule.due_after(due.saturating_sub(Duration::from_micros(1))) <= index,
                        "{count} {index}"
                    );
                }
                assert_eq!(schedule.due_after(SECOND), count);
            }
        }
        assert_eq!(Schedule::new(SECOND, 0, 0, 1).due_after(SECOND), 0);
        assert_eq!(Schedule::new(Duration::ZERO, 7, 0, 1).due_after(Duration::ZERO), 7);
    }
}
