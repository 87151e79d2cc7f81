//! After messages may have been missed: this node asserts what it holds, and asks for what it shows.

use std::convert::Infallible;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt, TryStreamExt};
use hashbrown::{HashMap, HashSet};
use shared::cluster::envelope::{Position, Topic};
use shared::cluster::roster::RosterError;
use shared::protocol::{ChannelKind, Member, UserId};
use tokio::sync::Notify;

use super::membership::{BACKOFF_MIN, back_off};
use super::replica::Change;
use super::{Relay, lock};
use crate::inbox::ShardMessage;
use crate::limits::{REJOINS_AT_ONCE, RESYNCS_AT_ONCE};
use crate::relay::topic::TopicState;

/// After Redis lost data, every node puts back its own part. Members that are missing are removed from this node's copies
/// after this long only, or clients would see the users of other nodes leave and come back. A node needs up to 2 s until
/// its next attempt to connect, 4 s to connect, and 3 s for 10,000 channels. Users of a node that died meanwhile are
/// removed late, but within the 30 s that are promised.
const PATIENCE: Duration = Duration::from_secs(12);

/// Channels that may be out of step with the cluster.
pub(super) struct Doubts {
    /// [`PATIENCE`], or less in tests.
    pub(super) patience: Duration,
    topics: Mutex<HashMap<Topic, Missing>>,
    /// Channels to look at again once [`PATIENCE`] is over, and since when.
    late: Mutex<HashMap<Topic, Instant>>,
    all: AtomicBool,
    raised: Notify,
}

/// What to think of members, users and counts that were there and are missing now.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Missing {
    /// They may be about to come back, if Redis has begun anew.
    MayReturn,
    Gone,
}

impl Default for Doubts {
    fn default() -> Self {
        Self {
            patience: PATIENCE,
            topics: Mutex::default(),
            late: Mutex::default(),
            all: AtomicBool::new(false),
            raised: Notify::new(),
        }
    }
}

impl Doubts {
    /// One channel is in doubt.
    pub(super) fn raise(&self, topic: &Topic) {
        lock(&self.topics).entry(topic.clone()).or_insert(Missing::MayReturn);
        self.raised.notify_one();
    }

    /// Looks at the channel again once [`PATIENCE`] is over. Redis lost data now.
    fn raise_after_loss(&self, topic: &Topic) {
        lock(&self.late).insert(topic.clone(), Instant::now());
    }

    /// Looks at the channel again once [`PATIENCE`] is over, if that is not planned already.
    fn raise_later(&self, topic: &Topic) {
        lock(&self.late).entry(topic.clone()).or_insert_with(Instant::now);
    }

    /// Raises the doubts whose time has come.
    pub(super) fn raise_late(&self, now: Instant) {
        let is_due = |_: &Topic, since: &mut Instant| now.saturating_duration_since(*since) >= self.patience;
        let due: Vec<Topic> = lock(&self.late).extract_if(is_due).map(|(topic, _)| topic).collect();
        if due.is_empty() {
            return;
        }
        lock(&self.topics).extend(due.into_iter().map(|topic| (topic, Missing::Gone)));
        self.raised.notify_one();
    }

    /// Everything is.
    pub(super) fn raise_all(&self) {
        self.all.store(true, Ordering::Release);
        self.raised.notify_one();
    }
}

impl Relay {
    /// Brings every doubtful channel up to date; what fails is tried again until it does not.
    pub(crate) async fn keep_synchronised(&self) -> Infallible {
        loop {
            self.doubts.raised.notified().await;
            let mut ceiling = BACKOFF_MIN;
            while !self.settle_doubts().await {
                back_off(&mut ceiling).await;
            }
        }
    }

