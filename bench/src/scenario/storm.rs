//! The `storm` scenario: sockets connect at the same time, as after a restart, disconnect, and connect again.

use anyhow::Result;
use clap::Args;
use serde::{Deserialize, Serialize};

use super::idle::keep_open;
use crate::figure::{Figure, Measurement};
use crate::latency::Latency;
use crate::meter::Meter;
use crate::plan::channel_name;
use crate::progress::Progress;
use crate::sockets::{ConnectOptions, Sockets};
use crate::subject::Subject;
use crate::subscription;

/// The pause between waves, in which the server finishes the cleanup of the closed connections.
const PAUSE_NS: u64 = 1_000_000_000;

/// Many sockets connect at the same time, disconnect, and connect again
#[derive(Args, Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Storm {
    /// Sockets of each wave
    #[arg(long, default_value_t = 5000)]
    pub(crate) sockets: usize,
    /// Number of waves
    #[arg(long, default_value_t = 2)]
    pub(crate) waves: usize,
    /// Concurrent connection attempts
    #[arg(long, default_value_t = 500)]
    pub(crate) in_flight: usize,
    /// Number of channels, over which the sockets are spread
    #[arg(long, default_value_t = 1)]
    pub(crate) channels: usize,
}

impl Storm {
    pub(super) fn title(&self) -> String {
        format!("storm: {} waves of {} sockets, {} under way at once", self.waves, self.sockets, self.in_flight)
    }

    pub(super) fn run(&self, subject: &Subject, progress: &mut Progress) -> Result<Measurement> {
        let mut measurement = Measurement::default();
        let mut latency = Latency::new();
        let (mut elapsed_s, mut connect_s, mut leave_s, mut own_s, mut failed) = (0.0, 0.0, 0.0, 0.0, 0);
        for _ in 0..self.waves {
            let meter = Meter::start(&subject.pids)?;
            let options = ConnectOptions {
                ws: &subject.ws,
                key: subject.app.key.as_str(),
                count: self.sockets,
                in_flight: self.in_flight,
                greeting: &|index, _| Some(subscription::public(&channel_name(index % self.channels.max(1)))),
            };
            let (mut sockets, connected) = Sockets::connect(options, &mut (), progress)?;
            let connecting = meter.read()?;
            for index in 0..self.sockets {
                sockets.close(index);
            }
            keep_open(&mut sockets, PAUSE_NS, progress)?;
            let both = meter.read()?;
            connect_s += connecting.server_s;
            leave_s += both.server_s - connecting.server_s;
            own_s += both.own_s;
            elapsed_s += connected.elapsed_s;
            failed += connected.failed;
            latency.add(&connected.latency);
            measurement.notes.extend(connected.failure.filter(|_| measurement.notes.is_empty()));
            measurement.processes = both.processes;
        }
        // Only accepted connections count, which prevents refusals from lowering the cost.
        let count = ((self.sockets * self.waves) as u64).saturating_sub(failed).max(1) as f64;
        if !subject.pids.is_empty() {
            measurement.set(Figure::CpuPerSocketUs, connect_s * 1e6 / count);
            measurement.set(Figure::CpuPerLeaveUs, leave_s * 1e6 / count);
            measurement.set(Figure::OwnCpuRatio, own_s / (connect_s + leave_s).max(1e-9));
        }
        measurement.set(Figure::SocketsPerSecond, count / elapsed_s);
        measurement.set_latency(latency.percentiles());
        measurement.set(Figure::Refused, failed as f64);
        Ok(measurement)
    }
}
