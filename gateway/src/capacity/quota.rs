//! The connection quotas of apps: which clients are admitted, and when a refusal can be final.
//!
//! After close code 4004 pusher-js never reconnects. The code is therefore only sent if the counts are known to be
//! current.
//!
//! A handshake that finds its app at the quota waits for a moment, because the connection that it replaces may still be
//! counted. It is refused with 4004 once every counted node has reported again after [`SETTLING`]. It is refused with
//! 4100, after which clients retry, if these reports do not arrive in time or Redis is unavailable.
//!
//! In a cluster all waiting handshakes of an app share one claim at a time. Handshakes that arrive during a claim join
//! the next one.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures_util::stream::{self, FuturesUnordered, StreamExt};
use shared::app::{App, AppId};
use shared::cluster::roster::{Claimed, RosterError};
use shared::protocol::CloseCode;
use shared::sync::lock;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep, timeout};

use super::{Admission, Capacity};
use crate::limits::{CONNECTION_REPORTS_AT_ONCE, QUOTA_WAITING_MAX};
use crate::reject::Farewell;
use crate::transport::Transport;

/// How long a node may need to notice that a connection ended and to stop counting it. A busy machine needs less than
/// half a second. pusher-js waits 2 s for a WebSocket before it also tries HTTP.
const SETTLING: Duration = Duration::from_millis(500);

/// The maximum wait of a handshake for a free connection, or for proof that the quota is used up.
const WAIT_MAX: Duration = Duration::from_millis(1500);

/// How long a handshake waits for its claim. After that it is decided by this node's own count.
const CLAIM_TIMEOUT: Duration = Duration::from_millis(1700);

/// The pause between two claims for waiting handshakes.
const CLAIM_INTERVAL: Duration = Duration::from_millis(100);

/// How long after a failure no handshake waits for Redis and no count is reported.
const FAILURE_PAUSE: Duration = Duration::from_secs(1);

/// The minimum time between two rounds of reports to the roster.
const REPORT_INTERVAL: Duration = Duration::from_millis(100);

const _: () = assert!(SETTLING.as_millis() + 2 * CLAIM_INTERVAL.as_millis() < WAIT_MAX.as_millis());
const _: () = assert!(WAIT_MAX.as_millis() < CLAIM_TIMEOUT.as_millis());

/// The connections of one app on this node.
#[derive(Default)]
pub(super) struct AppConnections {
    count: AtomicUsize,
    /// Locked during a report or a claim, to keep their order in the roster.
    reported: tokio::sync::Mutex<Reported>,
    /// Locked during an update of a roster in memory, for the same reason.
    updating: Mutex<()>,
    queue: Mutex<Queue>,
    /// Notified when the count decreases.
    freed: Notify,
}

/// The last report of an app's connections.
#[derive(Default)]
struct Reported {
    count: usize,
    /// When a report or a claim failed.
    failed: Option<Instant>,
    /// Whether the roster may have a count of this node, including one before the last report.
    may_be_counted: bool,
}

/// The handshakes of one app that wait for a free connection.
#[derive(Default)]
struct Queue {
    /// Oldest first.
    waiting: VecDeque<WaitingHandshake>,
    /// Whether a task claims connections for them, or is about to start.
    is_served: bool,
}

/// A handshake that waits for a free connection.
struct WaitingHandshake {
    transport: Transport,
    since: Instant,
    /// The roster's time when it first refused the handshake.
    refused_at_ms: Option<u64>,
    decision: oneshot::Sender<Result<Admission, Farewell>>,
}

impl AppConnections {
    /// Returns the number of open connections.
    fn count(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// Counts one more connection.
    pub(super) fn add(&self) {
        self.count.fetch_add(1, Ordering::AcqRel);
    }

    /// Counts one more connection if there are fewer than `quota`.
    fn add_below(&self, quota: usize) -> bool {
        let add = |count| (count < quota).then_some(count + 1);
        self.count.fetch_update(Ordering::AcqRel, Ordering::Acquire, add).is_ok()
    }

    /// Counts one connection fewer.
    pub(super) fn remove(&self) {
        self.count.fetch_sub(1, Ordering::AcqRel);
        self.freed.notify_one();
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        lock(&self.queue)
    }

    /// Returns the number of waiting handshakes. `None` marks the queue as not served.
    fn waiting_count(&self) -> Option<usize> {
        let mut queue = self.queue();
        queue.waiting.retain(|waiting| !waiting.decision.is_closed());
        queue.is_served = !queue.waiting.is_empty();
        queue.is_served.then_some(queue.waiting.len())
    }
}

impl Capacity {
    /// Admits a client within the app's quota and the node's capacity.
    ///
    /// # Errors
    /// The [`Farewell`] for a client that is refused.
    pub(crate) async fn admit(self: &Arc<Self>, app: &Arc<App>, transport: Transport) -> Result<Admission, Farewell> {
        let quota = app.limits.connections;
        if quota == 0 {
            return self.admit_over_quota(app, transport);
        }
        let of_app = self.of_app(&app.id);
        // Waiting handshakes have priority.
        if !self.is_clustered() && !of_app.queue().is_served && of_app.add_below(quota) {
            return self.admit_counted(app, transport);
        }
        let decision = self.enqueue(app, transport)?;
        match timeout(CLAIM_TIMEOUT, decision).await {
            Ok(Ok(decision)) => decision,
            // The claim takes too long, or the node is shutting down.
            _ => self.admit_by_own_count(app, transport),
        }
    }

