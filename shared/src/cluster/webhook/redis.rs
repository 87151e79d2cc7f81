//! The queues of a cluster: a stream for each app and partition, with a consumer group for each endpoint.
//!
//! One sender at a time leads a partition, by a lease; all senders read as the same consumer, so what one had read and was
//! not done with when it died is the pending list of the next.

pub mod dead_letters;

use std::collections::HashMap;
use std::error::Error;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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

/// How long a sender leads after its last word.
const LEASE: Duration = Duration::from_secs(10);

/// A sender stops this long before its lease is over.
const MARGIN: Duration = Duration::from_secs(2);

/// How often a sender looks whether a partition that another one leads is free.
const LOOK: Duration = Duration::from_secs(1);

/// Partitions that are tended at once; with more than this they take turns, all of them well within a lease.
const PARTITIONS_AT_ONCE: u32 = 64;

/// Ends that become due, and apps with news, in one step.
const DUE_MAX: usize = 1000;

/// What all senders read as.
const CONSUMER: &str = "sender";

/// Dead letters of one app and partition, their bytes and their age, at most; the oldest are dropped first.
const DEAD_MAX: usize = 10_000;
const DEAD_BYTES_MAX: u64 = 32 * 1024 * 1024;
const DEAD_AGE_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// How long the place of an endpoint in a queue is kept after the last publisher that knew the endpoint. While a new
/// configuration is rolled out some publishers know it and others do not.
const ENDPOINT_GRACE: Duration = Duration::from_secs(24 * 3600);

/// Ids and fields of a stream's entries; fields of those that were cut off while they waited are gone.
type StreamEntries = Vec<(String, Option<Vec<Value>>)>;

/// What waits in Redis, as one sender of the cluster sees it.
pub struct RedisQueues {
    link: Link,
    metrics: Metrics,
    event_types: EventTypes,
    /// Names this sender in leases.
    sender: String,
    partitions: Mutex<HashMap<u32, Partition>>,
    /// The partition that is tended next.
    next: AtomicU32,
    /// Whether a refusal has been logged.
    has_complained: AtomicBool,
    /// Set once the sender leaves: it leads nothing more.
    has_left: AtomicBool,
    /// [`ENDPOINT_GRACE`], but in tests.
    endpoint_grace: Duration,
}

/// What this sender knows of a partition.
#[derive(Clone, Copy)]
struct Partition {
    /// When its lease was last renewed, if it is this sender's.
    renewed: Option<Instant>,
    looked: Instant,
    /// Whether some of its apps may have news that this sender has not heard of.
    has_missed: bool,
}

impl RedisQueues {
    /// Queues whose sender leads nothing yet.
    pub fn new(link: Link, event_types: EventTypes) -> Arc<Self> {
        Self::with_grace(link, event_types, ENDPOINT_GRACE)
    }

    /// Queues that keep the places of unknown endpoints for so long.
    pub(crate) fn with_grace(link: Link, event_types: EventTypes, endpoint_grace: Duration) -> Arc<Self> {
        Arc::new(Self {
            endpoint_grace,
            metrics: link.metrics().clone(),
            link,
            event_types,
            sender: NodeId::fresh().to_string(),
            partitions: Mutex::default(),
            next: AtomicU32::new(0),
            has_complained: AtomicBool::new(false),
            has_left: AtomicBool::new(false),
        })
    }

    async fn tick_now(&self) -> Result<Vec<(u32, AppId)>, QueueError> {
        if self.event_types.is_empty() || self.has_left.load(Ordering::Acquire) {
            return Ok(Vec::new());
        }
        let ticked: Vec<_> = stream::iter(self.partitions_to_tick())
            .map(|partition| self.tick_partition(partition))
            .buffer_unordered(8)
            .collect()
            .await;
        let (mut news, mut error) = (Vec::new(), None);
        for apps in ticked {
            match apps {
                Ok(apps) => news.extend(apps),
                Err(one) => error = Some(one),
            }
        }
        // What the others have taken out of Redis must not be forgotten.
        match error {
            Some(error) if news.is_empty() => Err(error),
            _ => Ok(news),
        }
    }

    /// Partitions whose turn it is: all that this sender leads, and now and then the others.
    fn partitions_to_tick(&self) -> Vec<u32> {
        let all = self.link.keys().partitions();
        let count = all.min(PARTITIONS_AT_ONCE);
        let first = self.next.fetch_add(count, Ordering::Relaxed) % all;
        let known = lock(&self.partitions);
        let is_due = |partition: &u32| {
            known.get(partition).is_none_or(|known| known.renewed.is_some() || known.looked.elapsed() >= LOOK)
        };
        (0..count).map(|offset| (first + offset) % all).filter(is_due).collect()
    }

    async fn tick_partition(&self, partition: u32) -> Result<Vec<(u32, AppId)>, QueueError> {
        let ticked = self.lead(partition).await;
        if ticked.is_err() {
            // The news may have been taken out of Redis with an answer that did not arrive.
            if let Some(known) = lock(&self.partitions).get_mut(&partition) {
                known.has_missed = true;
            }
        }
        ticked
    }

