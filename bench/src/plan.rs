//! The events to publish: their number, channels, order and rate.

use serde::{Deserialize, Serialize};

use crate::payload::UNCOUNTED;

/// The name of all events.
pub(crate) const EVENT: &str = "tick";

/// A number of events for each of several channels, in rotation.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(crate) channels: usize,
    pub(crate) events_per_channel: u64,
    /// Events per request. With 1, each event is a request to the endpoint for single events.
    pub(crate) batch: usize,
    /// Events per second over all channels; 0 means as fast as the server accepts them.
    pub(crate) rate: f64,
    /// The length of an event's data in bytes.
    pub(crate) data_bytes: usize,
    /// The sequence number of each channel's first event.
    #[serde(default)]
    pub(crate) first_sequence: u64,
}

/// An event to publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Planned {
    pub(crate) channel: usize,
    /// The number of the event in its channel.
    pub(crate) sequence: u64,
}

/// The part of a plan that one of several senders carries out. Each channel belongs to one sender, which preserves the
/// order of its events.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Share {
    plan: Plan,
    sender: usize,
    senders: usize,
}

/// Returns the name of a channel.
pub(crate) fn channel_name(channel: usize) -> String {
    format!("bench-{channel:06}")
}

impl Plan {
    /// Returns the warm-up plan: a tenth of this plan, and at most one second of it at a steady rate.
    pub(crate) fn warm_up(self) -> Self {
        let one_second = if self.rate > 0.0 { (self.rate / self.channels as f64).ceil() as u64 } else { u64::MAX };
        let events_per_channel = (self.events_per_channel / 10).min(one_second).max(1);
        Self { events_per_channel, first_sequence: UNCOUNTED, ..self }
    }

    /// Returns the part of one of `senders` senders, counted from 0.
    pub(crate) fn share(self, sender: usize, senders: usize) -> Share {
        Share { plan: self, sender, senders }
    }
}

impl Share {
    /// Returns the requests of this sender, in order.
    pub(crate) fn batches(self) -> impl Iterator<Item = Vec<Planned>> {
        let batch = self.plan.batch.max(1) as u64;
        let events = self.events();
        (0..events.div_ceil(batch)).map(move |request| {
            (request * batch..((request + 1) * batch).min(events)).map(|event| self.planned(event)).collect()
        })
    }

    /// Returns the requests per second of this sender; 0 means as fast as the server accepts them.
    pub(crate) fn requests_per_second(&self) -> f64 {
        let part = self.channels() as f64 / self.plan.channels.max(1) as f64;
        self.plan.rate * part / self.plan.batch.max(1) as f64
    }

    /// Returns the offset of this sender's schedule: see [`crate::pace::Pace::new`].
    pub(crate) fn offset(&self) -> f64 {
        self.sender as f64 / self.senders as f64
    }

    fn channels(&self) -> usize {
        (self.plan.channels + self.senders - 1 - self.sender) / self.senders
    }

    fn events(&self) -> u64 {
        self.channels() as u64 * self.plan.events_per_channel
    }

    fn planned(&self, event: u64) -> Planned {
        let channels = self.channels() as u64;
        let channel = usize::try_from(event % channels).expect("the number of channels is a usize");
        Planned { channel: channel * self.senders + self.sender, sequence: self.plan.first_sequence + event / channels }
    }
}

#[cfg(test)]
mod tests;
