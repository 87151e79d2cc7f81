//! A progress line on standard error.

use std::io::{IsTerminal, Write};

use crate::clock;

/// The update interval on a terminal.
const INTERVAL_TERMINAL_NS: u64 = 200_000_000;
/// The update interval in a log.
const INTERVAL_LOG_NS: u64 = 5_000_000_000;

/// The progress of a run.
pub(crate) struct Progress {
    /// The scenario and the subject.
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

    /// Returns a progress without output.
    pub(crate) fn silent() -> Self {
        Self { label: String::new(), terminal: false, started_ns: 0, next_ns: u64::MAX }
    }

    /// Prints a line if one is due. Cheap enough for every turn of a loop.
    pub(crate) fn show(&mut self, now_ns: u64, text: impl FnOnce() -> String) {
        if now_ns < self.next_ns {
            return;
        }
        self.next_ns = now_ns + interval_ns(self.terminal);
        let elapsed_s = clock::seconds(now_ns.saturating_sub(self.started_ns));
        let line = format!("{}: {} ({elapsed_s:.0} s)", self.label, text());
        if self.terminal {
            eprint!("\r\x1b[2K{line}");
            // A failed write to the terminal does not stop the run.
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
