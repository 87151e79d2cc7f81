//! Helpers for the metrics of all crates.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::{Arc, Mutex};

use prometheus::core::{Collector, Desc};
use prometheus::{HistogramOpts, IntCounterVec, IntGaugeVec, Opts};

use crate::app::{AppId, Apps};
use crate::sync::lock;

/// The upper bounds of latency histograms, in seconds. The defaults of the library begin at 5 ms, which is longer than
/// most deliveries take.
pub const LATENCY_BUCKETS_S: [f64; 13] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];

/// The maximum number of distinct values of the `app` label. Further apps share the value `other`.
pub const APP_LABELS_MAX: usize = 100;

/// A registry that also lists its metrics. [`prometheus::Registry::gather`] leaves out metrics without a series.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    metrics: prometheus::Registry,
    descriptions: Arc<Mutex<BTreeMap<String, Description>>>,
}

/// The description of one metric.
#[derive(Clone, Debug)]
pub struct Description {
    /// The type: `counter`, `gauge` or `histogram`.
    pub kind: String,
    /// The help text.
    pub help: String,
    /// The names of the variable labels.
    pub labels: Vec<String>,
}

/// Returns every app with the value of its `app` label.
///
/// The label is the id for the first [`APP_LABELS_MAX`] apps in the order of their ids, and `other` for the rest. Every
/// node therefore uses the same labels.
pub fn app_labels(apps: &Apps) -> Vec<(&AppId, &str)> {
    let mut ids: Vec<&AppId> = apps.iter().map(|app| &app.id).collect();
    ids.sort();
    let labelled = ids.into_iter().enumerate();
    labelled.map(|(index, id)| (id, if index < APP_LABELS_MAX { id.as_str() } else { "other" })).collect()
}

/// Registers a metric and returns it.
///
/// # Panics
/// If the name is invalid or already registered, which is a bug that every start shows.
pub fn register<C: Collector + Clone + 'static>(registry: &Registry, metric: prometheus::Result<C>) -> C {
    let metric = metric.expect("metric names and labels are valid");
    registry.add(Box::new(metric.clone())).expect("metric names are unique");
    metric
}

/// Creates the series of a counter with the value 0. Prometheus does not count the first value of a new series as an
/// increase.
///
/// `labels`: the label values of each series.
///
/// # Panics
/// If a series has another number of labels than the counter.
pub fn from_zero<const N: usize>(
    counters: IntCounterVec,
    labels: impl IntoIterator<Item = [&'static str; N]>,
) -> IntCounterVec {
    for labels in labels {
        counters.with_label_values(&labels);
    }
    counters
}

/// Returns the options of a latency histogram.
pub fn latency(name: &str, help: &str) -> HistogramOpts {
    HistogramOpts::new(name, help).buckets(LATENCY_BUCKETS_S.to_vec())
}

/// Returns a registry with the process metrics and `carillon_build_info`.
pub fn registry(version: &str) -> Registry {
    let registry = Registry::new();
    #[cfg(target_os = "linux")]
    registry
        .add(Box::new(prometheus::process_collector::ProcessCollector::for_self()))
        .expect("a fresh registry has no process metrics");
    let info =
        IntGaugeVec::new(Opts::new("carillon_build_info", "Constant 1; the label has the version."), &["version"]);
    register(&registry, info).with_label_values(&[version]).set(1);
    registry
}

// === impl Registry ===

impl Registry {
    /// Returns an empty registry.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the descriptions of all registered metrics by name.
    pub fn descriptions(&self) -> BTreeMap<String, Description> {
        lock(&self.descriptions).clone()
    }

    fn add(&self, metric: Box<dyn Collector>) -> prometheus::Result<()> {
        let kinds: BTreeMap<String, String> = metric
            .collect()
            .iter()
            .map(|family| (family.name().to_owned(), format!("{:?}", family.get_field_type()).to_lowercase()))
            .collect();
        let described = metric.desc().into_iter().map(|description| {
            let Desc { fq_name, help, variable_labels, .. } = description.clone();
            let kind = kinds.get(&fq_name).cloned().unwrap_or_default();
            (fq_name, Description { kind, help, labels: variable_labels })
        });
        let described: Vec<_> = described.collect();
        self.metrics.register(metric)?;
        lock(&self.descriptions).extend(described);
        Ok(())
    }
}

impl Deref for Registry {
    type Target = prometheus::Registry;

    fn deref(&self) -> &prometheus::Registry {
        &self.metrics
    }
}

#[cfg(test)]
mod tests;
