//! The servers that this program has started. They are stopped when the program ends.
//!
//! The floor and workers exit when their standard input ends. Servers need a signal.

use std::sync::Mutex;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

static STARTED: Mutex<Vec<u32>> = Mutex::new(Vec::new());

/// The exit code after SIGINT or SIGTERM.
const ENDED: i32 = 130;

/// Installs a signal handler that stops all servers and exits. Must be called only once.
///
/// # Errors
/// Returns an error if the handler cannot be installed.
pub(crate) fn end_servers_on_signal() -> Result<()> {
    let end = || {
        for pid in STARTED.lock().map(|pids| pids.clone()).unwrap_or_default() {
            signal(pid, Signal::TERM);
        }
        std::process::exit(ENDED);
    };
    ctrlc::set_handler(end).context("cannot install the signal handler")
}

/// Adds a server.
pub(crate) fn add(pid: u32) {
    STARTED.lock().expect("the lock is not poisoned").push(pid);
}

/// Removes a server that has exited.
pub(crate) fn remove(pid: u32) {
    STARTED.lock().expect("the lock is not poisoned").retain(|known| *known != pid);
}

/// Sends a signal to a process. Does nothing if the process has exited.
pub(crate) fn signal(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let _ = pid.map(|pid| kill_process(pid, signal));
}
