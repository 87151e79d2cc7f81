//! Networks of addresses, and who a client is behind proxies.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use hyper::header::HeaderMap;
use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A list of networks, as `10.0.0.0/8`, `2001:db8::/32` or a single address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks(Vec<IpNet>);

/// A text that names no network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a network or an address, as 10.0.0.0/8 or ::1, not {0:?}")]
pub struct NotANetwork(String);

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
        Ok(network) => Ok(network.trunc()),
        Err(_) => text.parse::<IpAddr>().map(|address| IpNet::from(address.to_canonical())).map_err(|_| wrong()),
    }
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

    /// Who sent a request: the peer, or, when that is a trusted proxy, the last address in `X-Forwarded-For` that is none.
    /// What a client wrote there itself stands further to the left, and is not looked at.
    pub fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = peer.to_canonical();
        let lines = headers.get_all("x-forwarded-for").iter().rev();
        let hops = lines.flat_map(|line| line.to_str().unwrap_or_default().rsplit(',')).map(str::trim);
        for hop in hops {
            if !self.trusted_proxies.contains(client) {
                break;
            }
            match address(hop) {
                Some(address) => client = address,
                // Whoever wrote this, nothing beyond it can be believed.
                None => break,
            }
        }
        client
    }
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
