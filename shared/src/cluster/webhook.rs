//! What applications are told of by webhooks, where it waits, and to which of their endpoints it goes. Source: protocol
//! reference 5.
//!
//! Whoever decides a transition puts it into the app's queue in the same step, so one transition is one entry however many
//! nodes saw it. A sender reads the queues through [`Queues`], once for each endpoint.

pub mod event;
pub mod memory;
pub mod queues;
pub mod redis;

use std::collections::HashMap;
use std::sync::Arc;

use crate::app::{AppId, Apps, WebhookKinds};

pub use event::{EventId, Occurrence, StreamId, WebhookEvent};
pub use memory::MemoryQueues;
pub use queues::{Backlog, Backlogs, Batch, FailedDelivery, QueueError, QueueId, Queues};
pub use redis::RedisQueues;
pub use redis::dead_letters::{DeadLetter, DeadLetters};

/// What each app wants to be told of.
#[derive(Clone, Debug, Default)]
pub struct EventTypes(Arc<HashMap<AppId, WebhookKinds>>);

impl EventTypes {
    /// The wishes of all apps.
    pub fn new(apps: &Apps) -> Self {
        let all = apps.iter().map(|app| (app.id.clone(), app.webhook_kinds()));
        Self(Arc::new(all.filter(|(_, wanted)| !wanted.is_empty()).collect()))
    }

    /// What `app` wants to be told of.
    pub fn of(&self, app: &AppId) -> WebhookKinds {
        self.0.get(app).copied().unwrap_or_default()
    }

    /// Whether no app wants anything.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The apps that want something.
    pub fn apps(&self) -> impl Iterator<Item = &AppId> {
        self.0.keys()
    }
}

#[cfg(test)]
mod tests;
