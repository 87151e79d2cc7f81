//! Servers that this program has started, so that none outlives it.
//!
//! A floor and a worker end with their standard input; a server has to be told.

use std::sync::Mutex;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

static STARTED: Mutex<Vec<u32>> = Mutex::new(Vec::new());

/// What a program that was ended by SIGINT or SIGTERM returns.
const ENDED: i32 = 130;

/// Ends all servers when this program is told to end. To be called once.
///
/// # Errors
/// Returns an error if the system refuses.
pub(crate) fn end_with_this_program() -> Result<()> {
    let end = || {
        for pid in STARTED.lock().map(|pids| pids.clone()).unwrap_or_default() {
            signal(pid, Signal::TERM);
        }
        std::process::exit(ENDED);
    };
    ctrlc::set_handler(end).context("cannot hear signals")
}

/// Takes note of a server.
pub(crate) fn add(pid: u32) {
    STARTED.lock().expect("nobody panics with it").push(pid);
}

/// Forgets a server that has ended.
pub(crate) fn remove(pid: u32) {
    STARTED.lock().expect("nobody panics with it").retain(|known| *known != pid);
}

/// Sends a signal to a process; it may have ended meanwhile.
pub(crate) fn signal(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let _ = pid.map(|pid| kill_process(pid, signal));
}
