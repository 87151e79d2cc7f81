//! What arrived on every socket of a run, checked.

use crate::clock;
use crate::latency::Latency;
use crate::payload::PayloadFinder;
use crate::sockets::Receiver;
use crate::tally::{Tally, Track};

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
}

struct Expected {
    track: Track,
    /// Events that are to come.
    events: u64,
}

impl Receipts {
    /// `events`: how many each of `count` sockets is to get.
    pub(crate) fn new(count: usize, events: impl Fn(usize) -> u64) -> Self {
        let sockets: Vec<Expected> =
            (0..count).map(|socket| Expected { track: Track::default(), events: events(socket) }).collect();
        Self {
            complete: sockets.iter().filter(|socket| socket.events == 0).count(),
            sockets,
            finder: PayloadFinder::new(),
            tally: Tally::default(),
            latency: Latency::new(),
            last_ns: clock::now_ns(),
            closed: Vec::new(),
        }
    }

    /// Whether every socket has got the last event that it was to get.
    pub(crate) fn is_complete(&self) -> bool {
        self.complete == self.sockets.len()
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
        let expected = &mut self.sockets[socket];
        let before = expected.track.next();
        expected.track.arrived(payload.sequence, &mut self.tally);
        if before < expected.events && expected.track.next() >= expected.events {
            self.complete += 1;
        }
        self.latency.record_ns(now_ns.saturating_sub(payload.sent_ns));
        self.last_ns = now_ns;
    }

    fn closed(&mut self, socket: usize, code: Option<u16>) {
        self.closed.push((socket, code));
    }
}
