//! What is counted of webhooks, declared in one place.

use std::collections::HashMap;
use std::time::Duration;

use prometheus::{Gauge, GaugeVec, Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};
use shared::app::{AppId, Apps, Endpoint, Label};
use shared::cluster::envelope::unix_us;
use shared::cluster::webhook::QueueId;
use shared::serve::telemetry::metrics::{app_labels, latency, register};

/// Everything that the sender counts.
pub(super) struct Metrics {
    endpoints: HashMap<(AppId, Label), EndpointMetrics>,
    /// Entries of full queues and dead letters that were dropped.
    dropped: HashMap<AppId, (IntCounter, IntCounter)>,
    request_seconds: Histogram,
}

/// Of one endpoint, or of all endpoints of the apps that have no label of their own.
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
        let queued = Opts::new("carillon_webhooks_queued", "Events that are not yet delivered to an endpoint.");
        let queued = register(registry, IntGaugeVec::new(queued, &LABELS));
        let oldest = Opts::new("carillon_webhooks_oldest_seconds", "Age of the oldest of them; 0 when there is none.");
        let oldest = register(registry, GaugeVec::new(oldest, &LABELS));
        let delivered = counter("carillon_webhooks_sent_total", "Events that were delivered to an endpoint.");
        let retried = counter("carillon_webhooks_retried_total", "Requests that failed and were to be repeated.");
        let dead_lettered = counter(
            "carillon_webhooks_dead_total",
            "Events that became dead letters because an endpoint did not accept them in time.",
        );
        let request_seconds = latency("carillon_webhook_request_seconds", "Time of a request to an endpoint.");
        let of_app =
            |name: &str, help: &str| register(registry, IntCounterVec::new(Opts::new(name, help), &LABELS[..1]));
        let dropped = of_app(
            "carillon_webhooks_dropped_total",
            "Undelivered events that were dropped because the queue of the app was full.",
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

    /// A request came to an end.
    pub(super) fn requested(&self, took: Duration) {
        self.request_seconds.observe(took.as_secs_f64());
    }

    /// An endpoint took entries.
    pub(super) fn delivered(&self, queue: &QueueId, events: usize) {
        if let Some(metrics) = self.of(queue) {
            metrics.delivered.inc_by(events as u64);
        }
    }

    /// A request failed and is repeated.
    pub(super) fn retried(&self, queue: &QueueId) {
        if let Some(metrics) = self.of(queue) {
            metrics.retried.inc();
        }
    }

    /// An entry was given up.
    pub(super) fn dead_lettered(&self, queue: &QueueId) {
        if let Some(metrics) = self.of(queue) {
            metrics.dead_lettered.inc();
        }
    }

    /// Entries of an app's queue and dead letters were dropped.
    pub(super) fn dropped(&self, app: &AppId, events: u64, letters: u64) {
        let Some((dropped, dead_dropped)) = self.dropped.get(app) else { return };
        dropped.inc_by(events);
        dead_dropped.inc_by(letters);
        if events > 0 || letters > 0 {
            tracing::warn!(
                app = %app,
                events,
                dead_letters = letters,
                "dropped the oldest undelivered webhooks, since too many waited; check the app's endpoints"
            );
        }
    }

    /// What waits now, as counts and the time of the oldest in milliseconds, in the queues that this sender leads.
    pub(super) fn waiting(&self, by_endpoint: &HashMap<(AppId, Label), (u64, Option<u64>)>) {
        let now_ms = unix_us() / 1000;
        for metrics in self.endpoints.values() {
            metrics.queued.set(0);
            metrics.oldest_seconds.set(0.0);
        }
        // Some may share their gauges.
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
