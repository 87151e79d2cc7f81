//! Where entries wait until each endpoint has been told of them.

use std::fmt;
use std::time::Duration;

use futures_util::future::BoxFuture;

use super::event::{StreamId, WebhookEvent};
use crate::app::{AppId, Label};

/// How often [`Queues::tick`] is to be called.
pub const TICK_INTERVAL: Duration = Duration::from_millis(100);

/// What one endpoint is told, or was told: its place among the entries of one app in one partition.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct QueueId {
    /// All entries of a channel are in one partition, in order.
    pub partition: u32,
    /// Whose endpoint it is.
    pub app: AppId,
    /// The endpoint.
    pub endpoint: Label,
}

/// What a look at a queue found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// The entries, in order.
    pub events: Vec<WebhookEvent>,
    /// The place up to which the queue has been read with this; `None` when nothing was there.
    pub last: Option<StreamId>,
}

/// What waits in a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backlog {
    /// Entries that are not done with.
    pub queued: u64,
    /// When the oldest of them came, in milliseconds of Unix time; `None` when there is none.
    pub oldest_ms: Option<u64>,
}

/// The backlogs of an app's endpoints in one partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Backlogs {
    /// Of each endpoint.
    pub by_endpoint: Vec<(Label, Backlog)>,
    /// Entries that were dropped undelivered since the last look, because a queue was full.
    pub dropped: u64,
    /// Dead letters that were dropped since the last look, because there were too many or they were too old.
    pub dead_dropped: u64,
}

/// An entry that an endpoint did not take in time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedDelivery {
    /// What it should have been told.
    pub event: WebhookEvent,
    /// Requests that were made.
    pub attempts: u32,
    /// What became of the last one.
    pub error: String,
}

/// Why the queues did not do what they were asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueueError {
    /// It cannot be reached now.
    #[error("the queues are not reachable")]
    Unavailable,
    /// What is stored is not what is stored there; it stays so until someone puts it right.
    #[error("what is stored of webhooks cannot be read")]
    Damaged,
}

/// The queues of all apps, as a sender sees them.
///
/// Order: entries of one channel are in one partition, in the order in which they were decided. Each is read by one sender at
/// a time; what a sender read and was not done with when it died is read again by the next, so an endpoint may be told of
/// one entry twice, with one and the same id.
pub trait Queues: Send + Sync {
    /// Does what is due, and says of which apps there is something new in which partitions; of all that may have something
    /// when this sender begins to lead a partition.
    ///
    /// # Errors
    /// [`QueueError`].
    fn tick(&self) -> BoxFuture<'_, Result<Vec<(u32, AppId)>, QueueError>>;

    /// Whether this sender is the one that sends what waits in a partition.
    fn leads(&self, partition: u32) -> bool;

    /// The next entries of a queue, in order, `most` at most: those that were handed out before and are not done with, behind
    /// the place `after` if there is one; or else those that were not. Entries that cannot be read are done with, and counted.
    /// Nothing for a sender that does not lead.
    ///
    /// # Errors
    /// [`QueueError`].
    fn read<'a>(
        &'a self,
        queue: &'a QueueId,
        after: Option<&'a StreamId>,
        most: usize,
    ) -> BoxFuture<'a, Result<Batch, QueueError>>;

    /// The endpoint has been told of these, or need not be.
    ///
    /// # Errors
    /// [`QueueError`].
    fn acknowledge<'a>(
        &'a self,
        queue: &'a QueueId,
        stream_ids: &'a [StreamId],
    ) -> BoxFuture<'a, Result<(), QueueError>>;

    /// The endpoint will not be told of this any more, unless someone says so. What keeps dead letters keeps it.
    ///
    /// # Errors
    /// [`QueueError`].
    fn add_dead_letter<'a>(
        &'a self,
        queue: &'a QueueId,
        letter: &'a FailedDelivery,
    ) -> BoxFuture<'a, Result<(), QueueError>>;

    /// Returns what waits for each of an app's endpoints in a partition. Drops what all of them are done with, and what belongs
    /// to endpoints that no sender has had for a day. `endpoints`: all of them. Leaves out those that were never read for.
    ///
    /// # Errors
    /// [`QueueError`].
    fn backlog<'a>(
        &'a self,
        partition: u32,
        app: &'a AppId,
        endpoints: &'a [Label],
    ) -> BoxFuture<'a, Result<Backlogs, QueueError>>;

    /// No transition will follow: what is held for a return becomes due where nobody else could tell it.
    fn expire_holds(&self) {}

    /// Lets another sender lead what this one leads.
    fn release(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}

impl fmt::Display for QueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.partition, self.app, self.endpoint)
    }
}
