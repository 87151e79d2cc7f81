//! A line on standard error that tells how far a run is.

use std::io::{IsTerminal, Write};

use crate::clock;

/// Between two looks of a person.
const INTERVAL_TERMINAL_NS: u64 = 200_000_000;
/// Between two lines of a log.
const INTERVAL_LOG_NS: u64 = 5_000_000_000;

/// Shows what a run is doing.
pub(crate) struct Progress {
    /// What is measured.
    label: String,
    terminal: bool,
    started_ns: u64,
    next_ns: u64,
}

impl Progress {
    pub(crate) fn new(label: impl Into<String>) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let started_ns = clock::now_ns();
        Self { label: label.into(), terminal, started_ns, next_ns: started_ns + interval_ns(terminal) }
    }

    /// Shows nothing.
    pub(crate) fn silent() -> Self {
        Self { label: String::new(), terminal: false, started_ns: 0, next_ns: u64::MAX }
    }

    /// Shows a line when one is due; cheap enough to be called at every turn of a loop.
    pub(crate) fn show(&mut self, now_ns: u64, text: impl FnOnce() -> String) {
        if now_ns < self.next_ns {
            return;
        }
        self.next_ns = now_ns + interval_ns(self.terminal);
        let elapsed_s = clock::seconds(now_ns.saturating_sub(self.started_ns));
        let line = format!("{}: {} ({elapsed_s:.0} s)", self.label, text());
        if self.terminal {
            eprint!("\r\x1b[2K{line}");
            // A line that cannot be shown is no reason to stop.
            let _ = std::io::stderr().flush();
        } else {
            eprintln!("{line}");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.terminal {
            eprint!("\r\x1b[2K");
        }
    }
}

fn interval_ns(terminal: bool) -> u64 {
    if terminal { INTERVAL_TERMINAL_NS } else { INTERVAL_LOG_NS }
}
