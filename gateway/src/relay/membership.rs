//! Entering and leaving channels: what a subscription takes before the client may be told that it stands.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use rand::Rng;
use shared::app::App;
use shared::cluster::bus::BusError;
use shared::cluster::envelope::{Position, Topic};
use shared::cluster::roster::RosterError;
use shared::protocol::{ChannelKind, Member, ServerFrame, UserId};

use super::cached::{Kept, latest_kept};
use super::replica::Replica;
use super::topic::{Parked, TopicState};
use super::{COUNT_FREELY_UP_TO, Relay, lock};
use crate::inbox::ShardMessage;
use crate::limits::{COUNTS_AT_ONCE, COUNTS_PER_SECOND, LATE_REPORTS_AT_ONCE};
use crate::websocket::writer;

/// Why a channel could not be entered; nothing of the attempt remains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EnterError {
    #[error("the presence channel is full")]
    Full,
    #[error("the cluster is not reachable")]
    Unavailable,
    /// Waiting would not help.
    #[error("the cluster's state of the channel is damaged")]
    Damaged,
}

impl From<BusError> for EnterError {
    fn from(error: BusError) -> Self {
        match error {
            BusError::Unavailable => Self::Unavailable,
        }
    }
}

impl From<RosterError> for EnterError {
    fn from(error: RosterError) -> Self {
        match error {
            RosterError::Full => Self::Full,
            RosterError::Unavailable => Self::Unavailable,
            RosterError::Damaged => Self::Damaged,
        }
    }
}

impl Relay {
    /// Counts a socket of `shard` in the channel, as `member` in presence channels, and queues the answer for it in the
    /// shard's inbox: at the place in the order of the channel's messages that the answer reflects.
    ///
    /// `gone`: resolves when the connection is gone; while nothing has been entered yet the attempt then ends, with
    /// [`EnterError::Unavailable`]. `answer`: makes the message out of the frames that the client gets.
    ///
    /// # Errors
    /// [`EnterError`]; nothing was queued then.
    ///
    /// # Cancel safety
    /// None: once begun it must be run to its end, or a hold is left behind.
    pub(crate) async fn enter(
        &self,
        topic: &Topic,
        app: &App,
        shard: usize,
        member: Option<&Member>,
        gone: impl Future<Output = ()>,
        answer: impl FnOnce(Vec<Bytes>) -> ShardMessage + Send + 'static,
    ) -> Result<(), EnterError> {
        self.hold(topic, shard);
        let entered = self.enter_held(topic, app, member, gone).await;
        match entered {
            Ok(entered) => {
                let topic_of_answer = topic.clone();
                self.queue_answer(topic, shard, entered.position, move |state| {
                    answer(frames(&topic_of_answer, state, entered.kept))
                });
                Ok(())
            }
            Err(error) => {
                self.release(topic, shard);
                Err(error)
            }
        }
    }

    /// Queues the answer to a repeated request of a socket that is in the channel.
    pub(crate) fn answer_again(
        &self,
        topic: &Topic,
        shard: usize,
        answer: impl FnOnce(Vec<Bytes>) -> ShardMessage + Send + 'static,
    ) {
        let topic_of_answer = topic.clone();
        self.queue_answer(topic, shard, None, move |state| answer(vec![succeeded(&topic_of_answer, state)]));
    }

    /// Takes a socket of `shard` out of the channel. Repeats what the cluster does not take until it does.
    pub(crate) async fn exit(&self, topic: &Topic, app: &App, shard: usize, user_id: Option<&UserId>) {
        let Some(gate) = self.stripe(topic).get(topic).map(|state| state.gate.clone()) else { return };
        {
            let _serial = gate.lock().await;
            if let Some(user_id) = user_id {
                if self.remove_socket(topic, user_id) {
                    self.leave(topic, user_id).await;
                }
                self.drop_idle_replica(topic);
            }
            // Not before the gate: whoever is ahead would report the channel empty while this user is still in.
            if let Some(state) = self.stripe(topic).get_mut(topic) {
                state.subscriptions = state.subscriptions.saturating_sub(1);
            }
            self.report_occupancy(topic, app).await;
        }
        self.release(topic, shard);
    }

