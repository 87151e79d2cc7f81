//! The end of a shard whose node leaves.

use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;

use super::{DRAIN_GRACE_S, Leave, Shard, leaving};
use crate::connection::Connection;

impl Shard {
    /// Closes all connections with 4200, evenly over `window`: one by one, or in groups when there are many.
    pub(super) fn drain(self: &Rc<Self>, window: Duration, linger: Duration) {
        const STEP: Duration = Duration::from_millis(20);
        self.draining.set(true);
        let now = Instant::now();
        let leave_by = now + window + Duration::from_secs(DRAIN_GRACE_S.into());
        self.leave.set(Leave { idle_until: now + linger, leave_by });
        self.leaving.cancel();
        let all: Vec<Rc<Connection>> =
            self.connections.borrow().iter().map(|(_, connection)| connection.clone()).collect();
        let steps = usize::try_from(window.as_millis() / STEP.as_millis()).unwrap_or(usize::MAX);
        let groups = steps.clamp(1, all.len().max(1));
        let group_size = all.len().div_ceil(groups).max(1);
        let pause = window / u32::try_from(groups).unwrap_or(u32::MAX);
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
