//! Starts and stops the workers, and measures the queues.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt};
use shared::app::{App, AppId, Apps, Endpoint, Label};
use shared::cluster::webhook::queues::TICK_INTERVAL;
use shared::cluster::webhook::{QueueId, Queues};
use shared::serve::telemetry::metrics::Registry;
use shared::sync::lock;
use tokio::sync::Notify;
use tokio::time::MissedTickBehavior;
use tokio_util::task::AbortOnDropHandle;

use crate::client::{Client, ClientError};
use crate::config::Config;
use crate::context::Context;
use crate::delivery::{Deliverer, Recipient};
use crate::metrics::Metrics;
use crate::worker::Worker;

/// The interval between two measurements of the queues.
const MEASURE_INTERVAL: Duration = Duration::from_secs(1);

/// How long [`Dispatcher::drain`] waits for open requests.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(3);

/// How long [`Dispatcher::flush`] delivers events of queues that are lost with the process.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// How long [`Dispatcher::drain`] delivers such events. Clients reconnect within a second, so the next process must
/// start soon.
const FINAL_TIMEOUT: Duration = Duration::from_millis(300);

/// The number of queues that are measured concurrently.
const CONCURRENT_MEASUREMENTS: usize = 8;

/// The dependencies of the dispatcher.
pub struct Deps {
    /// The tenants and their endpoints.
    pub apps: Apps,
    /// The queues of webhook events.
    pub queues: Arc<dyn Queues>,
    /// The registry for the metrics of the dispatcher.
    pub registry: Registry,
    /// Whether events stay in the queues when this process has ended.
    pub queues_survive: bool,
}

/// The dispatcher. It delivers events while [`Dispatcher::run`] runs.
pub struct Dispatcher {
    apps: HashMap<AppId, Tenant>,
    queues_survive: bool,
    context: Arc<Context>,
    workers: Mutex<HashMap<QueueId, Running>>,
    /// Excludes [`Dispatcher::tick`] during a drain, because a dispatcher that has released its leases must not take
    /// new ones.
    turn: tokio::sync::Mutex<()>,
}

/// An app with endpoints.
struct Tenant {
    app: Arc<App>,
    endpoints: Vec<(Label, Arc<Recipient>)>,
    labels: Vec<Label>,
}

/// A running worker. It stops when this is dropped.
struct Running {
    news: Arc<Notify>,
    _task: AbortOnDropHandle<()>,
}

impl Dispatcher {
    /// Creates a dispatcher and registers its metrics.
    ///
    /// # Errors
    /// [`ClientError`] if no HTTP client can be created.
    ///
    /// # Panics
    /// Panics if the registry already has these metrics.
    pub fn new(config: &Config, deps: Deps) -> Result<Arc<Self>, ClientError> {
        let Deps { apps, queues, registry, queues_survive } = deps;
        let tenants = apps.iter().filter(|app| !app.webhooks.is_empty()).map(|app| {
            let endpoints: Vec<_> = Endpoint::labelled(&app.webhooks)
                .into_iter()
                .map(|(label, endpoint)| (label, Arc::new(Recipient::new(endpoint.clone()))))
                .collect();
            let labels = endpoints.iter().map(|(label, _)| label.clone()).collect();
            (app.id.clone(), Tenant { app: app.clone(), endpoints, labels })
        });
        let (client, metrics) = (Client::new(config)?, Metrics::new(&registry, &apps));
        Ok(Arc::new(Self {
            apps: tenants.collect(),
            queues_survive,
            context: Arc::new(Context::new(queues, client, config.clone(), metrics)),
            workers: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
        }))
    }

    /// Delivers events. Never returns. Does nothing if no app has an endpoint.
    pub async fn run(&self) -> Infallible {
        if self.apps.is_empty() {
            return std::future::pending().await;
        }
        tokio::join!(self.keep_ticking(), self.keep_measuring()).0
    }

    /// Delivers the events of queues that are lost with the process, for at most a second.
    ///
    /// Called while clients are still connected, so that fewer events remain for [`Dispatcher::drain`].
    pub async fn flush(&self) {
        if self.apps.is_empty() || self.queues_survive {
            return;
        }
        let _turn = self.turn.lock().await;
        self.deliver_until(Instant::now() + FLUSH_TIMEOUT).await;
    }

