//! Networks of addresses, and who a client is behind proxies.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use hyper::header::HeaderMap;
use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Where proxies name the clients behind them.
const FORWARDED_FOR: &str = "x-forwarded-for";

/// A list of networks, as `10.0.0.0/8`, `2001:db8::/32` or a single address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks(Vec<IpNet>);

/// A text that names no network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a network or an address, as 10.0.0.0/8 or ::1, not {0:?}")]
pub struct NotANetwork(String);

/// The other end of a connection, or whom a balancer named in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemoteAddr {
    /// Its address.
    pub address: IpAddr,
    /// Whether it may speak for others: not a balancer that passes on bytes and did not say whose.
    pub may_be_proxy: bool,
}

/// Who may connect to a listener, and whom it believes about its clients.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// Networks of the clients that are let in; everyone when there are none.
    pub allow: Networks,
    /// Networks of clients that are not; these count before the others.
    pub deny: Networks,
    /// Proxies that are believed about the clients behind them.
    pub trusted_proxies: Networks,
}

impl Networks {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether an address is in one of them. An IPv4 address is the same in its IPv6 form.
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

/// Addresses are compared in their IPv4 form where they have one, so networks must be in it too.
fn canonical(network: IpNet) -> IpNet {
    let IpNet::V6(mapped) = network else { return network };
    let ipv4 = mapped.addr().to_ipv4_mapped().zip(mapped.prefix_len().checked_sub(96));
    ipv4.and_then(|(address, length)| Ipv4Net::new(address, length).ok()).map_or(network, IpNet::V4)
}

impl Access {
    /// Whether a client of this address is let in.
    pub fn admits(&self, client: IpAddr) -> bool {
        !self.deny.contains(client) && (self.allow.is_empty() || self.allow.contains(client))
    }

    /// Whether there may be anyone behind a peer whom this listener lets in: a proxy speaks for others.
    pub fn admits_peer(&self, peer: IpAddr) -> bool {
        self.trusted_proxies.contains(peer) || self.admits(peer)
    }

    /// Whether someone is let in of whom a trusted proxy may have said nothing that can be read: then only where everyone is.
    pub fn admits_client(&self, client: Option<IpAddr>) -> bool {
        client.map_or(self.allow.is_empty() && self.deny.is_empty(), |client| self.admits(client))
    }

    /// Whether a trusted proxy sent a request on its own behalf: it names no client.
    pub fn is_proxy_itself(&self, peer: RemoteAddr, headers: &HeaderMap) -> bool {
        let names_client = peer.may_be_proxy && headers.contains_key(FORWARDED_FOR);
        self.trusted_proxies.contains(peer.address) && !names_client
    }

    /// The client whose connections are counted: as [`Self::client`], but a proxy on this machine is also believed. `None`
    /// where a proxy does not say for which client it speaks.
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

    /// Who sent a request: the peer, or, when that is a trusted proxy, the last address in `X-Forwarded-For` that is none;
    /// `None` when that cannot be read. What a client wrote there itself stands further to the left, and is not looked at.
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

/// The addresses in `X-Forwarded-For`, the last one first; `None` for one that cannot be read.
fn hops(headers: &HeaderMap) -> impl Iterator<Item = Option<IpAddr>> {
    let lines = headers.get_all(FORWARDED_FOR).iter().rev();
    // Byte by byte: what else is on the line is the client's, and may be anything.
    let hops = lines.flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','));
    hops.map(|hop| std::str::from_utf8(hop).ok().and_then(|hop| address(hop.trim())))
}

/// An address as proxies write it, with a port or without.
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
