//! The `slow-readers` scenario: some sockets stop reading while events continue. It measures the latency of the other
//! sockets and how the server closes the slow ones.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Args;
use serde::{Deserialize, Serialize};

use super::idle::{keep_open, mib};
use crate::clock;
use crate::figure::{Figure, Measurement};
use crate::latency::Percentiles;
use crate::meter::Meter;
use crate::plan::{Plan, channel_name};
use crate::process::Memory;
use crate::progress::Progress;
use crate::publisher::Sending;
use crate::publisher::backlog::Backlog;
use crate::receipts::Receipts;
use crate::sockets::{ConnectOptions, Sockets};
use crate::subject::Subject;
use crate::subscription;
use crate::tally::Tally;

/// A phase ends after this time without an event.
const IDLE_TIMEOUT_NS: u64 = 10_000_000_000;
/// The time limit for slow readers to detect that the server closed them.
const CLOSE_TIMEOUT_NS: u64 = 15_000_000_000;
/// The duration of the warm-up, in seconds.
const WARM_UP_S: u64 = 2;
/// The interval between readings of the server's memory.
const SAMPLE_INTERVAL_NS: u64 = 500_000_000;
/// Carillon's counter of connections that were closed because they read too slowly.
const SLOW_COUNTER: &str = "carillon_slow_consumers_total";
/// The close code for a slow reader.
const OVER_CAPACITY: u16 = 4100;

/// Some sockets stop reading while events continue
#[derive(Args, Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SlowReaders {
    /// All sockets of the channel
    #[arg(long, default_value_t = 1000)]
    pub(crate) subscribers: usize,
    /// Number of them that stop reading
    #[arg(long, default_value_t = 50)]
    pub(crate) slow: usize,
    /// Events per second
    #[arg(long, default_value_t = 100.0)]
    pub(crate) rate: f64,
    /// Seconds of each of two phases: all sockets read, then some stop. The kernel buffers up to 4 MB per slow reader, which
    /// takes time to fill
    #[arg(long, default_value_t = 20)]
    pub(crate) seconds: u64,
    /// Bytes of an event's data
    #[arg(long, default_value_t = 4000)]
    pub(crate) data_bytes: usize,
}

impl SlowReaders {
    pub(super) fn title(&self) -> String {
        let Self { subscribers, slow, rate, data_bytes, .. } = self;
        format!("slow readers: {slow} of {subscribers} stop reading, {rate} events/s with {data_bytes} bytes of data")
    }

    pub(super) fn run(&self, subject: &Subject, progress: &mut Progress) -> Result<Measurement> {
        ensure!(self.slow < self.subscribers, "--slow must be less than --subscribers");
        let options = ConnectOptions {
            ws: &subject.ws,
            key: subject.app.key.as_str(),
            count: self.subscribers,
            in_flight: 64,
            greeting: &|_, _| Some(subscription::public(&channel_name(0))),
        };
        let (mut sockets, connected) = Sockets::connect(options, &mut (), progress)?;
        ensure!(connected.failed == 0, "{} sockets were refused: {:?}", connected.failed, connected.failure);
        let mut measurement = Measurement::default();
        let counted_before = subject.counted(SLOW_COUNTER)?;
        let before = Memory::of(&subject.pids)?.resident;
        // Both measured phases start with a warm server.
        self.phase(0, WARM_UP_S, subject, &mut sockets, progress)?;
        let with_all = self.phase(0, self.seconds, subject, &mut sockets, progress)?;

        for index in 0..self.slow {
            sockets.stop_reading(index)?;
        }
        let meter = Meter::start(&subject.pids)?;
        let without = self.phase(self.slow, self.seconds, subject, &mut sockets, progress)?;
        let usage = meter.read()?;
        usage.set(Figure::CpuPerDeliveryUs, without.tally.deliveries, &mut measurement);
        measurement.processes = usage.processes;

        for index in 0..self.slow {
            sockets.read_again(index)?;
        }
        let outcomes = self.outcomes(&mut sockets, progress)?;
        keep_open(&mut sockets, 3_000_000_000, progress)?;
        let after = Memory::of(&subject.pids)?.resident;

        let others_closed = self.set_outcomes(&outcomes, &mut measurement);
        if let (Some(counted), Some(before)) = (subject.counted(SLOW_COUNTER)?, counted_before) {
            measurement.set(Figure::ClosedAsSlow, counted - before);
        }
        measurement.set(Figure::Closed, (others_closed + with_all.closed + without.closed) as f64);
        measurement.set(Figure::P99BeforeMs, with_all.latency.p99_ms);
        measurement.set(Figure::P99Ratio, without.latency.p99_ms / with_all.latency.p99_ms);
        measurement.set_latency(without.latency);
        measurement.set_lateness(without.lateness);
        let mut tally = with_all.tally;
        tally += without.tally;
        measurement.set_tally(tally);
        if !subject.pids.is_empty() {
            measurement.set(Figure::ResidentBeforeMib, mib(before));
            measurement.set(Figure::ResidentPeakMib, mib(without.resident_peak));
            measurement.set(Figure::ResidentAfterMib, mib(after));
        }
        Ok(measurement)
    }

