//! The subscriber of a node: supervises the connection on which the node receives events.
//!
//! One task owns the connection. It subscribes to all topics and reports the subscriptions as complete. Then it sends
//! pings, and probes the path of events by publishing to a topic of this node.
//!
//! A timeout, an error reply, or more messages than the node has room for end the connection, and the task reconnects.
//! The sink then resynchronizes.

mod reader;
mod topics;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Pipeline, PushInfo, RedisError};
use tokio::sync::{Notify, watch};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::super::{BusError, EnvelopeSink};
use crate::backoff::Backoff;
use crate::cluster::envelope::Topic;
use crate::cluster::node::NodeId;
use crate::cluster::redis::error::Verdict;
use crate::cluster::redis::metrics::DisconnectReason;
use crate::cluster::redis::primary_state::Generation;
use crate::cluster::redis::{Link, State as PrimaryStatus};
use crate::limits::{SUBSCRIBE_BATCH, TOPICS_MAX};
use crate::sync::lock;
use reader::Reader;
use topics::{Subscription, Topics};

const PING_INTERVAL: Duration = Duration::from_secs(5);
const PING_TIMEOUT: Duration = Duration::from_secs(2);

/// The interval of probes. A probe must arrive within [`PROBE_TIMEOUT`].
const PROBE_INTERVAL: Duration = Duration::from_secs(5);
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// The bounds of the wait before the next connection.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// The timeout of a batch of subscriptions.
const SUBSCRIBE_TIMEOUT: Duration = Duration::from_secs(5);

/// The subscriptions of a node and the connection for them.
pub struct Subscriber {
    link: Link,
    probe_topic: String,
    /// The topic on which gateways receive requests to report their connections.
    recount_topic: String,
    state: Mutex<State>,
    /// Notified when topics have changed, or when a call of `catch_up` waits.
    changed: Notify,
    /// The number of the last call of `catch_up` that is resolved.
    caught_up: watch::Sender<u64>,
    /// Whether the limit of topics has been logged.
    is_full: AtomicBool,
}

#[derive(Default)]
struct State {
    topics: Topics,
    /// The number of the last call of `catch_up`.
    catch_up_asked: u64,
    has_started: bool,
}

impl Subscriber {
    /// Creates a subscriber without a connection.
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

    /// Starts the task that connects, and reconnects until the process ends.
    ///
    /// # Panics
    /// If it was started before.
    pub fn start(self: &Arc<Self>, sink: Arc<dyn EnvelopeSink>) {
        assert!(!std::mem::replace(&mut self.lock().has_started, true), "a subscriber is started once");
        self.link.primary().will_subscribe();
        let runtime = self.link.runtime().clone();
        runtime.spawn(self.clone().supervise(sink));
    }

