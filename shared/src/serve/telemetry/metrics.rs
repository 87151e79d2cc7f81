//! What metrics of all crates share.

use prometheus::core::Collector;
use prometheus::{HistogramOpts, IntCounterVec, IntGaugeVec, Opts, Registry};

use crate::app::{AppId, Apps};

/// Upper bounds of latency histograms, in seconds; the library's own start at 5 ms, where a delivery is long over.
pub const LATENCY_BUCKETS_S: [f64; 13] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];

/// Most distinct values of the `app` label; further apps share the value `other`.
pub const APP_LABELS_MAX: usize = 100;

/// Every app with the value of its `app` label: its id, but `other` beyond the first [`APP_LABELS_MAX`] in the order of
/// ids, so that every node chooses the same.
pub fn app_labels(apps: &Apps) -> Vec<(&AppId, &str)> {
    let mut ids: Vec<&AppId> = apps.iter().map(|app| &app.id).collect();
    ids.sort();
    let labelled = ids.into_iter().enumerate();
    labelled.map(|(index, id)| (id, if index < APP_LABELS_MAX { id.as_str() } else { "other" })).collect()
}

/// Registers a metric and hands it back.
///
/// # Panics
/// When two metrics share a name or a name is not valid: mistakes of the program that its first start shows.
pub fn register<C: Collector + Clone + 'static>(registry: &Registry, metric: prometheus::Result<C>) -> C {
    let metric = metric.expect("metric names and labels are valid");
    registry.register(Box::new(metric.clone())).expect("metric names are unique");
    metric
}

/// Lets a counter's series begin at 0: an increase from nothing to 5,000 is none that Prometheus sees.
///
/// `labels`: the values of each series' labels.
///
/// # Panics
/// When a series has more or fewer labels than the counter.
pub fn from_zero<const N: usize>(
    counters: IntCounterVec,
    labels: impl IntoIterator<Item = [&'static str; N]>,
) -> IntCounterVec {
    for labels in labels {
        counters.with_label_values(&labels);
    }
    counters
}

/// Options of a latency histogram.
pub fn latency(name: &str, help: &str) -> HistogramOpts {
    HistogramOpts::new(name, help).buckets(LATENCY_BUCKETS_S.to_vec())
}

/// A registry with the process metrics and `carillon_build_info`.
pub fn registry(version: &str) -> Registry {
    let registry = Registry::new();
    #[cfg(target_os = "linux")]
    registry
        .register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))
        .expect("a fresh registry has no process metrics");
    let info = IntGaugeVec::new(Opts::new("carillon_build_info", "Always 1; the label says what runs."), &["version"]);
    register(&registry, info).with_label_values(&[version]).set(1);
    registry
}

#[cfg(test)]
mod tests;
