//! The queues of a cluster: a stream for each app and partition, with a consumer group for each endpoint.
//!
//! A lease selects the dispatcher that leads a partition. All dispatchers share one consumer name. If one crashes, its
//! unacknowledged events are therefore in the pending list of the next.

pub mod dead_letters;

use std::collections::HashMap;
use std::error::Error;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use futures_util::stream::{self, StreamExt};
use redis::{FromRedisValue, Value};

use super::EventTypes;
use super::event::{Fields, StreamId, WebhookEvent};
use super::queues::{Backlog, Backlogs, Batch, FailedDelivery, QueueError, QueueId, Queues};
use crate::app::{AppId, Label};
use crate::cluster::node::NodeId;
use crate::cluster::redis::link::LinkError;
use crate::cluster::redis::metrics::Metrics;
use crate::cluster::redis::{Command, Link, is_damage, scripts};
use crate::sync::lock;

/// The time to live of the lease of a partition.
const LEASE_TTL: Duration = Duration::from_secs(10);

/// A dispatcher stops this long before its lease expires.
const LEASE_MARGIN: Duration = Duration::from_secs(2);

/// How often a dispatcher tries to lead a partition that another one leads.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Partitions in one tick. If there are more, each tick handles the next ones. All are handled several times per lease.
const PARTITIONS_AT_ONCE: u32 = 64;

/// Held events that are queued, and apps that are returned, in one call of the script.
const DUE_MAX: usize = 1000;

/// The consumer name of all dispatchers.
const CONSUMER: &str = "sender";

/// The bounds of the dead letters of one app and partition: their number, bytes and age. The oldest are dropped first.
const DEAD_MAX: usize = 10_000;
const DEAD_BYTES_MAX: u64 = 32 * 1024 * 1024;
const DEAD_AGE_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// How long the read position of an endpoint is kept after the last publisher with this endpoint. During the rollout of
/// a new configuration, some publishers have an endpoint and others do not.
const ENDPOINT_GRACE: Duration = Duration::from_secs(24 * 3600);

/// The ids and fields of stream entries. Entries that were trimmed before they were acknowledged have no fields.
type StreamEntries = Vec<(String, Option<Vec<Value>>)>;

/// The queues in Redis, for one dispatcher of the cluster.
pub struct RedisQueues {
    link: Link,
    metrics: Metrics,
    event_types: EventTypes,
    /// The id of this dispatcher in leases.
    dispatcher: String,
    partitions: Mutex<HashMap<u32, Partition>>,
    /// The first partition of the next tick.
    next: AtomicU32,
    /// Whether a refused command was logged.
    has_warned: AtomicBool,
    /// Set by [`Queues::release`]. The dispatcher then leads no partition.
    is_released: AtomicBool,
    /// [`ENDPOINT_GRACE`], or another time in tests.
    endpoint_grace: Duration,
}

/// The state of a partition.
#[derive(Clone, Copy)]
struct Partition {
    /// The last renewal of the lease, if this dispatcher has it.
    renewed: Option<Instant>,
    /// The last attempt to acquire or renew the lease.
    tried: Instant,
    /// Whether Redis may have removed ready apps that this dispatcher has not received.
    missed_ready_apps: bool,
}

impl RedisQueues {
    /// Creates queues whose dispatcher does not lead a partition yet.
    pub fn new(link: Link, event_types: EventTypes) -> Arc<Self> {
        Self::with_grace(link, event_types, ENDPOINT_GRACE)
    }

    /// Creates queues with another grace period for unknown endpoints.
    pub(crate) fn with_grace(link: Link, event_types: EventTypes, endpoint_grace: Duration) -> Arc<Self> {
        Arc::new(Self {
            endpoint_grace,
            metrics: link.metrics().clone(),
            link,
            event_types,
            dispatcher: NodeId::fresh().to_string(),
            partitions: Mutex::default(),
            next: AtomicU32::new(0),
            has_warned: AtomicBool::new(false),
            is_released: AtomicBool::new(false),
        })
    }

