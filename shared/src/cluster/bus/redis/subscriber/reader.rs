//! The reader of the subscriber's connection: delivers pushes from Redis to the sink, in order and without a queue.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use bytes::Bytes;
use redis::{PushInfo, PushKind, Value};
use tokio::sync::Notify;

use super::Subscriber;
use crate::app::AppId;
use crate::cluster::bus::EnvelopeSink;
use crate::cluster::envelope::Envelope;
use crate::cluster::envelope::wire::EnvelopeError;
use crate::cluster::redis::metrics::DisconnectReason;
use crate::sync::lock;

/// The state that the reader of a connection shares with the subscriber.
pub(super) struct Reader {
    pub(super) sink: Arc<dyn EnvelopeSink>,
    subscriber: Arc<Subscriber>,
    /// The reason why the connection must end.
    ended: Mutex<Option<DisconnectReason>>,
    end: Notify,
    /// The time at which the last probe arrived, in microseconds since `began`.
    probed_us: AtomicU64,
    began: Instant,
}

impl Reader {
    pub(super) fn new(subscriber: &Arc<Subscriber>, sink: &Arc<dyn EnvelopeSink>) -> Arc<Self> {
        Arc::new(Self {
            sink: sink.clone(),
            subscriber: subscriber.clone(),
            ended: Mutex::new(None),
            end: Notify::new(),
            probed_us: AtomicU64::new(0),
            began: Instant::now(),
        })
    }

    /// Receives one push from the connection without blocking.
    pub(super) fn receive(&self, push: PushInfo) {
        match push.kind {
            PushKind::Message => self.message(push.data),
            PushKind::Disconnection => self.finish(DisconnectReason::Disconnected),
            _ => {}
        }
    }

    fn message(&self, data: Vec<Value>) {
        let mut data = data.into_iter();
        let (Some(Value::BulkString(name)), Some(Value::BulkString(message))) = (data.next(), data.next()) else {
            return self.subscriber.link.metrics().dropped("malformed");
        };
        if name == self.subscriber.probe_topic.as_bytes() {
            return self.probed_us.store(self.now_us(), Ordering::Release);
        }
        if name == self.subscriber.recount_topic.as_bytes() {
            // The sink ignores unknown ids.
            if let Ok(app) = std::str::from_utf8(&message) {
                self.sink.report_connections(&AppId::from(app));
            }
            return;
        }
        let topic = std::str::from_utf8(&name).ok().and_then(|name| self.subscriber.lock().topics.subscribed(name));
        // The topic may have been unsubscribed a moment ago.
        let Some(topic) = topic else { return };
        if !self.sink.has_room() {
            return self.finish(DisconnectReason::Overflow);
        }
        match Envelope::decode(&Bytes::from(message)) {
            Ok(envelope) => {
                self.subscriber.link.metrics().received();
                self.sink.deliver(&topic, envelope);
            }
            Err(error) => self.count_dropped(error),
        }
    }

    fn count_dropped(&self, error: EnvelopeError) {
        if self.subscriber.link.metrics().dropped_first(error.cause_label()) {
            tracing::warn!(
                %error,
                "dropped a message from redis that cannot be decoded (further ones are only counted)"
            );
        }
    }

    fn finish(&self, reason: DisconnectReason) {
        lock(&self.ended).get_or_insert(reason);
        self.end.notify_one();
    }

    /// Resolves when the connection has ended, or must end.
    pub(super) async fn ended(&self) -> DisconnectReason {
        loop {
            self.end.notified().await;
            if let Some(reason) = *lock(&self.ended) {
                return reason;
            }
        }
    }

    /// Returns the time at which the last probe arrived; 0 for none.
    pub(super) fn probed_us(&self) -> u64 {
        self.probed_us.load(Ordering::Acquire)
    }

    /// Returns the microseconds since the connection was made, at least one.
    pub(super) fn now_us(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX).saturating_add(1)
    }
}
