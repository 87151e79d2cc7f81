//! The bus of a cluster: Redis publish and subscribe, one topic per channel.
//!
//! Events go out on a connection of their own; what comes in is read by the supervised [`subscriber`].

pub mod subscriber;

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use futures_util::future::BoxFuture;
use redis::aio::MultiplexedConnection;
use redis::{Pipeline, RedisError, Script};

use super::{Bus, BusError, Listener, Message};
use crate::cluster::envelope::{Body, Topic};
use crate::cluster::node::NodeId;
use crate::cluster::redis::metrics::Metrics;
use crate::cluster::redis::{Link, scripts};
use subscriber::Subscriber;

/// One node's place on the bus of a cluster.
pub struct RedisBus {
    link: Link,
    subscriber: Arc<Subscriber>,
    metrics: Metrics,
    /// Whether a refusal has been logged.
    complained: AtomicBool,
    /// A key that does not exist. To delete it is a write, which only a master accepts.
    absent_key: String,
}

impl RedisBus {
    /// A place that only publishes until [`RedisBus::listen`] is called.
    pub fn new(link: Link, subscriber: Arc<Subscriber>, metrics: Metrics) -> Arc<Self> {
        let absent_key = link.keys().write_probe(NodeId::fresh());
        Arc::new(Self { link, subscriber, metrics, complained: AtomicBool::new(false), absent_key })
    }

    /// Says where this node's envelopes go, and begins to hear.
    ///
    /// # Panics
    /// When the node has a listener already.
    pub fn listen(&self, listener: Arc<dyn Listener>) {
        self.subscriber.start(listener);
    }

    /// Publishes nothing while the server refuses writes, although `PUBLISH` is none: a demoted master would answer it, and
    /// nodes that followed the failover would not receive the event.
    async fn publish_all(&self, messages: Vec<Message>) -> Result<(), BusError> {
        if !self.link.accepts_events().await {
            self.metrics.failed("refused");
            return Err(BusError::Unavailable);
        }
        let outgoing = Outgoing::new(&self.link, messages, &self.absent_key);
        let began = Instant::now();
        match self.link.publish(async |connection| outgoing.send(connection).await).await {
            Ok(()) => {
                self.metrics.answered("publish", began.elapsed());
                Ok(())
            }
            Err(error) => {
                self.metrics.failed(error.cause_label());
                if error.is_answer() && !self.complained.swap(true, Ordering::Relaxed) {
                    let cause = error.source().map(ToString::to_string).unwrap_or_default();
                    tracing::warn!(%error, cause, "events were refused; further refusals are only counted");
                }
                Err(BusError::Unavailable)
            }
        }
    }
}

impl Bus for RedisBus {
    fn publish(&self, messages: Vec<Message>) -> BoxFuture<'_, Result<(), BusError>> {
        Box::pin(self.publish_all(messages))
    }

    fn subscribe<'a>(&'a self, topic: &'a Topic) -> BoxFuture<'a, Result<(), BusError>> {
        Box::pin(self.subscriber.subscribe(topic))
    }

    fn unsubscribe<'a>(&'a self, topic: &'a Topic) -> BoxFuture<'a, ()> {
        Box::pin(self.subscriber.unsubscribe(topic))
    }

    fn catch_up(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.subscriber.catch_up())
    }
}

/// Messages in the form in which Redis takes them: all or none.
enum Outgoing {
    /// For several events a transaction: Redis runs it when its last command has arrived. One needs none.
    Commands(Box<Pipeline>),
    /// Some go to webhooks too: a script publishes and appends in one step.
    Told { keys: Vec<String>, arguments: Vec<Vec<u8>> },
    /// Some are kept: a script keeps and publishes in one step.
    Kept { keys: Vec<String>, arguments: Vec<Vec<u8>> },
}

