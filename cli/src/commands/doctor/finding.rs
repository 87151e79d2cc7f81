//! The result of one check of `carillon doctor`.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

/// The severity of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Verdict {
    Good,
    /// The node runs with a restriction.
    Warning,
    /// The node does not run, or loses data.
    Problem,
}

/// One line of output: the subject of a check, its result, and the advice that follows from it.
pub(super) struct Finding {
    pub(super) verdict: Verdict,
    pub(super) subject: &'static str,
    pub(super) text: String,
}

impl Finding {
    pub(super) fn good(subject: &'static str, text: impl Into<String>) -> Self {
        Self { verdict: Verdict::Good, subject, text: text.into() }
    }

    pub(super) fn warning(subject: &'static str, text: impl Into<String>) -> Self {
        Self { verdict: Verdict::Warning, subject, text: text.into() }
    }

    pub(super) fn problem(subject: &'static str, text: impl Into<String>) -> Self {
        Self { verdict: Verdict::Problem, subject, text: text.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match self.verdict {
            Verdict::Good => "ok",
            Verdict::Warning => "warning",
            Verdict::Problem => "problem",
        };
        writeln!(f, "{verdict:<8} {:<14} {}", self.subject, self.text)
    }
}

/// The subject of findings about clocks.
pub(super) const CLOCK: &str = "clock";

/// Clock differences from this many seconds on get a warning. They make logs and latencies hard to read.
const CLOCK_WARNING_S: u64 = 2;

/// The clock difference in seconds that is a problem, and the description of that problem.
pub(super) type ClockLimit = (u64, &'static str);

/// Compares a clock with the local one. `there`: the other clock, in seconds since 1970.
pub(super) fn compare_clocks(there: u64, whose: &str, (limit_s, problem): ClockLimit) -> Finding {
    let here = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let apart = here.abs_diff(there);
    let text = format!("{apart} s apart from the clock of {whose}");
    match apart {
        _ if apart >= limit_s => Finding::problem(CLOCK, format!("{text}: {problem}")),
        CLOCK_WARNING_S.. => Finding::warning(CLOCK, text),
        _ => Finding::good(CLOCK, text),
    }
}
