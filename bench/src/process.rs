//! CPU time, memory and children of processes, as the kernel reports them.

use std::collections::{BTreeMap, HashMap};
use std::fs;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// The CPU time of each thread of some processes, from the scheduler's statistics.
pub(crate) struct CpuSnapshot {
    /// Nanoseconds, by process and thread.
    threads: HashMap<(u32, u32), u64>,
}

/// The CPU time that one process used between two snapshots.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ProcessCpu {
    pub(crate) pid: u32,
    /// The first words of its command line.
    pub(crate) command: String,
    pub(crate) cpu_s: f64,
}

/// The memory of some processes, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Memory {
    pub(crate) resident: u64,
    /// Resident memory with shared pages divided among the processes; 0 if the kernel does not report it.
    pub(crate) proportional: u64,
}

impl CpuSnapshot {
    /// Reads the CPU times of some processes.
    ///
    /// # Errors
    /// Returns an error if a process has exited.
    pub(crate) fn take(pids: &[u32]) -> Result<Self> {
        let mut threads = HashMap::new();
        for &pid in pids {
            let tasks =
                fs::read_dir(format!("/proc/{pid}/task")).with_context(|| format!("process {pid} has exited"))?;
            for task in tasks {
                let task = task?;
                // A thread may exit after it was listed.
                let Ok(stat) = fs::read_to_string(task.path().join("schedstat")) else { continue };
                let nanos = stat.split_whitespace().next().context("schedstat is empty")?.parse()?;
                let thread = task.file_name().to_string_lossy().parse().context("invalid thread id")?;
                threads.insert((pid, thread), nanos);
            }
        }
        Ok(Self { threads })
    }

    /// Returns the CPU time of each process since `before`. The time of threads that have exited is not included.
    pub(crate) fn since(&self, before: &Self) -> Vec<ProcessCpu> {
        let mut processes: BTreeMap<u32, u64> = BTreeMap::new();
        for (thread, nanos) in &self.threads {
            let used = nanos.saturating_sub(before.threads.get(thread).copied().unwrap_or(0));
            *processes.entry(thread.0).or_default() += used;
        }
        processes
            .into_iter()
            .map(|(pid, nanos)| ProcessCpu { pid, command: command(pid), cpu_s: nanos as f64 / 1e9 })
            .collect()
    }

    /// Returns the CPU time of all processes since `before`, in seconds.
    pub(crate) fn seconds_since(&self, before: &Self) -> f64 {
        self.since(before).iter().map(|process| process.cpu_s).sum()
    }
}

impl Memory {
    /// Reads the memory of some processes.
    ///
    /// # Errors
    /// Returns an error if a process has exited.
    pub(crate) fn of(pids: &[u32]) -> Result<Self> {
        let mut memory = Self::default();
        for pid in pids {
            let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
            memory.resident += kib(&status, "VmRSS:").context("the status has no VmRSS")? * 1024;
            let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
            memory.proportional += kib(&rollup, "Pss:").unwrap_or(0) * 1024;
        }
        Ok(memory)
    }
}

/// Returns a process and all its descendants except shells.
pub(crate) fn descendants(root: u32) -> Vec<u32> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        if let Some(parent) = parent(pid) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found = vec![root];
    let mut looked = 0;
    while looked < found.len() {
        found.extend(children.remove(&found[looked]).unwrap_or_default());
        looked += 1;
    }
    found.retain(|pid| !is_shell(*pid));
    found.sort_unstable();
    found
}

fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The process name before it is in parentheses and may contain any character.
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

fn is_shell(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| ["sh", "bash", "dash"].contains(&name.trim()))
}

fn command(pid: u32) -> String {
    let raw = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words: Vec<_> = raw.split(|byte| *byte == 0).take(6).map(String::from_utf8_lossy).collect();
    let line = words.join(" ");
    // The directory of the program is left out.
    let (program, arguments) = line.split_once(' ').unwrap_or((&line, ""));
    let program = program.rsplit('/').next().unwrap_or(program);
    format!("{program} {arguments}").trim_end().to_owned()
}

/// Returns the number after `label` in a file with lines like `VmRSS:   123 kB`.
fn kib(text: &str, label: &str) -> Option<u64> {
    text.lines().find(|line| line.starts_with(label))?.split_whitespace().nth(1)?.parse().ok()
}
