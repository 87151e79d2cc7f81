//! The connection quotas of apps: who is admitted, and when a refusal may be final.
//!
//! After 4004 pusher-js never connects again, so that code needs a count that is known to be current. A handshake that
//! finds its app at the quota waits for a moment, because the connection that it replaces may still be counted. It is
//! refused with 4004 once every node that was counted has reported again after [`SETTLING`]. If these reports do not come
//! in time, or Redis is away, it is refused with 4100, after which clients try again.
//!
//! In a cluster all waiting handshakes of an app share one claim at a time: those that arrive while a claim is under way
//! are part of the next one.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::stream::{self, FuturesUnordered, StreamExt};
use shared::app::{App, AppId};
use shared::cluster::roster::{Claimed, RosterError};
use shared::protocol::CloseCode;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep, timeout};

use crate::limits::{CONNECTION_REPORTS_AT_ONCE, QUOTA_WAITING_MAX};
use crate::node::{Admission, Node};
use crate::reject::Farewell;
use crate::transport::Transport;

/// A connection that ended is not counted any more after this time: its node has noticed the end. Half a second of a
/// machine that is busy, and short enough for pusher-js, which gives a WebSocket 2 s before it tries HTTP as well.
const SETTLING: Duration = Duration::from_millis(500);

/// Longest wait for a place, or for the certainty that there is none.
const WAIT_MAX: Duration = Duration::from_millis(1500);

/// A handshake whose claim is not answered decides without the cluster after this time.
const CLAIM_TIMEOUT: Duration = Duration::from_millis(1700);

/// Pause between the claims of handshakes that wait for a place.
const CLAIM_INTERVAL: Duration = Duration::from_millis(100);

/// After a failure no handshake waits for Redis, and nothing is reported, for this long.
const FAILURE_PAUSE: Duration = Duration::from_secs(1);

/// Shortest time between two rounds of reports to the roster.
const REPORT_INTERVAL: Duration = Duration::from_millis(100);

const _: () = assert!(SETTLING.as_millis() + 2 * CLAIM_INTERVAL.as_millis() < WAIT_MAX.as_millis());
const _: () = assert!(WAIT_MAX.as_millis() < CLAIM_TIMEOUT.as_millis());

/// The connections of one app on this node.
#[derive(Default)]
pub(crate) struct AppPlaces {
    count: AtomicUsize,
    /// Locked during a report or a claim, so that the roster receives them in order.
    reported: tokio::sync::Mutex<Reported>,
    /// Locked while a roster that never waits is updated, for the same reason.
    updating: Mutex<()>,
    queue: Mutex<Queue>,
    /// Notified when a place becomes free.
    freed: Notify,
}

/// The last report of an app's connections.
#[derive(Default)]
struct Reported {
    count: usize,
    failed: Option<Instant>,
    /// Whether the roster may have a count of this node, also an older one than the last.
    may_be_counted: bool,
}

/// Handshakes that wait for a place.
#[derive(Default)]
struct Queue {
    /// Oldest first.
    waiting: VecDeque<Waiting>,
    /// Whether places are claimed for them, or are about to be.
    is_served: bool,
}

/// A handshake that waits for a place.
struct Waiting {
    transport: Transport,
    since: Instant,
    /// The roster's time when it first had no place.
    refused_at_ms: Option<u64>,
    verdict: oneshot::Sender<Result<Admission, Farewell>>,
}

impl AppPlaces {
    /// Open connections.
    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// Counts one more connection.
    pub(crate) fn add(&self) {
        self.count.fetch_add(1, Ordering::AcqRel);
    }

    /// Counts one more connection if there are fewer than `quota`.
    fn add_below(&self, quota: usize) -> bool {
        let add = |count| (count < quota).then_some(count + 1);
        self.count.fetch_update(Ordering::AcqRel, Ordering::Acquire, add).is_ok()
    }

