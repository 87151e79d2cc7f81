//! What arrived on one socket, held against what was sent: every sequence number once and in order.

use std::ops::Range;

use serde::{Deserialize, Serialize};

/// What went wrong, and how much came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tally {
    /// Events that arrived, doubled ones included.
    pub(crate) deliveries: u64,
    /// Sequence numbers that never came.
    pub(crate) lost: u64,
    /// Sequence numbers that came more than once, each time but the first, and events of other channels.
    pub(crate) doubled: u64,
    /// Sequence numbers that came after a higher one.
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

/// How far one socket is. Nothing on the heap while nothing is missing.
#[derive(Default)]
pub(crate) struct Track {
    /// The sequence number that is due next.
    next: u64,
    /// Those below `next` that have not come.
    missing: Vec<Range<u64>>,
}

impl Track {
    /// The sequence number that is due next.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// Counts an event in `tally`; what is skipped counts as lost until it comes.
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

    /// Counts as lost what is still due below `end`.
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