    /// Adds a handshake to its app's queue. Returns the receiver of the decision.
    fn enqueue(
        self: &Arc<Self>,
        app: &Arc<App>,
        transport: Transport,
    ) -> Result<oneshot::Receiver<Result<Admission, Farewell>>, Farewell> {
        let (decision, receiver) = oneshot::channel();
        let mut queue = self.of_app(&app.id).queue();
        if queue.waiting.len() >= QUOTA_WAITING_MAX {
            return Err(maybe_over_quota());
        }
        let since = Instant::now();
        queue.waiting.push_back(WaitingHandshake { transport, since, refused_at_ms: None, decision });
        if !std::mem::replace(&mut queue.is_served, true) {
            self.unserved().push(app.clone());
            self.queued.notify_one();
        }
        Ok(receiver)
    }

    /// Claims connections for the waiting handshakes of all apps. Apps do not wait for each other.
    pub(crate) async fn serve_queues(self: &Arc<Self>) -> Infallible {
        let mut served = FuturesUnordered::new();
        loop {
            let unserved = std::mem::take(&mut *self.unserved());
            served.extend(unserved.into_iter().map(|app| self.serve_queue(app)));
            tokio::select! {
                () = self.queued.notified() => {}
                Some(()) = served.next() => {}
            }
        }
    }

    /// Claims connections for the waiting handshakes of an app until the queue is empty.
    async fn serve_queue(self: &Arc<Self>, app: Arc<App>) {
        let of_app = self.of_app(&app.id);
        while let Some(requested) = of_app.waiting_count() {
            if self.claim(&app, of_app, requested).await.is_err() {
                self.decide_by_own_count(&app, of_app);
            }
            if !of_app.queue().waiting.is_empty() {
                tokio::select! {
                    () = sleep(CLAIM_INTERVAL) => {}
                    () = of_app.freed.notified() => {}
                }
            }
        }
    }

    /// Claims connections for the first `requested` handshakes. Admits as many as the roster grants, and refuses
    /// handshakes that have waited long enough.
    async fn claim(
        self: &Arc<Self>,
        app: &Arc<App>,
        of_app: &AppConnections,
        requested: usize,
    ) -> Result<(), RosterError> {
        // Locked until the admitted connections are counted. A report in between would release them.
        let mut reported = of_app.reported.lock().await;
        if reported.failed.is_some_and(|failed| failed.elapsed() < FAILURE_PAUSE) {
            return Err(RosterError::Unavailable);
        }
        let count = of_app.count();
        let quota = app.limits.connections as u64;
        let claimed = match self.roster.claim_connections(&app.id, count as u64, requested as u64, quota).await {
            Ok(claimed) => claimed,
            Err(error) => {
                // The roster may have counted them. Report the correct count as soon as Redis is available.
                *reported = Reported { count: usize::MAX, failed: Some(Instant::now()), may_be_counted: true };
                self.report_due.notify_one();
                return Err(error);
            }
        };
        let admitted = usize::try_from(claimed.admitted).unwrap_or(usize::MAX).min(requested);
        *reported = Reported { count: count + admitted, failed: None, may_be_counted: true };
        for _ in 0..admitted {
            let Some(waiting) = of_app.queue().waiting.pop_front() else { break };
            let decision = self.admit_over_quota(app, waiting.transport);
            // If the client has disconnected, dropping the admission releases it.
            let _ = waiting.decision.send(decision);
        }
        if of_app.count() != reported.count {
            self.report_due.notify_one();
        }
        drop(reported);
        self.refuse_settled(of_app, requested - admitted, claimed);
        Ok(())
    }

