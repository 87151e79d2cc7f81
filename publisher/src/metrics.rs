//! The metrics of the API.

use std::collections::HashMap;
use std::time::Duration;

use hyper::StatusCode;
use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts, exponential_buckets};
use shared::app::{AppId, Apps};
use shared::serve::telemetry::metrics::{Registry, app_labels, latency, register};

use crate::event::Event;

/// The value of the label `route` for requests to unknown paths.
pub(crate) const UNKNOWN_ROUTE: &str = "unknown";

/// Statuses whose counters exist from the start.
///
/// Alerts use the rate of these counters. Without a 0, the first responses of an outage would be missing from the rate:
/// there can be thousands between two scrapes.
const STATUSES: [StatusCode; 4] =
    [StatusCode::OK, StatusCode::TOO_MANY_REQUESTS, StatusCode::INTERNAL_SERVER_ERROR, StatusCode::SERVICE_UNAVAILABLE];

/// The metrics of the API. Label values that are known at the start are resolved then.
pub(crate) struct Metrics {
    requests: IntCounterVec,
    routes: HashMap<&'static str, RouteMetrics>,
    auth_failures: IntCounterVec,
    events: HashMap<AppId, IntCounter>,
    event_bytes: Histogram,
    channels_per_event: Histogram,
}

struct RouteMetrics {
    ok: IntCounter,
    seconds: Histogram,
}

impl Metrics {
    /// Registers all metrics. `routes`: the labels of all routes.
    ///
    /// # Panics
    /// Panics if the registry already has these metrics.
    pub(crate) fn new(registry: &Registry, apps: &Apps, routes: impl Iterator<Item = &'static str> + Clone) -> Self {
        let requests = counters(
            registry,
            "carillon_publisher_requests_total",
            "Requests to the HTTP API, by route and status.",
            &["route", "code"],
        );
        let routes = routes.chain([UNKNOWN_ROUTE]);
        for (route, status) in routes.clone().flat_map(|route| STATUSES.iter().map(move |status| (route, status))) {
            requests.with_label_values(&[route, status.as_str()]);
        }
        let seconds = latency("carillon_publisher_request_seconds", "Time from the head of a request to its response.");
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
            "Requests that failed authentication, by reason.",
            &["reason"],
        );
        // From 64 bytes to 1 MiB in steps of 4.
        let event_bytes = HistogramOpts::new("carillon_event_bytes", "Size of the data of a published event.")
            .buckets(exponential_buckets(64.0, 4.0, 8).expect("start, factor and count are valid"));
        let channels_per_event = HistogramOpts::new("carillon_channels_per_event", "Channels of a published event.")
            .buckets(vec![1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0]);
        Self {
            routes: routes
                .map(|route| {
                    let ok = requests.with_label_values(&[route, StatusCode::OK.as_str()]);
                    (route, RouteMetrics { ok, seconds: seconds.with_label_values(&[route]) })
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

    /// Counts a response.
    pub(crate) fn answered(&self, route: &'static str, status: StatusCode, took: Duration) {
        let Some(metrics) = self.routes.get(route) else { return };
        metrics.seconds.observe(took.as_secs_f64());
        if status == StatusCode::OK {
            metrics.ok.inc();
        } else {
            self.requests.with_label_values(&[route, status.as_str()]).inc();
        }
    }

    /// Counts the events of one request. `messages`: one per event and channel.
    pub(crate) fn published(&self, app: &AppId, messages: usize, events: &[Event<'_>]) {
        if let Some(counter) = self.events.get(app) {
            counter.inc_by(messages as u64);
        }
        for event in events {
            self.event_bytes.observe(event.data().len() as f64);
            self.channels_per_event.observe(event.channels().len() as f64);
        }
    }

    /// Counts a request that failed authentication.
    pub(crate) fn auth_failed(&self, reason: &'static str) {
        self.auth_failures.with_label_values(&[reason]).inc();
    }
}

fn counters(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    register(registry, IntCounterVec::new(Opts::new(name, help), labels))
}