    async fn tick_now(&self) -> Result<Vec<(u32, AppId)>, QueueError> {
        if self.event_types.is_empty() || self.is_released.load(Ordering::Acquire) {
            return Ok(Vec::new());
        }
        let ticked: Vec<_> = stream::iter(self.partitions_to_tick())
            .map(|partition| self.tick_partition(partition))
            .buffer_unordered(8)
            .collect()
            .await;
        let (mut ready_apps, mut error) = (Vec::new(), None);
        for apps in ticked {
            match apps {
                Ok(apps) => ready_apps.extend(apps),
                Err(one) => error = Some(one),
            }
        }
        // The apps of the other partitions were removed from Redis, so they must be returned.
        match error {
            Some(error) if ready_apps.is_empty() => Err(error),
            _ => Ok(ready_apps),
        }
    }

    /// Returns the partitions of this tick: those that this dispatcher leads, and once per [`RETRY_INTERVAL`] the
    /// others.
    fn partitions_to_tick(&self) -> Vec<u32> {
        let all = self.link.keys().partitions();
        let count = all.min(PARTITIONS_AT_ONCE);
        let first = self.next.fetch_add(count, Ordering::Relaxed) % all;
        let known = lock(&self.partitions);
        let is_due = |partition: &u32| {
            known.get(partition).is_none_or(|known| known.renewed.is_some() || known.tried.elapsed() >= RETRY_INTERVAL)
        };
        (0..count).map(|offset| (first + offset) % all).filter(is_due).collect()
    }

    async fn tick_partition(&self, partition: u32) -> Result<Vec<(u32, AppId)>, QueueError> {
        let ticked = self.lead(partition).await;
        if ticked.is_err() {
            // Redis may have removed the ready apps although the reply did not arrive.
            if let Some(known) = lock(&self.partitions).get_mut(&partition) {
                known.missed_ready_apps = true;
            }
        }
        ticked
    }

    async fn lead(&self, partition: u32) -> Result<Vec<(u32, AppId)>, QueueError> {
        let keys = self.link.keys();
        let tried = Instant::now();
        let mut call = scripts::acquire_partition().key(keys.webhook_lease(partition));
        call.key(keys.webhook_holds(partition)).key(keys.webhook_ready_apps(partition));
        call.arg(&self.dispatcher).arg(millis(LEASE_TTL)).arg(keys.partition_prefix(partition)).arg(DUE_MAX);
        let (status, mut apps): (u8, Vec<String>) = self.run("webhook_lead", call).await?;
        let renewed = (status > 0).then_some(tried);
        let known = Partition { renewed, tried, missed_ready_apps: false };
        let before = lock(&self.partitions).insert(partition, known);
        if status == 2 {
            tracing::debug!(partition, "this node now sends the webhooks of a partition");
        }
        if status == 2 || (status == 1 && before.is_none_or(|before| before.missed_ready_apps)) {
            apps.extend(self.apps_with_queues(partition).await?);
        }
        Ok(apps.into_iter().map(|app| (partition, AppId::from(app.as_str()))).collect())
    }

    async fn apps_with_queues(&self, partition: u32) -> Result<Vec<String>, QueueError> {
        let apps: Vec<AppId> = self.event_types.apps().cloned().collect();
        let mut pipeline = redis::Pipeline::with_capacity(apps.len());
        for app in &apps {
            pipeline.cmd("EXISTS").arg(self.link.keys().webhook_queue(app, partition));
        }
        let exist: Vec<bool> = self.run("webhook_lead", pipeline).await?;
        Ok(apps.iter().zip(exist).filter(|(_, exists)| *exists).map(|(app, _)| app.to_string()).collect())
    }

