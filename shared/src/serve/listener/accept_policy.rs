//! Who is let in at a listener, how fast, and by which way.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use hyper::{Method, Request, StatusCode};
use prometheus::{IntCounterVec, Opts, Registry};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::proxy_header;
use crate::excerpt::{NAME_MAX, logged};
use crate::serve::http::{self, RequestBody, Response, Routes};
use crate::serve::network::{Access, RemoteAddr};
use crate::serve::telemetry::metrics::{from_zero, register};
use crate::serve::tls::Tls;

/// What a listener asks of its connections.
#[derive(Clone, Default)]
pub struct AcceptPolicy {
    /// Who may connect.
    pub access: Access,
    /// Whether every connection begins with a PROXY header.
    pub proxy_protocol: bool,
    /// Connections accepted in a second; 0 means no limit. The others wait in the system's queue.
    pub accept_rate: u32,
    /// Set where connections are encrypted.
    pub tls: Option<Arc<Tls>>,
}

/// Counts the connections that a listener dropped.
///
/// # Panics
/// When the registry has one already.
pub fn dropped_counter(registry: &Registry) -> IntCounterVec {
    let opts =
        Opts::new("carillon_connections_dropped_total", "Connections dropped before their first request, by reason.");
    from_zero(register(registry, IntCounterVec::new(opts, &["reason"])), Dropped::LABELS.map(|reason| [reason]))
}

/// Why a connection was dropped before its first request.
#[derive(Debug, thiserror::Error)]
pub enum Dropped {
    /// The process has no descriptor left for it.
    #[error("there is no room for more connections")]
    Capacity,
    /// The server leaves, and the connection has not said whose it is.
    #[error("the server leaves")]
    Leaving,
    /// Its address is not let in.
    #[error("the address is not let in")]
    Network,
    /// It did not begin as a balancer's connection must.
    #[error("no valid PROXY header")]
    ProxyHeader(#[source] io::Error),
    /// It is not encrypted as it must be.
    #[error("no TLS handshake")]
    Tls(#[source] io::Error),
}

impl Dropped {
    const LABELS: [&str; 5] = ["capacity", "leaving", "network", "proxy_header", "tls"];

    /// The reason as a metric label.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Capacity => "capacity",
            Self::Leaving => "leaving",
            Self::Network => "network",
            Self::ProxyHeader(_) => "proxy_header",
            Self::Tls(_) => "tls",
        }
    }
}

impl AcceptPolicy {
    /// Judges a fresh connection; returns whose it is, whom a PROXY header may name.
    ///
    /// # Errors
    /// [`Dropped`].
    pub async fn admit(&self, stream: &mut TcpStream, peer: SocketAddr) -> Result<RemoteAddr, Dropped> {
        if !self.proxy_protocol {
            let admitted = self.access.admits_peer(peer.ip());
            let peer = RemoteAddr { address: peer.ip(), may_be_proxy: true };
            return if admitted { Ok(peer) } else { Err(Dropped::Network) };
        }
        // Anyone could write such a header; where proxies are named, others are not listened to.
        let proxies = &self.access.trusted_proxies;
        if !proxies.is_empty() && !proxies.contains(peer.ip()) {
            return Err(Dropped::Network);
        }
        let named = proxy_header::read(stream).await.map_err(Dropped::ProxyHeader)?;
        let address = named.unwrap_or(peer).ip();
        let peer = RemoteAddr { address, may_be_proxy: named.is_some() };
        if self.access.admits_peer(address) { Ok(peer) } else { Err(Dropped::Network) }
    }

    /// Lets connections be accepted no faster than [`AcceptPolicy::accept_rate`].
    pub fn pace(&self) -> Pace {
        Pace { rate: self.accept_rate, due: Instant::now() }
    }
}

/// Paces an accept loop.
pub struct Pace {
    rate: u32,
    due: Instant,
}

/// What may be caught up on after a pause.
const BURST: Duration = Duration::from_millis(100);

impl Pace {
    /// Resolves when the next connection may be accepted.
    pub async fn wait(&mut self) {
        if self.rate == 0 {
            return;
        }
        let now = Instant::now();
        self.due = self.due.max(now.checked_sub(BURST).unwrap_or(now)) + Duration::from_secs(1) / self.rate;
        tokio::time::sleep_until(self.due).await;
    }
}

/// Routes for the clients of one connection: clients whose address is not allowed get 403. Once the server drains, each
/// response ends its connection, so that no client sends a request on a connection that is being closed.
pub struct Guarded<R: ?Sized> {
    /// Set once the server leaves.
    pub is_leaving: Arc<AtomicBool>,
    /// Who may ask.
    pub access: Access,
    /// Whose connection it is.
    pub peer: RemoteAddr,
    /// What answers the others.
    pub routes: Arc<R>,
}

impl<R: Routes + ?Sized> Routes for Guarded<R> {
    fn respond(&self, request: Request<RequestBody>) -> BoxFuture<'_, Response> {
        let client = self.access.client(self.peer, request.headers());
        if !self.access.admits_client(client) && !is_health_check_of_proxy(&self.access, self.peer, &request) {
            let client = client.unwrap_or(self.peer.address);
            return Box::pin(std::future::ready(forbidden(client, &request)));
        }
        Box::pin(async move {
            let mut response = self.routes.respond(request).await;
            if self.is_leaving.load(Ordering::Acquire) {
                http::end_connection(&mut response);
            }
            response
        })
    }

    fn body_bytes_max(&self) -> u64 {
        self.routes.body_bytes_max()
    }
}

/// Whether a trusted proxy asks on its own behalf whether this server is up. Its address need not be among those of the
/// clients.
pub fn is_health_check_of_proxy<B>(access: &Access, peer: RemoteAddr, request: &Request<B>) -> bool {
    matches!(*request.method(), Method::GET | Method::HEAD)
        && http::HEALTH_PATHS.contains(&request.uri().path())
        && access.is_proxy_itself(peer, request.headers())
}

/// Logs a request of a client whose address is not allowed; returns the response.
pub fn forbidden<B>(client: IpAddr, request: &Request<B>) -> Response {
    tracing::debug!(
        target: "activity",
        {
            client.address = %client,
            method = %request.method(),
            path = %logged(request.uri().path(), NAME_MAX),
            status = StatusCode::FORBIDDEN.as_u16(),
            reason = "the client's network is not allowed",
        },
        "Request refused"
    );
    http::text(StatusCode::FORBIDDEN, NETWORK_REFUSED)
}

/// The text for a client whose address is not allowed.
pub const NETWORK_REFUSED: &str = "Access from this network is not allowed";

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn connections_come_no_faster_than_they_may() {
        let mut pace = AcceptPolicy { accept_rate: 100, ..AcceptPolicy::default() }.pace();
        let began = Instant::now();
        for _ in 0..300 {
            pace.wait().await;
        }
        let took = began.elapsed();
        assert!((Duration::from_millis(2850)..Duration::from_millis(3150)).contains(&took), "{took:?}");
        // A quiet hour saves up no more than a moment's worth.
        tokio::time::advance(Duration::from_secs(3600)).await;
        let began = Instant::now();
        for _ in 0..110 {
            pace.wait().await;
        }
        assert!(began.elapsed() >= Duration::from_millis(950), "{:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_rate_nobody_waits() {
        let mut pace = AcceptPolicy::default().pace();
        let began = Instant::now();
        for _ in 0..1000 {
            pace.wait().await;
        }
        assert_eq!(began.elapsed(), Duration::ZERO);
    }
}
