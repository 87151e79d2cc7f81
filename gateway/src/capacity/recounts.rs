//! Requests to report this node's connection counts to the roster again.

use std::sync::Mutex;

use hashbrown::HashSet;
use shared::app::AppId;
use shared::sync::lock;
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
            let mut apps = lock(&self.apps);
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
        std::mem::take(&mut *lock(&self.apps))
    }
}
