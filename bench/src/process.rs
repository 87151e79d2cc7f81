//! What the kernel says of a process.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

/// CPU time of all threads of the processes, from the scheduler's own count in nanoseconds.
pub(crate) fn cpu(pids: &[u32]) -> Result<Duration> {
    let mut total = Duration::ZERO;
    for pid in pids {
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).with_context(|| format!("process {pid} is gone"))?;
        for task in tasks {
            // A thread may end between the listing and the look.
            let Ok(stat) = fs::read_to_string(task?.path().join("schedstat")) else { continue };
            let nanos = stat.split_whitespace().next().context("empty schedstat")?.parse()?;
            total += Duration::from_nanos(nanos);
        }
    }
    Ok(total)
}

/// Resident memory of the processes, in bytes.
pub(crate) fn resident_bytes(pids: &[u32]) -> Result<u64> {
    let mut total = 0;
    for pid in pids {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("no VmRSS")?;
        let kib: u64 = line.split_whitespace().nth(1).context("no VmRSS value")?.parse()?;
        total += kib * 1024;
    }
    Ok(total)
}
