//! The connection that a node receives events on: supervised, so that a node is never without it unnoticed.
//!
//! One task owns it. It connects, subscribes to everything that is wanted, and reports the subscriptions as in place. From
//! then on it pings, and probes the whole way round by publishing to a topic of its own as events are. What does not answer
//! in time, a refusal, or more messages than the node can take ends the connection, and the task connects again. The
//! sink then asks for the state that it may have missed.

mod reader;
mod topics;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rand::Rng;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Pipeline, PushInfo, RedisError};
use tokio::sync::{Notify, watch};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::super::{BusError, EnvelopeSink};
use crate::cluster::envelope::Topic;
use crate::cluster::node::NodeId;
use crate::cluster::redis::Link;
use crate::cluster::redis::error::Verdict;
use crate::cluster::redis::metrics::DisconnectReason;
use crate::cluster::redis::primary_state::{Generation, State as PrimaryStatus};
use crate::limits::{SUBSCRIBE_BATCH, TOPICS_MAX};
use reader::Reader;
use topics::{Subscription, Topics};

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

/// The subscriptions of a node, and the connection that carries them.
pub struct Subscriber {
    link: Link,
    probe_topic: String,
    /// Where gateways are asked to report their connections.
    recount_topic: String,
    state: Mutex<State>,
    /// Notified when topics have changed, or a caller waits to catch up.
    changed: Notify,
    /// The number of the last question to catch up that is answered.
    caught_up: watch::Sender<u64>,
    /// Whether it was logged that no more topics fit.
    is_full: AtomicBool,
}

#[derive(Default)]
struct State {
    topics: Topics,
    /// The number of the last question to catch up.
    catch_up_asked: u64,
    has_started: bool,
}

impl Subscriber {
    /// A subscriber that is not connected yet.
    pub fn new(link: Link) -> Arc<Self> {
        let probe_topic = link.keys().probe(NodeId::fresh());
        let recount_topic = link.keys().recount();
        Arc::new(Self {
            link,
            probe_topic,
            recount_topic,
            state: Mutex::default(),
            changed: Notify::new(),
            caught_up: watch::Sender::new(0),
            is_full: AtomicBool::new(false),
        })
    }

    /// Connects, and stays connected for as long as the process lives.
    ///
    /// # Panics
    /// When it was started before.
    pub fn start(self: &Arc<Self>, sink: Arc<dyn EnvelopeSink>) {
        assert!(!std::mem::replace(&mut self.lock().has_started, true), "a subscriber is started once");
        self.link.primary().will_subscribe();
        let runtime = self.link.runtime().clone();
        runtime.spawn(self.clone().supervise(sink));
    }

    /// Resolves when Redis has confirmed the subscription, however long Redis is away. Fails if the node subscribes to too
    /// many topics already, or if the topic is unsubscribed from meanwhile.
    pub(super) async fn subscribe(&self, topic: &Topic) -> Result<(), BusError> {
        let name = self.link.keys().topic(topic);
        {
            let topics = &mut self.lock().topics;
            if topics.len() >= TOPICS_MAX && !topics.contains(&name) {
                return Err(self.too_many());
            }
            topics.subscribe(&name, topic);
        }
        self.changed.notify_one();
        loop {
            let settled = match self.lock().topics.subscription(&name) {
                Subscription::Confirmed => return Ok(()),
                Subscription::GivenUp => return Err(BusError::Unavailable),
                Subscription::Waiting(settled) => {
                    let mut settled = Box::pin(settled.notified_owned());
                    settled.as_mut().enable();
                    settled
                }
            };
            settled.await;
        }
    }

    fn too_many(&self) -> BusError {
        if !self.is_full.swap(true, Ordering::Relaxed) {
            tracing::error!(
                topics = TOPICS_MAX,
                "this node subscribes to as many channels as it may; further subscriptions fail. Add gateways"
            );
        }
        BusError::Unavailable
    }

    pub(super) async fn unsubscribe(&self, topic: &Topic) {
        let name = self.link.keys().topic(topic);
        self.lock().topics.unsubscribe(&name);
        self.changed.notify_one();
    }

