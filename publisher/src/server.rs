//! The publisher's own listener, for the role that serves the API alone.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use prometheus::{IntCounterVec, IntGauge, Registry};
use shared::serve::admin::Health;
use shared::serve::http::{self, ConnectionState, Limits, Routes};
use shared::serve::listener::accept_policy::{Dropped, Guarded, dropped_counter};
use shared::serve::listener::{AcceptPolicy, Acceptor, BoundListener};
use shared::serve::telemetry::EventLoopLag;
use shared::serve::telemetry::metrics::register;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::Api;
use crate::limits::{CONNECTIONS_MAX, DRAIN_LINGER, DRAIN_PREAMBLE_TIMEOUT, DRAIN_TIMEOUT};

/// A bound listener of the API.
pub struct Server {
    listener: BoundListener,
    accept_policy: Arc<AcceptPolicy>,
    api: Arc<Api>,
    permits: Arc<Semaphore>,
    /// How many of them there are.
    max: usize,
    state: Arc<State>,
    event_loop_lag: EventLoopLag,
}

/// What the admin listener is told.
struct State {
    is_draining: Arc<AtomicBool>,
    /// Cancelled once nobody new is let in.
    leaving: CancellationToken,
    /// Connections that were not let in, by reason.
    dropped: IntCounterVec,
    /// Places that are taken.
    connections: IntGauge,
}

/// One connection's place among [`CONNECTIONS_MAX`], counted as long as it is held.
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
    /// Runs what precedes a connection's first request. While the server leaves it has little time: a connection that says
    /// nothing must not hold up the end.
    async fn in_time<T>(&self, preamble: impl Future<Output = Result<T, Dropped>>) -> Result<T, Dropped> {
        let too_late = async {
            self.leaving.cancelled().await;
            tokio::time::sleep(DRAIN_PREAMBLE_TIMEOUT).await;
        };
        tokio::select! {
            result = preamble => result,
            () = too_late => Err(Dropped::Leaving),
        }
    }
}

impl Server {
    /// Binds the listener. `inherited`: the socket that the process was started with.
    ///
    /// `descriptors_max`: what the process may open; a fifth of it is left for everything else.
    ///
    /// # Errors
    /// When the address cannot be had.
    ///
    /// # Panics
    /// When the registry has a listener's metrics already.
    pub async fn bind(
        (host, port): (&str, u16),
        inherited: Option<std::net::TcpListener>,
        accept_policy: AcceptPolicy,
        api: Arc<Api>,
        registry: &Registry,
        descriptors_max: u64,
    ) -> io::Result<Self> {
        let listener = shared::serve::listener::listen(host, port, inherited).await?;
        let room = usize::try_from(descriptors_max / 5 * 4).unwrap_or(usize::MAX);
        let room = room.clamp(1, CONNECTIONS_MAX);
        let gauge = |name, help| register(registry, IntGauge::new(name, help));
        gauge("carillon_http_connections_max", "Most connections to the HTTP API that this publisher holds.")
            .set(i64::try_from(room).unwrap_or(i64::MAX));
        let permits = Arc::new(Semaphore::new(room));
        let state = State {
            is_draining: Arc::default(),
            leaving: CancellationToken::new(),
            dropped: dropped_counter(registry),
            connections: gauge("carillon_http_connections", "Open connections to the HTTP API of a publisher."),
        };
        let event_loop_lag = EventLoopLag::new(registry);
        Ok(Self {
            listener,
            accept_policy: Arc::new(accept_policy),
            api,
            permits,
            max: room,
            state: Arc::new(state),
            event_loop_lag,
        })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// What the admin listener asks.
    pub fn health(&self) -> Arc<dyn Health> {
        self.state.clone()
    }

    /// Serves until `shutdown` resolves; goes on for `accept` while balancers notice that it is not ready any more; then
    /// takes no new connections, answers what is under way, and returns.
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
        let leaving = async {
            shutdown.await;
            self.state.is_draining.store(true, Ordering::Release);
            drop(stop);
            tokio::time::sleep(accept).await;
        };
        tokio::select! {
            () = self.listener.while_accepting(self.accept(&connections), async { drop(draining.await) }) => {}
            () = leaving => {}
        }
        let Self { listener, accept_policy, api, permits, state, .. } = self;
        shared::serve::listener::close(listener, |stream, peer| {
            // Beyond the places nobody would have been served in time anyway.
            if let Ok(permit) = permits.clone().try_acquire_owned() {
                serve(&accept_policy, &api, &state, stream, peer, permit, &connections);
            }
        });
        state.leaving.cancel();
        // A request may be on its way on a connection that its balancer took for open; each answer ends its connection now.
        tokio::time::sleep(accept.min(DRAIN_LINGER)).await;
        if timeout(DRAIN_TIMEOUT, connections.shutdown()).await.is_err() {
            tracing::warn!("shut down while requests were still under way");
        }
    }

