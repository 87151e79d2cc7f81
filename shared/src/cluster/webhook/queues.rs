//! The contract of the queues.

use std::fmt;
use std::time::Duration;

use futures_util::future::BoxFuture;

use super::event::{StreamId, WebhookEvent};
use crate::app::{AppId, Label};

/// The interval at which the dispatcher calls [`Queues::tick`].
pub const TICK_INTERVAL: Duration = Duration::from_millis(100);

/// The queue of one endpoint in one partition: the endpoint's read position in the events of its app.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct QueueId {
    /// The partition. All events of a channel are in the same one, in order.
    pub partition: u32,
    /// The app of the endpoint.
    pub app: AppId,
    /// The label of the endpoint.
    pub endpoint: Label,
}

/// The result of [`Queues::read`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// The events, in order.
    pub events: Vec<WebhookEvent>,
    /// The position up to which the queue was read. `None` if there was nothing to read.
    pub last: Option<StreamId>,
}

/// The size of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backlog {
    /// Events that are not acknowledged.
    pub queued: u64,
    /// The time of the oldest of them, in milliseconds of Unix time. `None` for an empty queue.
    pub oldest_ms: Option<u64>,
}

/// The sizes of the queues of an app in one partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Backlogs {
    /// The size of each endpoint's queue.
    pub by_endpoint: Vec<(Label, Backlog)>,
    /// Undelivered events that were dropped since the last call because a queue was full.
    pub dropped: u64,
    /// Dead letters that were dropped since the last call because there were too many or they were too old.
    pub dead_dropped: u64,
}

/// An event that an endpoint did not accept in time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedDelivery {
    /// The event.
    pub event: WebhookEvent,
    /// The number of requests.
    pub attempts: u32,
    /// The error of the last request.
    pub error: String,
}

/// The reason why an operation failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueueError {
    /// Redis is unavailable, or refuses commands.
    #[error("the webhook queues are unavailable")]
    Unavailable,
    /// The key holds a value of an unexpected type. Retrying does not help; an operator must repair it.
    #[error("a key of the webhook queues holds a value of an unexpected type")]
    Damaged,
}

/// The queues of all apps, for one dispatcher.
///
/// The events of a channel are in one partition, in the order in which they happened. One dispatcher at a time leads a
/// partition and reads its queues. If it crashes, the next leader reads its unacknowledged events again. An endpoint
/// can therefore receive an event twice, with the same id.
pub trait Queues: Send + Sync {
    /// Renews leases and queues events that are due. Returns the apps with new events, and their partitions.
    ///
    /// For a partition that this dispatcher starts to lead, it returns all apps that can have events.
    ///
    /// # Errors
    /// [`QueueError`].
    fn tick(&self) -> BoxFuture<'_, Result<Vec<(u32, AppId)>, QueueError>>;

    /// Checks whether this dispatcher leads a partition.
    fn leads(&self, partition: u32) -> bool;

    /// Returns up to `events_max` events of a queue, in order.
    ///
    /// Returns unacknowledged events after the position `after` if there are any, and otherwise new events. Events that
    /// cannot be parsed are acknowledged and counted. If this dispatcher does not lead the partition, it returns
    /// nothing.
    ///
    /// # Errors
    /// [`QueueError`].
    fn read<'a>(
        &'a self,
        queue: &'a QueueId,
        after: Option<&'a StreamId>,
        events_max: usize,
    ) -> BoxFuture<'a, Result<Batch, QueueError>>;

    /// Removes events from a queue, because the endpoint has accepted them or does not receive their kind.
    ///
    /// # Errors
    /// [`QueueError`].
    fn acknowledge<'a>(
        &'a self,
        queue: &'a QueueId,
        stream_ids: &'a [StreamId],
    ) -> BoxFuture<'a, Result<(), QueueError>>;

    /// Removes an event from a queue after its delivery failed. Queues in Redis keep it as a dead letter.
    ///
    /// # Errors
    /// [`QueueError`].
    fn add_dead_letter<'a>(
        &'a self,
        queue: &'a QueueId,
        failed: &'a FailedDelivery,
    ) -> BoxFuture<'a, Result<(), QueueError>>;

    /// Returns the sizes of an app's queues in a partition. `endpoints`: all endpoints of the app.
    ///
    /// Also removes events that all endpoints have acknowledged, and the queues of endpoints that no dispatcher has had
    /// for a day. Endpoints that have never read are not in the result.
    ///
    /// # Errors
    /// [`QueueError`].
    fn backlog<'a>(
        &'a self,
        partition: u32,
        app: &'a AppId,
        endpoints: &'a [Label],
    ) -> BoxFuture<'a, Result<Backlogs, QueueError>>;

    /// Enqueues all held events if they would be lost with this process. Called at shutdown, when no change can follow.
    fn expire_holds(&self) {}

    /// Releases the leases, so that another dispatcher can lead the partitions.
    fn release(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}

impl fmt::Display for QueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.partition, self.app, self.endpoint)
    }
}
