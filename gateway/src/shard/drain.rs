//! The end of a shard whose node leaves.

use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;

use super::{DRAIN_GRACE_S, Leave, Shard, leaving};
use crate::connection::Connection;

impl Shard {
    /// Closes all connections with 4200, evenly over `window`: one by one, or in groups when there are many.
    pub(super) fn drain(self: &Rc<Self>, window: Duration, linger: Duration) {
        self.draining.set(true);
        let now = Instant::now();
        let window_ends = now + window;
        let leave_by = window_ends + Duration::from_secs(DRAIN_GRACE_S.into());
        self.leave.set(Leave { idle_until: now + linger, window_ends, leave_by });
        self.leaving.cancel();
        let all: Vec<Rc<Connection>> =
            self.connections.borrow().iter().map(|(_, connection)| connection.clone()).collect();
        let (group_size, pause) = pace(all.len(), window);
        let shard = self.clone();
        self.chore(async move {
            for (index, group) in all.chunks(group_size).enumerate() {
                if index > 0 {
                    tokio::time::sleep(pause).await;
                }
                for connection in group {
                    shard.close(connection, &leaving());
                }
                shard.flush();
            }
        });
    }
}

/// How many of `count` connections a drain closes at a time, and how long it waits before the next ones, so that they fill
/// the window however the division goes.
fn pace(count: usize, window: Duration) -> (usize, Duration) {
    const STEP: Duration = Duration::from_millis(20);
    let steps = usize::try_from(window.as_millis() / STEP.as_millis()).unwrap_or(usize::MAX);
    let group_size = count.div_ceil(steps.max(1)).max(1);
    let groups = count.div_ceil(group_size).max(1);
    (group_size, window / u32::try_from(groups).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(count: usize, window_ms: u64, expected: (usize, u64)) {
        let (group_size, pause_ms) = expected;
        let pace = pace(count, Duration::from_millis(window_ms));
        assert_eq!(pace, (group_size, Duration::from_millis(pause_ms)), "{count} in {window_ms} ms");
    }

    #[test]
    fn closes_fill_the_window_one_by_one_or_in_groups() {
        check(0, 1000, (1, 1000));
        check(1, 1000, (1, 1000));
        check(10, 1000, (1, 100));
        check(50, 1000, (1, 20));
        // 40 groups of two, where there was time for 50.
        check(80, 1000, (2, 25));
        check(8000, 1000, (160, 20));
        check(100, 0, (100, 0));
        check(100, 10, (100, 10));
    }
}
