//! The listener of the publisher role, which serves only the API.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use prometheus::{IntCounterVec, IntGauge};
use shared::serve::admin::Health;
use shared::serve::http::{self, ConnectionState, Limits, Routes};
use shared::serve::listener::accept_policy::{Dropped, Guarded, dropped_counter};
use shared::serve::listener::{AcceptPolicy, Acceptor, BoundListener};
use shared::serve::telemetry::EventLoopLag;
use shared::serve::telemetry::metrics::{Registry, register};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::api::Api;
use crate::limits::{CONNECTIONS_MAX, DRAIN_LINGER, DRAIN_PREAMBLE_TIMEOUT, DRAIN_TIMEOUT};

/// A bound listener of the API.
pub struct Server {
    listener: BoundListener,
    accept_policy: Arc<AcceptPolicy>,
    api: Arc<Api>,
    permits: Arc<Semaphore>,
    /// The number of permits.
    max: usize,
    state: Arc<State>,
    event_loop_lag: EventLoopLag,
}

/// The state of the server, which its connections and the admin listener share.
struct State {
    is_draining: Arc<AtomicBool>,
    /// Cancelled when the server no longer accepts connections.
    stopped_accepting: CancellationToken,
    /// Connections that were dropped before their first request, by reason.
    dropped: IntCounterVec,
    /// Open connections.
    connections: IntGauge,
}

/// The permit of one open connection, with its count in the metrics.
struct Permit {
    state: Arc<State>,
    _permit: OwnedSemaphorePermit,
}

impl Permit {
    fn new(state: &Arc<State>, permit: OwnedSemaphorePermit) -> Self {
        state.connections.inc();
        Self { state: state.clone(), _permit: permit }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.state.connections.dec();
    }
}

impl State {
    /// Runs the part of a connection before its first request. While the server drains, that part has a short timeout:
    /// a silent connection must not delay the shutdown.
    async fn in_time<T>(&self, preamble: impl Future<Output = Result<T, Dropped>>) -> Result<T, Dropped> {
        let too_late = async {
            self.stopped_accepting.cancelled().await;
            tokio::time::sleep(DRAIN_PREAMBLE_TIMEOUT).await;
        };
        tokio::select! {
            result = preamble => result,
            () = too_late => Err(Dropped::Draining),
        }
    }
}

impl Server {
    /// Binds the listener. `inherited`: the socket that the process received from its parent.
    ///
    /// `descriptors_max`: the limit of open files. A fifth of it is reserved for everything except connections.
    ///
    /// # Errors
    /// Fails if the address is not available.
    ///
    /// # Panics
    /// Panics if the registry already has the metrics of a listener.
    pub async fn bind(
        (host, port): (&str, u16),
        inherited: Option<std::net::TcpListener>,
        accept_policy: AcceptPolicy,
        api: Arc<Api>,
        registry: &Registry,
        descriptors_max: u64,
    ) -> io::Result<Self> {
        let listener = shared::serve::listener::listen(host, port, inherited).await?;
        let max = usize::try_from(descriptors_max / 5 * 4).unwrap_or(usize::MAX);
        let max = max.clamp(1, CONNECTIONS_MAX);
        let gauge = |name, help| register(registry, IntGauge::new(name, help));
        gauge("carillon_http_connections_max", "Maximum number of open connections to the HTTP API of a publisher.")
            .set(i64::try_from(max).unwrap_or(i64::MAX));
        let permits = Arc::new(Semaphore::new(max));
        let state = State {
            is_draining: Arc::default(),
            stopped_accepting: CancellationToken::new(),
            dropped: dropped_counter(registry),
            connections: gauge("carillon_http_connections", "Open connections to the HTTP API of a publisher."),
        };
        let event_loop_lag = EventLoopLag::new(registry);
        Ok(Self {
            listener,
            accept_policy: Arc::new(accept_policy),
            api,
            permits,
            max,
            state: Arc::new(state),
            event_loop_lag,
        })
    }

    /// Returns the address of the listener.
    ///
    /// # Errors
    /// Fails if the system cannot report the address.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Returns the health checks for the admin listener.
    pub fn health(&self) -> Arc<dyn Health> {
        self.state.clone()
    }

    /// Serves until `shutdown` resolves, and then drains.
    ///
    /// During `accept` the server still accepts connections while load balancers notice that it is not ready. Then it
    /// stops accepting, finishes the open requests, and returns.
    pub async fn run(self, shutdown: impl Future<Output = ()>, accept: Duration) {
        let event_loop_lag = self.event_loop_lag.clone();
        tokio::select! {
            () = self.serve(shutdown, accept) => {}
            never = event_loop_lag.keep() => match never {},
        }
    }