    async fn read_now(
        &self,
        queue: &QueueId,
        after: Option<&StreamId>,
        events_max: usize,
    ) -> Result<Batch, QueueError> {
        let keys = self.link.keys();
        let mut call = scripts::read_queue().key(keys.webhook_lease(queue.partition));
        call.key(keys.webhook_queue(&queue.app, queue.partition));
        call.arg(&self.dispatcher).arg(queue.endpoint.as_str()).arg(CONSUMER);
        call.arg(after.map_or("0", StreamId::as_str)).arg(events_max);
        let (_leads, events): (bool, StreamEntries) = self.run("webhook_read", call).await?;
        let mut batch = Batch::default();
        let mut unreadable = Vec::new();
        for (id, fields) in events {
            let stream_id = StreamId::new(id);
            match event_of(&queue.app, queue.partition, &stream_id, fields) {
                Some(event) => batch.events.push(event),
                None => unreadable.push(stream_id.clone()),
            }
            batch.last = Some(stream_id);
        }
        if !unreadable.is_empty() {
            for _ in &unreadable {
                self.metrics.dropped("malformed_webhook");
            }
            self.acknowledge_now(queue, &unreadable).await?;
        }
        Ok(batch)
    }

    async fn acknowledge_now(&self, queue: &QueueId, stream_ids: &[StreamId]) -> Result<(), QueueError> {
        if stream_ids.is_empty() {
            return Ok(());
        }
        let mut command = redis::cmd("XACK");
        command.arg(self.link.keys().webhook_queue(&queue.app, queue.partition)).arg(queue.endpoint.as_str());
        for stream_id in stream_ids {
            command.arg(stream_id.as_str());
        }
        self.run("webhook_done", command).await
    }

    async fn add_dead_letter_now(&self, queue: &QueueId, failed: &FailedDelivery) -> Result<(), QueueError> {
        let keys = self.link.keys();
        let mut call = scripts::dead_letter().key(keys.webhook_queue(&queue.app, queue.partition));
        call.key(keys.webhook_dead_letters(&queue.app, queue.partition));
        call.arg(queue.endpoint.as_str()).arg(failed.event.stream_id.as_str());
        call.arg(DEAD_MAX).arg(DEAD_BYTES_MAX).arg(millis(DEAD_AGE_MAX));
        for (name, value) in failed.event.fields_for(&queue.endpoint) {
            call.arg(name).arg(value);
        }
        call.arg(dead_letters::ATTEMPTS).arg(failed.attempts).arg(dead_letters::ERROR).arg(&failed.error);
        self.run::<i64>("webhook_bury", call).await.map(drop)
    }

    async fn backlog_now(&self, partition: u32, app: &AppId, endpoints: &[Label]) -> Result<Backlogs, QueueError> {
        let keys = self.link.keys();
        let mut call = scripts::backlog().key(keys.webhook_queue(app, partition));
        call.key(keys.webhook_dead_letters(app, partition)).arg(millis(self.endpoint_grace)).arg(millis(DEAD_AGE_MAX));
        for endpoint in endpoints {
            call.arg(endpoint.as_str());
        }
        let reply: Vec<Value> = self.run("webhook_backlog", call).await?;
        let [dropped, dead_dropped, removed, triples @ ..] = reply.as_slice() else { return Err(QueueError::Damaged) };
        if from_value::<u64>(removed)? > 0 {
            tracing::info!(app.id = %app, partition, "removed the webhook queue of an endpoint that no publisher has");
        }
        let (triples, _) = triples.as_chunks::<3>();
        let by_endpoint = triples.iter().map(|[name, queued, oldest]| {
            let (name, oldest): (String, String) = (from_value(name)?, from_value(oldest)?);
            let oldest_ms = StreamId::new(oldest).at_ms().ok();
            Ok((Label::from(name.as_str()), Backlog { queued: from_value(queued)?, oldest_ms }))
        });
        Ok(Backlogs {
            by_endpoint: by_endpoint.collect::<Result<_, _>>()?,
            dropped: from_value(dropped)?,
            dead_dropped: from_value(dead_dropped)?,
        })
    }

