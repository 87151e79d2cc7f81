//! The sender of webhooks: reads the queues that it leads and tells each endpoint, in order and until it listens.
//!
//! One worker for each queue, so that no endpoint waits for another. Source: protocol reference 5.

mod address;
mod client;
mod config;
mod delivery;
mod message;
mod metrics;
mod worker;

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt};
use prometheus::Registry;
use shared::app::{App, AppId, Apps, Endpoint, Label};
use shared::cluster::webhook::queues::TICK_INTERVAL;
use shared::cluster::webhook::{QueueId, Queues};
use shared::serve::tls::files::FileError;
use tokio::sync::Notify;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

pub use address::{RefusedAddress, check_url};
pub use client::RESERVED_HEADERS;
pub use config::Config;

use client::Client;
use delivery::{Deliverer, Recipient};
use metrics::Metrics;
use worker::Worker;

/// How often it is measured what waits.
const MEASURE_INTERVAL: Duration = Duration::from_secs(1);

/// How long a sender that leaves goes on with what is under way.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(3);

/// How long a process whose queues end with it delivers what waits, before it closes its clients' connections.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// The same after it has closed them. Clients are back within a second, and the next process must listen by then.
const LAST_TIMEOUT: Duration = Duration::from_millis(300);

/// Queues that are measured at a time.
const MEASURES: usize = 8;

/// What the sender works with.
pub struct Deps {
    /// The tenants and their endpoints.
    pub apps: Apps,
    /// Where entries wait.
    pub queues: Arc<dyn Queues>,
    /// Where metrics are registered.
    pub registry: Registry,
    /// Whether what waits is still there when this process has ended.
    pub queues_survive: bool,
}

/// An error that prevents webhooks from being sent at all.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The machine lacks what HTTP clients need.
    #[error("cannot prepare requests for webhooks")]
    Http(#[from] reqwest::Error),
    /// The trusted certificates cannot be used.
    #[error("webhooks.ca_file")]
    Certificates(#[from] FileError),
    /// TLS cannot be set up.
    #[error("cannot set up TLS for webhooks")]
    Tls(#[from] rustls::Error),
}

/// Sends what waits in queues, as long as [`Dispatcher::run`] runs.
pub struct Dispatcher {
    apps: HashMap<AppId, Tenant>,
    queues_survive: bool,
    context: Arc<Context>,
    workers: Mutex<HashMap<QueueId, Running>>,
    /// Tending and leaving take turns: who has left must not begin to lead again.
    turn: tokio::sync::Mutex<()>,
}

/// An app that has endpoints.
struct Tenant {
    app: Arc<App>,
    endpoints: Vec<(Label, Arc<Recipient>)>,
    labels: Vec<Label>,
}

/// A worker, which ends when this is dropped.
struct Running {
    news: Arc<Notify>,
    _task: AbortOnDropHandle<()>,
}

/// What all workers share.
struct Context {
    queues: Arc<dyn Queues>,
    client: Client,
    config: Config,
    metrics: Metrics,
    /// Requests under way, and those that were taken and are not acknowledged.
    requests: AtomicUsize,
    /// Set when nothing new is to be begun.
    draining: CancellationToken,
}

impl Dispatcher {
    /// Puts a sender together and registers its metrics.
    ///
    /// # Errors
    /// [`ClientError`] when the machine lacks what HTTP clients need.
    ///
    /// # Panics
    /// When the registry has a sender's metrics already.
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
        Ok(Arc::new(Self {
            apps: tenants.collect(),
            queues_survive,
            context: Arc::new(Context {
                queues,
                client: Client::new(config)?,
                config: config.clone(),
                metrics: Metrics::new(&registry, &apps),
                requests: AtomicUsize::new(0),
                draining: CancellationToken::new(),
            }),
            workers: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
        }))
    }

    /// Sends; never returns. Does nothing where no app has an endpoint.
    pub async fn run(&self) -> Infallible {
        if self.apps.is_empty() {
            return std::future::pending().await;
        }
        tokio::join!(self.keep_ticking(), self.keep_measuring()).0
    }

    /// Delivers what waits in queues that end with the process, for up to a second.
    /// Called while clients are still served, so that little is left for [`Dispatcher::drain`].
    pub async fn flush(&self) {
        if self.apps.is_empty() || self.queues_survive {
            return;
        }
        let _turn = self.turn.lock().await;
        self.deliver_until(Instant::now() + FLUSH_TIMEOUT).await;
    }

    /// Finishes the requests under way. Where the queues end with the process, delivers what waits for up to 300 ms.
    /// Then another sender may continue.
    pub async fn drain(&self) {
        if self.apps.is_empty() {
            return;
        }
        // Not given back: nobody tends after this.
        let _turn = self.turn.lock().await;
        if self.queues_survive {
            let until = Instant::now() + LEAVE_TIMEOUT;
            self.context.draining.cancel();
            while self.context.requests.load(Ordering::Acquire) > 0 && Instant::now() < until {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        } else {
            self.context.queues.expire_holds();
            let left = self.deliver_until(Instant::now() + LAST_TIMEOUT).await;
            if left > 0 {
                tracing::warn!(events = left, "webhooks are lost with this process: their endpoints did not take them");
            }
        }
        self.lock().clear();
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

    async fn tick(&self) {
        // Redis being away is told by others.
        let news = self.context.queues.tick().await.unwrap_or_default();
        let mut workers = self.lock();
        workers.retain(|queue, _| self.context.queues.leads(queue.partition));
        for (partition, app) in news {
            // Of an app that is not configured here; a process that knows it may send it.
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

    /// Sets the gauges, and lets go what every endpoint is done with. Returns how many entries wait.
    async fn measure(&self) -> u64 {
        let mut queues: Vec<(u32, AppId)> =
            self.lock().keys().map(|queue| (queue.partition, queue.app.clone())).collect();
        queues.sort();
        queues.dedup();
        let measured: Vec<_> = stream::iter(queues)
            .map(async |(partition, app)| {
                let labels = self.apps.get(&app).map(|tenant| tenant.labels.as_slice()).unwrap_or_default();
                let backlog = self.context.queues.backlog(partition, &app, labels).await;
                (app, backlog)
            })
            .buffer_unordered(MEASURES)
            .collect()
            .await;
        let mut by_endpoint: HashMap<(AppId, Label), (u64, Option<u64>)> = HashMap::new();
        for (app, backlog) in measured {
            // What cannot be asked now keeps its last value.
            let Ok(backlog) = backlog else { return u64::MAX };
            self.context.metrics.dropped(&app, backlog.dropped, backlog.dead_dropped);
            for (label, backlog) in backlog.by_endpoint {
                let (queued, oldest_ms) = by_endpoint.entry((app.clone(), label)).or_default();
                *queued += backlog.queued;
                *oldest_ms = oldest_ms.iter().copied().chain(backlog.oldest_ms).min();
            }
        }
        let left = by_endpoint.values().map(|(queued, _)| queued).sum();
        self.context.metrics.waiting(&by_endpoint);
        left
    }

    /// Waits until the queues are empty, or until this time; returns how many entries are left.
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

    fn lock(&self) -> MutexGuard<'_, HashMap<QueueId, Running>> {
        // A panic under this lock leaves a map that is whole.
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
