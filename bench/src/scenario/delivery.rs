//! The `fanout`, `bursts` and `routing` scenarios: events from the HTTP API to sockets, with different parameters.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Args;
use serde::{Deserialize, Serialize};

use crate::clock;
use crate::figure::{Figure, Measurement};
use crate::meter::{Meter, Usage};
use crate::plan::Plan;
use crate::progress::Progress;
use crate::publisher::backlog::Backlog;
use crate::publisher::{Published, Sending};
use crate::receipts::Receipts;
use crate::sockets::Sockets;
use crate::subject::Subject;
use crate::worker::{Work, Workers};

/// A run ends after this time without an event. Missing events count as lost.
const IDLE_TIMEOUT_NS: u64 = 10_000_000_000;
/// CPU time is read after this time without an event, since later CPU time does not belong to deliveries.
const QUIET_NS: u64 = 500_000_000;

/// A warm-up ends after this time without an event.
const WARM_UP_TIMEOUT_NS: u64 = 2_000_000_000;

/// The number of concurrent connection attempts before the measurement.
const CONNECTS_IN_FLIGHT: usize = 64;

/// Single events to many subscribers of one channel
#[derive(Args, Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Fanout {
    /// Subscribers of the channel
    #[arg(long, default_value_t = 1000)]
    pub(crate) subscribers: usize,
    /// Events per second; 0 publishes as fast as the server responds
    #[arg(long, default_value_t = 100.0)]
    pub(crate) rate: f64,
    /// Number of events
    #[arg(long, default_value_t = 1000)]
    pub(crate) events: u64,
    /// Bytes of an event's data
    #[arg(long, default_value_t = 100)]
    pub(crate) data_bytes: usize,
    #[command(flatten)]
    #[serde(default)]
    pub(crate) sending: Sending,
}

/// Batches of events to many subscribers of one channel
#[derive(Args, Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Bursts {
    /// Subscribers of the channel
    #[arg(long, default_value_t = 1000)]
    pub(crate) subscribers: usize,
    /// Events per request
    #[arg(long, default_value_t = 10)]
    pub(crate) batch: usize,
    /// Events per second; 0 publishes as fast as the server responds
    #[arg(long, default_value_t = 0.0)]
    pub(crate) rate: f64,
    /// Number of events
    #[arg(long, default_value_t = 5000)]
    pub(crate) events: u64,
    /// Bytes of an event's data
    #[arg(long, default_value_t = 100)]
    pub(crate) data_bytes: usize,
    #[command(flatten)]
    #[serde(default)]
    pub(crate) sending: Sending,
}

/// Events to many channels with one subscriber each
#[derive(Args, Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Routing {
    /// Number of channels
    #[arg(long, default_value_t = 2000)]
    pub(crate) channels: usize,
    /// Events per request; 1 sends single events
    #[arg(long, default_value_t = 10)]
    pub(crate) batch: usize,
    /// Events per second over all channels; 0 publishes as fast as the server responds
    #[arg(long, default_value_t = 0.0)]
    pub(crate) rate: f64,
    /// Events per channel
    #[arg(long, default_value_t = 50)]
    pub(crate) events_per_channel: u64,
    /// Bytes of an event's data
    #[arg(long, default_value_t = 100)]
    pub(crate) data_bytes: usize,
    #[command(flatten)]
    #[serde(default)]
    pub(crate) sending: Sending,
}

/// The common form of the three scenarios.
pub(super) struct Delivery {
    name: &'static str,
    /// The number of subscribers per channel.
    subscribers: usize,
    plan: Plan,
    sending: Sending,
}

impl Fanout {
    pub(super) fn delivery(&self) -> Delivery {
        let Self { subscribers, rate, events, data_bytes, sending } = *self;
        let plan = Plan { channels: 1, events_per_channel: events, batch: 1, rate, data_bytes, first_sequence: 0 };
        Delivery { name: "fanout", subscribers, plan, sending }
    }
}

impl Bursts {
    pub(super) fn delivery(&self) -> Delivery {
        let Self { subscribers, batch, rate, events, data_bytes, sending } = *self;
        let plan = Plan { channels: 1, events_per_channel: events, batch, rate, data_bytes, first_sequence: 0 };
        Delivery { name: "bursts", subscribers, plan, sending }
    }
}

impl Routing {
    pub(super) fn delivery(&self) -> Delivery {
        let Self { channels, batch, rate, events_per_channel, data_bytes, sending } = *self;
        let plan = Plan { channels, events_per_channel, batch, rate, data_bytes, first_sequence: 0 };
        Delivery { name: "routing", subscribers: 1, plan, sending }
    }
}

impl Delivery {
    pub(super) fn title(&self) -> String {
        let Plan { channels, batch, rate, events_per_channel, data_bytes, .. } = self.plan;
        let to = match (channels, self.subscribers) {
            (1, subscribers) => format!("{subscribers} subscribers"),
            (channels, 1) => format!("{channels} channels with one subscriber"),
            (channels, subscribers) => format!("{channels} channels with {subscribers} subscribers"),
        };
        let how = if batch > 1 { format!(" in batches of {batch}") } else { String::new() };
        let speed = if rate > 0.0 { format!("{rate} events/s") } else { "full speed".into() };
        format!(
            "{}: {to}, {speed}{how}, {} events with {data_bytes} bytes of data",
            self.name,
            events_per_channel * channels as u64
        )
    }

