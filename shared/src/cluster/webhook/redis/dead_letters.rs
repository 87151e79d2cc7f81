//! The dead letters in Redis: listed, replayed and purged by `carillon webhooks`.

use redis::Value;

use super::{StreamEntries, event_of, from_value, queues_error};
use crate::app::{AppId, Label};
use crate::cluster::redis::Link;
use crate::cluster::webhook::event::{Fields, StreamId, WebhookEvent};
use crate::cluster::webhook::queues::QueueError;

/// Fields of a dead letter in addition to those of its event.
pub(super) const ATTEMPTS: &str = "tries";
pub(super) const ERROR: &str = "why";

/// The number of letters in one read.
const PAGE: usize = 1000;

/// An event that an endpoint did not accept in time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// The partition of its stream.
    pub partition: u32,
    /// Its id in the stream, which contains the time of the last attempt.
    pub stream_id: StreamId,
    /// The label of the endpoint.
    pub endpoint: Label,
    /// The event. Its stream id is the one of the letter.
    pub event: WebhookEvent,
    /// The number of requests.
    pub attempts: u32,
    /// The error of the last request.
    pub error: String,
}

/// The dead letters of one app.
pub struct DeadLetters {
    link: Link,
    app: AppId,
}

impl DeadLetters {
    /// Creates access to the dead letters of `app`.
    pub fn new(link: Link, app: AppId) -> Self {
        Self { link, app }
    }

    /// Returns all letters. The oldest of each partition is first.
    ///
    /// # Errors
    /// [`QueueError`].
    pub async fn list(&self) -> Result<Vec<DeadLetter>, QueueError> {
        let mut all = Vec::new();
        for partition in 0..self.link.keys().partitions() {
            let mut from = "-".to_owned();
            loop {
                let page = self.page(partition, &from).await?;
                let Some((last, _)) = page.last() else { break };
                from = format!("({last}");
                let letters = page
                    .into_iter()
                    .filter_map(|(id, fields)| letter_of(&self.app, partition, StreamId::new(id), fields));
                all.extend(letters);
            }
        }
        Ok(all)
    }

    /// Queues the event for an endpoint again, with the same id, and removes the letter.
    ///
    /// # Errors
    /// [`QueueError`].
    pub async fn replay(&self, letter: &DeadLetter, endpoint: &Label) -> Result<(), QueueError> {
        let keys = self.link.keys();
        let mut pipeline = redis::pipe();
        pipeline.atomic();
        pipeline.cmd("XADD").arg(keys.webhook_queue(&self.app, letter.partition)).arg("*");
        for (name, value) in letter.event.fields_for(endpoint) {
            pipeline.arg(name).arg(value);
        }
        pipeline.ignore();
        pipeline.cmd("SADD").arg(keys.webhook_ready_apps(letter.partition)).arg(self.app.as_str()).ignore();
        pipeline
            .cmd("XDEL")
            .arg(keys.webhook_dead_letters(&self.app, letter.partition))
            .arg(letter.stream_id.as_str())
            .ignore();
        self.link.run("webhook_replay", pipeline).await.map_err(|error| queues_error(&error))
    }

    /// Removes a letter.
    ///
    /// # Errors
    /// [`QueueError`].
    pub async fn purge(&self, letter: &DeadLetter) -> Result<(), QueueError> {
        let mut command = redis::cmd("XDEL");
        command.arg(self.link.keys().webhook_dead_letters(&self.app, letter.partition)).arg(letter.stream_id.as_str());
        self.link.run("webhook_purge", command).await.map_err(|error| queues_error(&error))
    }

    async fn page(&self, partition: u32, from: &str) -> Result<StreamEntries, QueueError> {
        let mut command = redis::cmd("XRANGE");
        command
            .arg(self.link.keys().webhook_dead_letters(&self.app, partition))
            .arg(from)
            .arg("+")
            .arg("COUNT")
            .arg(PAGE);
        self.link.run("webhook_list", command).await.map_err(|error| queues_error(&error))
    }
}

/// Parses a letter. Returns `None` for an invalid one.
fn letter_of(app: &AppId, partition: u32, stream_id: StreamId, fields: Option<Vec<Value>>) -> Option<DeadLetter> {
    let all: Fields = from_value(&Value::Array(fields.clone()?)).ok()?;
    let event = event_of(app, partition, &stream_id, fields)?;
    let endpoint = Label::from(event.replay_to.as_deref()?);
    let attempts = all.get(ATTEMPTS)?.parse().ok()?;
    let error = all.get(ERROR)?.clone();
    Some(DeadLetter { partition, stream_id, endpoint, event, attempts, error })
}
