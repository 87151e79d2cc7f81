//! The connection that hears: supervised, so that a node is never deaf without knowing.
//!
//! One task owns it. It connects for ever, subscribes to everything that is wanted, and then says that the node is
//! live; while it is, it pings, and probes the whole way round by publishing to a topic of its own as events are.
//! Anything that does not answer in time, a refusal, or more messages than the node can take ends the connection, and
//! everything begins anew. Whoever listens is then told to ask for the state that it may have missed.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hashbrown::HashMap;
use rand::Rng;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Pipeline, PushInfo, PushKind, RedisError, Value};
use tokio::sync::{Notify, oneshot};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::super::{BusError, Listener};
use crate::app::AppId;
use crate::envelope::wire::WireError;
use crate::envelope::{Envelope, Topic};
use crate::node::NodeId;
use crate::redis::Link;
use crate::redis::link::LinkError;
use crate::redis::metrics::Metrics;

/// Subscriptions that go out together: one command each, since a reply per channel to one command confuses clients.
const SUBSCRIBE_BATCH: usize = 512;

const PING_INTERVAL: Duration = Duration::from_secs(5);
const PING_TIMEOUT: Duration = Duration::from_secs(2);

/// How often the way round is probed; the probe must be back within [`PROBE_TIMEOUT`].
const PROBE_INTERVAL: Duration = Duration::from_secs(5);
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// The first wait before another attempt, at most; doubled each time, with full jitter.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// A large batch of subscriptions may take Redis a while.
const SUBSCRIBE_TIMEOUT: Duration = Duration::from_secs(5);

/// What a node hears, and the connection that it hears it on.
pub struct Subscriber {
    link: Link,
    probe_topic: String,
    /// Where gateways are asked to report their connections.
    recount_topic: String,
    metrics: Metrics,
    state: Mutex<State>,
    /// Told when wishes have changed.
    changed: Notify,
    /// Told when the connection is to be given up.
    again: Notify,
    live: AtomicBool,
    has_been_live: AtomicBool,
}

#[derive(Default)]
struct State {
    /// Everything that is wanted, by its name in Redis.
    wanted: HashMap<String, Wish>,
    /// Names whose subscription or its end has not been sent.
    pending: Vec<String>,
    /// Those who wait until all that Redis has sent so far is delivered.
    catching_up: Vec<oneshot::Sender<()>>,
    listening: bool,
}

/// A topic that is wanted, or was and is still subscribed to.
struct Wish {
    topic: Topic,
    wanted: bool,
    /// Whether Redis has confirmed it on the connection that is up.
    stands: bool,
    waiting: Vec<oneshot::Sender<()>>,
}

/// What the connection's reader tells the supervisor; kept by both.
struct Ears {
    listener: Arc<dyn Listener>,
    subscriber: Arc<Subscriber>,
    /// Why this connection must end.
    ended: Mutex<Option<Reason>>,
    end: Notify,
    /// When a probe arrived last, in microseconds since `began`.
    probed_us: AtomicU64,
    began: Instant,
}

/// Why a connection ended; a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    Connect,
    Subscribe,
    Disconnected,
    Ping,
    Probe,
    Overflow,
    Replica,
}

impl Reason {
    pub(crate) const ALL: [Self; 7] =
        [Self::Connect, Self::Subscribe, Self::Disconnected, Self::Ping, Self::Probe, Self::Overflow, Self::Replica];

    /// The reason as a metric label.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Subscribe => "subscribe",
            Self::Disconnected => "disconnected",
            Self::Ping => "ping",
            Self::Probe => "probe",
            Self::Overflow => "overflow",
            Self::Replica => "replica",
        }
    }
}

impl Subscriber {
    /// A subscriber that is not connected yet.
    pub fn new(link: Link, metrics: Metrics) -> Arc<Self> {
        let probe_topic = link.keys().probe(NodeId::fresh());
        let recount_topic = link.keys().recount();
        Arc::new(Self {
            link,
            probe_topic,
            recount_topic,
            metrics,
            state: Mutex::default(),
            changed: Notify::new(),
            again: Notify::new(),
            live: AtomicBool::new(false),
            has_been_live: AtomicBool::new(false),
        })
    }