    /// Counts one connection less.
    pub(crate) fn remove(&self) {
        self.count.fetch_sub(1, Ordering::AcqRel);
        self.freed.notify_one();
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // A panic under this lock leaves a queue that is whole.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of handshakes that still wait. If it is `None`, the queue is not served any more.
    fn wanted(&self) -> Option<usize> {
        let mut queue = self.queue();
        queue.waiting.retain(|waiting| !waiting.verdict.is_closed());
        queue.is_served = !queue.waiting.is_empty();
        queue.is_served.then_some(queue.waiting.len())
    }
}

impl Node {
    /// Admits a client of this app, or says why not.
    pub(crate) async fn admit(self: &Arc<Self>, app: &Arc<App>, transport: Transport) -> Result<Admission, Farewell> {
        let quota = app.limits.connections;
        if quota == 0 {
            return self.take_place(app, transport);
        }
        let places = self.places(&app.id);
        // Those that wait come first.
        if !self.is_clustered() && !places.queue().is_served && places.add_below(quota) {
            return self.admit_counted(app, transport);
        }
        let waiting = self.enqueue(app, transport)?;
        match timeout(CLAIM_TIMEOUT, waiting).await {
            Ok(Ok(verdict)) => verdict,
            // The claim hangs, or the node is about to end.
            _ => self.admit_alone(app, transport),
        }
    }

    /// Queues a handshake for a place; the answer is its verdict.
    fn enqueue(
        self: &Arc<Self>,
        app: &Arc<App>,
        transport: Transport,
    ) -> Result<oneshot::Receiver<Result<Admission, Farewell>>, Farewell> {
        let (verdict, waiting) = oneshot::channel();
        let mut queue = self.places(&app.id).queue();
        if queue.waiting.len() >= QUOTA_WAITING_MAX {
            return Err(uncertain());
        }
        queue.waiting.push_back(Waiting { transport, since: Instant::now(), refused_at_ms: None, verdict });
        if !std::mem::replace(&mut queue.is_served, true) {
            self.occupants.unserved().push(app.clone());
            self.occupants.queued.notify_one();
        }
        Ok(waiting)
    }

    /// Claims places for the waiting handshakes of all apps, each app on its own.
    pub(crate) async fn serve_queues(self: &Arc<Self>) -> Infallible {
        let mut served = FuturesUnordered::new();
        loop {
            let unserved = std::mem::take(&mut *self.occupants.unserved());
            served.extend(unserved.into_iter().map(|app| self.serve_queue(app)));
            tokio::select! {
                () = self.occupants.queued.notified() => {}
                Some(()) = served.next() => {}
            }
        }
    }

    /// Claims places for waiting handshakes until none is left.
    async fn serve_queue(self: &Arc<Self>, app: Arc<App>) {
        let places = self.places(&app.id);
        while let Some(wanted) = places.wanted() {
            if self.claim(&app, places, wanted).await.is_err() {
                self.decide_alone(&app, places);
            }
            if !places.queue().waiting.is_empty() {
                tokio::select! {
                    () = sleep(CLAIM_INTERVAL) => {}
                    () = places.freed.notified() => {}
                }
            }
        }
    }

    /// Claims places for the first `wanted` handshakes, admits as many as there are places for, and refuses those that
    /// have waited long enough.
    async fn claim(self: &Arc<Self>, app: &Arc<App>, places: &AppPlaces, wanted: usize) -> Result<(), RosterError> {
        // Held until the admitted are counted: a report in between would give their places away.
        let mut reported = places.reported.lock().await;
        if reported.failed.is_some_and(|failed| failed.elapsed() < FAILURE_PAUSE) {
            return Err(RosterError::Unavailable);
        }
        let count = places.count();
        let quota = app.limits.connections as u64;
        let claimed = match self.relay.roster().claim_connections(&app.id, count as u64, wanted as u64, quota).await {
            Ok(claimed) => claimed,
            Err(error) => {
                // The roster may have counted them: report the right number as soon as it answers again.
                *reported = Reported { count: usize::MAX, failed: Some(Instant::now()), may_be_counted: true };
                self.occupants.changed.notify_one();
                return Err(error);
            }
        };
        let admitted = usize::try_from(claimed.admitted).unwrap_or(usize::MAX).min(wanted);
        *reported = Reported { count: count + admitted, failed: None, may_be_counted: true };
        for _ in 0..admitted {
            let Some(waiting) = places.queue().waiting.pop_front() else { break };
            let verdict = self.take_place(app, waiting.transport);
            // A client that has gone gives its place back with the admission that it does not receive.
            let _ = waiting.verdict.send(verdict);
        }
        if places.count() != reported.count {
            self.occupants.changed.notify_one();
        }
        drop(reported);
        self.refuse_settled(places, wanted - admitted, claimed);
        Ok(())
    }