    /// Finishes open requests and releases the leases for other dispatchers. If the queues are lost with the process,
    /// first delivers their events for at most 300 ms.
    pub async fn drain(&self) {
        if self.apps.is_empty() {
            return;
        }
        // Held until the end: no tick may follow.
        let _turn = self.turn.lock().await;
        if self.queues_survive {
            let until = Instant::now() + DRAIN_TIMEOUT;
            self.context.draining.cancel();
            while self.context.open_requests() > 0 && Instant::now() < until {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        } else {
            self.context.queues.expire_holds();
            let left = self.deliver_until(Instant::now() + FINAL_TIMEOUT).await;
            if left > 0 {
                tracing::warn!(
                    events = left,
                    "webhook events are lost with this process: their endpoints did not accept them in time"
                );
            }
        }
        lock(&self.workers).clear();
        self.context.queues.release().await;
    }

    async fn keep_ticking(&self) -> Infallible {
        let mut interval = tokio::time::interval(TICK_INTERVAL);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            let _turn = self.turn.lock().await;
            self.tick().await;
        }
    }

    /// Renews the leases, stops the workers of lost partitions, and starts or wakes the workers of queues with new
    /// events.
    async fn tick(&self) {
        // Other modules report that Redis is unavailable.
        let news = self.context.queues.tick().await.unwrap_or_default();
        let mut workers = lock(&self.workers);
        workers.retain(|queue, _| self.context.queues.leads(queue.partition));
        for (partition, app) in news {
            // An app that is not in this configuration. Another process that has it delivers its events.
            let Some(tenant) = self.apps.get(&app) else { continue };
            for (label, recipient) in &tenant.endpoints {
                let queue = QueueId { partition, app: app.clone(), endpoint: label.clone() };
                let running = workers.entry(queue).or_insert_with_key(|queue| self.start(queue, tenant, recipient));
                running.news.notify_one();
            }
        }
    }

    fn start(&self, queue: &QueueId, tenant: &Tenant, recipient: &Arc<Recipient>) -> Running {
        let news = Arc::new(Notify::new());
        let deliverer = Deliverer {
            queue: queue.clone(),
            app: tenant.app.clone(),
            recipient: recipient.clone(),
            context: self.context.clone(),
        };
        let worker = Worker::new(deliverer, news.clone());
        Running { news, _task: AbortOnDropHandle::new(tokio::spawn(worker.run())) }
    }

    async fn keep_measuring(&self) -> Infallible {
        let mut interval = tokio::time::interval(MEASURE_INTERVAL);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            self.measure().await;
        }
    }

    /// Updates the gauges and removes events that all endpoints have acknowledged. Returns the number of queued events.
    async fn measure(&self) -> u64 {
        let mut queues: Vec<(u32, AppId)> =
            lock(&self.workers).keys().map(|queue| (queue.partition, queue.app.clone())).collect();
        queues.sort();
        queues.dedup();
        let measured: Vec<_> = stream::iter(queues)
            .map(async |(partition, app)| {
                let labels = self.apps.get(&app).map(|tenant| tenant.labels.as_slice()).unwrap_or_default();
                let backlog = self.context.queues.backlog(partition, &app, labels).await;
                (app, backlog)
            })
            .buffer_unordered(CONCURRENT_MEASUREMENTS)
            .collect()
            .await;
        let mut by_endpoint: HashMap<(AppId, Label), (u64, Option<u64>)> = HashMap::new();
        for (app, backlog) in measured {
            // After an error, the gauges keep their values.
            let Ok(backlog) = backlog else { return u64::MAX };
            self.context.metrics.dropped(&app, backlog.dropped, backlog.dead_dropped);
            for (label, backlog) in backlog.by_endpoint {
                let (queued, oldest_ms) = by_endpoint.entry((app.clone(), label)).or_default();
                *queued += backlog.queued;
                *oldest_ms = oldest_ms.iter().copied().chain(backlog.oldest_ms).min();
            }
        }
        let left = by_endpoint.values().map(|(queued, _)| queued).sum();
        self.context.metrics.queued(&by_endpoint);
        left
    }

    /// Waits until the queues are empty, but not longer than `until`. Returns the number of queued events.
    async fn deliver_until(&self, until: Instant) -> u64 {
        let mut left = self.tick_and_count().await;
        while left > 0 && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(10)).await;
            left = self.tick_and_count().await;
        }
        left
    }

    async fn tick_and_count(&self) -> u64 {
        self.tick().await;
        self.measure().await
    }
}
