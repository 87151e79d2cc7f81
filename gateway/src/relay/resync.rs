//! Resynchronization with the roster: the node registers everything that it has again, and reads everything that it
//! shows.

use std::convert::Infallible;
use std::time::Instant;

use futures_util::stream::{self, StreamExt, TryStreamExt};
use hashbrown::HashSet;
use shared::cluster::envelope::Topic;
use shared::cluster::roster::RosterError;
use shared::protocol::{ChannelKind, Member, UserId};
use tokio::time::sleep;

use super::Relay;
use super::retry::BACKOFF;
use super::topics::LockedTopic;
use super::unverified::Missing;
use crate::inbox::ShardMessage;
use crate::limits::{REJOINS_AT_ONCE, RESYNCS_AT_ONCE};

impl Relay {
    /// Resynchronizes every unverified channel. Retries until all succeed.
    pub(crate) async fn keep_synchronized(&self) -> Infallible {
        loop {
            self.unverified.added().await;
            let mut backoff = BACKOFF;
            while !self.verify().await {
                sleep(backoff.next_wait()).await;
            }
        }
    }

    /// Resynchronizes the unverified channels once. Returns whether all succeeded.
    async fn verify(&self) -> bool {
        let began = Instant::now();
        let all = self.unverified.take_all();
        if all {
            if self.roster.renew().await.is_err() {
                self.unverified.mark_all();
                return false;
            }
            self.recounts.request_all();
            self.unverified.extend(self.used_topics());
        }
        let topics = self.unverified.take();
        let count = topics.len();
        let failed: Vec<(Topic, Missing)> = stream::iter(topics)
            .map(async |(topic, missing)| {
                let error = self.resynchronize(&topic, missing).await.err()?;
                tracing::debug!(
                    { app.id = %topic.app, channel.name = %topic.channel, %error },
                    "cannot resynchronize a channel; retrying"
                );
                Some((topic, missing))
            })
            .buffer_unordered(RESYNCS_AT_ONCE)
            .filter_map(async |failed| failed)
            .collect()
            .await;
        self.metrics.resynchronized(count - failed.len(), began.elapsed());
        if all && failed.is_empty() {
            tracing::info!(channels = count, "resynchronized all channels with the cluster");
        }
        let mut is_verified = failed.is_empty();
        self.unverified.put_back(failed);
        if all && let Err(error) = self.release_stale_channels().await {
            tracing::debug!(%error, "cannot remove this node from channels that it has left; retrying");
            self.unverified.mark_all();
            is_verified = false;
        }
        is_verified
    }

    /// Removes this node from channels that it has left, but that an older state of Redis still lists for it. Otherwise
    /// their members would remain for as long as another node uses the channel.
    async fn release_stale_channels(&self) -> Result<(), RosterError> {
        let stale = self.roster.stale_channels().await?;
        stream::iter(&stale)
            .map(|topic| self.release_stale_channel(topic))
            .buffer_unordered(RESYNCS_AT_ONCE)
            .try_for_each(async |()| Ok(()))
            .await
    }

    async fn release_stale_channel(&self, topic: &Topic) -> Result<(), RosterError> {
        // The gate makes new subscriptions of the channel wait.
        let gate = self.topics.acquire(topic, 0);
        let released = {
            let locked = gate.lock().await;
            self.leave_if_unused(&locked).await
        };
        self.topics.release(topic, 0);
        match released {
            // Retrying does not help: an operator must repair the key.
            Err(RosterError::Damaged) => Ok(()),
            released => released,
        }
    }

    async fn leave_if_unused(&self, topic: &LockedTopic<'_>) -> Result<(), RosterError> {
        if self.topics.with(topic, |state| state.subscriptions > 0) == Some(true) {
            return Ok(());
        }
        if topic.channel.kind().is_presence() {
            for user_id in self.roster.own_members(topic).await? {
                self.roster.leave(topic, &user_id).await?;
            }
        }
        self.roster.resend_subscriptions(topic, 0, false).await
    }

    fn used_topics(&self) -> Vec<Topic> {
        let mut used = Vec::new();
        self.topics.for_each(|topic, state| {
            if state.is_used() {
                used.push(topic.clone());
            }
        });
        used
    }

    async fn resynchronize(&self, topic: &Topic, missing: Missing) -> Result<(), RosterError> {
        let Some(gate) = self.topics.gate(topic) else { return Ok(()) };
        let locked = gate.lock().await;
        let registered = self.register_members(&locked, missing).await;
        if registered.is_err() {
            self.resume_members(&locked);
        }
        registered?;
        self.register_subscriptions(&locked).await?;
        self.read_announced(&locked, missing).await
    }

    /// Registers the members of this node again, and removes those that have left. Then reads the list of members, and
    /// notifies subscribers of the changes that they missed.
    async fn register_members(&self, topic: &LockedTopic<'_>, missing: Missing) -> Result<(), RosterError> {
        let own = self.topics.with(topic, |state| state.replica.as_ref().map(|replica| replica.own_members()));
        let own: Vec<Member> = own.flatten().unwrap_or_default();
        let Some((last, others)) = own.split_last() else { return Ok(()) };
        let present: HashSet<&UserId> = own.iter().map(|member| &member.user_id).collect();
        for user_id in self.roster.own_members(topic).await? {
            if !present.contains(&user_id) {
                self.roster.leave(topic, &user_id).await?;
            }
        }
        // One before all others: it records for a sweep that this node uses the channel.
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
        self.topics.with(topic, |state| {
            if let Some(replica) = &mut state.replica {
                replica.suspend();
            }
        });
        let joined = self.roster.rejoin(topic, last, true).await?;
        self.set_members(topic, joined.position, joined.members.unwrap_or_default(), missing);
        Ok(())
    }

    async fn register_subscriptions(&self, topic: &LockedTopic<'_>) -> Result<(), RosterError> {
        let current = self.topics.with(topic, |state| {
            let is_registered = state.subscriptions > 0 || state.reported > 0;
            is_registered.then_some((state.subscriptions, state.announces))
        });
        let Some(Some((count, announces))) = current else { return Ok(()) };
        self.roster.resend_subscriptions(topic, count, announces).await?;
        self.topics.with(topic, |state| state.reported = count);
        Ok(())
    }

    /// Reads the state whose announcement may have been missed: whether a user is online, or the channel's number of
    /// subscriptions.
    async fn read_announced(&self, topic: &LockedTopic<'_>, missing: Missing) -> Result<(), RosterError> {
        let is_user = topic.channel.kind() == ChannelKind::User;
        let received = self.topics.with(topic, |state| (is_user || state.announces).then_some(state.announcements));
        let Some(Some(received)) = received else { return Ok(()) };
        let occupancies = self.roster.occupancy(std::slice::from_ref(&**topic)).await?;
        let subscriptions = occupancies.first().map_or(0, |occupancy| occupancy.subscriptions);
        self.topics.with(topic, |state| {
            let is_less = match is_user {
                true => subscriptions == 0,
                false => state.count.value.is_some_and(|count| subscriptions < count),
            };
            if is_less && missing == Missing::MayReturn {
                return self.unverified.add_later(topic);
            }
            // An announcement that arrived after the query is newer than its result, or a newer one follows.
            if state.announcements != received {
                return;
            }
            if is_user {
                let online = subscriptions > 0;
                self.send_to_shards(state, || ShardMessage::UserOnline { topic: Topic::clone(topic), online });
            } else {
                self.count_changed(state, topic, subscriptions);
            }
        });
        Ok(())
    }
}