    async fn release_now(&self) {
        self.is_released.store(true, Ordering::Release);
        let led: Vec<u32> = {
            let mut partitions = lock(&self.partitions);
            partitions.drain().filter(|(_, known)| known.renewed.is_some()).map(|(partition, _)| partition).collect()
        };
        for partition in led {
            let mut call = scripts::release_key().key(self.link.keys().webhook_lease(partition));
            call.arg(&self.dispatcher);
            let released: Result<(), _> = self.run("webhook_lead", call).await;
            if let Err(error) = released {
                tracing::debug!(partition, %error, "cannot release the webhook lease of a partition; it will expire");
                return;
            }
        }
    }

    async fn run<T: Send + 'static>(
        &self,
        name: &'static str,
        command: impl Command<T> + 'static,
    ) -> Result<T, QueueError> {
        self.link.run(name, command).await.map_err(|error| {
            if error.is_command_error() && !self.has_warned.swap(true, Ordering::Relaxed) {
                let cause = error.source().map(ToString::to_string).unwrap_or_default();
                tracing::warn!(
                    command = name,
                    %error,
                    cause,
                    "redis rejected a webhook command; deliveries are paused (further errors are counted, not logged)"
                );
            }
            queues_error(&error)
        })
    }
}

impl Queues for RedisQueues {
    fn tick(&self) -> BoxFuture<'_, Result<Vec<(u32, AppId)>, QueueError>> {
        Box::pin(self.tick_now())
    }

    fn leads(&self, partition: u32) -> bool {
        let renewed = lock(&self.partitions).get(&partition).and_then(|known| known.renewed);
        renewed.is_some_and(|renewed| renewed.elapsed() < LEASE_TTL - LEASE_MARGIN)
    }

    fn read<'a>(
        &'a self,
        queue: &'a QueueId,
        after: Option<&'a StreamId>,
        events_max: usize,
    ) -> BoxFuture<'a, Result<Batch, QueueError>> {
        Box::pin(self.read_now(queue, after, events_max))
    }

    fn acknowledge<'a>(
        &'a self,
        queue: &'a QueueId,
        stream_ids: &'a [StreamId],
    ) -> BoxFuture<'a, Result<(), QueueError>> {
        Box::pin(self.acknowledge_now(queue, stream_ids))
    }

    fn add_dead_letter<'a>(
        &'a self,
        queue: &'a QueueId,
        failed: &'a FailedDelivery,
    ) -> BoxFuture<'a, Result<(), QueueError>> {
        Box::pin(self.add_dead_letter_now(queue, failed))
    }

    fn backlog<'a>(
        &'a self,
        partition: u32,
        app: &'a AppId,
        endpoints: &'a [Label],
    ) -> BoxFuture<'a, Result<Backlogs, QueueError>> {
        Box::pin(self.backlog_now(partition, app, endpoints))
    }

    fn release(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.release_now())
    }
}

/// Parses an entry. Returns `None` for a trimmed or invalid one.
fn event_of(app: &AppId, partition: u32, stream_id: &StreamId, fields: Option<Vec<Value>>) -> Option<WebhookEvent> {
    let fields = Value::Array(fields?);
    let fields = Fields::from_redis_value(fields).ok()?;
    WebhookEvent::read(app, partition, stream_id.clone(), &fields).ok()
}

fn from_value<T: FromRedisValue>(value: &Value) -> Result<T, QueueError> {
    T::from_redis_value_ref(value).map_err(|_| QueueError::Damaged)
}

fn queues_error(error: &LinkError) -> QueueError {
    match error {
        LinkError::Command(cause) if error.is_command_error() && is_damage(cause) => QueueError::Damaged,
        _ => QueueError::Unavailable,
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
