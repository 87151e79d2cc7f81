//! After messages may have been missed: this node asserts what it holds, and asks for what it shows.

use futures_util::StreamExt;
use futures_util::stream;
use shared::envelope::Topic;
use shared::protocol::{Member, ServerFrame};

use super::membership::persist;
use super::{Relay, Route};
use crate::presence::Change;

/// Channels that are brought up to date at a time: enough to fill a connection to Redis, few enough to leave it to others.
const CONCURRENCY: usize = 64;

impl Relay {
    /// Brings every channel up to date whenever the bus says that messages may have been missed. Never returns.
    pub(crate) async fn keep_synchronised(&self) {
        loop {
            self.came_back.notified().await;
            persist(|| self.roster.renew()).await;
            let topics = self.topics();
            let count = topics.len();
            stream::iter(topics).for_each_concurrent(CONCURRENCY, |topic| self.resynchronise(topic)).await;
            tracing::debug!(channels = count, "brought up to date");
        }
    }

    fn topics(&self) -> Vec<Topic> {
        let held = |stripe: usize| {
            let stripe = super::lock(&self.stripes[stripe]);
            stripe.iter().filter(|(_, state)| state.is_held()).map(|(topic, _)| topic.clone()).collect::<Vec<_>>()
        };
        (0..self.stripes.len()).flat_map(held).collect()
    }

    async fn resynchronise(&self, topic: Topic) {
        let Some(gate) = self.stripe(&topic).get(&topic).map(|state| state.gate.clone()) else { return };
        let _serial = gate.lock().await;
        self.assert_members(&topic).await;
        let (count, announces) = {
            let mut stripe = self.stripe(&topic);
            let Some(state) = stripe.get_mut(&topic) else { return };
            state.reported = state.subscriptions;
            (state.subscriptions, state.announces)
        };
        if count > 0 {
            persist(|| self.roster.occupy(&topic, count, announces)).await;
        }
    }

    /// Joins again as everyone who is here, takes the list anew, and tells local subscribers what they missed.
    async fn assert_members(&self, topic: &Topic) {
        let own: Vec<Member> = {
            let mut stripe = self.stripe(topic);
            let Some(replica) = stripe.get_mut(topic).and_then(|state| state.replica.as_mut()) else { return };
            let own = replica.own_members();
            replica.doubt();
            own
        };
        let Some((last, others)) = own.split_last() else { return };
        for member in others {
            persist(|| Box::pin(async { self.roster.join(topic, member, usize::MAX, false).await.map(drop) })).await;
        }
        let mut joined = None;
        while joined.is_none() {
            persist(|| Box::pin(async { self.roster.renew().await })).await;
            joined = self.roster.join(topic, last, usize::MAX, true).await.ok();
        }
        let Some(joined) = joined else { return };
        let mut stripe = self.stripe(topic);
        let Some(state) = stripe.get_mut(topic) else { return };
        let Some(replica) = state.replica.as_mut() else { return };
        let changes = replica.rebuild(joined.position, joined.members.unwrap_or_default());
        let channel = topic.channel.as_str();
        for change in changes {
            let frame = match &change {
                Change::Added(member) => ServerFrame::MemberAdded { channel, member }.encode(),
                Change::Removed(user_id) => ServerFrame::MemberRemoved { channel, user_id }.encode(),
            };
            self.broadcast(state, topic, frame.as_bytes(), Route::default());
        }
        self.release_parked(state);
    }
}