    /// Refuses those of the first `refused` handshakes for which it is certain that there is no place, or that have waited
    /// too long.
    fn refuse_settled(&self, places: &AppPlaces, refused: usize, claimed: Claimed) {
        let mut queue = places.queue();
        let mut kept = VecDeque::with_capacity(queue.waiting.len());
        for (index, mut waiting) in queue.waiting.drain(..).enumerate() {
            if index >= refused {
                kept.push_back(waiting);
                continue;
            }
            let refused_at_ms = *waiting.refused_at_ms.get_or_insert(claimed.answered_at_ms);
            if is_final(refused_at_ms, claimed) {
                let _ = waiting.verdict.send(Err(over_quota()));
            } else if waiting.since.elapsed() >= WAIT_MAX {
                let _ = waiting.verdict.send(Err(uncertain()));
            } else {
                kept.push_back(waiting);
            }
        }
        queue.waiting = kept;
    }

    /// Decides on all waiting handshakes without the cluster.
    fn decide_alone(self: &Arc<Self>, app: &Arc<App>, places: &AppPlaces) {
        let all = std::mem::take(&mut places.queue().waiting);
        for waiting in all {
            let _ = waiting.verdict.send(self.admit_alone(app, waiting.transport));
        }
    }

    /// Admits a client within the quota by this node's own count. A refusal is not final, because it is not known whether
    /// the app is over its quota.
    fn admit_alone(self: &Arc<Self>, app: &Arc<App>, transport: Transport) -> Result<Admission, Farewell> {
        if self.places(&app.id).add_below(app.limits.connections) {
            self.admit_counted(app, transport)
        } else {
            Err(uncertain())
        }
    }

    /// Reports to the roster how many connections each app has, whenever that changed or another node asks, a few times a
    /// second at most.
    pub(crate) async fn report_connections(&self) -> Infallible {
        loop {
            let are_forgotten = tokio::select! {
                () = self.occupants.changed.notified() => false,
                () = self.relay.connections_forgotten() => true,
                () = self.relay.recount_asked() => false,
            };
            let asked = self.relay.take_asked();
            stream::iter(&self.occupants.by_app)
                .for_each_concurrent(CONNECTION_REPORTS_AT_ONCE, async |(app, places)| {
                    self.report_if_due(app, places, are_forgotten, asked.contains(app)).await;
                })
                .await;
            sleep(REPORT_INTERVAL).await;
        }
    }

    async fn report_if_due(&self, app: &AppId, places: &AppPlaces, is_forgotten: bool, is_asked: bool) {
        let mut reported = places.reported.lock().await;
        if is_forgotten && reported.may_be_counted {
            // The roster may have lost the count, or returned to an older one, so that 0 is to be reported too.
            reported.count = usize::MAX;
        }
        let count = places.count();
        if reported.count == count && !(is_asked && count > 0) {
            return;
        }
        if reported.failed.is_some_and(|failed| failed.elapsed() < FAILURE_PAUSE) {
            // A later round reports it.
            return self.occupants.changed.notify_one();
        }
        reported.may_be_counted = true;
        match self.relay.roster().report_connections(app, count as u64).await {
            Ok(_) => *reported = Reported { count, failed: None, may_be_counted: true },
            Err(_) => {
                reported.failed = Some(Instant::now());
                // The next round reports it.
                self.occupants.changed.notify_one();
            }
        }
    }

    /// Makes a changed count known: at once where the roster never waits, else with the next reports.
    pub(crate) fn count_changed(&self, app: &AppId, places: &AppPlaces) {
        // The count is read under the lock, so that the last update has the last count.
        let _updating = places.updating.lock().unwrap_or_else(PoisonError::into_inner);
        if self.relay.roster().report_connections_now(app, places.count() as u64).is_none() {
            self.occupants.changed.notify_one();
        }
    }
}

/// Whether an answer that leaves no place settles the matter for a handshake that had none at `refused_at_ms`: all counts
/// are younger than that by [`SETTLING`].
fn is_final(refused_at_ms: u64, claimed: Claimed) -> bool {
    let settled_ms = refused_at_ms.saturating_add(u64::try_from(SETTLING.as_millis()).unwrap_or(u64::MAX));
    claimed.answered_at_ms >= settled_ms && claimed.oldest_report_at_ms >= settled_ms
}

fn over_quota() -> Farewell {
    Farewell::new(CloseCode::OverQuota, "The app is over its connection quota")
}

/// A refusal after which clients try again.
fn uncertain() -> Farewell {
    Farewell::new(CloseCode::OverCapacity, "The app may be over its connection quota, try again later")
}

#[cfg(test)]
mod tests;
