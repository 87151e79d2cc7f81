//! Tasks that must complete before the shard ends.

use std::rc::Rc;

use super::Shard;

/// A task that a drain waits for, until the guard is dropped.
pub(crate) struct TrackedTask {
    shard: Rc<Shard>,
}

impl TrackedTask {
    pub(super) fn begin(shard: &Rc<Shard>) -> Self {
        shard.tracked_tasks.set(shard.tracked_tasks.get() + 1);
        Self { shard: shard.clone() }
    }
}

impl Drop for TrackedTask {
    fn drop(&mut self) {
        self.shard.tracked_tasks.set(self.shard.tracked_tasks.get() - 1);
        self.shard.check_drained();
    }
}

impl Shard {
    /// Spawns a task that a drain waits for.
    pub(crate) fn spawn_tracked(self: &Rc<Self>, work: impl Future<Output = ()> + 'static) {
        let guard = TrackedTask::begin(self);
        tokio::task::spawn_local(async move {
            let _guard = guard;
            work.await;
        });
    }
}
