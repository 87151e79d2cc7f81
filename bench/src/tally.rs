//! Compares the received sequence numbers of a socket with the sent ones.

use std::ops::Range;

use serde::{Deserialize, Serialize};

/// The numbers of deliveries and of faults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tally {
    /// Events that arrived, including duplicates.
    pub(crate) deliveries: u64,
    /// Sequence numbers that did not arrive.
    pub(crate) lost: u64,
    /// Repeated arrivals of a sequence number, and events of other channels.
    pub(crate) doubled: u64,
    /// Sequence numbers that arrived after a higher one.
    pub(crate) out_of_order: u64,
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.deliveries += other.deliveries;
        self.lost += other.lost;
        self.doubled += other.doubled;
        self.out_of_order += other.out_of_order;
    }
}

/// The progress of one socket. It allocates memory only while events are missing.
#[derive(Default)]
pub(crate) struct Track {
    /// The sequence number that is due next.
    next: u64,
    /// The ranges below `next` that have not arrived.
    missing: Vec<Range<u64>>,
}

impl Track {
    /// The sequence number that is due next.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// Counts an event in `tally`. Skipped sequence numbers count as lost until they arrive.
    pub(crate) fn arrived(&mut self, sequence: u64, tally: &mut Tally) {
        tally.deliveries += 1;
        if sequence == self.next {
            self.next += 1;
        } else if sequence > self.next {
            tally.lost += sequence - self.next;
            self.missing.push(self.next..sequence);
            self.next = sequence + 1;
        } else if self.take_missing(sequence) {
            tally.lost -= 1;
            tally.out_of_order += 1;
        } else {
            tally.doubled += 1;
        }
    }

    /// Counts the outstanding sequence numbers below `end` as lost.
    pub(crate) fn finish(&self, end: u64, tally: &mut Tally) {
        tally.lost += end.saturating_sub(self.next);
    }

    fn take_missing(&mut self, sequence: u64) -> bool {
        let Some(at) = self.missing.iter().position(|range| range.contains(&sequence)) else { return false };
        let range = self.missing.swap_remove(at);
        self.missing
            .extend([range.start..sequence, sequence + 1..range.end].into_iter().filter(|part| !part.is_empty()));
        true
    }
}

#[cfg(test)]
mod tests;
