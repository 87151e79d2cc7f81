//! Histograms of times, and their percentiles.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// The longest time that a histogram records: one minute, in nanoseconds.
const LONGEST_NS: u64 = 60_000_000_000;

/// A histogram of times with three significant digits.
#[derive(Clone)]
pub(crate) struct Latency {
    histogram: Histogram<u64>,
}

/// The recorded values of a histogram for another process: times in nanoseconds and their counts.
pub(crate) type Counts = Vec<(u64, u64)>;

/// The percentiles of a histogram, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Percentiles {
    pub(crate) count: u64,
    pub(crate) p50_ms: f64,
    pub(crate) p90_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) p999_ms: f64,
    pub(crate) max_ms: f64,
}

impl Latency {
    pub(crate) fn new() -> Self {
        let histogram = Histogram::new_with_bounds(1, LONGEST_NS, 3).expect("the bounds are valid");
        Self { histogram }
    }

    /// Records one time.
    pub(crate) fn record_ns(&mut self, ns: u64) {
        self.histogram.saturating_record(ns);
    }

    /// Adds the values of another histogram.
    pub(crate) fn add(&mut self, other: &Self) {
        self.histogram.add(&other.histogram).expect("all histograms have the same bounds");
    }

    pub(crate) fn counts(&self) -> Counts {
        self.histogram.iter_recorded().map(|step| (step.value_iterated_to(), step.count_at_value())).collect()
    }

    pub(crate) fn add_counts(&mut self, counts: &[(u64, u64)]) {
        for (ns, count) in counts {
            self.histogram.saturating_record_n(*ns, *count);
        }
    }

    pub(crate) fn percentiles(&self) -> Percentiles {
        let ms = |quantile| self.histogram.value_at_quantile(quantile) as f64 / 1e6;
        Percentiles {
            count: self.histogram.len(),
            p50_ms: ms(0.5),
            p90_ms: ms(0.9),
            p99_ms: ms(0.99),
            p999_ms: ms(0.999),
            max_ms: self.histogram.max() as f64 / 1e6,
        }
    }
}
