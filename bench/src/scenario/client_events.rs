//! The `client-events` scenario: sockets of private channels send events to each other.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use mio::Token;
use serde::{Deserialize, Serialize};

use crate::clock;
use crate::figure::{Figure, Measurement};
use crate::latency::Latency;
use crate::meter::Meter;
use crate::pace::Pace;
use crate::payload::Payload;
use crate::plan::channel_name;
use crate::progress::Progress;
use crate::receipts::Receipts;
use crate::sockets::{ConnectOptions, Sockets};
use crate::subject::Subject;
use crate::subscription;
use crate::timer::Timer;

/// A run ends after this time without an event.
const IDLE_TIMEOUT_NS: u64 = 10_000_000_000;

/// Client events: one socket of each channel sends, the others receive
#[derive(Args, Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ClientEvents {
    /// Number of channels
    #[arg(long, default_value_t = 100)]
    pub(crate) channels: usize,
    /// Sockets of each channel; the first one sends
    #[arg(long, default_value_t = 10)]
    pub(crate) members: usize,
    /// Events per second of each sender; servers allow 10
    #[arg(long, default_value_t = 8.0)]
    pub(crate) rate: f64,
    /// Events per channel
    #[arg(long, default_value_t = 80)]
    pub(crate) events_per_channel: u64,
    /// Bytes of an event's data
    #[arg(long, default_value_t = 100)]
    pub(crate) data_bytes: usize,
}

impl ClientEvents {
    pub(super) fn title(&self) -> String {
        let Self { channels, members, rate, .. } = self;
        format!("client events: {channels} private channels of {members} sockets, {rate} events/s on each")
    }

    pub(super) fn run(&self, subject: &Subject, progress: &mut Progress) -> Result<Measurement> {
        let (mut sockets, mut receipts) = self.connect(subject, progress)?;
        let timer = Timer::new(sockets.registry(), Token(usize::MAX))?;
        let meter = Meter::start(&subject.pids)?;
        let started_ns = clock::now_ns();
        let pace = Pace::new(started_ns, self.rate * self.channels as f64, 0.0);
        let events = self.channels as u64 * self.events_per_channel;
        let (mut sent, mut refused) = (0, 0);
        let mut lateness = Latency::new();
        receipts.last_ns = started_ns;
        timer.set(pace.due_ns(0))?;
        while !receipts.is_complete() {
            sockets.receive(Duration::from_millis(200), &mut receipts)?;
            let now_ns = clock::now_ns();
            while sent < events && pace.due_ns(sent) <= clock::now_ns() {
                lateness.record_ns(clock::now_ns().saturating_sub(pace.due_ns(sent)));
                refused += u64::from(!self.send(sent, &mut sockets)?);
                sent += 1;
            }
            if sent < events {
                timer.set(pace.due_ns(sent))?;
            } else if now_ns.saturating_sub(receipts.last_ns) > IDLE_TIMEOUT_NS {
                break;
            }
            progress.show(now_ns, || format!("{} of {} deliveries", receipts.tally.deliveries, receipts.expected()));
        }
        let usage = meter.read()?;
        receipts.drain(&mut sockets)?;
        let elapsed_s = clock::seconds(receipts.last_ns.saturating_sub(started_ns).max(1));

        let tally = receipts.final_tally();
        let mut measurement = Measurement { processes: usage.processes.clone(), ..Measurement::default() };
        usage.set(Figure::CpuPerDeliveryUs, tally.deliveries, &mut measurement);
        // Only delivered events count, which prevents lost events from lowering the cost.
        let delivered = tally.deliveries / (self.members as u64 - 1).max(1);
        usage.set(Figure::CpuPerEventUs, delivered, &mut measurement);
        measurement.set(Figure::DeliveriesPerSecond, tally.deliveries as f64 / elapsed_s);
        measurement.set(Figure::EventsPerSecond, delivered as f64 / elapsed_s);
        measurement.set_latency(receipts.latency.percentiles());
        measurement.set_lateness(lateness.percentiles());
        measurement.set_tally(tally);
        measurement.set(Figure::Refused, refused as f64);
        measurement.set(Figure::Closed, receipts.closed.len() as f64);
        Ok(measurement)
    }

    /// Sends event number `event`; the channels take turns.
    fn send(&self, event: u64, sockets: &mut Sockets) -> Result<bool> {
        let channel = usize::try_from(event % self.channels as u64)?;
        let mut text = format!(r#"{{"event":"client-tick","channel":"{}","data":""#, private(channel));
        let sequence = event / self.channels as u64;
        let payload = Payload { channel: channel as u64, sequence, sent_ns: clock::now_ns() };
        payload.write(self.data_bytes, &mut text);
        text.push_str("\"}");
        Ok(sockets.send(channel * self.members, &text))
    }

    fn connect(&self, subject: &Subject, progress: &mut Progress) -> Result<(Sockets, Receipts)> {
        let channels = (0..self.channels).map(|channel| subscription::name(&private(channel)));
        let channels = channels.collect::<Result<Vec<_>>>().context("channel names")?;
        let count = self.channels * self.members;
        // The sockets of a channel have consecutive numbers, which spreads them over the nodes. The first one sends.
        let expected = |socket: usize| if socket.is_multiple_of(self.members) { 0 } else { self.events_per_channel };
        let mut receipts = Receipts::new(count, expected, |socket| socket / self.members);
        let options = ConnectOptions {
            ws: &subject.ws,
            key: subject.app.key.as_str(),
            count,
            in_flight: 64,
            greeting: &|index, socket_id| {
                Some(subscription::signed(&subject.app, socket_id, &channels[index / self.members], None))
            },
        };
        let (sockets, connected) = Sockets::connect(options, &mut receipts, progress)?;
        ensure!(connected.failed == 0, "{} sockets were refused: {:?}", connected.failed, connected.failure);
        Ok((sockets, receipts))
    }
}

fn private(channel: usize) -> String {
    format!("private-{}", channel_name(channel))
}