    async fn serve(self, shutdown: impl Future<Output = ()>, accept: Duration) {
        let connections = GracefulShutdown::new();
        let (stop, draining) = oneshot::channel::<()>();
        let drained = async {
            shutdown.await;
            self.state.is_draining.store(true, Ordering::Release);
            drop(stop);
            tokio::time::sleep(accept).await;
        };
        tokio::select! {
            () = self.listener.while_accepting(self.accept(&connections), async { drop(draining.await) }) => {}
            () = drained => {}
        }
        let Self { listener, accept_policy, api, permits, state, .. } = self;
        shared::serve::listener::close(listener, |stream, peer| {
            // Without a permit, the connection could not be served in time.
            if let Ok(permit) = permits.clone().try_acquire_owned() {
                serve(&accept_policy, &api, &state, stream, peer, permit, &connections);
            }
        });
        state.stopped_accepting.cancel();
        // A load balancer may have sent requests on connections that it considered open. Each response now ends its
        // connection.
        tokio::time::sleep(accept.min(DRAIN_LINGER)).await;
        if timeout(DRAIN_TIMEOUT, connections.shutdown()).await.is_err() {
            tracing::warn!("shut down before all open requests were finished");
        }
    }

    /// Waits for a free permit. Meanwhile, connections wait in the listen queue of the system.
    ///
    /// Logs once that the limit is reached, and again only after more than a tenth of the permits were free. Otherwise
    /// the log would get a line for each connection that ends.
    async fn permit(&self, full: &mut bool) -> OwnedSemaphorePermit {
        if *full && self.permits.available_permits() > self.max / 10 {
            *full = false;
        }
        if let Ok(permit) = self.permits.clone().try_acquire_owned() {
            return permit;
        }
        if !std::mem::replace(full, true) {
            tracing::warn!(
                connections = self.max,
                "connection limit reached; new connections are queued until others end"
            );
        }
        self.permits.clone().acquire_owned().await.expect("the semaphore is never closed")
    }

    async fn accept(&self, connections: &GracefulShutdown) {
        let mut full = false;
        let mut acceptor = Acceptor::new(&self.listener, "public");
        let mut pace = self.accept_policy.pace();
        loop {
            pace.wait().await;
            let permit = self.permit(&mut full).await;
            let (stream, peer) = acceptor.accept().await;
            serve(&self.accept_policy, &self.api, &self.state, stream, peer, permit, connections);
        }
    }
}

fn serve(
    accept_policy: &Arc<AcceptPolicy>,
    api: &Arc<Api>,
    state: &Arc<State>,
    stream: TcpStream,
    peer: SocketAddr,
    permit: OwnedSemaphorePermit,
    connections: &GracefulShutdown,
) {
    // A response is one small write. With Nagle's algorithm some would wait for an acknowledgement of the caller.
    let _ = stream.set_nodelay(true);
    let (accept_policy, watcher) = (accept_policy.clone(), connections.watcher());
    let (api, state) = (api.clone(), state.clone());
    let permit = Permit::new(&state, permit);
    tokio::spawn(async move {
        let _permit = permit;
        if let Err(dropped) = serve_admitted(&accept_policy, api, &state, stream, peer, watcher).await {
            let cause = std::error::Error::source(&dropped).map(ToString::to_string).unwrap_or_default();
            tracing::debug!(client.address = %peer, error = %dropped, cause, "connection dropped");
            state.dropped.with_label_values(&[dropped.label()]).inc();
        }
    });
}

/// Serves one connection until it ends, if the accept policy admits it.
async fn serve_admitted(
    accept_policy: &AcceptPolicy,
    api: Arc<Api>,
    state: &State,
    mut stream: TcpStream,
    peer: SocketAddr,
    watcher: Watcher,
) -> Result<(), Dropped> {
    let routes = |peer| {
        let (is_draining, access) = (state.is_draining.clone(), accept_policy.access.clone());
        Arc::new(Guarded { is_draining, access, peer, routes: api })
    };
    match &accept_policy.tls {
        Some(tls) => {
            let preamble = async {
                let client = accept_policy.admit(&mut stream, peer).await?;
                Ok((client, tls.accept(stream).await.map_err(Dropped::Tls)?))
            };
            let (client, stream) = state.in_time(preamble).await?;
            serve_http(stream, routes(client), watcher).await;
        }
        None => {
            let client = state.in_time(accept_policy.admit(&mut stream, peer)).await?;
            serve_http(stream, routes(client), watcher).await;
        }
    }
    Ok(())
}

/// Serves HTTP on a stream until it ends.
async fn serve_http<S>(stream: S, routes: Arc<Guarded<Api>>, watcher: Watcher)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let state = ConnectionState::new();
    let limits = Limits { body_bytes_max: routes.body_bytes_max(), write_timeout: http::WRITE_TIMEOUT };
    let connection = http::connection(stream, limits, state.clone(), move |request| {
        let routes = routes.clone();
        async move { routes.respond(request).await }
    });
    // An error is a violation of HTTP or a lost connection. hyper has sent a response if that was possible.
    let _ = http::in_time(watcher.watch(connection), &state).await;
}

impl Health for State {
    fn live(&self) -> Result<(), String> {
        Ok(())
    }

    fn ready(&self) -> Result<(), String> {
        if self.is_draining.load(Ordering::Acquire) { Err("draining".into()) } else { Ok(()) }
    }
}