    async fn enter_held(
        &self,
        topic: &Topic,
        app: &App,
        member: Option<&Member>,
        gone: impl Future<Output = ()>,
    ) -> Result<Entered, EnterError> {
        let gate = self.gate(topic);
        let begin = async {
            let serial = gate.lock().await;
            self.hear(topic).await?;
            Ok::<_, EnterError>(serial)
        };
        // Those who gave up while the cluster was away must not be entered when it is back, nor pile up until then.
        let _serial = tokio::select! {
            biased;
            begun = begin => begun?,
            () = gone => return Err(EnterError::Unavailable),
        };
        let position = match member {
            Some(member) => retry(async || self.join(topic, app, member).await).await?,
            None => None,
        };
        let kept = if topic.channel.kind().is_cache() {
            let (received_before, pin) = self.expect_kept(topic);
            match retry(async || self.roster.kept(topic).await.map_err(EnterError::from)).await {
                Ok(fetched) => {
                    let kept = Kept { received_before, fetched, _pin: pin };
                    self.catch_up_with(topic, &kept).await;
                    Some(kept)
                }
                Err(error) => {
                    self.undo_join(topic, member).await;
                    return Err(error);
                }
            }
        } else {
            None
        };
        if let Some(state) = self.stripe(topic).get_mut(topic) {
            state.subscriptions += 1;
        }
        self.report_occupancy(topic, app).await;
        if kept.as_ref().is_some_and(|kept| kept.fetched.is_none()) {
            self.tell_miss(topic).await;
        }
        Ok(Entered { position, kept })
    }

    /// Lets the application know that nothing is kept of a cache channel. Damage is told by what else meets it.
    async fn tell_miss(&self, topic: &Topic) {
        let _ = persist(|| self.roster.report_cache_miss(topic)).await;
    }

    /// Must be called under the topic's gate.
    pub(super) async fn hear(&self, topic: &Topic) -> Result<(), EnterError> {
        if self.stripe(topic).get(topic).is_some_and(|state| state.linked) {
            return Ok(());
        }
        self.bus.subscribe(topic).await?;
        if let Some(state) = self.stripe(topic).get_mut(topic) {
            state.linked = true;
        }
        Ok(())
    }

