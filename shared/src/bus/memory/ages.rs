//! Which kept events are the oldest, and how much memory all of them take.

use std::collections::BTreeMap;

use crate::envelope::Topic;

/// Most memory of the kept events of one process: 6,000 cache channels with 10 KiB each. Beyond it the oldest are
/// forgotten, and new subscribers of their channels hear of a cache miss.
pub const KEPT_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What a kept event takes besides its frame: its topic, twice, and its places in the maps.
const ENTRY_BYTES: usize = 512;

/// When a kept event was kept, as against the others. Each is given once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Age(u64);

/// The kept events of all topics by age, without the events.
#[derive(Default)]
pub(super) struct Ages {
    by_age: BTreeMap<Age, (Topic, usize)>,
    bytes: usize,
    given: u64,
}

impl Ages {
    /// Counts an event in that is kept from now on, in O(log of the kept events).
    pub(super) fn keep(&mut self, topic: &Topic, frame_bytes: usize) -> Age {
        self.given += 1;
        let (age, bytes) = (Age(self.given), frame_bytes + ENTRY_BYTES);
        self.by_age.insert(age, (topic.clone(), bytes));
        self.bytes += bytes;
        age
    }

    /// Counts an event out that was replaced or is over; one that was counted out already is no error.
    pub(super) fn forget(&mut self, age: Age) {
        if let Some((_, bytes)) = self.by_age.remove(&age) {
            self.bytes -= bytes;
        }
    }

    /// Counts the oldest event out if all together take more than [`KEPT_BYTES_MAX`]. The caller forgets the event.
    pub(super) fn forget_oldest_beyond_bound(&mut self) -> Option<(Age, Topic)> {
        if self.bytes <= KEPT_BYTES_MAX {
            return None;
        }
        let (age, (topic, bytes)) = self.by_age.pop_first()?;
        self.bytes -= bytes;
        Some((age, topic))
    }
}
