//! What is published: how many events, on which channels, in what order and how fast.

use serde::{Deserialize, Serialize};

use crate::payload::UNCOUNTED;

/// The event's name.
pub(crate) const EVENT: &str = "tick";

/// Every channel gets the same number of events, in rotation.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(crate) channels: usize,
    pub(crate) events_per_channel: u64,
    /// Events per request; 1 sends each as a request of its own kind.
    pub(crate) batch: usize,
    /// Events per second, all channels together; 0 means as fast as they are accepted.
    pub(crate) rate: f64,
    /// Bytes of an event's data.
    pub(crate) data_bytes: usize,
    /// The sequence number of each channel's first event.
    #[serde(default)]
    pub(crate) first_sequence: u64,
}

/// One event to publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Planned {
    pub(crate) channel: usize,
    /// Counts the events of its channel.
    pub(crate) sequence: u64,
}

/// The part of a plan that one of several senders carries out. A channel belongs to one sender, so that its events keep
/// their order.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Share {
    plan: Plan,
    sender: usize,
    senders: usize,
}

/// The name of a channel.
pub(crate) fn channel_name(channel: usize) -> String {
    format!("bench-{channel:06}")
}

impl Plan {
    /// What a server is to carry out before it is measured: a tenth of this, at most a second at a steady rate.
    pub(crate) fn warm_up(self) -> Self {
        let a_second = if self.rate > 0.0 { (self.rate / self.channels as f64).ceil() as u64 } else { u64::MAX };
        let events_per_channel = (self.events_per_channel / 10).min(a_second).max(1);
        Self { events_per_channel, first_sequence: UNCOUNTED, ..self }
    }

    /// The part of one sender out of `senders`, counted from 0.
    pub(crate) fn share(self, sender: usize, senders: usize) -> Share {
        Share { plan: self, sender, senders }
    }
}

impl Share {
    /// The requests of this sender, in order.
    pub(crate) fn batches(self) -> impl Iterator<Item = Vec<Planned>> {
        let batch = self.plan.batch.max(1) as u64;
        let events = self.events();
        (0..events.div_ceil(batch)).map(move |request| {
            (request * batch..((request + 1) * batch).min(events)).map(|event| self.planned(event)).collect()
        })
    }

    /// Requests per second of this sender; 0 means as fast as they are accepted.
    pub(crate) fn requests_per_second(&self) -> f64 {
        let part = self.channels() as f64 / self.plan.channels.max(1) as f64;
        self.plan.rate * part / self.plan.batch.max(1) as f64
    }

    /// How this sender's first request lies between those of the others: see [`crate::pace::Pace::new`].
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
        let channel = usize::try_from(event % channels).expect("channels are counted in memory");
        Planned { channel: channel * self.senders + self.sender, sequence: self.plan.first_sequence + event / channels }
    }
}

#[cfg(test)]
mod tests;
