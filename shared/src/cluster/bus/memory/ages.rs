//! The ages of cached events and the memory that they use.

use std::collections::BTreeMap;

use crate::cluster::envelope::Topic;

/// The most memory that cached events may use, in an in-memory bus and in a gateway. It fits 6,000 events of 10 KiB.
///
/// A bus and a gateway in one process share the events. Above the limit, the oldest events are evicted. New subscribers
/// then receive a cache miss from the bus. A gateway of a cluster reads the event from Redis.
pub const CACHED_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The memory of a cached event without its frame: two copies of the topic and the entries in the maps.
const ENTRY_BYTES: usize = 512;

/// The age of a cached event. Each value is used once, and later events have greater values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Age(u64);

/// The ages and sizes of the cached events of all topics.
#[derive(Default)]
pub struct Ages {
    by_age: BTreeMap<Age, (Topic, usize)>,
    bytes: usize,
    given: u64,
}

impl Ages {
    /// Whether no event is cached.
    pub fn is_empty(&self) -> bool {
        self.by_age.is_empty()
    }

    /// Adds an event and returns its age, in O(log n).
    pub fn add(&mut self, topic: &Topic, frame_bytes: usize) -> Age {
        self.given += 1;
        let (age, bytes) = (Age(self.given), frame_bytes + ENTRY_BYTES);
        self.by_age.insert(age, (topic.clone(), bytes));
        self.bytes += bytes;
        age
    }

    /// Removes an event that was replaced or has expired. Does nothing if it was already removed.
    pub fn remove(&mut self, age: Age) {
        if let Some((_, bytes)) = self.by_age.remove(&age) {
            self.bytes -= bytes;
        }
    }

    /// Removes and returns the oldest entry if all events together exceed [`CACHED_BYTES_MAX`]. The caller drops the
    /// event.
    pub fn remove_oldest_over_limit(&mut self) -> Option<(Age, Topic)> {
        if self.bytes <= CACHED_BYTES_MAX {
            return None;
        }
        let (age, (topic, bytes)) = self.by_age.pop_first()?;
        self.bytes -= bytes;
        Some((age, topic))
    }
}
