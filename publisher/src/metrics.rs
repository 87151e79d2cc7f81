//! The API's counters, declared in one place.

use std::collections::HashMap;
use std::time::Duration;

use hyper::StatusCode;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts, Registry, exponential_buckets,
};
use shared::app::{AppId, Apps};
use shared::serve::telemetry::metrics::{app_labels, latency, register};

use crate::event::Event;
use crate::routes;

/// The value of the label `route` for requests to paths that no route has.
pub(crate) const UNKNOWN_ENDPOINT: &str = "unknown";

/// Answers that are counted from 0 on, since alerts ask how fast they increase: the first of an outage come by the thousand
/// between two looks of Prometheus.
const STATUSES: [StatusCode; 4] =
    [StatusCode::OK, StatusCode::TOO_MANY_REQUESTS, StatusCode::INTERNAL_SERVER_ERROR, StatusCode::SERVICE_UNAVAILABLE];

/// Everything that the API counts. Labels that are known at the start are resolved then.
pub(crate) struct Metrics {
    requests: IntCounterVec,
    endpoints: HashMap<&'static str, EndpointMetrics>,
    auth_failures: IntCounterVec,
    events: HashMap<AppId, IntCounter>,
    event_bytes: Histogram,
    channels_per_event: Histogram,
}

struct EndpointMetrics {
    ok: IntCounter,
    seconds: Histogram,
}

impl Metrics {
    /// Registers all metrics.
    ///
    /// # Panics
    /// When the registry has them already.
    pub(crate) fn new(registry: &Registry, apps: &Apps) -> Self {
        let requests = counters(
            registry,
            "carillon_publisher_requests_total",
            "Requests answered, by route and status.",
            &["route", "code"],
        );
        let endpoints = || routes::LABELS.into_iter().chain([UNKNOWN_ENDPOINT]);
        for (endpoint, status) in endpoints().flat_map(|endpoint| STATUSES.iter().map(move |status| (endpoint, status)))
        {
            requests.with_label_values(&[endpoint, status.as_str()]);
        }
        let seconds = latency("carillon_publisher_request_seconds", "Time from a request's head to its answer.");
        let seconds = register(registry, HistogramVec::new(seconds, &["route"]));
        let events = counters(
            registry,
            "carillon_events_published_total",
            "Events published over the HTTP API, counted once per channel.",
            &["app"],
        );
        let auth_failures = counters(
            registry,
            "carillon_publisher_auth_failures_total",
            "Requests whose sender could not show that it may use the app.",
            &["reason"],
        );
        // From 64 bytes to 1 MiB in steps of 4.
        let event_bytes = HistogramOpts::new("carillon_event_bytes", "Size of the data of a published event.")
            .buckets(exponential_buckets(64.0, 4.0, 8).expect("start, factor and count are valid"));
        let channels_per_event =
            HistogramOpts::new("carillon_channels_per_event", "Channels that one published event goes to.")
                .buckets(vec![1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0]);
        Self {
            endpoints: endpoints()
                .map(|endpoint| {
                    let ok = requests.with_label_values(&[endpoint, StatusCode::OK.as_str()]);
                    (endpoint, EndpointMetrics { ok, seconds: seconds.with_label_values(&[endpoint]) })
                })
                .collect(),
            requests,
            auth_failures,
            events: app_labels(apps)
                .into_iter()
                .map(|(id, label)| (id.clone(), events.with_label_values(&[label])))
                .collect(),
            event_bytes: register(registry, Histogram::with_opts(event_bytes)),
            channels_per_event: register(registry, Histogram::with_opts(channels_per_event)),
        }
    }

    /// A request was answered.
    pub(crate) fn answered(&self, endpoint: &'static str, status: StatusCode, took: Duration) {
        let Some(metrics) = self.endpoints.get(endpoint) else { return };
        metrics.seconds.observe(took.as_secs_f64());
        if status == StatusCode::OK {
            metrics.ok.inc();
        } else {
            self.requests.with_label_values(&[endpoint, status.as_str()]).inc();
        }
    }

    /// Events of one request were published as `messages` messages.
    pub(crate) fn published(&self, app: &AppId, messages: usize, events: &[Event<'_>]) {
        if let Some(counter) = self.events.get(app) {
            counter.inc_by(messages as u64);
        }
        for event in events {
            self.event_bytes.observe(event.data_bytes() as f64);
            self.channels_per_event.observe(event.channels().len() as f64);
        }
    }

    /// A request was refused for what its sender did not show.
    pub(crate) fn auth_failed(&self, reason: &'static str) {
        self.auth_failures.with_label_values(&[reason]).inc();
    }
}

fn counters(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    register(registry, IntCounterVec::new(Opts::new(name, help), labels))
}
