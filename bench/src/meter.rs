//! CPU of the server and of this program over the same time.

use anyhow::Result;

use crate::figure::{Figure, Measurement};
use crate::process::{CpuSnapshot, ProcessCpu};

/// Runs from when it is started.
pub(crate) struct Meter {
    pids: Vec<u32>,
    own_pids: Vec<u32>,
    server: CpuSnapshot,
    own: CpuSnapshot,
}

/// What was used since then.
pub(crate) struct Usage {
    /// CPU of all processes of the server, in seconds.
    pub(crate) server_s: f64,
    /// CPU of this program, in seconds.
    pub(crate) own_s: f64,
    pub(crate) processes: Vec<ProcessCpu>,
}

impl Meter {
    /// # Errors
    /// Returns an error if a process is gone.
    pub(crate) fn start(pids: &[u32]) -> Result<Self> {
        Self::start_with_workers(pids, Vec::new())
    }

    /// `workers`: further processes of this program.
    ///
    /// # Errors
    /// Returns an error if a process is gone.
    pub(crate) fn start_with_workers(pids: &[u32], workers: Vec<u32>) -> Result<Self> {
        let mut own_pids = workers;
        own_pids.push(std::process::id());
        let (server, own) = (CpuSnapshot::take(pids)?, CpuSnapshot::take(&own_pids)?);
        Ok(Self { pids: pids.to_vec(), own_pids, server, own })
    }

    /// # Errors
    /// Returns an error if a process is gone.
    pub(crate) fn read(&self) -> Result<Usage> {
        let server = CpuSnapshot::take(&self.pids)?;
        let own_s = CpuSnapshot::take(&self.own_pids)?.seconds_since(&self.own);
        let processes = server.since(&self.server);
        Ok(Usage { server_s: server.seconds_since(&self.server), own_s, processes })
    }
}

impl Usage {
    /// Puts the server's CPU, shared out over `count` things, into a measurement. Without processes there is none.
    pub(crate) fn set(&self, figure: Figure, count: u64, measurement: &mut Measurement) {
        if !self.processes.is_empty() {
            measurement.set(figure, self.server_s * 1e6 / count.max(1) as f64);
            measurement.set(Figure::OwnCpuRatio, self.own_s / self.server_s.max(1e-9));
        }
    }
}
