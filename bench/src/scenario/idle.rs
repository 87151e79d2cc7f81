//! The `idle` scenario: subscribed sockets without events.

use std::time::Duration;

use anyhow::Result;
use clap::Args;
use serde::{Deserialize, Serialize};

use crate::clock;
use crate::figure::{Figure, Measurement};
use crate::meter::Meter;
use crate::process::Memory;
use crate::progress::Progress;
use crate::sockets::Sockets;
use crate::subject::Subject;
use crate::worker::{Work, Workers};

/// Subscribed sockets of one channel without events: memory and CPU
#[derive(Args, Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Idle {
    /// Number of sockets
    #[arg(long, default_value_t = 10_000)]
    pub(crate) sockets: usize,
    /// Concurrent connection attempts
    #[arg(long, default_value_t = 64)]
    pub(crate) in_flight: usize,
    /// Seconds between the last connection and reading the memory
    #[arg(long, default_value_t = 3)]
    pub(crate) hold_s: u64,
}

impl Idle {
    pub(super) fn title(&self) -> String {
        format!("idle: {} sockets on one channel", self.sockets)
    }

    pub(super) fn run(&self, subject: &Subject, progress: &mut Progress) -> Result<Measurement> {
        let before = Memory::of(&subject.pids)?;
        let work = Work {
            ws: subject.ws.clone(),
            key: subject.app.key.to_string(),
            first: 0,
            count: self.sockets,
            channels: 1,
            events: 0,
            in_flight: self.in_flight,
        };
        let (own, others) = work.split()?;
        let meter = Meter::start(&subject.pids)?;
        let started_ns = clock::now_ns();
        let (mut sockets, mut connected) = own.connect(&mut own.receipts(), progress)?;
        let workers = Workers::start(&others)?;
        connected.latency.add(&workers.connecting);
        let elapsed_s = clock::seconds(clock::now_ns() - started_ns);
        let usage = meter.read()?;
        keep_open(&mut sockets, self.hold_s * 1_000_000_000, progress)?;
        let memory = Memory::of(&subject.pids)?;

        let count = self.sockets.max(1) as f64;
        let mut measurement = Measurement { processes: usage.processes.clone(), ..Measurement::default() };
        usage.set(Figure::CpuPerSocketUs, self.sockets as u64, &mut measurement);
        if !subject.pids.is_empty() {
            let per_socket = |after: u64, before: u64| (after as f64 - before as f64) / count;
            measurement.set(Figure::ResidentPerSocketBytes, per_socket(memory.resident, before.resident));
            measurement.set(Figure::ProportionalPerSocketBytes, per_socket(memory.proportional, before.proportional));
            measurement.set(Figure::ResidentBeforeMib, mib(before.resident));
            measurement.set(Figure::ResidentAfterMib, mib(memory.resident));
        }
        measurement.set(Figure::SocketsPerSecond, count / elapsed_s);
        measurement.set_latency(connected.latency.percentiles());
        let closed = workers.finish()?.closed + own.count - sockets.open();
        measurement.set(Figure::Closed, closed as f64);
        Ok(measurement)
    }
}

/// Keeps sockets open for some time and responds to pings.
pub(super) fn keep_open(sockets: &mut Sockets, time_ns: u64, progress: &mut Progress) -> Result<()> {
    let until_ns = clock::now_ns() + time_ns;
    loop {
        let now_ns = clock::now_ns();
        if now_ns >= until_ns {
            return Ok(());
        }
        let wait_ns = (until_ns - now_ns).min(100_000_000);
        sockets.receive(Duration::from_nanos(wait_ns), &mut ())?;
        progress.show(now_ns, || format!("{} sockets open", sockets.open()));
    }
}

pub(super) fn mib(bytes: u64) -> f64 {
    bytes as f64 / (1024.0 * 1024.0)
}
