//! The incomplete messages of a shard's clients: their age and their memory.
//!
//! A connection without an incomplete message has no entry. Idle sockets cost nothing.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use crate::inbox::ConnectionKey;
use crate::limits::PARTIAL_TIMEOUT_S;

/// All incomplete messages of a shard.
pub(crate) struct Partials {
    entries: RefCell<Entries>,
    bytes_max: usize,
}

#[derive(Default)]
struct Entries {
    /// By number, and therefore by age.
    by_age: BTreeMap<u64, Partial>,
    last_number: u64,
    bytes: usize,
}

struct Partial {
    connection: ConnectionKey,
    since_s: u32,
    bytes: usize,
}

/// The entry of one incomplete message. It is removed when this is dropped.
pub(crate) struct PartialCharge {
    partials: Rc<Partials>,
    number: u64,
}

impl Partials {
    /// `bytes_max`: the maximum bytes of all incomplete messages together.
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { entries: RefCell::default(), bytes_max }
    }

    /// Sets the bytes of a connection's incomplete message. `charge`: the entry of the message. It is created if there
    /// is none.
    pub(crate) fn charge(
        self: &Rc<Self>,
        charge: &mut Option<PartialCharge>,
        connection: ConnectionKey,
        bytes: usize,
        now_s: u32,
    ) {
        let mut entries = self.entries.borrow_mut();
        let number = match charge {
            Some(charge) => charge.number,
            None => {
                entries.last_number += 1;
                let number = entries.last_number;
                entries.by_age.insert(number, Partial { connection, since_s: now_s, bytes: 0 });
                *charge = Some(PartialCharge { partials: self.clone(), number });
                number
            }
        };
        // An evicted entry remains evicted.
        let Some(partial) = entries.by_age.get_mut(&number) else { return };
        let before = std::mem::replace(&mut partial.bytes, bytes);
        entries.bytes = entries.bytes - before + bytes;
    }

    /// Evicts the oldest message if it is overdue. Returns its connection.
    pub(crate) fn pop_overdue(&self, now_s: u32) -> Option<ConnectionKey> {
        let mut entries = self.entries.borrow_mut();
        let is_overdue = |partial: &Partial| now_s.saturating_sub(partial.since_s) >= PARTIAL_TIMEOUT_S;
        let is_due = entries.by_age.first_key_value().is_some_and(|(_, partial)| is_overdue(partial));
        if is_due { entries.pop_oldest() } else { None }
    }

    /// Evicts the oldest message if all together exceed the maximum. Returns its connection. A single message never
    /// exceeds it, because the app's `message_bytes` is its bound.
    pub(crate) fn pop_excess(&self) -> Option<ConnectionKey> {
        let mut entries = self.entries.borrow_mut();
        let is_too_much = entries.bytes > self.bytes_max && entries.by_age.len() > 1;
        if is_too_much { entries.pop_oldest() } else { None }
    }
}

impl Entries {
    fn pop_oldest(&mut self) -> Option<ConnectionKey> {
        let (_, partial) = self.by_age.pop_first()?;
        self.bytes -= partial.bytes;
        Some(partial.connection)
    }
}

impl PartialCharge {
    /// Whether the message was evicted.
    pub(crate) fn is_evicted(&self) -> bool {
        !self.partials.entries.borrow().by_age.contains_key(&self.number)
    }
}

impl Drop for PartialCharge {
    fn drop(&mut self) {
        let mut entries = self.partials.entries.borrow_mut();
        if let Some(partial) = entries.by_age.remove(&self.number) {
            entries.bytes -= partial.bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(slot: usize) -> ConnectionKey {
        ConnectionKey { slot, socket_id: format!("1.{slot}").parse().expect("a socket id") }
    }

    fn slots(pop: impl FnMut() -> Option<ConnectionKey>) -> Vec<usize> {
        std::iter::from_fn(pop).map(|key| key.slot).collect()
    }

    #[test]
    fn a_message_is_overdue_by_the_time_of_its_first_byte() {
        let partials = Rc::new(Partials::new(usize::MAX));
        let mut charges: Vec<Option<PartialCharge>> = (0..3).map(|_| None).collect();
        for (slot, charge) in charges.iter_mut().enumerate() {
            partials.charge(charge, key(slot), 10, slot as u32);
        }
        // More bytes do not reset the age.
        partials.charge(&mut charges[0], key(0), 20, 25);
        assert_eq!(slots(|| partials.pop_overdue(PARTIAL_TIMEOUT_S - 1)), [0; 0]);
        assert_eq!(slots(|| partials.pop_overdue(PARTIAL_TIMEOUT_S + 1)), [0, 1]);
        assert_eq!(charges.iter().flatten().map(PartialCharge::is_evicted).collect::<Vec<_>>(), [true, true, false]);
        partials.charge(&mut charges[0], key(0), 30, 40);
        assert_eq!(partials.entries.borrow().bytes, 10, "an evicted message does not count again");
    }

    #[test]
    fn the_oldest_messages_are_evicted_beyond_the_maximum() {
        let partials = Rc::new(Partials::new(100));
        let mut charges: Vec<Option<PartialCharge>> = (0..4).map(|_| None).collect();
        for (slot, charge) in charges.iter_mut().enumerate() {
            partials.charge(charge, key(slot), 30, 0);
        }
        assert_eq!(slots(|| partials.pop_excess()), [0]);
        charges[1] = None;
        partials.charge(&mut charges[3], key(3), 1_000, 0);
        assert_eq!(slots(|| partials.pop_excess()), [2], "a single message is never evicted");
        drop(charges);
        assert_eq!(partials.entries.borrow().bytes, 0);
        assert!(partials.entries.borrow().by_age.is_empty());
    }
}
