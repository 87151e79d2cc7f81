//! Counts the connections of each client address on this node.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use shared::sync::lock;

use crate::transport::Transport;

/// The prefix length of an IPv6 network that counts as one address. A client can usually use all addresses of such a
/// network.
const IPV6_NETWORK_BITS: u32 = 64;

/// A counter of connections by client address. An address without connections uses no memory.
#[derive(Debug)]
pub(crate) struct Addresses {
    counts: Mutex<HashMap<Address, Count>>,
    /// The maximum number of connections of one address, by any transport; 0 means no limit.
    connections_max: usize,
    /// The maximum number of fallback sessions of one address; 0 means no limit.
    sessions_max: usize,
}

/// A client address: an IPv4 address or the network of an IPv6 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Address(u128);

#[derive(Debug, Default)]
struct Count {
    connections: usize,
    sessions: usize,
}

/// A limit that a client address has reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OverLimit {
    /// The limit of connections by any transport.
    Connections,
    /// The limit of fallback sessions.
    Sessions,
}

impl OverLimit {
    /// Returns the limit as a metric label.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Connections => "connections_per_address",
            Self::Sessions => "fallback_sessions_per_address",
        }
    }
}

/// A permit for one connection. The connection counts for its address until the permit is dropped.
#[derive(Debug)]
pub(crate) struct AddressPermit {
    addresses: Arc<Addresses>,
    address: Address,
    is_session: bool,
}

impl Addresses {
    pub(crate) fn new(connections_max: usize, sessions_max: usize) -> Arc<Self> {
        Arc::new(Self { counts: Mutex::default(), connections_max, sessions_max })
    }

    /// Counts a connection of `client`. Returns `None` if no limit applies or the client is unknown.
    ///
    /// # Errors
    /// The limit that the address has reached.
    pub(crate) fn admit(
        self: &Arc<Self>,
        client: Option<IpAddr>,
        transport: Transport,
    ) -> Result<Option<Box<AddressPermit>>, OverLimit> {
        let is_session = transport != Transport::WebSocket;
        let is_limited = self.connections_max > 0 || (is_session && self.sessions_max > 0);
        let Some(client) = client.filter(|_| is_limited) else { return Ok(None) };
        let address = Address::of(client);
        let mut counts = self.lock();
        let count = counts.entry(address);
        let (connections, sessions) = match &count {
            Entry::Occupied(count) => (count.get().connections, count.get().sessions),
            Entry::Vacant(_) => (0, 0),
        };
        if self.connections_max > 0 && connections >= self.connections_max {
            return Err(OverLimit::Connections);
        }
        if is_session && self.sessions_max > 0 && sessions >= self.sessions_max {
            return Err(OverLimit::Sessions);
        }
        let count = count.or_default();
        count.connections += 1;
        count.sessions += usize::from(is_session);
        Ok(Some(Box::new(AddressPermit { addresses: self.clone(), address, is_session })))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Address, Count>> {
        lock(&self.counts)
    }
}

impl Drop for AddressPermit {
    fn drop(&mut self) {
        let mut counts = self.addresses.lock();
        let Entry::Occupied(mut entry) = counts.entry(self.address) else { return };
        let count = entry.get_mut();
        count.connections = count.connections.saturating_sub(1);
        count.sessions = count.sessions.saturating_sub(usize::from(self.is_session));
        if count.connections == 0 {
            entry.remove();
        }
        // Releases the memory after a flood of addresses.
        let len = counts.len();
        if counts.capacity() > 64 && len < counts.capacity() / 4 {
            counts.shrink_to(len * 2);
        }
    }
}

impl Address {
    fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self(u128::from(address.to_ipv6_mapped())),
            IpAddr::V6(address) => Self(u128::from(address) & (u128::MAX << (128 - IPV6_NETWORK_BITS))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn connections_of_all_transports_are_counted_until_they_end() {
        let addresses = Addresses::new(2, 0);
        let web = addresses.admit(address("192.0.2.1"), Transport::WebSocket).unwrap();
        let session = addresses.admit(address("192.0.2.1"), Transport::XhrPolling).unwrap();
        for transport in Transport::ALL {
            let refused = addresses.admit(address("::ffff:192.0.2.1"), transport).unwrap_err();
            assert_eq!(refused, OverLimit::Connections);
        }
        assert!(addresses.admit(address("192.0.2.2"), Transport::WebSocket).unwrap().is_some(), "another address");
        drop(web);
        let web = addresses.admit(address("192.0.2.1"), Transport::WebSocket).unwrap();
        drop((web, session));
        assert!(addresses.lock().is_empty());
    }

    #[test]
    fn fallback_sessions_have_a_separate_limit() {
        let addresses = Addresses::new(0, 1);
        let _session = addresses.admit(address("192.0.2.1"), Transport::XhrStreaming).unwrap();
        let refused = addresses.admit(address("192.0.2.1"), Transport::XhrPolling).unwrap_err();
        assert_eq!(refused, OverLimit::Sessions);
        for _ in 0..10 {
            assert!(addresses.admit(address("192.0.2.1"), Transport::WebSocket).unwrap().is_none(), "no limit");
        }
        assert!(addresses.admit(None, Transport::XhrPolling).unwrap().is_none(), "an unknown client");
    }

    #[test]
    fn an_ipv6_network_counts_as_one_address() {
        let addresses = Addresses::new(1, 1);
        let _permit = addresses.admit(address("2001:db8:0:1::1"), Transport::WebSocket).unwrap();
        assert!(addresses.admit(address("2001:db8:0:1:ffff::2"), Transport::WebSocket).is_err());
        assert!(addresses.admit(address("2001:db8:0:2::1"), Transport::WebSocket).is_ok());
    }

    #[test]
    fn the_memory_of_a_flood_of_addresses_is_released() {
        let addresses = Addresses::new(1, 1);
        let permits: Vec<_> = (0..10_000u32)
            .map(|number| addresses.admit(Some(IpAddr::V4(number.into())), Transport::XhrPolling).unwrap())
            .collect();
        assert_eq!(addresses.lock().len(), 10_000);
        drop(permits);
        assert!(addresses.lock().capacity() <= 128);
    }
}