    /// One look at all doubts; returns whether none is left.
    async fn settle_doubts(&self) -> bool {
        let began = Instant::now();
        let all = self.doubts.all.swap(false, Ordering::AcqRel);
        if all {
            if self.roster.renew().await.is_err() {
                self.doubts.all.store(true, Ordering::Release);
                return false;
            }
            self.recounts.request_all();
            // Not under the lock of the doubts, which others take while they hold a stripe.
            let held = self.held_topics();
            let mut topics = lock(&self.doubts.topics);
            for topic in held {
                topics.entry(topic).or_insert(Missing::MayReturn);
            }
        }
        let topics = std::mem::take(&mut *lock(&self.doubts.topics));
        let count = topics.len();
        let failed: Vec<(Topic, Missing)> = stream::iter(topics)
            .map(async |(topic, missing)| {
                let error = self.resynchronise(&topic, missing).await.err()?;
                tracing::debug!({ channel.name = %topic, error = %error }, "not brought up to date yet");
                Some((topic, missing))
            })
            .buffer_unordered(RESYNCS_AT_ONCE)
            .filter_map(async |failed| failed)
            .collect()
            .await;
        self.metrics.resynchronised(count - failed.len(), began.elapsed());
        if all && failed.is_empty() {
            tracing::info!(channels = count, "brought up to date with the cluster");
        }
        let mut is_settled = failed.is_empty();
        lock(&self.doubts.topics).extend(failed);
        if all && let Err(error) = self.release_left_channels().await {
            tracing::debug!(%error, "cannot remove this node from channels that it has left yet; retrying");
            self.doubts.all.store(true, Ordering::Release);
            is_settled = false;
        }
        is_settled
    }

    /// Removes this node from channels that it has left, and that an older state of Redis still lists for it. Otherwise
    /// their members would stay for as long as another node keeps the channel.
    async fn release_left_channels(&self) -> Result<(), RosterError> {
        let left = self.roster.stale_channels().await?;
        stream::iter(&left)
            .map(|topic| self.release_left_channel(topic))
            .buffer_unordered(RESYNCS_AT_ONCE)
            .try_for_each(async |()| Ok(()))
            .await
    }

    async fn release_left_channel(&self, topic: &Topic) -> Result<(), RosterError> {
        // Held for the gate, which keeps those who enter the channel now waiting.
        self.hold(topic, 0);
        let gate = self.gate(topic);
        let released = {
            let _serial = gate.lock().await;
            self.leave_if_unused(topic).await
        };
        self.release(topic, 0);
        match released {
            // Retrying does not help: an operator must repair the key.
            Err(RosterError::Damaged) => Ok(()),
            released => released,
        }
    }

    /// Must be called under the topic's gate.
    async fn leave_if_unused(&self, topic: &Topic) -> Result<(), RosterError> {
        let is_used = self.stripe(topic).get(topic).is_some_and(|state| state.subscriptions > 0);
        if is_used {
            return Ok(());
        }
        if topic.channel.kind().is_presence() {
            for user_id in self.roster.own_members(topic).await? {
                self.roster.leave(topic, &user_id).await?;
            }
        }
        self.roster.resend_subscriptions(topic, 0, false).await
    }

    fn held_topics(&self) -> Vec<Topic> {
        let held = |stripe: &Mutex<HashMap<Topic, TopicState>>| {
            let stripe = lock(stripe);
            stripe.iter().filter(|(_, state)| state.is_held()).map(|(topic, _)| topic.clone()).collect::<Vec<_>>()
        };
        self.stripes.iter().flat_map(held).collect()
    }

    /// Every list may miss changes from here on; what comes in is kept until there is a new one.
    pub(super) fn doubt_all_members(&self) {
        for stripe in &self.stripes {
            for replica in lock(stripe).values_mut().filter_map(|state| state.replica.as_mut()) {
                replica.doubt();
            }
        }
    }

    async fn resynchronise(&self, topic: &Topic, missing: Missing) -> Result<(), RosterError> {
        let Some(gate) = self.stripe(topic).get(topic).map(|state| state.gate.clone()) else { return Ok(()) };
        let _serial = gate.lock().await;
        let asserted = self.assert_members(topic, missing).await;
        if asserted.is_err() {
            self.trust_members(topic);
        }
        asserted?;
        self.assert_occupancy(topic).await?;
        self.ask_again(topic, missing).await
    }

