//! Whether a role that stands on Redis is ready.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use super::Link;
use super::link::LinkError;
use super::metrics::Metrics;
use crate::admin::Health;
use crate::bus::redis::subscriber::Subscriber;

/// How often a role that has nothing else to say asks whether Redis is there.
const PING_INTERVAL: Duration = Duration::from_secs(5);

/// The same while it is not.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// The state of a role's connections to Redis, on top of what the role says of itself.
///
/// A node is not ready before it stood in the cluster for the first time, and when it alone has lost touch. When Redis
/// is away as a whole every node stays ready: taking all of them out would turn a blip into a herd.
pub struct RedisHealth {
    link: Link,
    metrics: Metrics,
    /// `None` for a role that hears nothing.
    subscriber: Option<Arc<Subscriber>>,
    /// `None` for a role that has nothing to add.
    role: Option<Arc<dyn Health>>,
}

impl RedisHealth {
    /// The health of a role that stands on `link`.
    pub fn new(
        link: Link,
        metrics: Metrics,
        subscriber: Option<Arc<Subscriber>>,
        role: Option<Arc<dyn Health>>,
    ) -> Arc<Self> {
        Arc::new(Self { link, metrics, subscriber, role })
    }

    /// Asks Redis now and then whether it is there, on the way that events take; says when that changes.
    pub async fn keep_asking(&self) -> Infallible {
        let (mut answers, mut was_master) = (None, true);
        loop {
            let ping = self.ask_for_master().await;
            match &ping {
                Ok(is_master) => {
                    self.metrics.up(true);
                    if was_master && !is_master {
                        tracing::warn!(
                            "redis is a replica now; connecting again, to whatever the address means by now"
                        );
                        self.connect_again().await;
                    }
                    was_master = *is_master;
                    if answers != Some(true) {
                        tracing::info!("redis answers");
                    }
                }
                Err(error) => {
                    self.metrics.failed(error.cause_label());
                    if answers != Some(false) {
                        let cause = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
                        tracing::warn!(%error, cause, "redis does not answer; trying until it does");
                    }
                }
            }
            answers = Some(ping.is_ok());
            tokio::time::sleep(if ping.is_ok() { PING_INTERVAL } else { RETRY_INTERVAL }).await;
        }
    }
}

impl RedisHealth {
    /// Whether the server at the other end takes writes. It publishes all the same when it does not, to those alone that
    /// hear it, while others may have followed a failover already.
    async fn ask_for_master(&self) -> Result<bool, LinkError> {
        let role = self.link.publish(async |mut connection| {
            let role: Vec<redis::Value> = redis::cmd("ROLE").query_async(&mut connection).await?;
            Ok(role.first().is_none_or(|role| *role == redis::Value::BulkString(b"master".to_vec())))
        });
        match role.await {
            // Not everyone may ask; that is an answer too.
            Err(error) if error.is_answer() => Ok(true),
            answer => answer,
        }
    }

    async fn connect_again(&self) {
        self.link.forget_publishing().await;
        if let Some(subscriber) = &self.subscriber {
            subscriber.connect_again();
        }
    }
}

impl Health for RedisHealth {
    fn live(&self) -> Result<(), String> {
        self.role.as_ref().map_or(Ok(()), |role| role.live())
    }

    fn ready(&self) -> Result<(), String> {
        if let Some(role) = &self.role {
            role.ready()?;
        }
        if !self.link.has_answered() {
            return Err("redis has not answered yet".into());
        }
        let Some(subscriber) = &self.subscriber else { return Ok(()) };
        if subscriber.is_live() {
            return Ok(());
        }
        if !subscriber.has_been_live() {
            return Err("not subscribed in redis yet".into());
        }
        if self.link.answers() {
            return Err("the subscription in redis is down although redis answers".into());
        }
        Ok(())
    }
}