    /// Must be called under the topic's gate.
    async fn join(&self, topic: &Topic, app: &App, member: &Member) -> Result<Option<Position>, EnterError> {
        let (known_here, is_built, may_return) = {
            let mut stripe = self.stripe(topic);
            let state = stripe.entry(topic.clone()).or_insert_with(|| TopicState::new(self.inboxes.len()));
            let replica = state.replica.get_or_insert_with(Box::<Replica>::default);
            (replica.sockets_of(&member.user_id) > 0, replica.is_built(), replica.expects(&member.user_id))
        };
        let joined = if known_here {
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
                    self.drop_idle_replica(topic);
                    return Err(error.into());
                }
            }
        };
        if joined.is_some() {
            self.metrics.joined();
        }
        let mut stripe = self.stripe(topic);
        let replica = stripe
            .get_mut(topic)
            .and_then(|state| state.replica.as_mut())
            .expect("a held presence channel keeps its replica while its gate is locked");
        replica.add_socket(member);
        drop(stripe);
        // A user whom this node knows changes nothing: the replica as it is answers.
        let Some(joined) = joined else { return Ok(None) };
        if let Some(members) = joined.members {
            self.take_members(topic, joined.position, members);
        }
        Ok(Some(joined.position))
    }

    async fn undo_join(&self, topic: &Topic, member: Option<&Member>) {
        let Some(member) = member else { return };
        if self.remove_socket(topic, &member.user_id) {
            self.leave(topic, &member.user_id).await;
        }
        self.drop_idle_replica(topic);
    }

    /// Must be called under the topic's gate.
    async fn leave(&self, topic: &Topic, user_id: &UserId) {
        if persist(|| self.roster.leave(topic, user_id)).await.is_err() {
            // Once it can be read again, what this node holds there is compared with what it should.
            self.doubts.raise(topic);
        }
    }

    fn remove_socket(&self, topic: &Topic, user_id: &UserId) -> bool {
        let mut stripe = self.stripe(topic);
        let was_last = stripe
            .get_mut(topic)
            .and_then(|state| state.replica.as_mut())
            .is_some_and(|replica| replica.remove_socket(user_id));
        if was_last {
            self.metrics.left();
        }
        was_last
    }

    fn drop_idle_replica(&self, topic: &Topic) {
        if let Some(state) = self.stripe(topic).get_mut(topic)
            && state.replica.as_ref().is_some_and(|replica| replica.is_idle())
        {
            state.replica = None;
            // What is left is for sockets that have left the channel since.
            state.parked.clear();
        }
    }

    /// Tells the roster how many sockets this node has in the channel, unless someone has told it already. Must be
    /// called under the topic's gate, so that reports arrive in order.
    async fn report_occupancy(&self, topic: &Topic, app: &App) {
        let announce = app.subscription_count && !topic.channel.kind().is_presence();
        let (count, is_again) = {
            let mut stripe = self.stripe(topic);
            let Some(state) = stripe.get_mut(topic) else { return };
            if state.reported == state.subscriptions {
                return;
            }
            let is_edge = (state.reported == 0) != (state.subscriptions == 0);
            let now = Instant::now();
            let may = state.may_report(now, self.roster.reports_per_second());
            let is_news = announce
                && state.subscriptions <= COUNT_FREELY_UP_TO
                && state.announced_reports.take_of_burst(1, COUNTS_AT_ONCE, COUNTS_PER_SECOND, now);
            if !(is_edge || is_news || may) {
                lock(&self.late_reports).insert(topic.clone());
                return;
            }
            let is_again = state.reported > 0;
            state.reported = state.subscriptions;
            state.announces = announce;
            (state.subscriptions, is_again)
        };
        let report = || match is_again {
            // Of a channel that it knows already, unless it has lost it.
            true => self.roster.resend_subscriptions(topic, count, announce),
            false => self.roster.set_subscriptions(topic, count, announce),
        };
        if persist(report).await.is_err() {
            self.doubts.raise(topic);
        }
    }

    /// Tells the counts that came too fast.
    pub(super) async fn send_late_reports(&self) {
        let late = std::mem::take(&mut *lock(&self.late_reports));
        stream::iter(late).for_each_concurrent(LATE_REPORTS_AT_ONCE, |topic| self.send_late_report(topic)).await;
    }

    async fn send_late_report(&self, topic: Topic) {
        let Some(gate) = self.stripe(&topic).get(&topic).map(|state| state.gate.clone()) else { return };
        // Whoever has the gate waits for the cluster; then there is a next second.
        let Ok(_serial) = gate.try_lock() else {
            lock(&self.late_reports).insert(topic);
            return;
        };
        let (count, announces) = {
            let stripe = self.stripe(&topic);
            match stripe.get(&topic) {
                Some(state) if state.reported != state.subscriptions => (state.subscriptions, state.announces),
                _ => return,
            }
        };
        match self.roster.resend_subscriptions(&topic, count, announces).await {
            Ok(()) => {
                if let Some(state) = self.stripe(&topic).get_mut(&topic) {
                    state.reported = count;
                }
            }
            Err(_) => self.doubts.raise(&topic),
        }
    }

    pub(super) fn hold(&self, topic: &Topic, shard: usize) {
        let mut stripe = self.stripe(topic);
        stripe.entry(topic.clone()).or_insert_with(|| TopicState::new(self.inboxes.len())).hold(shard);
    }

    pub(super) fn release(&self, topic: &Topic, shard: usize) {
        let idle = self.stripe(topic).get_mut(topic).is_some_and(|state| state.release(shard));
        if idle {
            lock(&self.idle).push_back((Instant::now(), topic.clone()));
        }
    }

    pub(super) fn gate(&self, topic: &Topic) -> std::sync::Arc<tokio::sync::Mutex<()>> {
        let stripe = self.stripe(topic);
        stripe.get(topic).expect("a held topic has a state").gate.clone()
    }

    /// Queues an answer now, or as soon as the replica has reached `position` and local subscribers know all of its changes.
    /// Otherwise the new subscriber would receive changes that its list already has.
    fn queue_answer(
        &self,
        topic: &Topic,
        shard: usize,
        position: Option<Position>,
        answer: impl FnOnce(&TopicState) -> ShardMessage + Send + 'static,
    ) {
        let mut stripe = self.stripe(topic);
        let Some(state) = stripe.get_mut(topic) else { return };
        let reached = |position| state.replica.as_ref().is_some_and(|replica| replica.has_reached(position));
        let is_reached = position.is_none_or(reached);
        if is_reached && state.replica.as_ref().is_none_or(|replica| !replica.has_news()) {
            return self.inboxes[shard].push(answer(state));
        }
        // Another epoch may begin without a change that would tell.
        if let (Some(position), Some(replica)) = (position, &state.replica)
            && !is_reached
            && !replica.is_of(position.epoch)
        {
            self.doubts.raise(topic);
        }
        state.parked.push(Parked { position, shard, answer: Box::new(answer) });
    }

    /// Queues the answers that waited for the replica's last change.
    pub(super) fn release_parked(&self, state: &mut TopicState) {
        for parked in state.ready_answers() {
            self.inboxes[parked.shard].push((parked.answer)(state));
        }
    }
}

