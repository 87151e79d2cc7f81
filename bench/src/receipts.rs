//! Checks the events that arrive at the sockets of a run.

use std::time::Duration;

use anyhow::Result;

use crate::clock;
use crate::latency::Latency;
use crate::payload::{PayloadFinder, UNCOUNTED};
use crate::sockets::{Receiver, Sockets};
use crate::tally::{Tally, Track};

/// After this time without an event, no more are expected.
const QUIET_NS: u64 = 300_000_000;

/// The receiver that checks every event.
pub(crate) struct Receipts {
    sockets: Vec<Expected>,
    finder: PayloadFinder,
    pub(crate) tally: Tally,
    pub(crate) latency: Latency,
    /// The number of sockets that have received all their events.
    complete: usize,
    /// The time of the last event.
    pub(crate) last_ns: u64,
    /// The sockets that the server closed, with the codes of its close frames.
    pub(crate) closed: Vec<(usize, Option<u16>)>,
    /// The number of warm-up events.
    pub(crate) uncounted: u64,
    /// The first socket whose latency is recorded.
    pub(crate) timed_from: usize,
}

struct Expected {
    track: Track,
    /// The number of the channel that the socket is subscribed to.
    channel: usize,
    /// The number of events that it must receive.
    events: u64,
}

impl Receipts {
    /// Creates the receiver for `count` sockets; `events` and `channel` return the events and the channel of a socket.
    pub(crate) fn new(count: usize, events: impl Fn(usize) -> u64, channel: impl Fn(usize) -> usize) -> Self {
        let expected = |socket| Expected { track: Track::default(), channel: channel(socket), events: events(socket) };
        let sockets: Vec<Expected> = (0..count).map(expected).collect();
        Self {
            complete: sockets.iter().filter(|socket| socket.events == 0).count(),
            sockets,
            finder: PayloadFinder::new(),
            tally: Tally::default(),
            latency: Latency::new(),
            last_ns: clock::now_ns(),
            closed: Vec::new(),
            uncounted: 0,
            timed_from: 0,
        }
    }

    /// Returns whether every socket has received its last event.
    pub(crate) fn is_complete(&self) -> bool {
        self.complete == self.sockets.len()
    }

    /// Receives late and duplicated events until none arrives for [`QUIET_NS`].
    ///
    /// # Errors
    /// Returns an error if polling fails.
    pub(crate) fn drain(&mut self, sockets: &mut Sockets) -> Result<()> {
        let until_ns = clock::now_ns() + QUIET_NS;
        let last_ns = self.last_ns;
        while clock::now_ns() < until_ns.max(self.last_ns + QUIET_NS) {
            sockets.receive(Duration::from_millis(50), self)?;
        }
        // Rates are computed up to the last expected event.
        self.last_ns = last_ns;
        Ok(())
    }

    /// Returns the number of expected deliveries.
    pub(crate) fn expected(&self) -> u64 {
        self.sockets.iter().map(|socket| socket.events).sum()
    }

    /// Returns the tally, with all missing events counted as lost.
    pub(crate) fn final_tally(&self) -> Tally {
        let mut tally = self.tally;
        for socket in &self.sockets {
            socket.track.finish(socket.events, &mut tally);
        }
        tally
    }
}

impl Receiver for Receipts {
    fn message(&mut self, socket: usize, message: &[u8], now_ns: u64) {
        let Some(payload) = self.finder.find(message) else { return };
        if payload.sequence >= UNCOUNTED {
            self.uncounted += 1;
            self.last_ns = now_ns;
            return;
        }
        let expected = &mut self.sockets[socket];
        if payload.channel != expected.channel as u64 {
            // The socket is not subscribed to this channel. Counts as duplicated.
            self.tally.doubled += 1;
            return;
        }
        let before = expected.track.next();
        expected.track.arrived(payload.sequence, &mut self.tally);
        if before < expected.events && expected.track.next() >= expected.events {
            self.complete += 1;
        }
        if socket >= self.timed_from {
            self.latency.record_ns(now_ns.saturating_sub(payload.sent_ns));
        }
        self.last_ns = now_ns;
    }

    fn closed(&mut self, socket: usize, code: Option<u16>) {
        self.closed.push((socket, code));
    }
}
