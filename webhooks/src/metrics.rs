//! The metrics of webhook delivery.

use std::collections::HashMap;
use std::time::Duration;

use prometheus::{Gauge, GaugeVec, Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts};
use shared::app::{AppId, Apps, Endpoint, Label};
use shared::cluster::envelope::unix_us;
use shared::cluster::webhook::QueueId;
use shared::serve::telemetry::metrics::{Registry, app_labels, latency, register};

/// The metrics of the dispatcher.
pub(super) struct Metrics {
    endpoints: HashMap<(AppId, Label), EndpointMetrics>,
    /// Dropped events and dropped dead letters.
    dropped: HashMap<AppId, (IntCounter, IntCounter)>,
    request_seconds: Histogram,
}

/// The metrics of one endpoint, or of all endpoints of the apps that share a metric label.
struct EndpointMetrics {
    queued: IntGauge,
    oldest_seconds: Gauge,
    delivered: IntCounter,
    retried: IntCounter,
    dead_lettered: IntCounter,
}

impl Metrics {
    pub(super) fn new(registry: &Registry, apps: &Apps) -> Self {
        const LABELS: [&str; 2] = ["app", "webhook_endpoint"];
        let counter = |name: &str, help: &str| register(registry, IntCounterVec::new(Opts::new(name, help), &LABELS));
        let queued = Opts::new("carillon_webhooks_queued", "Webhook events that are not yet delivered.");
        let queued = register(registry, IntGaugeVec::new(queued, &LABELS));
        let oldest = Opts::new("carillon_webhooks_oldest_seconds", "Age of the oldest queued webhook event, or 0.");
        let oldest = register(registry, GaugeVec::new(oldest, &LABELS));
        let delivered = counter("carillon_webhooks_sent_total", "Webhook events that an endpoint accepted.");
        let retried = counter("carillon_webhooks_retried_total", "Webhook requests that failed and are retried.");
        let dead_lettered = counter(
            "carillon_webhooks_dead_total",
            "Webhook events that were given up, because the endpoint did not accept them in time.",
        );
        let request_seconds = latency("carillon_webhook_request_seconds", "Duration of webhook requests.");
        let of_app =
            |name: &str, help: &str| register(registry, IntCounterVec::new(Opts::new(name, help), &LABELS[..1]));
        let dropped = of_app(
            "carillon_webhooks_dropped_total",
            "Webhook events that were dropped undelivered, because the queue of the app was full.",
        );
        let dead_dropped = of_app(
            "carillon_webhooks_dead_dropped_total",
            "Dead letters that were dropped, because there were too many or they were too old.",
        );
        let (mut endpoints, mut drops) = (HashMap::new(), HashMap::new());
        for (id, app_label) in app_labels(apps) {
            let Some(app) = apps.by_id(id.as_str()) else { continue };
            if app.webhooks.is_empty() {
                continue;
            }
            let counters = (dropped.with_label_values(&[app_label]), dead_dropped.with_label_values(&[app_label]));
            drops.insert(id.clone(), counters);
            for (label, _) in Endpoint::labelled(&app.webhooks) {
                let has_own = app_label == id.as_str();
                let values = [app_label, if has_own { label.as_str() } else { app_label }];
                let metrics = EndpointMetrics {
                    queued: queued.with_label_values(&values),
                    oldest_seconds: oldest.with_label_values(&values),
                    delivered: delivered.with_label_values(&values),
                    retried: retried.with_label_values(&values),
                    dead_lettered: dead_lettered.with_label_values(&values),
                };
                endpoints.insert((id.clone(), label), metrics);
            }
        }
        Self { endpoints, dropped: drops, request_seconds: register(registry, Histogram::with_opts(request_seconds)) }
    }

    /// Records the duration of a request.
    pub(super) fn requested(&self, took: Duration) {
        self.request_seconds.observe(took.as_secs_f64());
    }

    /// Counts delivered events.
    pub(super) fn delivered(&self, queue: &QueueId, events: usize) {
        if let Some(metrics) = self.of(queue) {
            metrics.delivered.inc_by(events as u64);
        }
    }

    /// Counts a failed request that is retried.
    pub(super) fn retried(&self, queue: &QueueId) {
        if let Some(metrics) = self.of(queue) {
            metrics.retried.inc();
        }
    }

    /// Counts an event that became a dead letter.
    pub(super) fn dead_lettered(&self, queue: &QueueId) {
        if let Some(metrics) = self.of(queue) {
            metrics.dead_lettered.inc();
        }
    }

    /// Counts and logs the dropped events and dead letters of an app.
    pub(super) fn dropped(&self, app: &AppId, events: u64, letters: u64) {
        let Some((dropped, dead_dropped)) = self.dropped.get(app) else { return };
        dropped.inc_by(events);
        dead_dropped.inc_by(letters);
        if events > 0 || letters > 0 {
            tracing::warn!(
                app.id = %app,
                events,
                dead_letters = letters,
                "dropped the oldest undelivered webhooks because the queue is full; check the endpoints of the app"
            );
        }
    }

    /// Sets the gauges of queued events. `by_endpoint`: the number of events in the queues that this node leads, and
    /// the time of the oldest event in milliseconds.
    pub(super) fn queued(&self, by_endpoint: &HashMap<(AppId, Label), (u64, Option<u64>)>) {
        let now_ms = unix_us() / 1000;
        for metrics in self.endpoints.values() {
            metrics.queued.set(0);
            metrics.oldest_seconds.set(0.0);
        }
        // Several endpoints can share their gauges.
        for (endpoint, (queued, oldest_ms)) in by_endpoint {
            let Some(metrics) = self.endpoints.get(endpoint) else { continue };
            let age_ms = oldest_ms.map_or(0, |oldest_ms| now_ms.saturating_sub(oldest_ms));
            metrics.queued.add(i64::try_from(*queued).unwrap_or(i64::MAX));
            metrics.oldest_seconds.set(metrics.oldest_seconds.get().max(age_ms as f64 / 1000.0));
        }
    }

    fn of(&self, queue: &QueueId) -> Option<&EndpointMetrics> {
        self.endpoints.get(&(queue.app.clone(), queue.endpoint.clone()))
    }
}
