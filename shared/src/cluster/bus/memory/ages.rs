//! The order in which kept events were kept, and the memory that all of them take.

use std::collections::BTreeMap;

use crate::cluster::envelope::Topic;

/// Most memory of the kept events of one bus in memory, and of those that one gateway has received: 6,000 cache channels
/// with 10 KiB each. In one process the two share the events. Beyond it the least recently kept are dropped. A bus then has
/// nothing for new subscribers, who get a cache miss; a gateway of a cluster reads the event from Redis again.
pub const CACHED_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What a kept event takes besides its frame: its topic, twice, and its places in the maps.
const ENTRY_BYTES: usize = 512;

/// The age of a kept event, as compared with others. Each is given once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Age(u64);

/// The kept events of all topics by age, without the events.
#[derive(Default)]
pub struct Ages {
    by_age: BTreeMap<Age, (Topic, usize)>,
    bytes: usize,
    given: u64,
}

impl Ages {
    /// Whether no event is kept.
    pub fn is_empty(&self) -> bool {
        self.by_age.is_empty()
    }

    /// Adds an event that is kept from now on, in O(log of the kept events).
    pub fn add(&mut self, topic: &Topic, frame_bytes: usize) -> Age {
        self.given += 1;
        let (age, bytes) = (Age(self.given), frame_bytes + ENTRY_BYTES);
        self.by_age.insert(age, (topic.clone(), bytes));
        self.bytes += bytes;
        age
    }

    /// Removes an event that was replaced or has expired. Does nothing if it was removed already.
    pub fn remove(&mut self, age: Age) {
        if let Some((_, bytes)) = self.by_age.remove(&age) {
            self.bytes -= bytes;
        }
    }

    /// Removes and returns the oldest event if all together take more than [`CACHED_BYTES_MAX`]. The caller drops the event.
    pub fn remove_oldest_over_limit(&mut self) -> Option<(Age, Topic)> {
        if self.bytes <= CACHED_BYTES_MAX {
            return None;
        }
        let (age, (topic, bytes)) = self.by_age.pop_first()?;
        self.bytes -= bytes;
        Some((age, topic))
    }
}