struct Entered {
    /// What the list of members must reflect; `None` in channels without members, and for a user that was in before.
    position: Option<Position>,
    /// What the roster keeps of a cache channel; `None` for other kinds.
    kept: Option<Kept>,
}

/// What a new subscriber gets, in order. Source: protocol reference 2.9.
fn frames(topic: &Topic, state: &TopicState, kept: Option<Kept>) -> Vec<Bytes> {
    let mut frames = vec![succeeded(topic, state)];
    if let Some(kept) = kept {
        frames.push(match latest_kept(state, kept) {
            Some(event) => writer::text(&event),
            None => writer::text(ServerFrame::CacheMiss { channel: topic.channel.as_str() }.encode().as_bytes()),
        });
    }
    if let Some(count) = state.count.value {
        frames.push(writer::text(super::count_frame(topic, count).as_bytes()));
    }
    frames
}

fn succeeded(topic: &Topic, state: &TopicState) -> Bytes {
    let channel = topic.channel.as_str();
    let json = match (&state.replica, topic.channel.kind()) {
        (Some(replica), ChannelKind::Presence | ChannelKind::PresenceCache) => {
            ServerFrame::SubscribedWithMembers { channel, members: &replica.members() }.encode()
        }
        _ => ServerFrame::Subscribed { channel }.encode(),
    };
    writer::text(json.as_bytes())
}

/// Repeats a change until the roster takes it: a leave that is lost would leave a ghost. Waits 50 ms at first and 2 s at
/// most, with full jitter.
///
/// # Errors
/// What repeating would not help.
async fn persist<'a>(
    mut change: impl FnMut() -> futures_util::future::BoxFuture<'a, Result<(), RosterError>>,
) -> Result<(), RosterError> {
    let mut ceiling = BACKOFF_MIN;
    loop {
        match change().await {
            Err(RosterError::Unavailable) => back_off(&mut ceiling).await,
            answer => return answer,
        }
    }
}

/// Asks until the cluster answers: a subscription waits for it as long as its client does. Waits like [`persist`].
async fn retry<T>(mut question: impl AsyncFnMut() -> Result<T, EnterError>) -> Result<T, EnterError> {
    let mut ceiling = BACKOFF_MIN;
    loop {
        match question().await {
            Err(EnterError::Unavailable) => back_off(&mut ceiling).await,
            answer => return answer,
        }
    }
}

pub(super) const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(2);

pub(super) async fn back_off(ceiling: &mut Duration) {
    let wait = rand::rng().random_range(Duration::ZERO..=*ceiling);
    tokio::time::sleep(wait).await;
    *ceiling = (*ceiling * 2).min(BACKOFF_MAX);
}