    /// Refuses handshakes among the first `refused` if the quota is certainly used up, or if they have waited too long.
    fn refuse_settled(&self, of_app: &AppConnections, refused: usize, claimed: Claimed) {
        let mut queue = of_app.queue();
        let mut remaining = VecDeque::with_capacity(queue.waiting.len());
        for (index, mut waiting) in queue.waiting.drain(..).enumerate() {
            if index >= refused {
                remaining.push_back(waiting);
                continue;
            }
            let refused_at_ms = *waiting.refused_at_ms.get_or_insert(claimed.answered_at_ms);
            if is_final(refused_at_ms, claimed) {
                let _ = waiting.decision.send(Err(over_quota()));
            } else if waiting.since.elapsed() >= WAIT_MAX {
                let _ = waiting.decision.send(Err(maybe_over_quota()));
            } else {
                remaining.push_back(waiting);
            }
        }
        queue.waiting = remaining;
    }

    /// Decides on all waiting handshakes of an app by this node's own count.
    fn decide_by_own_count(self: &Arc<Self>, app: &Arc<App>, of_app: &AppConnections) {
        let all = std::mem::take(&mut of_app.queue().waiting);
        for waiting in all {
            let _ = waiting.decision.send(self.admit_by_own_count(app, waiting.transport));
        }
    }

    /// Admits a client if this node's own count is below the quota. A refusal is not final, because the count of the
    /// cluster is unknown.
    fn admit_by_own_count(self: &Arc<Self>, app: &Arc<App>, transport: Transport) -> Result<Admission, Farewell> {
        if self.of_app(&app.id).add_below(app.limits.connections) {
            self.admit_counted(app, transport)
        } else {
            Err(maybe_over_quota())
        }
    }

    /// Reports each app's connections to the roster when the count changed or when another node requests it. The rate
    /// is limited by [`REPORT_INTERVAL`].
    pub(crate) async fn report_connections(&self) -> Infallible {
        loop {
            let are_lost = tokio::select! {
                () = self.report_due.notified() => false,
                () = self.recounts.counts_lost() => true,
                () = self.recounts.requested() => false,
            };
            let requested = self.recounts.take_apps();
            stream::iter(&self.by_app)
                .for_each_concurrent(CONNECTION_REPORTS_AT_ONCE, async |(app, of_app)| {
                    self.report_if_due(app, of_app, are_lost, requested.contains(app)).await;
                })
                .await;
            sleep(REPORT_INTERVAL).await;
        }
    }

    async fn report_if_due(&self, app: &AppId, of_app: &AppConnections, is_lost: bool, is_requested: bool) {
        let mut reported = of_app.reported.lock().await;
        if is_lost && reported.may_be_counted {
            // The roster may have lost the count or restored an older one. A count of 0 must be reported too.
            reported.count = usize::MAX;
        }
        let count = of_app.count();
        if reported.count == count && !(is_requested && count > 0) {
            return;
        }
        if reported.failed.is_some_and(|failed| failed.elapsed() < FAILURE_PAUSE) {
            // A later round reports it.
            return self.report_due.notify_one();
        }
        reported.may_be_counted = true;
        match self.roster.report_connections(app, count as u64).await {
            Ok(_) => *reported = Reported { count, failed: None, may_be_counted: true },
            Err(_) => {
                reported.failed = Some(Instant::now());
                // The next round retries.
                self.report_due.notify_one();
            }
        }
    }

    /// Publishes a changed count. A roster in memory is updated at once, Redis with the next round of reports.
    pub(super) fn count_changed(&self, app: &AppId, of_app: &AppConnections) {
        // The count is read under the lock, so that the last update has the last count.
        let _updating = lock(&of_app.updating);
        if self.roster.report_connections_now(app, of_app.count() as u64).is_none() {
            self.report_due.notify_one();
        }
    }
}

/// Whether a refusal is final for a handshake that was first refused at `refused_at_ms`: all counts are younger than
/// that by [`SETTLING`].
fn is_final(refused_at_ms: u64, claimed: Claimed) -> bool {
    let settled_ms = refused_at_ms.saturating_add(u64::try_from(SETTLING.as_millis()).unwrap_or(u64::MAX));
    claimed.answered_at_ms >= settled_ms && claimed.oldest_report_at_ms >= settled_ms
}

fn over_quota() -> Farewell {
    Farewell::new(CloseCode::OverQuota, "The app is over its connection quota")
}

/// Returns a refusal after which clients retry.
fn maybe_over_quota() -> Farewell {
    Farewell::new(CloseCode::OverCapacity, "The app may be over its connection quota, try again later")
}

#[cfg(test)]
mod tests;