    /// A place, once there is one. While all are taken callers wait in the system's queue. That is one line of the log until
    /// a tenth of the places is free again: else each caller that leaves would be an episode of its own.
    async fn permit(&self, full: &mut bool) -> OwnedSemaphorePermit {
        if *full && self.permits.available_permits() > self.max / 10 {
            *full = false;
        }
        if let Ok(permit) = self.permits.clone().try_acquire_owned() {
            return permit;
        }
        if !std::mem::replace(full, true) {
            tracing::warn!(connections = self.max, "full: further connections wait until others end");
        }
        self.permits.clone().acquire_owned().await.expect("nobody closes it")
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
    // Answers are one small write; without this some would wait for the caller's acknowledgement.
    let _ = stream.set_nodelay(true);
    let (accept_policy, watcher) = (accept_policy.clone(), connections.watcher());
    let (api, state) = (api.clone(), state.clone());
    let permit = Permit::new(&state, permit);
    tokio::spawn(async move {
        let _permit = permit;
        if let Err(dropped) = converse(&accept_policy, api, &state, stream, peer, watcher).await {
            let cause = std::error::Error::source(&dropped).map(ToString::to_string).unwrap_or_default();
            tracing::debug!(%peer, error = %dropped, cause, "connection dropped");
            state.dropped.with_label_values(&[dropped.label()]).inc();
        }
    });
}

/// Serves one connection to its end, if it is let in.
async fn converse(
    accept_policy: &AcceptPolicy,
    api: Arc<Api>,
    state: &State,
    mut stream: TcpStream,
    peer: SocketAddr,
    watcher: Watcher,
) -> Result<(), Dropped> {
    let routes = |peer| {
        let (is_leaving, access) = (state.is_draining.clone(), accept_policy.access.clone());
        Arc::new(Guarded { is_leaving, access, peer, routes: api })
    };
    match &accept_policy.tls {
        Some(tls) => {
            let preamble = async {
                let client = accept_policy.admit(&mut stream, peer).await?;
                Ok((client, tls.accept(stream).await.map_err(Dropped::Tls)?))
            };
            let (client, stream) = state.in_time(preamble).await?;
            exchange(stream, routes(client), watcher).await;
        }
        None => {
            let client = state.in_time(accept_policy.admit(&mut stream, peer)).await?;
            exchange(stream, routes(client), watcher).await;
        }
    }
    Ok(())
}

/// Serves HTTP on a stream until its end.
async fn exchange<S>(stream: S, routes: Arc<Guarded<Api>>, watcher: Watcher)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let state = ConnectionState::new();
    let limits = Limits { body_bytes_max: routes.body_bytes_max(), write_timeout: http::WRITE_TIMEOUT };
    let connection = http::connection(stream, limits, state.clone(), move |request| {
        let routes = routes.clone();
        async move { routes.respond(request).await }
    });
    // An error says that the caller broke the protocol or the connection; it has been answered, or is away.
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