    /// Reads until all slow readers are closed, up to [`CLOSE_TIMEOUT_NS`].
    fn outcomes(&self, sockets: &mut Sockets, progress: &mut Progress) -> Result<Receipts> {
        let mut outcomes = Receipts::new(self.subscribers, |_| 0, |_| 0);
        let until_ns = clock::now_ns() + CLOSE_TIMEOUT_NS;
        while outcomes.closed.len() < self.slow && clock::now_ns() < until_ns {
            sockets.receive(Duration::from_millis(200), &mut outcomes)?;
            progress
                .show(clock::now_ns(), || format!("{} of {} slow readers closed", outcomes.closed.len(), self.slow));
        }
        Ok(outcomes)
    }

    /// Sets the figures of the slow readers. Returns the number of other sockets that were closed.
    fn set_outcomes(&self, outcomes: &Receipts, measurement: &mut Measurement) -> usize {
        let (closed, others_closed): (Vec<_>, Vec<_>) =
            outcomes.closed.iter().partition(|(index, _)| *index < self.slow);
        let with_code = closed.iter().filter(|(_, code)| *code == Some(OVER_CAPACITY)).count();
        measurement.set(Figure::Closed4100, with_code as f64);
        measurement.set(Figure::ClosedOtherwise, (closed.len() - with_code) as f64);
        measurement.set(Figure::LeftOpen, (self.slow - closed.len()) as f64);
        others_closed.len()
    }

    /// Publishes for some seconds to all sockets. The first `slow` sockets do not read.
    fn phase(
        &self,
        slow: usize,
        seconds: u64,
        subject: &Subject,
        sockets: &mut Sockets,
        progress: &mut Progress,
    ) -> Result<Phase> {
        let Self { rate, data_bytes, .. } = *self;
        let events = (rate * seconds as f64) as u64;
        let plan = Plan { channels: 1, events_per_channel: events, batch: 1, rate, data_bytes, first_sequence: 0 };
        let mut receipts = Receipts::new(self.subscribers, |index| if index < slow { 0 } else { events }, |_| 0);
        // Both phases measure the latency of the same sockets.
        receipts.timed_from = self.slow;
        let backlog = Arc::new(Backlog::new(&plan, self.subscribers as u64));
        let publishing = subject.publish(plan, Sending::default(), &backlog)?;
        let mut resident_peak = 0;
        let mut sample_ns = 0;
        receipts.last_ns = clock::now_ns();
        while !receipts.is_complete() {
            sockets.receive(Duration::from_millis(200), &mut receipts)?;
            let now_ns = clock::now_ns();
            if now_ns >= sample_ns {
                sample_ns = now_ns + SAMPLE_INTERVAL_NS;
                resident_peak = Memory::of(&subject.pids)?.resident.max(resident_peak);
            }
            if now_ns.saturating_sub(receipts.last_ns) > IDLE_TIMEOUT_NS {
                break;
            }
            progress.show(now_ns, || {
                format!("{slow} stopped reading, {} of {} deliveries", receipts.tally.deliveries, receipts.expected())
            });
        }
        let published = publishing.join()?;
        ensure!(published.refused == 0, "events were refused: {:?}", published.refusal);
        Ok(Phase {
            latency: receipts.latency.percentiles(),
            lateness: published.lateness.percentiles(),
            tally: receipts.final_tally(),
            closed: receipts.closed.len(),
            resident_peak,
        })
    }
}

/// The results of one phase.
struct Phase {
    latency: Percentiles,
    lateness: Percentiles,
    tally: Tally,
    closed: usize,
    resident_peak: u64,
}
