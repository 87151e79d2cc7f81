//! What arrived on every socket of a run, checked.

use std::time::Duration;

use anyhow::Result;

use crate::clock;
use crate::latency::Latency;
use crate::payload::{PayloadFinder, UNCOUNTED};
use crate::sockets::{Receiver, Sockets};
use crate::tally::{Tally, Track};

/// Nothing arriving for this long means that nothing more comes.
const QUIET_NS: u64 = 300_000_000;

/// Checks every event that arrives.
pub(crate) struct Receipts {
    sockets: Vec<Expected>,
    finder: PayloadFinder,
    pub(crate) tally: Tally,
    pub(crate) latency: Latency,
    /// Sockets that have got everything.
    complete: usize,
    /// When something last arrived.
    pub(crate) last_ns: u64,
    /// Sockets that the server closed, with the code of its close frame.
    pub(crate) closed: Vec<(usize, Option<u16>)>,
    /// Events that only warmed the server up.
    pub(crate) uncounted: u64,
    /// The first socket whose latency is recorded.
    pub(crate) timed_from: usize,
}

struct Expected {
    track: Track,
    /// The number of the channel that it is subscribed to.
    channel: usize,
    /// Events that are to come.
    events: u64,
}

impl Receipts {
    /// `events`: how many each of `count` sockets is to get. `channel`: on which channel.
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

    /// Whether every socket has got the last event that it was to get.
    pub(crate) fn is_complete(&self) -> bool {
        self.complete == self.sockets.len()
    }

    /// Takes what still comes after everything has: repeats, and what others were faster than.
    ///
    /// # Errors
    /// Returns an error if the system refuses to wait.
    pub(crate) fn drain(&mut self, sockets: &mut Sockets) -> Result<()> {
        let until_ns = clock::now_ns() + QUIET_NS;
        let last_ns = self.last_ns;
        while clock::now_ns() < until_ns.max(self.last_ns + QUIET_NS) {
            sockets.receive(Duration::from_millis(50), self)?;
        }
        // Rates are those of what was waited for.
        self.last_ns = last_ns;
        Ok(())
    }

    /// Everything that was to come, whether or not it came.
    pub(crate) fn expected(&self) -> u64 {
        self.sockets.iter().map(|socket| socket.events).sum()
    }

    /// What went wrong, with what has not come counted as lost.
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
            // Nobody asked for it: as wrong as one that comes twice.
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
