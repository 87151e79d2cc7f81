//! CPU times of the server and of this program over the same period.

use anyhow::Result;

use crate::figure::{Figure, Measurement};
use crate::process::{CpuSnapshot, ProcessCpu};

/// The CPU times at the start of a period.
pub(crate) struct Meter {
    pids: Vec<u32>,
    own_pids: Vec<u32>,
    server: CpuSnapshot,
    own: CpuSnapshot,
}

/// The CPU times used since [`Meter::start`].
pub(crate) struct Usage {
    /// The CPU time of all processes of the server, in seconds.
    pub(crate) server_s: f64,
    /// The CPU time of this program, in seconds.
    pub(crate) own_s: f64,
    pub(crate) processes: Vec<ProcessCpu>,
}

impl Meter {
    /// Starts a period.
    ///
    /// # Errors
    /// Returns an error if a process has exited.
    pub(crate) fn start(pids: &[u32]) -> Result<Self> {
        Self::start_with_workers(pids, Vec::new())
    }

    /// Starts a period. `workers` are further processes of this program.
    ///
    /// # Errors
    /// Returns an error if a process has exited.
    pub(crate) fn start_with_workers(pids: &[u32], workers: Vec<u32>) -> Result<Self> {
        let mut own_pids = workers;
        own_pids.push(std::process::id());
        let (server, own) = (CpuSnapshot::take(pids)?, CpuSnapshot::take(&own_pids)?);
        Ok(Self { pids: pids.to_vec(), own_pids, server, own })
    }

    /// Returns the CPU times used since the start.
    ///
    /// # Errors
    /// Returns an error if a process has exited.
    pub(crate) fn read(&self) -> Result<Usage> {
        let server = CpuSnapshot::take(&self.pids)?;
        let own_s = CpuSnapshot::take(&self.own_pids)?.seconds_since(&self.own);
        let processes = server.since(&self.server);
        Ok(Usage { server_s: server.seconds_since(&self.server), own_s, processes })
    }
}

impl Usage {
    /// Sets a figure to the server's CPU time divided by `count`. Does nothing if no processes are known.
    pub(crate) fn set(&self, figure: Figure, count: u64, measurement: &mut Measurement) {
        if !self.processes.is_empty() {
            measurement.set(figure, self.server_s * 1e6 / count.max(1) as f64);
            measurement.set(Figure::OwnCpuRatio, self.own_s / self.server_s.max(1e-9));
        }
    }
}
