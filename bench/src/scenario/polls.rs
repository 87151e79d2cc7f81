//! The `polls` scenario: clients of the HTTP polling transport, and events at a steady rate to all of them.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde::{Deserialize, Serialize};

use super::idle::mib;
use crate::clock;
use crate::figure::{Figure, Measurement};
use crate::meter::Meter;
use crate::plan::{Plan, channel_name};
use crate::process::Memory;
use crate::progress::Progress;
use crate::publisher::Sending;
use crate::publisher::backlog::Backlog;
use crate::receipts::Receipts;
use crate::subject::Subject;
use crate::subscription;

/// A run ends after this time without an event.
const IDLE_TIMEOUT_NS: u64 = 10_000_000_000;

/// Events to clients of the HTTP polling transport; each event costs every client one request
#[derive(Args, Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Polls {
    /// Number of clients
    #[arg(long, default_value_t = 2000)]
    pub(crate) clients: usize,
    /// Events per second
    #[arg(long, default_value_t = 1.0)]
    pub(crate) rate: f64,
    /// Number of events
    #[arg(long, default_value_t = 30)]
    pub(crate) events: u64,
    /// Bytes of an event's data
    #[arg(long, default_value_t = 100)]
    pub(crate) data_bytes: usize,
}

impl Polls {
    pub(super) fn title(&self) -> String {
        let Self { clients, rate, events, data_bytes } = self;
        format!("polls: {clients} clients that poll, {rate} events/s, {events} events with {data_bytes} bytes of data")
    }

    pub(super) fn run(&self, subject: &Subject, progress: &mut Progress) -> Result<Measurement> {
        let Self { clients, rate, events, data_bytes } = *self;
        let address = *subject.ws.first().context("the subject has no address")?;
        let before = Memory::of(&subject.pids)?;
        let greeting = subscription::public(&channel_name(0));
        let key = subject.app.key.to_string();
        let (mut polls, opening) = crate::polls::Polls::open(address, &key, clients, 64, &greeting, progress)?;
        let plan = Plan { channels: 1, events_per_channel: events, batch: 1, rate, data_bytes, first_sequence: 0 };
        let mut receipts = Receipts::new(clients, |_| events, |_| 0);
        let meter = Meter::start(&subject.pids)?;
        let started_ns = clock::now_ns();
        let backlog = Arc::new(Backlog::new(&plan, clients as u64));
        let publishing = subject.publish(plan, Sending::default(), &backlog)?;
        receipts.last_ns = started_ns;
        while !receipts.is_complete() {
            let before = receipts.tally.deliveries;
            polls.receive(Duration::from_millis(200), &mut receipts)?;
            backlog.arrived(receipts.tally.deliveries - before);
            let now_ns = clock::now_ns();
            if now_ns.saturating_sub(receipts.last_ns) > IDLE_TIMEOUT_NS {
                break;
            }
            progress.show(now_ns, || format!("{} of {} deliveries", receipts.tally.deliveries, receipts.expected()));
        }
        let published = publishing.join()?;
        ensure!(published.refused == 0, "events were refused: {:?}", published.refusal);
        // The polls after the last event belong to its cost.
        polls.receive(Duration::from_millis(200), &mut receipts)?;
        let usage = meter.read()?;
        let elapsed_s = clock::seconds(clock::now_ns() - started_ns);
        let memory = Memory::of(&subject.pids)?;

        let mut measurement = Measurement { processes: usage.processes.clone(), ..Measurement::default() };
        usage.set(Figure::CpuPerDeliveryUs, receipts.tally.deliveries, &mut measurement);
        if !subject.pids.is_empty() {
            measurement.set(Figure::CpuCores, usage.server_s / elapsed_s);
            let grown = memory.resident as f64 - before.resident as f64;
            measurement.set(Figure::ResidentPerSocketBytes, grown / clients.max(1) as f64);
            measurement.set(Figure::ResidentAfterMib, mib(memory.resident));
        }
        measurement.set_latency(receipts.latency.percentiles());
        measurement.set_lateness(published.lateness.percentiles());
        measurement.set_tally(receipts.final_tally());
        measurement.set(Figure::Closed, receipts.closed.len() as f64);
        let opening = opening.percentiles();
        measurement.notes.push(format!("opened and subscribed: median {:.1} ms", opening.p50_ms));
        Ok(measurement)
    }
}
