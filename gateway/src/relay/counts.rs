//! The number of subscriptions of a channel: reports to the roster and notifications of subscribers.

use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt};
use shared::app::App;
use shared::cluster::envelope::Topic;
use shared::protocol::ServerFrame;
use shared::sync::lock;

use super::retry::persist;
use super::topic::TopicState;
use super::topics::LockedTopic;
use super::{Relay, Route};
use crate::limits::{COUNTS_AT_ONCE, COUNTS_PER_SECOND, LATE_REPORTS_AT_ONCE};

/// Above this number of subscriptions, subscribers are notified at most every [`COUNT_INTERVAL`]. Source: protocol
/// reference 2.6.
const FREQUENT_COUNT_MAX: u64 = 100;
const COUNT_INTERVAL: Duration = Duration::from_secs(5);

/// A report of this node's subscriptions to the roster.
struct Report {
    count: u64,
    /// Whether the roster already has a count of this node for the channel, unless it lost it.
    is_repeated: bool,
}

/// Whether a report is due.
enum DueReport {
    Unchanged,
    /// The rate is used up.
    Later,
    Now(Report),
}

impl Relay {
    /// Notifies subscribers of a new count: at once within the channel's rate, otherwise later.
    pub(super) fn count_changed(&self, state: &mut TopicState, topic: &Topic, count: u64) {
        let now = Instant::now();
        state.count.value = Some(count);
        let is_within_rate = count <= FREQUENT_COUNT_MAX
            && state.count.pace.at_once.take_of_burst(1, COUNTS_AT_ONCE, COUNTS_PER_SECOND, now);
        if is_within_rate || state.count.is_due(now, count_interval(count)) {
            self.send_count(state, topic, now);
        } else if !state.count.pace.is_late {
            state.count.pace.is_late = true;
            lock(&self.late_counts).push(topic.clone());
        }
    }

    /// Notifies subscribers of counts that changed too often.
    pub(super) fn send_late_counts(&self) {
        let now = Instant::now();
        let late = std::mem::take(&mut *lock(&self.late_counts));
        for topic in late {
            self.topics.with(&topic, |state| {
                if !state.count.is_due(now, count_interval(state.count.value.unwrap_or(0))) {
                    lock(&self.late_counts).push(topic.clone());
                    return;
                }
                state.count.pace.is_late = false;
                self.send_count(state, &topic, now);
            });
        }
    }

    fn send_count(&self, state: &mut TopicState, topic: &Topic, now: Instant) {
        if let Some(count) = state.count.take_unsent(now) {
            self.broadcast(state, topic, count_message(topic, count).as_bytes(), Route::default());
        }
    }

    /// Reports this node's subscriptions of a channel to the roster, unless the count is unchanged or changes too
    /// often. The gate of the topic keeps reports in order.
    pub(super) async fn report_subscriptions(&self, topic: &LockedTopic<'_>, app: &App) {
        let announce = app.subscription_count && !topic.channel.kind().is_presence();
        let due = self.topics.with(topic, |state| self.due_report(state, announce));
        let Report { count, is_repeated } = match due {
            Some(DueReport::Now(report)) => report,
            Some(DueReport::Later) => {
                lock(&self.late_reports).insert(Topic::clone(topic));
                return;
            }
            Some(DueReport::Unchanged) | None => return,
        };
        let call = || match is_repeated {
            true => self.roster.resend_subscriptions(topic, count, announce),
            false => self.roster.set_subscriptions(topic, count, announce),
        };
        if persist(call).await.is_err() {
            self.unverified.add(topic);
        }
    }

    /// Decides whether the count of a channel is reported now, and marks it as reported if it is.
    fn due_report(&self, state: &mut TopicState, announce: bool) -> DueReport {
        if state.reported == state.subscriptions {
            return DueReport::Unchanged;
        }
        let is_first_or_last = (state.reported == 0) != (state.subscriptions == 0);
        let now = Instant::now();
        let is_within_rate = state.may_report(now, self.roster.reports_per_second());
        let is_awaited = announce
            && state.subscriptions <= FREQUENT_COUNT_MAX
            && state.announced_reports.take_of_burst(1, COUNTS_AT_ONCE, COUNTS_PER_SECOND, now);
        if !(is_first_or_last || is_awaited || is_within_rate) {
            return DueReport::Later;
        }
        let is_repeated = state.reported > 0;
        state.reported = state.subscriptions;
        state.announces = announce;
        DueReport::Now(Report { count: state.subscriptions, is_repeated })
    }

    /// Reports the counts that changed too often.
    pub(super) async fn send_late_reports(&self) {
        let late = std::mem::take(&mut *lock(&self.late_reports));
        stream::iter(late).for_each_concurrent(LATE_REPORTS_AT_ONCE, |topic| self.send_late_report(topic)).await;
    }

    async fn send_late_report(&self, topic: Topic) {
        let Some(gate) = self.topics.gate(&topic) else { return };
        // The work that has the gate may wait for Redis. Retry in the next second.
        let Some(locked) = gate.try_lock() else {
            lock(&self.late_reports).insert(topic);
            return;
        };
        let is_due = |state: &mut TopicState| {
            (state.reported != state.subscriptions).then_some((state.subscriptions, state.announces))
        };
        let Some(Some((count, announces))) = self.topics.with(&locked, is_due) else { return };
        match self.roster.resend_subscriptions(&locked, count, announces).await {
            Ok(()) => {
                self.topics.with(&locked, |state| state.reported = count);
            }
            Err(_) => self.unverified.add(&locked),
        }
    }
}

/// Returns the minimum time between two notifications of a count that changes often.
fn count_interval(count: u64) -> Duration {
    if count <= FREQUENT_COUNT_MAX { Duration::from_secs(1) } else { COUNT_INTERVAL }
}

/// Encodes the message with a channel's number of subscriptions.
pub(super) fn count_message(topic: &Topic, count: u64) -> String {
    ServerFrame::SubscriptionCount { channel: topic.channel.as_str(), count }.encode()
}
