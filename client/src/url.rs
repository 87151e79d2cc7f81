//! The URL of a server.

use std::fmt;
use std::net::{Ipv6Addr, SocketAddr};
use std::str::FromStr;

use hyper::Uri;

/// The host, port and path prefix of a server, and whether it uses TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerUrl {
    is_tls: bool,
    /// The host, without the brackets of IPv6.
    host: String,
    port: u16,
    /// Empty, or for example `/ws`.
    prefix: String,
}

/// The reason why a text is not the URL of a server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Not a URL with a host.
    #[error("expected a URL like http://127.0.0.1:8080")]
    Format,
    /// A URL with another scheme.
    #[error("expected http://, https://, ws:// or wss://, not {0}://")]
    Scheme(String),
}

impl ServerUrl {
    /// Creates a URL without TLS. `prefix`: the part of all paths before `/app` and `/apps`, or empty.
    pub fn new(host: &str, port: u16, prefix: &str) -> Self {
        Self { is_tls: false, host: host.into(), port, prefix: prefix.trim_end_matches('/').into() }
    }

    /// Returns the URL with TLS.
    pub fn with_tls(self) -> Self {
        Self { is_tls: true, ..self }
    }

    /// Returns the URL with `prefix` appended to its own prefix.
    pub fn below(&self, prefix: &str) -> Self {
        Self { prefix: format!("{}{}", self.prefix, prefix.trim_end_matches('/')), ..self.clone() }
    }

    /// Checks whether the server uses TLS.
    pub fn is_tls(&self) -> bool {
        self.is_tls
    }

    /// Returns the host without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Returns the port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the part of all paths before `/app` and `/apps`, or an empty text.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Returns host and port in the form of the `Host` header.
    pub fn authority(&self) -> String {
        if self.host.parse::<Ipv6Addr>().is_ok() {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl From<SocketAddr> for ServerUrl {
    fn from(address: SocketAddr) -> Self {
        Self::new(&address.ip().to_string(), address.port(), "")
    }
}

impl FromStr for ServerUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let uri: Uri = text.parse().map_err(|_| UrlError::Format)?;
        let (is_tls, usual_port) = match uri.scheme_str() {
            Some("http" | "ws") => (false, 80),
            Some("https" | "wss") => (true, 443),
            Some(scheme) => return Err(UrlError::Scheme(scheme.into())),
            None => return Err(UrlError::Format),
        };
        let host = uri.host().filter(|host| !host.is_empty()).ok_or(UrlError::Format)?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        Ok(Self { is_tls, ..Self::new(host, uri.port_u16().unwrap_or(usual_port), uri.path()) })
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_tls { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority(), self.prefix)
    }
}
