//! The members of presence channels: joins and leaves of this node, the replica, and notifications of subscribers.

use std::time::Instant;

use shared::app::App;
use shared::cluster::envelope::{Position, Topic};
use shared::protocol::{Member, ServerFrame, UserId};
use shared::sync::lock;

use super::error::EnterError;
use super::replica::{Change, Effect, Replica};
use super::retry::persist;
use super::topic::TopicState;
use super::topics::LockedTopic;
use super::unverified::Missing;
use super::{Relay, Route};
use crate::limits::{MEMBER_BYTES_AT_ONCE, MEMBER_BYTES_PER_SECOND};

impl Relay {
    /// Adds a subscription of a member. Returns the position that the replica must reach before the reply, if the user
    /// is new on this node.
    pub(super) async fn join(
        &self,
        topic: &LockedTopic<'_>,
        app: &App,
        member: &Member,
    ) -> Result<Option<Position>, EnterError> {
        let (is_known, is_built, may_return) = self.topics.with_or_insert(topic, |state| {
            let replica = state.replica.get_or_insert_with(Box::<Replica>::default);
            (replica.sockets_of(&member.user_id) > 0, replica.is_built(), replica.expects(&member.user_id))
        });
        let joined = if is_known {
            None
        } else {
            let joining = if may_return {
                self.roster.rejoin(topic, member, !is_built)
            } else {
                self.roster.join(topic, member, app.limits.presence_members, !is_built)
            };
            match joining.await {
                Ok(joined) => Some(joined),
                Err(error) => {
                    self.drop_unused_replica(topic);
                    return Err(error.into());
                }
            }
        };
        if joined.is_some() {
            self.metrics.joined();
        }
        let added = self.topics.with(topic, |state| state.replica.as_mut().map(|replica| replica.add_socket(member)));
        added.flatten().expect("a replica is dropped only under the gate, which this join holds");
        // A user who has another socket here changes nothing: the current replica is the reply.
        let Some(joined) = joined else { return Ok(None) };
        if let Some(members) = joined.members {
            self.set_members(topic, joined.position, members, Missing::MayReturn);
        }
        Ok(Some(joined.position))
    }

    /// Removes a subscription of a member. Retries until the roster accepts the leave.
    pub(super) async fn leave(&self, topic: &LockedTopic<'_>, user_id: &UserId) {
        if self.remove_socket(topic, user_id) && persist(|| self.roster.leave(topic, user_id)).await.is_err() {
            // Once the key is readable again, the roster's members of this node are compared with the actual ones.
            self.unverified.add(topic);
        }
        self.drop_unused_replica(topic);
    }

    /// Removes a socket from the replica. Returns whether it was the user's last on this node.
    fn remove_socket(&self, topic: &LockedTopic<'_>, user_id: &UserId) -> bool {
        let was_last = self
            .topics
            .with(topic, |state| state.replica.as_mut().is_some_and(|replica| replica.remove_socket(user_id)));
        if was_last == Some(true) {
            self.metrics.left();
        }
        was_last == Some(true)
    }

    fn drop_unused_replica(&self, topic: &LockedTopic<'_>) {
        self.topics.with(topic, |state| {
            if state.replica.as_ref().is_some_and(|replica| replica.is_idle()) {
                state.replica = None;
                // The remaining replies are for sockets that have unsubscribed.
                state.replies.clear();
            }
        });
    }

    /// Replaces the member list by the roster's. Subscribers who have an older list are notified of the differences.
    pub(super) fn set_members(
        &self,
        topic: &LockedTopic<'_>,
        position: Position,
        members: Vec<Member>,
        missing: Missing,
    ) {
        self.change_members(topic, |state| {
            let Some(replica) = &mut state.replica else { return Vec::new() };
            let (changes, is_complete) = if replica.is_suspended() {
                let is_new_epoch = !replica.is_of(position.epoch);
                let retain = missing == Missing::MayReturn && (is_new_epoch || replica.has_retained());
                let rebuilt = replica.rebuild(position, members, retain);
                if is_new_epoch && replica.has_retained() {
                    self.unverified.add_after_loss(topic);
                }
                rebuilt
            } else {
                // No subscriber of this node has a list yet.
                (Vec::new(), replica.build(position, members))
            };
            if !is_complete {
                self.unverified.add(topic);
            }
            changes
        });
    }

    /// Resumes a suspended replica with its old list, because the roster is unavailable.
    pub(super) fn resume_members(&self, topic: &LockedTopic<'_>) {
        let resume = |state: &mut TopicState| state.replica.as_mut().map(|replica| replica.resume());
        self.change_members(topic, |state| resume(state).unwrap_or_default());
    }

    /// Changes the member list, and notifies subscribers of the changes that `change` returns.
    fn change_members(&self, topic: &Topic, change: impl FnOnce(&mut TopicState) -> Vec<Change>) {
        self.topics.with(topic, |state| {
            let changes = change(state);
            self.send_changes(state, topic, &changes);
            self.send_ready_replies(state);
        });
    }

    /// Applies a change that the roster announced.
    pub(super) fn member_changed(
        &self,
        state: &mut TopicState,
        topic: &Topic,
        position: Option<Position>,
        change: Change,
    ) {
        match state.apply(position, change) {
            Effect::Changed => self.notify_of_members(state, topic),
            Effect::None => {}
            Effect::Gap => self.unverified.add(topic),
        }
        self.send_ready_replies(state);
    }

    /// Notifies subscribers of changed members: at once within the channel's rate, otherwise within a second. If a
    /// member leaves and returns before that, neither change is sent. Frequent joins and leaves therefore cause at most
    /// one notification of each member per second.
    fn notify_of_members(&self, state: &mut TopicState, topic: &Topic) {
        if state.member_changes.is_late {
            return;
        }
        let Some(replica) = &mut state.replica else { return };
        let unsent_bytes = replica.unsent_bytes();
        let (burst, per_second) = (MEMBER_BYTES_AT_ONCE, MEMBER_BYTES_PER_SECOND);
        if state.member_changes.at_once.take_of_burst(unsent_bytes, burst, per_second, Instant::now()) {
            let changes = replica.take_unsent();
            self.send_changes(state, topic, &changes);
        } else {
            state.member_changes.is_late = true;
            lock(&self.late_members).push(topic.clone());
        }
    }

    /// Notifies subscribers of members that changed too often.
    pub(super) fn send_late_member_changes(&self) {
        let late = std::mem::take(&mut *lock(&self.late_members));
        for topic in late {
            self.change_members(&topic, |state| {
                state.member_changes.is_late = false;
                state.replica.as_mut().map(|replica| replica.take_unsent()).unwrap_or_default()
            });
        }
    }

    fn send_changes(&self, state: &TopicState, topic: &Topic, changes: &[Change]) {
        let channel = topic.channel.as_str();
        for change in changes {
            let frame = match change {
                Change::Added(member) => ServerFrame::MemberAdded { channel, member }.encode(),
                Change::Removed(user_id) => ServerFrame::MemberRemoved { channel, user_id }.encode(),
            };
            self.broadcast(state, topic, frame.as_bytes(), Route::default());
        }
    }

    /// Suspends all replicas, because changes may be missed from now on. Received changes are queued until there is a
    /// new list.
    pub(super) fn suspend_replicas(&self) {
        self.topics.for_each(|_, state| {
            if let Some(replica) = &mut state.replica {
                replica.suspend();
            }
        });
    }
}