    pub(super) fn run(&self, subject: &Subject, progress: &mut Progress) -> Result<Measurement> {
        let (own, others) = self.work(subject).split()?;
        ensure!(
            others.is_empty() || self.plan.rate > 0.0,
            "{} sockets exceed the limit of one process; several processes support only a steady rate",
            own.count + others.iter().map(|work| work.count).sum::<usize>()
        );
        let workers = Workers::start(&others)?;
        let mut receipts = own.receipts();
        let (mut sockets, _) = own.connect(&mut receipts, progress)?;
        self.warm_up(own.count, subject, &mut sockets, &mut receipts)?;
        let meter = Meter::start_with_workers(&subject.pids, workers.pids())?;
        // The backlog counts the deliveries to this process. The workers' progress is similar.
        let backlog = Arc::new(Backlog::new(&self.plan, (own.count / self.plan.channels).max(1) as u64));
        let started_ns = clock::now_ns();
        let publishing = subject.publish(self.plan, self.sending, &backlog)?;
        receipts.last_ns = started_ns;
        let quiet_usage = receive_all(&mut sockets, &mut receipts, &backlog, &meter, progress)?;
        let published = publishing.join()?;
        let arrived = workers.finish()?;
        let usage = match quiet_usage {
            Some(usage) => usage,
            None => meter.read()?,
        };
        receipts.drain(&mut sockets)?;
        let last_ns = receipts.last_ns.max(arrived.last_ns);
        let elapsed_s = clock::seconds(last_ns.saturating_sub(started_ns).max(1));

        let mut tally = receipts.final_tally();
        tally += arrived.tally;
        if let Some(latency) = &arrived.latency {
            receipts.latency.add(latency);
        }
        // Only delivered events count, which prevents lost events from lowering the cost.
        let events = tally.deliveries / self.subscribers as u64;
        let mut measurement = Measurement { processes: usage.processes.clone(), ..Measurement::default() };
        usage.set(Figure::CpuPerDeliveryUs, tally.deliveries, &mut measurement);
        usage.set(Figure::CpuPerEventUs, events, &mut measurement);
        measurement.set(Figure::DeliveriesPerSecond, tally.deliveries as f64 / elapsed_s);
        measurement.set(Figure::EventsPerSecond, events as f64 / elapsed_s);
        measurement.set_latency(receipts.latency.percentiles());
        measurement.set_tally(tally);
        measurement.set(Figure::Closed, (receipts.closed.len() + arrived.closed) as f64);
        set_published(published, &mut measurement);
        Ok(measurement)
    }

    /// Runs a short plan before the measurement to warm up compilers, caches and connections.
    fn warm_up(
        &self,
        sockets_here: usize,
        subject: &Subject,
        sockets: &mut Sockets,
        receipts: &mut Receipts,
    ) -> Result<()> {
        let plan = self.plan.warm_up();
        let per_event = (sockets_here / plan.channels).max(1) as u64;
        let backlog = Arc::new(Backlog::new(&plan, per_event));
        let publishing = subject.publish(plan, self.sending, &backlog)?;
        let expected = plan.events_per_channel * sockets_here as u64;
        receipts.last_ns = clock::now_ns();
        while receipts.uncounted < expected && clock::now_ns().saturating_sub(receipts.last_ns) < WARM_UP_TIMEOUT_NS {
            let before = receipts.uncounted;
            sockets.receive(Duration::from_millis(50), receipts)?;
            backlog.arrived(receipts.uncounted - before);
        }
        publishing.join()?;
        receipts.drain(sockets)
    }

    fn work(&self, subject: &Subject) -> Work {
        Work {
            ws: subject.ws.clone(),
            key: subject.app.key.to_string(),
            first: 0,
            count: self.plan.channels * self.subscribers,
            channels: self.plan.channels,
            events: self.plan.events_per_channel,
            in_flight: CONNECTS_IN_FLIGHT,
        }
    }
}

/// Receives until everything has arrived or the timeout passes. Returns the usage at the start of a quiet end.
fn receive_all(
    sockets: &mut Sockets,
    receipts: &mut Receipts,
    backlog: &Backlog,
    meter: &Meter,
    progress: &mut Progress,
) -> Result<Option<Usage>> {
    let (started_ns, expected) = (receipts.last_ns, receipts.expected());
    let mut quiet_usage = None;
    loop {
        let before = receipts.tally.deliveries;
        sockets.receive(Duration::from_millis(200), receipts)?;
        let arrived = receipts.tally.deliveries - before;
        backlog.arrived(arrived);
        let now_ns = clock::now_ns();
        if arrived > 0 {
            quiet_usage = None;
        } else if quiet_usage.is_none() && now_ns.saturating_sub(receipts.last_ns) > QUIET_NS {
            quiet_usage = Some(meter.read()?);
        }
        if receipts.is_complete() || now_ns.saturating_sub(receipts.last_ns) > IDLE_TIMEOUT_NS {
            return Ok(quiet_usage);
        }
        progress.show(now_ns, || {
            let per_s = receipts.tally.deliveries as f64 / clock::seconds(now_ns - started_ns);
            format!("{} of {expected} deliveries, {per_s:.0}/s", receipts.tally.deliveries)
        });
    }
}

/// Sets the figures of the HTTP API.
fn set_published(published: Published, measurement: &mut Measurement) {
    measurement.set(Figure::Refused, published.refused as f64);
    measurement.notes.extend(published.refusal);
    let response_times = published.response_times.percentiles();
    if response_times.count > 0 {
        measurement.set(Figure::AnswerP50Ms, response_times.p50_ms);
        measurement.set(Figure::AnswerP99Ms, response_times.p99_ms);
    }
    measurement.set_lateness(published.lateness.percentiles());
}
