//! The measured figures, their units, and the results of one run.

use std::collections::BTreeMap;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::latency::Percentiles;
use crate::process::ProcessCpu;
use crate::tally::Tally;

macro_rules! figures {
    ($($name:ident $title:literal $unit:literal $decimals:literal;)*) => {
        /// A quantity that a scenario measures. JSON files name it by the variant.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub(crate) enum Figure {
            $(#[doc = $title] $name,)*
        }

        impl Figure {
            /// Returns the name in tables.
            pub(crate) fn title(self) -> &'static str {
                match self { $(Self::$name => $title,)* }
            }

            /// Returns the unit; empty for plain numbers.
            pub(crate) fn unit(self) -> &'static str {
                match self { $(Self::$name => $unit,)* }
            }

            /// Returns the number of significant digits after the decimal point.
            pub(crate) fn decimals(self) -> usize {
                match self { $(Self::$name => $decimals,)* }
            }
        }
    };
}

// Tables show the figures in this order.
figures! {
    CpuPerDeliveryUs "CPU per delivery" "us" 3;
    CpuPerEventUs "CPU per event" "us" 2;
    CpuCores "CPU" "cores" 3;
    CpuPerSocketUs "CPU per connect and subscribe" "us" 1;
    CpuPerLeaveUs "CPU per disconnect" "us" 1;
    CpuPerJoinUs "CPU per joining member" "us" 1;
    ResidentPerSocketBytes "resident memory per socket" "bytes" 0;
    ProportionalPerSocketBytes "proportional memory per socket" "bytes" 0;
    ResidentBeforeMib "resident memory before" "MiB" 2;
    ResidentPeakMib "peak resident memory" "MiB" 2;
    ResidentAfterMib "resident memory after" "MiB" 2;
    DeliveriesPerSecond "deliveries" "/s" 0;
    EventsPerSecond "events" "/s" 0;
    SocketsPerSecond "connected sockets" "/s" 0;
    LatencyP50Ms "latency, median" "ms" 3;
    LatencyP99Ms "latency, p99" "ms" 3;
    LatencyP999Ms "latency, p99.9" "ms" 3;
    LatencyMaxMs "latency, maximum" "ms" 2;
    P99BeforeMs "latency p99 while all sockets read" "ms" 3;
    P99Ratio "latency p99, ratio with and without slow readers" "" 3;
    JoinedMs "until every member sees all others" "ms" 1;
    HalfLeftMs "until no member sees the half that left" "ms" 1;
    WrongViews "wrong member lists" "" 0;
    RepeatedChanges "repeated member changes" "" 0;
    AnswerP50Ms "API response time, median" "ms" 3;
    AnswerP99Ms "API response time, p99" "ms" 3;
    LatenessP99Ms "delay of requests by the generator, p99" "ms" 3;
    Lost "lost" "" 0;
    Doubled "duplicated" "" 0;
    OutOfOrder "out of order" "" 0;
    Refused "refused" "" 0;
    Closed "closed by the server" "" 0;
    ClosedAsSlow "slow readers closed, counted by the server" "" 0;
    Closed4100 "slow readers that read close code 4100" "" 0;
    ClosedOtherwise "slow readers closed without code 4100" "" 0;
    LeftOpen "slow readers left open" "" 0;
    OwnCpuRatio "CPU of the generator relative to the server's" "" 2;
}

/// Figures that are 0 for a correct server at any speed.
const FAULTS: [Figure; 7] = {
    use Figure::{Closed, Doubled, Lost, OutOfOrder, Refused, RepeatedChanges, WrongViews};
    [Lost, Doubled, OutOfOrder, Refused, Closed, WrongViews, RepeatedChanges]
};

impl Figure {
    /// Returns whether any value but 0 is a fault.
    pub(crate) fn is_fault(self) -> bool {
        FAULTS.contains(&self)
    }

    /// Combines the values of several runs: the maximum of a fault, which keeps a single bad run visible, and the median of
    /// any other figure.
    pub(crate) fn of_all(self, values: impl IntoIterator<Item = f64>) -> Option<f64> {
        if self.is_fault() || self == Self::LeftOpen {
            values.into_iter().max_by(f64::total_cmp)
        } else {
            median(values)
        }
    }

