//! Source addresses of connections. One address has about 28,000 ports for connections to one server; loopback has 16
//! million addresses.

use std::net::Ipv4Addr;

/// The number of connections per address. The search for a free port becomes slow when most ports are in use.
const PER_ADDRESS: usize = 10_000;

/// The number of connections that need no explicit address. The kernel reuses their ports sooner.
const WITHOUT_ADDRESS: usize = 15_000;

/// The source addresses of the connections to one server.
pub(crate) struct Sources {
    base: Option<u8>,
}

impl Sources {
    /// `count` is the number of connections to one server.
    pub(crate) fn new(count: usize) -> Self {
        // The second byte differs between processes, because ports of an earlier process may still be in TIME_WAIT.
        let base = u8::try_from(std::process::id() % 250 + 1).expect("the value is at most 250");
        Self { base: (count > WITHOUT_ADDRESS).then_some(base) }
    }

    /// Returns the source address of connection `index`; `None` leaves the choice to the kernel.
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
    fn few_connections_need_no_explicit_address() {
        assert_eq!(Sources::new(10_000).of(9_999), None);
    }

    #[test]
    fn many_connections_use_several_loopback_addresses() {
        let sources = Sources::new(50_000);
        let used: std::collections::BTreeSet<_> = (0..50_000).filter_map(|index| sources.of(index)).collect();
        assert_eq!(used.len(), 5);
        assert!(used.iter().all(Ipv4Addr::is_loopback));
    }
}
