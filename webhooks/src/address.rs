//! Refuses endpoints whose addresses only this server can reach, for example cloud metadata services.
//!
//! Both a URL in the configuration and the DNS records of a host name can contain such an address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

/// Addresses of cloud metadata services that are not link-local: Alibaba, Oracle, AWS, Google.
const METADATA_V4: [Ipv4Addr; 2] = [Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(192, 0, 0, 192)];
const METADATA_V6: [Ipv6Addr; 2] =
    [Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254), Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)];

/// The reason why an address is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RefusedAddress {
    /// A link-local or metadata address. Always refused.
    #[error("the address is link-local or that of a cloud metadata service")]
    LinkLocal,
    /// An address in a private network. Refused by `webhooks.refuse_private_networks`.
    #[error("the address is in a private network (webhooks.refuse_private_networks)")]
    Private,
}

/// The rules for addresses.
#[derive(Clone, Copy, Debug)]
pub(super) struct Guard {
    pub(super) refuse_private: bool,
}

/// Checks an endpoint's URL without DNS. Host names are checked when they are resolved.
///
/// # Errors
/// [`RefusedAddress`].
pub fn check_url(url: &Url, refuse_private: bool) -> Result<(), RefusedAddress> {
    Guard { refuse_private }.check_url(url)
}

impl Guard {
    /// Checks a URL whose host is an address.
    pub(super) fn check_url(self, url: &Url) -> Result<(), RefusedAddress> {
        match url.host() {
            Some(Host::Ipv4(address)) => self.check(address.into()),
            Some(Host::Ipv6(address)) => self.check(address.into()),
            _ => Ok(()),
        }
    }

    fn check(self, address: IpAddr) -> Result<(), RefusedAddress> {
        let address = match address {
            IpAddr::V6(address) => embedded(address).map_or(IpAddr::V6(address), IpAddr::V4),
            address => address,
        };
        if is_link_local(address) {
            return Err(RefusedAddress::LinkLocal);
        }
        if self.refuse_private && is_private(address) {
            return Err(RefusedAddress::Private);
        }
        Ok(())
    }
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = *self;
        Box::pin(async move {
            // The connector sets the port.
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let (mut allowed, mut refused) = (Vec::<SocketAddr>::new(), None);
            for address in found {
                match guard.check(address.ip()) {
                    Ok(()) => allowed.push(address),
                    Err(error) => refused = Some(error),
                }
            }
            match refused {
                Some(error) if allowed.is_empty() => Err(error.into()),
                _ => Ok(Box::new(allowed.into_iter()) as Addrs),
            }
        })
    }
}

/// Returns the IPv4 address that an IPv6 address embeds, in any of the current or former formats.
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let segments = address.segments();
    let ipv4 = |high: u16, low: u16| Some(Ipv4Addr::from(u32::from(high) << 16 | u32::from(low)));
    match segments {
        // `::1` and `::` embed no IPv4 address.
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => None,
        // IPv4-compatible, IPv4-mapped, IPv4-translated (SIIT), and both prefixes of NAT64.
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low]
        | [0, 0, 0, 0, 0xffff, 0, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x64, 0xff9b, 1, _, _, _, high, low] => ipv4(high, low),
        // 6to4.
        [0x2002, high, low, ..] => ipv4(high, low),
        _ => None,
    }
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local() || METADATA_V4.contains(&address),
        IpAddr::V6(address) => address.is_unicast_link_local() || METADATA_V6.contains(&address),
    }
}

fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let [first, second, third, _] = address.octets();
            // 0.0.0.0/8 is this machine, 100.64.0.0/10 is carrier-grade NAT. The others are reserved for protocols,
            // benchmarks and multicast.
            address.is_private()
                || address.is_loopback()
                || first == 0
                || (first == 100 && second & 0b1100_0000 == 64)
                || (first, second, third) == (192, 0, 0)
                || (first == 198 && second & 0b1111_1110 == 18)
                || first >= 224
        }
        IpAddr::V6(address) => {
            let is_site_local = address.segments()[0] & 0xffc0 == 0xfec0;
            address.is_loopback()
                || address.is_unspecified()
                || address.is_unique_local()
                || address.is_multicast()
                || is_site_local
        }
    }
}

#[cfg(test)]
mod tests;