    async fn lead(&self, partition: u32) -> Result<Vec<(u32, AppId)>, QueueError> {
        let keys = self.link.keys();
        let looked = Instant::now();
        let mut call = scripts::acquire_partition().key(keys.webhook_lease(partition));
        call.key(keys.webhook_holds(partition)).key(keys.webhook_ready_apps(partition));
        call.arg(&self.sender).arg(millis(LEASE)).arg(keys.partition_prefix(partition)).arg(DUE_MAX);
        let (status, mut apps): (u8, Vec<String>) = self.run("webhook_lead", call).await?;
        let renewed = (status > 0).then_some(looked);
        let known = Partition { renewed, looked, has_missed: false };
        let before = lock(&self.partitions).insert(partition, known);
        if status == 2 {
            tracing::debug!(partition, "sends webhooks of this partition from now on");
        }
        if status == 2 || (status == 1 && before.is_none_or(|before| before.has_missed)) {
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

    async fn read_now(&self, queue: &QueueId, after: Option<&StreamId>, most: usize) -> Result<Batch, QueueError> {
        let keys = self.link.keys();
        let mut call = scripts::read_queue().key(keys.webhook_lease(queue.partition));
        call.key(keys.webhook_queue(&queue.app, queue.partition));
        call.arg(&self.sender).arg(queue.endpoint.as_str()).arg(CONSUMER);
        call.arg(after.map_or("0", StreamId::as_str)).arg(most);
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

    async fn add_dead_letter_now(&self, queue: &QueueId, letter: &FailedDelivery) -> Result<(), QueueError> {
        let keys = self.link.keys();
        let mut call = scripts::dead_letter().key(keys.webhook_queue(&queue.app, queue.partition));
        call.key(keys.webhook_dead_letters(&queue.app, queue.partition));
        call.arg(queue.endpoint.as_str()).arg(letter.event.stream_id.as_str());
        call.arg(DEAD_MAX).arg(DEAD_BYTES_MAX).arg(millis(DEAD_AGE_MAX));
        for (name, value) in letter.event.fields_for(&queue.endpoint) {
            call.arg(name).arg(value);
        }
        call.arg(dead_letters::ATTEMPTS).arg(letter.attempts).arg(dead_letters::ERROR).arg(&letter.error);
        self.run::<i64>("webhook_bury", call).await.map(drop)
    }

    async fn backlog_now(&self, partition: u32, app: &AppId, endpoints: &[Label]) -> Result<Backlogs, QueueError> {
        let keys = self.link.keys();
        let mut call = scripts::backlog().key(keys.webhook_queue(app, partition));
        call.key(keys.webhook_dead_letters(app, partition)).arg(millis(self.endpoint_grace)).arg(millis(DEAD_AGE_MAX));
        for endpoint in endpoints {
            call.arg(endpoint.as_str());
        }
        let answer: Vec<Value> = self.run("webhook_backlog", call).await?;
        let [dropped, dead_dropped, removed, triples @ ..] = answer.as_slice() else { return Err(QueueError::Damaged) };
        if from_value::<u64>(removed)? > 0 {
            tracing::info!(app = %app, partition, "removed the queue of an endpoint that no publisher has any more");
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
        self.has_left.store(true, Ordering::Release);
        let led: Vec<u32> = {
            let mut partitions = lock(&self.partitions);
            partitions.drain().filter(|(_, known)| known.renewed.is_some()).map(|(partition, _)| partition).collect()
        };
        for partition in led {
            let mut call = scripts::release_key().key(self.link.keys().webhook_lease(partition));
            call.arg(&self.sender);
            let resigned: Result<(), _> = self.run("webhook_lead", call).await;
            if let Err(error) = resigned {
                tracing::debug!(partition, %error, "the lease of a partition's webhooks ends by itself");
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
            if error.is_answer() && !self.has_complained.swap(true, Ordering::Relaxed) {
                let cause = error.source().map(ToString::to_string).unwrap_or_default();
                tracing::warn!(command = name, %error, cause, "webhooks wait; further refusals are only counted");
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
        renewed.is_some_and(|renewed| renewed.elapsed() < LEASE - MARGIN)
    }

    fn read<'a>(
        &'a self,
        queue: &'a QueueId,
        after: Option<&'a StreamId>,
        most: usize,
    ) -> BoxFuture<'a, Result<Batch, QueueError>> {
        Box::pin(self.read_now(queue, after, most))
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
        letter: &'a FailedDelivery,
    ) -> BoxFuture<'a, Result<(), QueueError>> {
        Box::pin(self.add_dead_letter_now(queue, letter))
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

/// `None` for what was cut off the stream while it waited, and for what is none of ours.
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
        LinkError::Command(cause) if error.is_answer() && is_damage(cause) => QueueError::Damaged,
        _ => QueueError::Unavailable,
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// A panic under this lock leaves a map that is whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