    /// Resolves when Redis has answered behind all that was published before, however long Redis is away.
    pub(super) async fn catch_up(&self) {
        let asked = {
            let mut state = self.lock();
            state.catch_up_asked += 1;
            state.catch_up_asked
        };
        self.changed.notify_one();
        // The sender is part of `self`.
        let _ = self.caught_up.subscribe().wait_for(|answered| *answered >= asked).await;
    }

    async fn supervise(self: Arc<Self>, sink: Arc<dyn EnvelopeSink>) {
        let mut ceiling = BACKOFF_MIN;
        loop {
            let began = Instant::now();
            let (reason, was_live) = self.stay_connected(&sink).await;
            self.link.primary().unsubscribed();
            self.link.metrics().subscriber_down(reason);
            self.lock().topics.disconnected();
            if was_live {
                tracing::warn!(reason = reason.label(), "lost the subscription to redis; connecting again");
                sink.subscriptions_lost();
            }
            if was_live && began.elapsed() > BACKOFF_MAX {
                ceiling = BACKOFF_MIN;
            }
            let wait = rand::rng().random_range(Duration::ZERO..=ceiling);
            self.back_off(wait).await;
            ceiling = (ceiling * 2).min(BACKOFF_MAX);
        }
    }

    /// Waits before the next attempt; not longer than until the server is found to accept writes.
    async fn back_off(&self, wait: Duration) {
        let primary = self.link.primary();
        if primary.state() == PrimaryStatus::Resynchronizing {
            return tokio::time::sleep(wait).await;
        }
        let _ = timeout(wait, primary.wait_for_state(|state| state == PrimaryStatus::Resynchronizing)).await;
        // While the server must not be used the probe alone connects, unless there is none.
        let refuses = |state| matches!(state, PrimaryStatus::Refusing(refusal) if refusal.ends_connections());
        let _ = timeout(BACKOFF_MAX, primary.wait_for_state(|state| !refuses(state))).await;
    }

    /// One connection, from its beginning to its end. Returns why it ended, and whether the subscriptions were in place.
    async fn stay_connected(self: &Arc<Self>, sink: &Arc<dyn EnvelopeSink>) -> (DisconnectReason, bool) {
        let reader = Reader::new(self, sink);
        let push = {
            let reader = reader.clone();
            move |push: PushInfo| -> Result<(), std::convert::Infallible> {
                reader.receive(push);
                Ok(())
            }
        };
        let connected = self.link.connect(AsyncConnectionConfig::new().set_push_sender(push)).await;
        let (mut connection, generation) = match connected {
            Ok(connected) => connected,
            Err(error) => {
                tracing::debug!(%error, "cannot connect to redis");
                return (DisconnectReason::Connect, false);
            }
        };
        connection.set_response_timeout(SUBSCRIBE_TIMEOUT);
        let mut is_live = false;
        let reason = tokio::select! {
            reason = self.attend(connection, generation, &reader, &mut is_live) => reason,
            reason = reader.ended() => reason,
            () = self.link.primary().generation_ended(generation) => DisconnectReason::Moved,
        };
        (reason, is_live)
    }