    /// Subscribes to a topic and waits until Redis has confirmed it, without a timeout. Fails if the limit of topics is
    /// reached, or if the topic is unsubscribed in the meantime.
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
                Subscription::Canceled => return Err(BusError::Unavailable),
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
                "subscription limit of this node reached; new channels are rejected. Add gateways"
            );
        }
        BusError::Unavailable
    }

    pub(super) async fn unsubscribe(&self, topic: &Topic) {
        let name = self.link.keys().topic(topic);
        self.lock().topics.unsubscribe(&name);
        self.changed.notify_one();
    }

    /// Resolves when the sink has received all messages that were published before the call. There is no timeout.
    pub(super) async fn catch_up(&self) {
        let asked = {
            let mut state = self.lock();
            state.catch_up_asked += 1;
            state.catch_up_asked
        };
        self.changed.notify_one();
        // The sender is part of `self`.
        let _ = self.caught_up.subscribe().wait_for(|resolved| *resolved >= asked).await;
    }

    async fn supervise(self: Arc<Self>, sink: Arc<dyn EnvelopeSink>) {
        let mut backoff = Backoff::new(BACKOFF_MIN, BACKOFF_MAX);
        loop {
            let began = Instant::now();
            let (reason, was_live) = self.stay_connected(&sink).await;
            self.link.primary().unsubscribed();
            self.link.metrics().subscriber_down(reason);
            self.lock().topics.disconnected();
            if was_live {
                tracing::warn!(reason = reason.label(), "lost the subscriber connection to redis; reconnecting");
                sink.subscriptions_lost();
            }
            if was_live && began.elapsed() > BACKOFF_MAX {
                backoff.reset();
            }
            self.back_off(backoff.next_wait()).await;
        }
    }

    /// Waits before the next connection. The wait ends early if the server accepts writes again.
    async fn back_off(&self, wait: Duration) {
        let primary = self.link.primary();
        if primary.state() == PrimaryStatus::Resynchronizing {
            return tokio::time::sleep(wait).await;
        }
        let _ = timeout(wait, primary.wait_for_state(|state| state == PrimaryStatus::Resynchronizing)).await;
        // Only the probe connects while the server must not be used. The timeout is for processes without a probe.
        let refuses = |state| matches!(state, PrimaryStatus::Refusing(refusal) if refusal.ends_connections());
        let _ = timeout(BACKOFF_MAX, primary.wait_for_state(|state| !refuses(state))).await;
    }

    /// Connects and serves the connection until it ends. Returns the reason, and whether all subscriptions were
    /// confirmed.
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
            reason = self.serve(connection, generation, &reader, &mut is_live) => reason,
            reason = reader.ended() => reason,
            () = self.link.primary().generation_ended(generation) => DisconnectReason::Moved,
        };
        (reason, is_live)
    }

    async fn serve(
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
        // Resolves calls that have waited since the last connection.
        if let Err(error) = self.resolve_catch_up(&mut connection).await {
            return self.ping_failed(error, generation);
        }
        *is_live = true;
        self.link.primary().subscribed();
        self.link.metrics().subscriber_live(began.elapsed());
        tracing::info!(topics, "subscribed to all topics in redis");
        drop(all);
        reader.sink.resynchronize();
        let mut pings = interval(PING_INTERVAL);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut probe = interval(PROBE_INTERVAL);
        probe.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.changed.notified() => {
                    if let Err(error) = self.send_changes(&mut connection).await {
                        return self.subscriptions_failed(error, generation);
                    }
                    if let Err(error) = self.resolve_catch_up(&mut connection).await {
                        return self.ping_failed(error, generation);
                    }
                }
                _ = pings.tick() => match timeout(PING_TIMEOUT, ping(&mut connection)).await {
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
        let error = self.link.classify(error.into(), generation);
        if error.is_command_error() {
            let cause = std::error::Error::source(&error);
            tracing::warn!(%error, ?cause, "redis rejected subscriptions; retrying");
        }
        DisconnectReason::Subscribe
    }

    fn ping_failed(&self, error: RedisError, generation: Generation) -> DisconnectReason {
        let error = self.link.classify(error.into(), generation);
        tracing::debug!(%error, "redis did not reply to a ping; reconnecting");
        DisconnectReason::Ping
    }

    /// Publishes a probe to the topic of this node, and waits until it arrives. Returns true if it cannot be published,
    /// because that is no fault of the subscription. The next ping then finds out whether Redis is reachable.
    async fn probe(&self, reader: &Reader) -> bool {
        let sent_us = reader.now_us();
        let mut command = redis::cmd("PUBLISH");
        command.arg(&self.probe_topic).arg("probe");
        if self.link.publish_uncounted::<()>(&command).await.is_err() {
            return true;
        }
        let arrived = async {
            // Polling is cheap because a probe runs every few seconds.
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

    /// Resolves calls of [`Subscriber::catch_up`] after a ping. The reader receives in order, and has therefore
    /// delivered all earlier messages when the reply arrives.
    async fn resolve_catch_up(&self, connection: &mut MultiplexedConnection) -> Result<(), RedisError> {
        let asked = self.lock().catch_up_asked;
        if *self.caught_up.borrow() < asked {
            ping(connection).await?;
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
            // One command for each topic, because the client expects one reply to each command.
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
        lock(&self.state)
    }
}

/// Sends a ping and accepts any reply. A server that cannot save its data replies with an error.
async fn ping(connection: &mut MultiplexedConnection) -> Result<(), RedisError> {
    match redis::cmd("PING").exec_async(connection).await {
        Err(error) if matches!(Verdict::of(&error), Verdict::Lost | Verdict::Loading) => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