    /// Begins to hear, for as long as the process lives.
    ///
    /// # Panics
    /// When it has begun already.
    pub fn start(self: &Arc<Self>, listener: Arc<dyn Listener>) {
        assert!(!std::mem::replace(&mut self.lock().listening, true), "a node listens once");
        let runtime = self.link.runtime().clone();
        runtime.spawn(self.clone().supervise(listener));
    }

    /// Gives up the connection for a new one: the server at its other end is not the one to hear any more.
    pub(crate) fn connect_again(&self) {
        self.again.notify_waiters();
    }

    /// Whether everything wanted is subscribed to on a connection that answers.
    pub fn is_live(&self) -> bool {
        self.live.load(Ordering::Acquire)
    }

    /// Whether it has ever been live.
    pub fn has_been_live(&self) -> bool {
        self.has_been_live.load(Ordering::Acquire)
    }

    /// Resolves when Redis has confirmed the subscription, however long Redis is away.
    pub(super) async fn subscribe(&self, topic: &Topic) -> Result<(), BusError> {
        let name = self.link.keys().topic(topic);
        let confirmed = {
            let mut state = self.lock();
            let State { wanted, pending, .. } = &mut *state;
            let wish = wanted.entry(name.clone()).or_insert_with(|| Wish {
                topic: topic.clone(),
                wanted: true,
                stands: false,
                waiting: Vec::new(),
            });
            wish.wanted = true;
            if wish.stands {
                return Ok(());
            }
            let (confirm, confirmed) = oneshot::channel();
            wish.waiting.push(confirm);
            pending.push(name);
            confirmed
        };
        self.changed.notify_one();
        confirmed.await.map_err(|_| BusError::Unavailable)
    }

    pub(super) async fn unsubscribe(&self, topic: &Topic) {
        let name = self.link.keys().topic(topic);
        let mut state = self.lock();
        let State { wanted, pending, .. } = &mut *state;
        let Some(wish) = wanted.get_mut(&name) else { return };
        wish.wanted = false;
        pending.push(name);
        drop(state);
        self.changed.notify_one();
    }

    /// Resolves when an answer has come in behind all that was published before, however long Redis is away.
    pub(super) async fn catch_up(&self) {
        let (caught_up, waiting) = oneshot::channel();
        self.lock().catching_up.push(caught_up);
        self.changed.notify_one();
        // Never dropped unsent while the subscriber lives, which it does for as long as this borrows it.
        let _ = waiting.await;
    }

    async fn supervise(self: Arc<Self>, listener: Arc<dyn Listener>) {
        let mut ceiling = BACKOFF_MIN;
        loop {
            let was_live_for = Instant::now();
            let reason = self.hear(&listener).await;
            let was_live = self.live.swap(false, Ordering::AcqRel);
            self.metrics.subscriber_down(reason);
            for wish in self.lock().wanted.values_mut() {
                wish.stands = false;
            }
            if was_live {
                tracing::warn!(reason = reason.label(), "lost the subscription to redis, connecting again");
                listener.went_deaf();
            }
            if was_live && was_live_for.elapsed() > BACKOFF_MAX {
                ceiling = BACKOFF_MIN;
            }
            let wait = rand::rng().random_range(Duration::ZERO..=ceiling);
            tokio::time::sleep(wait).await;
            ceiling = (ceiling * 2).min(BACKOFF_MAX);
        }
    }

