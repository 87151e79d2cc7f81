//! Networks, and the addresses of clients behind proxies.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use hyper::header::HeaderMap;
use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The header in which proxies state the address of the client.
const FORWARDED_FOR: &str = "x-forwarded-for";

/// A list of networks like `10.0.0.0/8` and `2001:db8::/32`, or single addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks(Vec<IpNet>);

/// The error for a text that is not a network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a network or an address, like 10.0.0.0/8 or ::1, not {0:?}")]
pub struct NotANetwork(String);

/// The remote address of a connection: that of the TCP peer, or the one in a PROXY protocol header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemoteAddr {
    /// The address.
    pub address: IpAddr,
    /// Whether the remote end may be a proxy that sends `X-Forwarded-For`. It is not if a PROXY protocol header without
    /// an address preceded the connection.
    pub may_be_proxy: bool,
}

/// The networks that may connect to a listener, and the proxies that it trusts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// The networks that clients may connect from. If it is empty, all networks may.
    pub allow: Networks,
    /// The networks that clients may not connect from. It takes precedence over `allow`.
    pub deny: Networks,
    /// The proxies that are trusted to name client addresses.
    pub trusted_proxies: Networks,
}

impl Networks {
    /// Returns whether the list is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns whether an address is in one of the networks. An IPv4 address equals its IPv4-mapped IPv6 form.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }
}

impl FromStr for Networks {
    type Err = NotANetwork;

    fn from_str(text: &str) -> Result<Self, NotANetwork> {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        parts.map(network).collect::<Result<_, _>>().map(Self)
    }
}

impl Serialize for Networks {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(ToString::to_string))
    }
}

impl<'de> Deserialize<'de> for Networks {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let texts = Vec::<String>::deserialize(deserializer)?;
        let networks = texts.iter().map(|text| network(text)).collect::<Result<_, _>>();
        networks.map(Self).map_err(serde::de::Error::custom)
    }
}

fn network(text: &str) -> Result<IpNet, NotANetwork> {
    let wrong = || NotANetwork(text.to_owned());
    match text.parse::<IpNet>() {
        Ok(network) => Ok(canonical(network.trunc())),
        Err(_) => text.parse::<IpAddr>().map(|address| IpNet::from(address.to_canonical())).map_err(|_| wrong()),
    }
}

/// Converts an IPv4-mapped network to its IPv4 form, because addresses are compared in that form.
fn canonical(network: IpNet) -> IpNet {
    let IpNet::V6(mapped) = network else { return network };
    let ipv4 = mapped.addr().to_ipv4_mapped().zip(mapped.prefix_len().checked_sub(96));
    ipv4.and_then(|(address, length)| Ipv4Net::new(address, length).ok()).map_or(network, IpNet::V4)
}

impl Access {
    /// Returns whether a client with this address is allowed.
    pub fn admits(&self, client: IpAddr) -> bool {
        !self.deny.contains(client) && (self.allow.is_empty() || self.allow.contains(client))
    }

    /// Returns whether a connection from this address may carry requests of allowed clients. A trusted proxy always
    /// may.
    pub fn admits_peer(&self, peer: IpAddr) -> bool {
        self.trusted_proxies.contains(peer) || self.admits(peer)
    }

    /// Returns whether a client is allowed. A client with an unknown address is allowed only if all clients are.
    pub fn admits_client(&self, client: Option<IpAddr>) -> bool {
        client.map_or(self.allow.is_empty() && self.deny.is_empty(), |client| self.admits(client))
    }

    /// Returns whether a trusted proxy sent the request for itself, without a client address.
    pub fn is_proxy_itself(&self, peer: RemoteAddr, headers: &HeaderMap) -> bool {
        let names_client = peer.may_be_proxy && headers.contains_key(FORWARDED_FOR);
        self.trusted_proxies.contains(peer.address) && !names_client
    }

    /// Returns the client address by which connections are counted. `None` if a proxy does not state the client.
    ///
    /// It differs from [`Self::client`] in that proxies on loopback addresses are trusted too.
    pub fn counted_client(&self, peer: RemoteAddr, headers: &HeaderMap) -> Option<IpAddr> {
        let is_proxy = |address: IpAddr| address.to_canonical().is_loopback() || self.trusted_proxies.contains(address);
        if !is_proxy(peer.address) {
            return Some(peer.address.to_canonical());
        }
        if !peer.may_be_proxy {
            return None;
        }
        let mut hops = hops(headers).map_while(|hop| hop);
        hops.find(|hop| !is_proxy(*hop))
    }

    /// Returns the address of the client that sent a request. `None` if a trusted proxy sent an address that cannot be
    /// read.
    ///
    /// For a request of a trusted proxy, it is the last address in `X-Forwarded-For` that is not a trusted proxy.
    /// Addresses further to the left come from the client and are ignored.
    pub fn client(&self, peer: RemoteAddr, headers: &HeaderMap) -> Option<IpAddr> {
        let mut client = peer.address.to_canonical();
        if !peer.may_be_proxy {
            return Some(client);
        }
        for hop in hops(headers) {
            if !self.trusted_proxies.contains(client) {
                break;
            }
            client = hop?;
        }
        Some(client)
    }
}

/// Returns the addresses in `X-Forwarded-For`, the last one first. The item is `None` for an address that cannot be
/// read.
fn hops(headers: &HeaderMap) -> impl Iterator<Item = Option<IpAddr>> {
    let lines = headers.get_all(FORWARDED_FOR).iter().rev();
    // Split bytes, because the part of the line that the client wrote may not be valid UTF-8.
    let hops = lines.flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','));
    hops.map(|hop| std::str::from_utf8(hop).ok().and_then(|hop| address(hop.trim())))
}

/// Parses an address with or without a port.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    let address = bare.parse().or_else(|_| text.parse::<SocketAddr>().map(|address| address.ip())).ok();
    address.map(|address: IpAddr| address.to_canonical())
}

impl fmt::Display for Networks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, network) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(", ")?;
            }
            network.fmt(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