    /// Returns whether a ratio to another subject's value is meaningful. It is not for faults, for ratios, and for figures
    /// of the generator.
    pub(crate) fn is_comparable(self) -> bool {
        !self.is_fault() && !matches!(self, Self::LeftOpen | Self::P99Ratio | Self::LatenessP99Ms | Self::OwnCpuRatio)
    }
}

/// The results of one run of a scenario.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Measurement {
    pub(crate) figures: BTreeMap<Figure, f64>,
    /// The CPU time of each process of the server during the measurement.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) processes: Vec<ProcessCpu>,
    /// Remarks for the reader, such as the error of a failed run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) notes: Vec<String>,
}

impl Measurement {
    /// Converts an error to a measurement without figures, which allows the other runs to continue.
    pub(crate) fn or_failed(result: Result<Self>) -> Self {
        result.unwrap_or_else(|error| {
            eprintln!("failed: {error:#}");
            Self { notes: vec![format!("failed: {error:#}")], ..Self::default() }
        })
    }

    /// Returns whether the run failed and has no figures.
    pub(crate) fn has_failed(&self) -> bool {
        self.figures.is_empty()
    }

    pub(crate) fn set(&mut self, figure: Figure, value: f64) {
        self.figures.insert(figure, value);
    }

    pub(crate) fn of(&self, figure: Figure) -> Option<f64> {
        self.figures.get(&figure).copied()
    }

    pub(crate) fn set_tally(&mut self, tally: Tally) {
        self.set(Figure::Lost, tally.lost as f64);
        self.set(Figure::Doubled, tally.doubled as f64);
        self.set(Figure::OutOfOrder, tally.out_of_order as f64);
    }

    /// Sets the lateness of requests, if there was a rate.
    pub(crate) fn set_lateness(&mut self, lateness: Percentiles) {
        if lateness.count > 0 {
            self.set(Figure::LatenessP99Ms, lateness.p99_ms);
        }
    }

    pub(crate) fn set_latency(&mut self, latency: Percentiles) {
        self.set(Figure::LatencyP50Ms, latency.p50_ms);
        self.set(Figure::LatencyP99Ms, latency.p99_ms);
        self.set(Figure::LatencyP999Ms, latency.p999_ms);
        self.set(Figure::LatencyMaxMs, latency.max_ms);
    }

    /// Returns whether the run has ended without a failure and without any fault.
    pub(crate) fn is_clean(&self) -> bool {
        !self.has_failed() && FAULTS.iter().all(|figure| self.of(*figure).unwrap_or(0.0) == 0.0)
    }
}

/// Returns the median, which is the mean of the two middle values if their number is even.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut sorted: Vec<f64> = values.into_iter().collect();
    sorted.sort_by(f64::total_cmp);
    let upper = sorted.get(sorted.len() / 2)?;
    let lower = sorted.get((sorted.len() - 1) / 2)?;
    Some(f64::midpoint(*lower, *upper))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_two_values_is_their_mean() {
        let cases: [(&[f64], Option<f64>); 4] =
            [(&[], None), (&[3.0], Some(3.0)), (&[4.0, 1.0], Some(2.5)), (&[9.0, 1.0, 2.0], Some(2.0))];
        for (values, expected) in cases {
            assert_eq!(median(values.iter().copied()), expected, "{values:?}");
        }
    }

    #[test]
    fn several_runs_show_the_maximum_of_a_fault() {
        let values = [0.0, 0.0, 5000.0];
        for figure in FAULTS.into_iter().chain([Figure::LeftOpen]) {
            assert_eq!(figure.of_all(values), Some(5000.0), "{figure:?}");
        }
        assert_eq!(Figure::CpuPerDeliveryUs.of_all(values), Some(0.0));
    }

    #[test]
    fn a_run_without_figures_is_not_clean() {
        assert!(!Measurement::default().is_clean());
        let mut measurement = Measurement::default();
        measurement.set(Figure::Lost, 0.0);
        assert!(measurement.is_clean());
        measurement.set(Figure::Refused, 1.0);
        assert!(!measurement.is_clean());
    }
}