    /// Joins again as everyone who is here, leaves as everyone who is not, takes the list anew, and tells local
    /// subscribers what they missed.
    async fn assert_members(&self, topic: &Topic, missing: Missing) -> Result<(), RosterError> {
        let own: Vec<Member> = {
            let stripe = self.stripe(topic);
            let Some(replica) = stripe.get(topic).and_then(|state| state.replica.as_ref()) else { return Ok(()) };
            replica.own_members()
        };
        let Some((last, others)) = own.split_last() else { return Ok(()) };
        let here: HashSet<&UserId> = own.iter().map(|member| &member.user_id).collect();
        for user_id in self.roster.own_members(topic).await? {
            if !here.contains(&user_id) {
                self.roster.leave(topic, &user_id).await?;
            }
        }
        // One before all others: it notes for a sweep that this node is in the channel.
        let others = match others.split_first() {
            Some((first, others)) => {
                self.roster.rejoin(topic, first, false).await?;
                others
            }
            None => others,
        };
        stream::iter(others)
            .map(|member| self.roster.rejoin(topic, member, false))
            .buffer_unordered(REJOINS_AT_ONCE)
            .try_for_each(async |_| Ok(()))
            .await?;
        if let Some(replica) = self.stripe(topic).get_mut(topic).and_then(|state| state.replica.as_mut()) {
            replica.doubt();
        }
        let joined = self.roster.rejoin(topic, last, true).await?;
        self.take_list(topic, joined.position, joined.members.unwrap_or_default(), missing);
        Ok(())
    }

    /// Takes the roster's list; subscribers who have an older one hear what is different.
    pub(super) fn take_members(&self, topic: &Topic, position: Position, members: Vec<Member>) {
        self.take_list(topic, position, members, Missing::MayReturn);
    }

    fn take_list(&self, topic: &Topic, position: Position, members: Vec<Member>, missing: Missing) {
        self.change_members(topic, |state| {
            let Some(replica) = &mut state.replica else { return Vec::new() };
            let (changes, is_whole) = if replica.is_doubted() {
                let begins_anew = !replica.is_of(position.epoch);
                let keeping = missing == Missing::MayReturn && (begins_anew || replica.is_keeping());
                let rebuilt = replica.rebuild(position, members, keeping);
                if begins_anew && replica.is_keeping() {
                    self.doubts.raise_after_loss(topic);
                }
                rebuilt
            } else {
                // Nobody here has a list yet.
                (Vec::new(), replica.build(position, members))
            };
            if !is_whole {
                self.doubts.raise(topic);
            }
            changes
        });
    }

    fn trust_members(&self, topic: &Topic) {
        self.change_members(topic, |state| state.replica.as_mut().map(|replica| replica.trust()).unwrap_or_default());
    }

    /// Changes the list of members, and tells local subscribers of what changed.
    fn change_members(&self, topic: &Topic, change: impl FnOnce(&mut TopicState) -> Vec<Change>) {
        let mut stripe = self.stripe(topic);
        let Some(state) = stripe.get_mut(topic) else { return };
        let changes = change(state);
        self.send_changes(state, topic, &changes);
        self.release_parked(state);
    }

    async fn assert_occupancy(&self, topic: &Topic) -> Result<(), RosterError> {
        let (count, announces) = {
            let stripe = self.stripe(topic);
            let Some(state) = stripe.get(topic) else { return Ok(()) };
            if state.subscriptions == 0 && state.reported == 0 {
                return Ok(());
            }
            (state.subscriptions, state.announces)
        };
        self.roster.resend_subscriptions(topic, count, announces).await?;
        if let Some(state) = self.stripe(topic).get_mut(topic) {
            state.reported = count;
        }
        Ok(())
    }

    /// Asks for what was announced while nobody here heard it: whether a user is online, how many subscribe.
    async fn ask_again(&self, topic: &Topic, missing: Missing) -> Result<(), RosterError> {
        let is_user = topic.channel.kind() == ChannelKind::User;
        let heard = {
            let stripe = self.stripe(topic);
            match stripe.get(topic) {
                Some(state) if is_user || state.announces => state.heard,
                _ => return Ok(()),
            }
        };
        let answer = self.roster.occupancy(std::slice::from_ref(topic)).await?;
        let subscriptions = answer.first().map_or(0, |occupancy| occupancy.subscriptions);
        let mut stripe = self.stripe(topic);
        let told = stripe.get(topic).and_then(|state| state.count.value);
        let is_less = if is_user { subscriptions == 0 } else { told.is_some_and(|told| subscriptions < told) };
        if is_less && missing == Missing::MayReturn {
            self.doubts.raise_later(topic);
            return Ok(());
        }
        match stripe.get_mut(topic) {
            // What was heard since the question is newer than the answer, or will be followed by what is.
            Some(state) if state.heard == heard => {
                if is_user {
                    let online = subscriptions > 0;
                    self.tell(state, || ShardMessage::UserOnline { topic: topic.clone(), online });
                } else {
                    self.count_changed(state, topic, subscriptions);
                }
            }
            _ => {}
        }
        Ok(())
    }
}