    async fn attend(
        &self,
        mut connection: MultiplexedConnection,
        generation: Generation,
        reader: &Reader,
        is_live: &mut bool,
    ) -> DisconnectReason {
        let mut all = self.lock().topics.connected();
        let topics = all.len();
        all.extend([self.probe_topic.clone(), self.recount_topic.clone()]);
        let began = Instant::now();
        if let Err(error) = self.send_subscriptions(&mut connection, &all).await {
            return self.subscriptions_failed(error, generation);
        }
        // For callers that have waited since the last connection.
        if let Err(error) = self.answer_behind(&mut connection).await {
            return self.ping_failed(error, generation);
        }
        *is_live = true;
        self.link.primary().subscribed();
        self.link.metrics().subscriber_live(began.elapsed());
        tracing::info!(topics, "subscribed in redis");
        drop(all);
        reader.sink.resynchronize();
        let mut ping = interval(PING_INTERVAL);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut probe = interval(PROBE_INTERVAL);
        probe.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.changed.notified() => {
                    if let Err(error) = self.send_changes(&mut connection).await {
                        return self.subscriptions_failed(error, generation);
                    }
                    if let Err(error) = self.answer_behind(&mut connection).await {
                        return self.ping_failed(error, generation);
                    }
                }
                _ = ping.tick() => match timeout(PING_TIMEOUT, answer(&mut connection)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => return self.ping_failed(error, generation),
                    Err(_) => return DisconnectReason::Ping,
                },
                _ = probe.tick() => {
                    if !self.probe(reader).await {
                        return DisconnectReason::Probe;
                    }
                }
            }
        }
    }

    fn subscriptions_failed(&self, error: RedisError, generation: Generation) -> DisconnectReason {
        let error = self.link.sort(error.into(), generation);
        if error.is_answer() {
            tracing::warn!(%error, cause = ?std::error::Error::source(&error), "redis refused subscriptions; retrying");
        }
        DisconnectReason::Subscribe
    }

    fn ping_failed(&self, error: RedisError, generation: Generation) -> DisconnectReason {
        let error = self.link.sort(error.into(), generation);
        tracing::debug!(%error, "redis did not answer a ping");
        DisconnectReason::Ping
    }

    /// Publishes to this node's own topic the way events go, and waits until it arrives. If it cannot be published that says
    /// nothing of the subscription: then Redis is away as a whole, and the ping decides.
    async fn probe(&self, reader: &Reader) -> bool {
        let sent_us = reader.now_us();
        let mut command = redis::cmd("PUBLISH");
        command.arg(&self.probe_topic).arg("probe");
        if self.link.publish_uncounted::<()>(&command).await.is_err() {
            return true;
        }
        let arrived = async {
            // The reader has no waker of ours; a few looks are cheap at this pace.
            while reader.probed_us() < sent_us {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let is_back = timeout(PROBE_TIMEOUT, arrived).await.is_ok();
        if is_back {
            self.link.metrics().probed(Duration::from_micros(reader.probed_us().saturating_sub(sent_us)));
        }
        is_back
    }

    async fn send_changes(&self, connection: &mut MultiplexedConnection) -> Result<(), RedisError> {
        loop {
            let changes = {
                let topics = &mut self.lock().topics;
                if !topics.has_changes() {
                    return Ok(());
                }
                topics.take_changes(SUBSCRIBE_BATCH)
            };
            if !changes.unsubscribe.is_empty() {
                let mut pipeline = Pipeline::with_capacity(changes.unsubscribe.len());
                for name in &changes.unsubscribe {
                    pipeline.cmd("UNSUBSCRIBE").arg(name).ignore();
                }
                pipeline.exec_async(connection).await?;
            }
            self.send_subscriptions(connection, &changes.subscribe).await?;
        }
    }

    /// Resolves calls of [`Subscriber::catch_up`] with a ping. The reader delivers in order, so all messages before the
    /// answer are delivered by then.
    async fn answer_behind(&self, connection: &mut MultiplexedConnection) -> Result<(), RedisError> {
        let asked = self.lock().catch_up_asked;
        if *self.caught_up.borrow() < asked {
            answer(connection).await?;
            self.caught_up.send_replace(asked);
        }
        Ok(())
    }

    async fn send_subscriptions(
        &self,
        connection: &mut MultiplexedConnection,
        names: &[String],
    ) -> Result<(), RedisError> {
        for names in names.chunks(SUBSCRIBE_BATCH) {
            // One command each, since a reply per channel to one command confuses clients.
            let mut pipeline = Pipeline::with_capacity(names.len());
            for name in names {
                pipeline.cmd("SUBSCRIBE").arg(name).ignore();
            }
            pipeline.exec_async(connection).await?;
            self.lock().topics.confirmed(names);
        }
        self.link.metrics().subscribed_topics(self.lock().topics.len());
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic under this lock leaves maps that are whole: every change to one is a single call.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits for an answer, of whatever kind: a server that cannot save its data answers `PING` with an error.
async fn answer(connection: &mut MultiplexedConnection) -> Result<(), RedisError> {
    match redis::cmd("PING").exec_async(connection).await {
        Err(error) if matches!(Verdict::of(&error), Verdict::Lost | Verdict::Loading) => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