    /// One connection, from its beginning to its end.
    async fn hear(self: &Arc<Self>, listener: &Arc<dyn Listener>) -> Reason {
        let ears = Arc::new(Ears {
            listener: listener.clone(),
            subscriber: self.clone(),
            ended: Mutex::new(None),
            end: Notify::new(),
            probed_us: AtomicU64::new(0),
            began: Instant::now(),
        });
        let push = {
            let ears = ears.clone();
            move |push: PushInfo| -> Result<(), std::convert::Infallible> {
                ears.take(push);
                Ok(())
            }
        };
        let mut connection = match self.link.connect(AsyncConnectionConfig::new().set_push_sender(push)).await {
            Ok(connection) => connection,
            Err(error) => {
                tracing::debug!(%error, "cannot connect to redis");
                return Reason::Connect;
            }
        };
        connection.set_response_timeout(SUBSCRIBE_TIMEOUT);
        let ended = ears.clone();
        tokio::select! {
            reason = self.attend(connection, &ears) => reason,
            reason = ended.ended() => reason,
            () = self.again.notified() => Reason::Replica,
        }
    }

    async fn attend(&self, mut connection: MultiplexedConnection, ears: &Ears) -> Reason {
        let all: Vec<String> = {
            let mut state = self.lock();
            state.pending.clear();
            state.wanted.retain(|_, wish| wish.wanted);
            [&self.probe_topic, &self.recount_topic].into_iter().chain(state.wanted.keys()).cloned().collect()
        };
        let began = Instant::now();
        if let Err(error) = self.send_subscriptions(&mut connection, &all).await {
            tracing::debug!(%error, "redis refused subscriptions");
            return Reason::Subscribe;
        }
        // Those whom the last connection left waiting: nobody tells of them again.
        if self.answer_behind(&mut connection).await.is_err() {
            return Reason::Ping;
        }
        self.live.store(true, Ordering::Release);
        self.has_been_live.store(true, Ordering::Release);
        self.metrics.subscriber_live(began.elapsed());
        tracing::info!(topics = all.len() - 2, "subscribed in redis");
        ears.listener.came_back();
        let mut ping = interval(PING_INTERVAL);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut probe = interval(PROBE_INTERVAL);
        probe.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.changed.notified() => {
                    if self.send_changes(&mut connection).await.is_err() {
                        return Reason::Subscribe;
                    }
                    if self.answer_behind(&mut connection).await.is_err() {
                        return Reason::Ping;
                    }
                }
                _ = ping.tick() => {
                    let answer = timeout(PING_TIMEOUT, redis::cmd("PING").exec_async(&mut connection)).await;
                    if !matches!(answer, Ok(Ok(()))) {
                        return Reason::Ping;
                    }
                }
                _ = probe.tick() => {
                    if !self.probe(ears).await {
                        return Reason::Probe;
                    }
                }
            }
        }
    }

    /// Publishes to this node's own topic the way events go, and waits until it is heard. An event that cannot be
    /// published says nothing of the subscription: then Redis is away as a whole, and the ping decides.
    async fn probe(&self, ears: &Ears) -> bool {
        let sent_us = ears.now_us();
        let topic = self.probe_topic.clone();
        let published: Result<(), LinkError> = self
            .link
            .publish(async |mut connection| {
                redis::cmd("PUBLISH").arg(topic).arg("probe").exec_async(&mut connection).await
            })
            .await;
        if published.is_err() {
            return true;
        }
        let heard = async {
            // The reader has no waker of ours; a few looks are cheap at this pace.
            while ears.probed_us.load(Ordering::Acquire) < sent_us {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let back = timeout(PROBE_TIMEOUT, heard).await.is_ok();
        if back {
            let round_trip_us = ears.probed_us.load(Ordering::Acquire).saturating_sub(sent_us);
            self.metrics.probed(Duration::from_micros(round_trip_us));
        }
        back
    }

    async fn send_changes(&self, connection: &mut MultiplexedConnection) -> Result<(), RedisError> {
        let (mut begin, mut end) = (Vec::new(), Vec::new());
        {
            let mut state = self.lock();
            let State { wanted, pending, .. } = &mut *state;
            for name in pending.drain(..) {
                match wanted.get(&name) {
                    Some(wish) if wish.wanted && !wish.stands => begin.push(name),
                    Some(wish) if !wish.wanted => {
                        if wish.stands {
                            end.push(name.clone());
                        }
                        wanted.remove(&name);
                    }
                    _ => {}
                }
            }
        }
        for names in end.chunks(SUBSCRIBE_BATCH) {
            let mut pipeline = Pipeline::with_capacity(names.len());
            for name in names {
                pipeline.cmd("UNSUBSCRIBE").arg(name).ignore();
            }
            pipeline.exec_async(connection).await?;
        }
        self.send_subscriptions(connection, &begin).await
    }

    /// Lets those who are catching up go on behind a ping: the reader hands on what it reads in order, so all that
    /// came before the answer is delivered by then.
    async fn answer_behind(&self, connection: &mut MultiplexedConnection) -> Result<(), RedisError> {
        let waiting = std::mem::take(&mut self.lock().catching_up);
        if waiting.is_empty() {
            return Ok(());
        }
        let answer = redis::cmd("PING").exec_async(connection).await;
        if answer.is_err() {
            // They have to hear from the next connection.
            self.lock().catching_up.extend(waiting);
            return answer;
        }
        for caught_up in waiting {
            // Whoever waited may have given up.
            let _ = caught_up.send(());
        }
        Ok(())
    }

    async fn send_subscriptions(
        &self,
        connection: &mut MultiplexedConnection,
        names: &[String],
    ) -> Result<(), RedisError> {
        for names in names.chunks(SUBSCRIBE_BATCH) {
            let mut pipeline = Pipeline::with_capacity(names.len());
            for name in names {
                pipeline.cmd("SUBSCRIBE").arg(name).ignore();
            }
            pipeline.exec_async(connection).await?;
            let mut state = self.lock();
            for name in names {
                if let Some(wish) = state.wanted.get_mut(name) {
                    wish.stands = true;
                    for waiting in wish.waiting.drain(..) {
                        // Whoever waited may have given up.
                        let _ = waiting.send(());
                    }
                }
            }
        }
        self.metrics.subscribed_topics(self.lock().wanted.len());
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic under this lock leaves a map that is whole: every change to it is one call.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ears {
    /// Takes one message from the connection's reader; never waits.
    fn take(&self, push: PushInfo) {
        match push.kind {
            PushKind::Message => self.message(push.data),
            PushKind::Disconnection => self.finish(Reason::Disconnected),
            _ => {}
        }
    }

    fn message(&self, data: Vec<Value>) {
        let mut data = data.into_iter();
        let (Some(Value::BulkString(name)), Some(Value::BulkString(message))) = (data.next(), data.next()) else {
            return self.subscriber.metrics.dropped("malformed");
        };
        if name == self.subscriber.probe_topic.as_bytes() {
            return self.probed_us.store(self.now_us(), Ordering::Release);
        }
        if name == self.subscriber.recount_topic.as_bytes() {
            // An id that no app has is ignored by the listener.
            if let Ok(app) = std::str::from_utf8(&message) {
                self.listener.connections_asked(&AppId::from(app));
            }
            return;
        }
        let topic = std::str::from_utf8(&name).ok().and_then(|name| {
            self.subscriber.lock().wanted.get(name).filter(|wish| wish.wanted).map(|wish| wish.topic.clone())
        });
        // A topic that was just left.
        let Some(topic) = topic else { return };
        if !self.listener.has_room() {
            return self.finish(Reason::Overflow);
        }
        match Envelope::decode(&Bytes::from(message)) {
            Ok(envelope) => {
                self.subscriber.metrics.received();
                self.listener.deliver(&topic, envelope);
            }
            Err(error) => self.refuse(error),
        }
    }

    fn refuse(&self, error: WireError) {
        if self.subscriber.metrics.dropped_first(error.cause_label()) {
            tracing::warn!(%error, "redis delivered a message that is not ours; further ones are only counted");
        }
    }

    fn finish(&self, reason: Reason) {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(reason);
        self.end.notify_one();
    }

    async fn ended(&self) -> Reason {
        loop {
            self.end.notified().await;
            if let Some(reason) = *self.ended.lock().unwrap_or_else(PoisonError::into_inner) {
                return reason;
            }
        }
    }

    fn now_us(&self) -> u64 {
        // One more, so that a probe in the first microsecond is told from none.
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX).saturating_add(1)
    }
}
