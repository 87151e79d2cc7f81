//! The policy of a public listener: allowed networks, PROXY protocol, accept rate and TLS.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use hyper::{Method, Request, StatusCode};
use prometheus::{IntCounterVec, Opts};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::proxy_header;
use crate::excerpt::{NAME_MAX, logged};
use crate::serve::http::{self, RequestBody, Response, Routes};
use crate::serve::network::{Access, RemoteAddr};
use crate::serve::telemetry::metrics::{Registry, from_zero, register};
use crate::serve::tls::Tls;

/// The policy by which a listener accepts connections.
#[derive(Clone, Default)]
pub struct AcceptPolicy {
    /// The networks that may connect, and the trusted proxies.
    pub access: Access,
    /// Whether every connection begins with a PROXY protocol header.
    pub proxy_protocol: bool,
    /// The maximum number of connections to accept per second. 0 means no limit. Further connections wait in the accept
    /// queue.
    pub accept_rate: u32,
    /// TLS, if connections are encrypted.
    pub tls: Option<Arc<Tls>>,
}

/// Registers the counter of dropped connections.
///
/// # Panics
/// If the registry already has this counter.
pub fn dropped_counter(registry: &Registry) -> IntCounterVec {
    let opts =
        Opts::new("carillon_connections_dropped_total", "Connections dropped before their first request, by reason.");
    from_zero(register(registry, IntCounterVec::new(opts, &["reason"])), Dropped::LABELS.map(|reason| [reason]))
}

/// The reason why a connection was dropped before its first request.
#[derive(Debug, thiserror::Error)]
pub enum Dropped {
    /// The process has no descriptor left for the connection.
    #[error("connection limit reached")]
    Capacity,
    /// The server shuts down before the connection has sent its PROXY header or its TLS handshake.
    #[error("the server is shutting down")]
    Draining,
    /// The network of the client is not allowed.
    #[error("the address is not allowed")]
    Network,
    /// The connection did not begin with a valid PROXY protocol header.
    #[error("no valid PROXY header")]
    ProxyHeader(#[source] io::Error),
    /// The TLS handshake failed.
    #[error("no TLS handshake")]
    Tls(#[source] io::Error),
}

impl Dropped {
    const LABELS: [&str; 5] = ["capacity", "leaving", "network", "proxy_header", "tls"];

    /// Returns the reason as a metric label.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Capacity => "capacity",
            Self::Draining => "leaving",
            Self::Network => "network",
            Self::ProxyHeader(_) => "proxy_header",
            Self::Tls(_) => "tls",
        }
    }
}

impl AcceptPolicy {
    /// Decides whether to accept a new connection. Returns the address of the client, which comes from the PROXY header
    /// if there is one.
    ///
    /// # Errors
    /// [`Dropped`].
    pub async fn admit(&self, stream: &mut TcpStream, peer: SocketAddr) -> Result<RemoteAddr, Dropped> {
        if !self.proxy_protocol {
            let admitted = self.access.admits_peer(peer.ip());
            let peer = RemoteAddr { address: peer.ip(), may_be_proxy: true };
            return if admitted { Ok(peer) } else { Err(Dropped::Network) };
        }
        // Any client could send such a header. If trusted proxies are configured, only they may.
        let proxies = &self.access.trusted_proxies;
        if !proxies.is_empty() && !proxies.contains(peer.ip()) {
            return Err(Dropped::Network);
        }
        let named = proxy_header::read(stream).await.map_err(Dropped::ProxyHeader)?;
        let address = named.unwrap_or(peer).ip();
        let peer = RemoteAddr { address, may_be_proxy: named.is_some() };
        if self.access.admits_peer(address) { Ok(peer) } else { Err(Dropped::Network) }
    }

    /// Returns a pacer for the accept loop, by [`AcceptPolicy::accept_rate`].
    pub fn pace(&self) -> Pace {
        Pace { rate: self.accept_rate, due: Instant::now() }
    }
}

/// A rate limit of an accept loop.
pub struct Pace {
    rate: u32,
    due: Instant,
}

/// The time that the accept loop may catch up on after a pause.
const BURST: Duration = Duration::from_millis(100);

impl Pace {
    /// Waits until the next connection may be accepted.
    pub async fn wait(&mut self) {
        if self.rate == 0 {
            return;
        }
        let now = Instant::now();
        self.due = self.due.max(now.checked_sub(BURST).unwrap_or(now)) + Duration::from_secs(1) / self.rate;
        tokio::time::sleep_until(self.due).await;
    }
}

/// Routes for the clients of one connection. Clients whose address is not allowed get 403.
///
/// During a drain, each response ends its connection, so that no client sends a request on a connection that is being
/// closed.
pub struct Guarded<R: ?Sized> {
    /// Whether the server is draining.
    pub is_draining: Arc<AtomicBool>,
    /// The networks that may send requests.
    pub access: Access,
    /// The remote address of the connection.
    pub peer: RemoteAddr,
    /// The routes for allowed clients.
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
            if self.is_draining.load(Ordering::Acquire) {
                http::end_connection(&mut response);
            }
            response
        })
    }

    fn body_bytes_max(&self) -> u64 {
        self.routes.body_bytes_max()
    }
}

/// Returns whether the request is a health check that a trusted proxy sends by itself. Such a request is allowed
/// although the address of the proxy may not be in an allowed network.
pub fn is_health_check_of_proxy<B>(access: &Access, peer: RemoteAddr, request: &Request<B>) -> bool {
    matches!(*request.method(), Method::GET | Method::HEAD)
        && http::HEALTH_PATHS.contains(&request.uri().path())
        && access.is_proxy_itself(peer, request.headers())
}

/// Logs a request of a client whose address is not allowed, and returns the response.
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

/// The response text for a client whose address is not allowed.
pub const NETWORK_REFUSED: &str = "Access from this network is not allowed";

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn connections_are_accepted_at_the_configured_rate() {
        let mut pace = AcceptPolicy { accept_rate: 100, ..AcceptPolicy::default() }.pace();
        let began = Instant::now();
        for _ in 0..300 {
            pace.wait().await;
        }
        let took = began.elapsed();
        assert!((Duration::from_millis(2850)..Duration::from_millis(3150)).contains(&took), "{took:?}");
        // An idle hour allows only a short burst.
        tokio::time::advance(Duration::from_secs(3600)).await;
        let began = Instant::now();
        for _ in 0..110 {
            pace.wait().await;
        }
        assert!(began.elapsed() >= Duration::from_millis(950), "{:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_rate_no_connection_waits() {
        let mut pace = AcceptPolicy::default().pace();
        let began = Instant::now();
        for _ in 0..1000 {
            pace.wait().await;
        }
        assert_eq!(began.elapsed(), Duration::ZERO);
    }
}
