//! The queues of webhook events, between the nodes that detect them and the dispatchers that send them. Source:
//! protocol reference 5.
//!
//! The step that makes a change also adds its event to the queue of the app. A change that several nodes see is
//! therefore queued once. A dispatcher reads the queues through [`Queues`], separately for each endpoint.

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

/// The kinds of events that each app's endpoints receive. Events of other kinds are not queued.
#[derive(Clone, Debug, Default)]
pub struct EventTypes(Arc<HashMap<AppId, WebhookKinds>>);

impl EventTypes {
    /// Collects the kinds of all apps.
    pub fn new(apps: &Apps) -> Self {
        let all = apps.iter().map(|app| (app.id.clone(), app.webhook_kinds()));
        Self(Arc::new(all.filter(|(_, kinds)| !kinds.is_empty()).collect()))
    }

    /// Returns the kinds of an app.
    pub fn of(&self, app: &AppId) -> WebhookKinds {
        self.0.get(app).copied().unwrap_or_default()
    }

    /// Checks whether no app receives webhooks.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the apps that receive webhooks.
    pub fn apps(&self) -> impl Iterator<Item = &AppId> {
        self.0.keys()
    }
}

#[cfg(test)]
mod tests;
