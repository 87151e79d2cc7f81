//! Addresses that connections come from: one address has 28,000 ports towards one server, loopback has 16 million
//! addresses.

use std::net::Ipv4Addr;

/// Connections from one address; the search for a free port gets slow when most are taken.
const PER_ADDRESS: usize = 10_000;

/// Connections that need no address of their own: the system reuses their ports soonest.
const WITHOUT_ADDRESS: usize = 15_000;

/// Source addresses for the connections to one server.
pub(crate) struct Sources {
    base: Option<u8>,
}

impl Sources {
    /// `count`: connections to one server.
    pub(crate) fn new(count: usize) -> Self {
        // Another second byte for each process, or the ports of the last one would still be waiting.
        let base = u8::try_from(std::process::id() % 250 + 1).expect("a byte");
        Self { base: (count > WITHOUT_ADDRESS).then_some(base) }
    }

    /// Where connection `index` to a server comes from; `None` leaves it to the system.
    pub(crate) fn of(&self, index: usize) -> Option<Ipv4Addr> {
        let base = self.base?;
        let block = u16::try_from(index / PER_ADDRESS + 1).unwrap_or(u16::MAX).to_be_bytes();
        Some(Ipv4Addr::new(127, base, block[0], block[1]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_connections_need_no_address() {
        assert_eq!(Sources::new(10_000).of(9_999), None);
    }

    #[test]
    fn many_connections_come_from_several_loopback_addresses() {
        let sources = Sources::new(50_000);
        let used: std::collections::BTreeSet<_> = (0..50_000).filter_map(|index| sources.of(index)).collect();
        assert_eq!(used.len(), 5);
        assert!(used.iter().all(Ipv4Addr::is_loopback));
    }
}
