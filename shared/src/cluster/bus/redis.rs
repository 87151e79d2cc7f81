//! The bus of a cluster, on Redis `PUBLISH` and `SUBSCRIBE`, with one topic per channel.
//!
//! Events are published on a dedicated connection. The [`subscriber`] receives events on another one.

pub mod subscriber;

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::BoxFuture;
use redis::aio::MultiplexedConnection;
use redis::{Pipeline, RedisResult, ScriptInvocation};

use super::{Bus, BusError, EnvelopeSink, Message};
use crate::cluster::envelope::{Body, Topic};
use crate::cluster::node::NodeId;
use crate::cluster::redis::{Command, Link, scripts};
use subscriber::Subscriber;

/// One node's access to the bus of a cluster.
pub struct RedisBus {
    link: Link,
    subscriber: Arc<Subscriber>,
    /// Whether an error reply has been logged.
    has_logged_error: AtomicBool,
    /// A key that does not exist. Deleting it is a write, which only a master accepts.
    absent_key: String,
}

impl RedisBus {
    /// Creates a bus that only publishes until [`RedisBus::deliver_to`] is called.
    pub fn new(link: Link, subscriber: Arc<Subscriber>) -> Arc<Self> {
        let absent_key = link.keys().write_probe(NodeId::fresh());
        Arc::new(Self { link, subscriber, has_logged_error: AtomicBool::new(false), absent_key })
    }

    /// Starts the subscriber, which delivers the envelopes of this node to `sink`.
    ///
    /// # Panics
    /// If the node already has a sink.
    pub fn deliver_to(&self, sink: Arc<dyn EnvelopeSink>) {
        self.subscriber.start(sink);
    }

    /// Publishes messages, unless the server rejects writes. A demoted master accepts `PUBLISH`, but nodes that
    /// followed the failover would not receive the event.
    async fn publish_all(&self, messages: Vec<Message>) -> Result<(), BusError> {
        if !self.link.accepts_events().await {
            self.link.metrics().failed("refused");
            return Err(BusError::Unavailable);
        }
        let outgoing = Outgoing::new(&self.link, messages, &self.absent_key);
        match self.link.publish("publish", &outgoing).await {
            Ok(()) => Ok(()),
            Err(error) => {
                if error.is_command_error() && !self.has_logged_error.swap(true, Ordering::Relaxed) {
                    let cause = error.source().map(ToString::to_string).unwrap_or_default();
                    tracing::warn!(
                        %error,
                        cause,
                        "redis rejected an event; the publish fails (further errors are only counted)"
                    );
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

/// The command that publishes all messages of a call, or none.
enum Outgoing {
    /// Publishes with a pipeline. Several events form a transaction, which Redis runs once its last command has
    /// arrived.
    Commands(Box<Pipeline>),
    /// Publishes with a script, which also caches events or enqueues webhook events.
    Script(ScriptInvocation<'static>),
}

impl Outgoing {
    /// Builds the command. A pipeline ends with a write, which a replica rejects. An accepted event therefore was
    /// published by a master, and not by a replica that nodes no longer subscribe to.
    fn new(link: &Link, messages: Vec<Message>, absent_key: &str) -> Self {
        if messages.iter().any(|message| message.cache_for.is_some()) {
            return Self::cached(link, &messages);
        }
        if messages.iter().any(|message| message.webhook.is_some()) {
            return Self::with_webhooks(link, &messages);
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

    fn with_webhooks(link: &Link, messages: &[Message]) -> Self {
        let mut call = scripts::publish_client_events().prepare_invoke();
        for Message { topic, envelope, webhook, .. } in messages {
            call.arg(link.keys().topic(topic)).arg(envelope.encode());
            let fields = webhook.as_ref().map(|occurrence| occurrence.fields(&topic.channel)).unwrap_or_default();
            call.arg(2 * fields.len());
            if fields.is_empty() {
                continue;
            }
            let partition = link.keys().partition(topic);
            call.key(link.keys().webhook_queue(&topic.app, partition)).key(link.keys().webhook_ready_apps(partition));
            call.arg(topic.app.as_str());
            for (name, value) in fields {
                call.arg(name).arg(value);
            }
        }
        Self::Script(call)
    }

    fn cached(link: &Link, messages: &[Message]) -> Self {
        let mut call = scripts::publish_cached().prepare_invoke();
        for message in messages {
            let channel = link.keys().channel(&message.topic);
            let cache_ms = message.cache_for.map_or(0, |duration| duration.as_millis());
            call.arg(channel.topic());
            let except = match (&message.envelope.body, cache_ms) {
                (Body::Event { frame, except, .. }, 1..) => {
                    call.key(channel.meta()).key(channel.cached_event()).arg(frame.as_ref());
                    except.map_or_else(|| "-".to_owned(), |except| except.to_string())
                }
                _ => {
                    call.arg(message.envelope.encode());
                    "-".to_owned()
                }
            };
            call.arg(cache_ms.to_string()).arg(message.envelope.published_at_us).arg(except);
        }
        Self::Script(call)
    }
}

impl Command<()> for Outgoing {
    async fn send(&self, connection: &mut MultiplexedConnection) -> RedisResult<()> {
        match self {
            Self::Commands(pipeline) => pipeline.exec_async(connection).await,
            Self::Script(call) => call.invoke_async(connection).await,
        }
    }
}

#[cfg(test)]
mod tests;
