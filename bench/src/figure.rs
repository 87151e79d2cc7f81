//! What can be measured, each with its unit, and the results of one run.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::latency::Percentiles;
use crate::process::ProcessCpu;
use crate::tally::Tally;

macro_rules! figures {
    ($($name:ident $title:literal $unit:literal $decimals:literal;)*) => {
        /// Something that a scenario measures.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub(crate) enum Figure {
            $(#[doc = $title] $name,)*
        }

        impl Figure {
            /// What it is, for people.
            pub(crate) fn title(self) -> &'static str {
                match self { $(Self::$name => $title,)* }
            }

            /// What it is counted in; empty for plain numbers.
            pub(crate) fn unit(self) -> &'static str {
                match self { $(Self::$name => $unit,)* }
            }

            /// Digits after the point that mean something.
            pub(crate) fn decimals(self) -> usize {
                match self { $(Self::$name => $decimals,)* }
            }
        }
    };
}

// In the order in which tables show them.
figures! {
    CpuPerDeliveryUs "CPU per delivery" "us" 3;
    CpuPerEventUs "CPU per event" "us" 2;
    CpuPerSocketUs "CPU per connect and subscribe" "us" 1;
    CpuPerLeaveUs "CPU per disconnect" "us" 1;
    CpuPerJoinUs "CPU per member that joins" "us" 1;
    ResidentPerSocketBytes "resident memory per socket" "bytes" 0;
    ProportionalPerSocketBytes "proportional memory per socket" "bytes" 0;
    ResidentBeforeMib "resident memory before" "MiB" 2;
    ResidentPeakMib "resident memory, most" "MiB" 2;
    ResidentAfterMib "resident memory after" "MiB" 2;
    DeliveriesPerSecond "deliveries" "/s" 0;
    EventsPerSecond "events" "/s" 0;
    SocketsPerSecond "connected sockets" "/s" 0;
    LatencyP50Ms "latency, median" "ms" 3;
    LatencyP99Ms "latency, p99" "ms" 3;
    LatencyP999Ms "latency, p99.9" "ms" 3;
    LatencyMaxMs "latency, longest" "ms" 2;
    P99BeforeMs "latency p99 while all read" "ms" 3;
    P99Ratio "latency p99, with against without" "" 3;
    JoinedMs "until everyone sees everyone" "ms" 1;
    HalfLeftMs "until nobody sees the half that left" "ms" 1;
    WrongViews "members with a wrong view" "" 0;
    RepeatedChanges "members added or removed twice" "" 0;
    AnswerP50Ms "answer of the API, median" "ms" 3;
    AnswerP99Ms "answer of the API, p99" "ms" 3;
    LatenessP99Ms "requests sent late, p99" "ms" 3;
    Lost "lost" "" 0;
    Doubled "doubled" "" 0;
    OutOfOrder "out of order" "" 0;
    Refused "refused" "" 0;
    Closed "closed by the server" "" 0;
    ClosedAsSlow "slow readers closed, by the server's count" "" 0;
    Closed4100 "slow readers that got to read 4100" "" 0;
    ClosedOtherwise "slow readers that found themselves cut off" "" 0;
    LeftOpen "slow readers left open" "" 0;
    OwnCpuRatio "CPU of the generator against the server's" "" 2;
}

/// What one run of a scenario gave.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Measurement {
    pub(crate) figures: BTreeMap<Figure, f64>,
    /// CPU of each process of the server, over the measured time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) processes: Vec<ProcessCpu>,
    /// What a person should know of this run besides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) notes: Vec<String>,
}

impl Measurement {
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

    pub(crate) fn set_latency(&mut self, latency: Percentiles) {
        self.set(Figure::LatencyP50Ms, latency.p50_ms);
        self.set(Figure::LatencyP99Ms, latency.p99_ms);
        self.set(Figure::LatencyP999Ms, latency.p999_ms);
        self.set(Figure::LatencyMaxMs, latency.max_ms);
    }

    /// Whether nothing was lost, doubled, disordered, refused, closed or wrong.
    pub(crate) fn is_clean(&self) -> bool {
        use Figure::{Closed, Doubled, Lost, OutOfOrder, Refused, RepeatedChanges, WrongViews};
        [Lost, Doubled, OutOfOrder, Refused, Closed, WrongViews, RepeatedChanges]
            .iter()
            .all(|figure| self.of(*figure).unwrap_or(0.0) == 0.0)
    }
}

/// The middle of some values; of two middles the lower.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut sorted: Vec<f64> = values.into_iter().collect();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len().saturating_sub(1) / 2).copied()
}