impl Outgoing {
    /// A replica accepts `PUBLISH`, but nodes that followed a failover do not receive the event. A replica refuses the write
    /// that follows it. So an event is accepted only if its server was a master after it was published.
    fn new(link: &Link, messages: Vec<Message>, absent_key: &str) -> Self {
        if messages.iter().any(|message| message.keep.is_some()) {
            return Self::kept(link, &messages);
        }
        if messages.iter().any(|message| message.webhook.is_some()) {
            return Self::told(link, &messages);
        }
        let mut encoded = messages.iter().map(|message| (link.keys().topic(&message.topic), message.envelope.encode()));
        if messages.len() == 1
            && let Some((topic, message)) = encoded.next()
        {
            let mut pipeline = Pipeline::with_capacity(2);
            pipeline.cmd("PUBLISH").arg(topic).arg(message).ignore();
            pipeline.cmd("DEL").arg(absent_key).ignore();
            return Self::Commands(Box::new(pipeline));
        }
        let mut pipeline = Pipeline::with_capacity(messages.len());
        pipeline.atomic();
        for (topic, message) in encoded {
            pipeline.cmd("PUBLISH").arg(topic).arg(message).ignore();
        }
        pipeline.cmd("DEL").arg(absent_key).ignore();
        Self::Commands(Box::new(pipeline))
    }

    fn told(link: &Link, messages: &[Message]) -> Self {
        let (mut keys, mut arguments) = (Vec::new(), Vec::new());
        for Message { topic, envelope, webhook, .. } in messages {
            arguments.push(link.keys().topic(topic).into_bytes());
            arguments.push(envelope.encode());
            let fields = webhook.as_ref().map(|occurrence| occurrence.fields(&topic.channel)).unwrap_or_default();
            arguments.push((2 * fields.len()).to_string().into_bytes());
            if fields.is_empty() {
                continue;
            }
            let partition = link.keys().partition(topic);
            keys.extend([link.keys().webhook_queue(&topic.app, partition), link.keys().webhook_ready_apps(partition)]);
            arguments.push(topic.app.as_str().as_bytes().to_vec());
            for (name, value) in fields {
                arguments.extend([name.as_bytes().to_vec(), value.into_bytes()]);
            }
        }
        Self::Told { keys, arguments }
    }

    fn kept(link: &Link, messages: &[Message]) -> Self {
        let (mut keys, mut arguments) = (Vec::new(), Vec::new());
        for message in messages {
            let channel = link.keys().channel(&message.topic);
            let keep_ms = message.keep.map_or(0, |keep| keep.as_millis());
            arguments.push(channel.topic().into_bytes());
            let (text, except) = match (&message.envelope.body, keep_ms) {
                (Body::Event { frame, except, .. }, 1..) => {
                    keys.extend([channel.meta(), channel.kept()]);
                    (frame.to_vec(), except.map_or_else(|| "-".to_owned(), |except| except.to_string()))
                }
                _ => (message.envelope.encode(), "-".to_owned()),
            };
            arguments.push(text);
            arguments.push(keep_ms.to_string().into_bytes());
            arguments.push(message.envelope.published_at_us.to_string().into_bytes());
            arguments.push(except.into_bytes());
        }
        Self::Kept { keys, arguments }
    }

    async fn send(self, mut connection: MultiplexedConnection) -> Result<(), RedisError> {
        match self {
            Self::Commands(pipeline) => pipeline.exec_async(&mut connection).await,
            Self::Told { keys, arguments } => {
                invoke(scripts::publish_client_events(), keys, arguments, &mut connection).await
            }
            Self::Kept { keys, arguments } => invoke(scripts::publish_cached(), keys, arguments, &mut connection).await,
        }
    }
}

async fn invoke(
    script: &Script,
    keys: Vec<String>,
    arguments: Vec<Vec<u8>>,
    connection: &mut MultiplexedConnection,
) -> Result<(), RedisError> {
    let mut call = script.prepare_invoke();
    for key in keys {
        call.key(key);
    }
    for argument in arguments {
        call.arg(argument);
    }
    call.invoke_async(connection).await
}

#[cfg(test)]
mod tests;
