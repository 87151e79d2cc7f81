//! Requests to report this node's connection counts to the roster again.

use std::sync::{Mutex, MutexGuard, PoisonError};

use hashbrown::HashSet;
use shared::app::AppId;
use tokio::sync::Notify;

use crate::limits::{RECOUNT_BYTES_MAX, RECOUNTS_MAX};

/// Pending requests for connection counts, from other nodes and after Redis lost data.
#[derive(Default)]
pub(crate) struct RecountRequests {
    /// Apps whose counts another node requested.
    apps: Mutex<HashSet<AppId>>,
    requested: Notify,
    counts_lost: Notify,
}

impl RecountRequests {
    /// Adds a request of another node for the connection count of an app. Drops the request beyond [`RECOUNTS_MAX`].
    pub(crate) fn request(&self, app: &AppId) {
        {
            let mut apps = self.apps();
            if apps.len() >= RECOUNTS_MAX || app.as_str().len() > RECOUNT_BYTES_MAX {
                return;
            }
            apps.insert(app.clone());
        }
        self.requested.notify_one();
    }

    /// Requests a report of all counts, because the roster may have lost them.
    pub(crate) fn request_all(&self) {
        self.counts_lost.notify_one();
    }

    /// Resolves after [`RecountRequests::request`].
    pub(super) async fn requested(&self) {
        self.requested.notified().await;
    }

    /// Resolves after [`RecountRequests::request_all`].
    pub(super) async fn counts_lost(&self) {
        self.counts_lost.notified().await;
    }

    /// Removes and returns the apps whose counts other nodes requested.
    pub(super) fn take_apps(&self) -> HashSet<AppId> {
        std::mem::take(&mut *self.apps())
    }

    fn apps(&self) -> MutexGuard<'_, HashSet<AppId>> {
        // A panic under this lock cannot leave the set half-changed.
        self.apps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
