//! The publisher's own listener, for the role that serves the API alone.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use shared::admin::Health;
use shared::http;
use shared::listener::Front;
use shared::listener::front::{Dropped, Guarded};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::Api;

/// A request that is under way when the server leaves has this long to be answered; twice what a command to Redis takes.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long to wait when the system has no descriptor left: someone must leave first.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(50);

/// Open connections of callers. They are applications' servers, each with a few; more wait in the system's queue.
const CONNECTIONS_MAX: usize = 10_000;

/// A bound listener of the API.
pub struct Server {
    listener: TcpListener,
    front: Arc<Front>,
    api: Arc<Api>,
    places: Arc<Semaphore>,
    state: Arc<State>,
}

/// What the admin listener is told.
#[derive(Default)]
struct State {
    is_draining: Arc<AtomicBool>,
}

impl Server {
    /// Binds the listener.
    ///
    /// `descriptors_max`: what the process may open; a fifth of it is left for everything else.
    ///
    /// # Errors
    /// When the address cannot be had.
    pub async fn bind(host: &str, port: u16, front: Front, api: Arc<Api>, descriptors_max: u64) -> io::Result<Self> {
        let listener = shared::listener::listen(host, port).await?;
        let room = usize::try_from(descriptors_max / 5 * 4).unwrap_or(usize::MAX);
        let places = Arc::new(Semaphore::new(room.clamp(1, CONNECTIONS_MAX)));
        Ok(Self { listener, front: Arc::new(front), api, places, state: Arc::default() })
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
        let connections = GracefulShutdown::new();
        let leaving = async {
            shutdown.await;
            self.state.is_draining.store(true, Ordering::Release);
            tokio::time::sleep(accept).await;
        };
        tokio::select! {
            () = self.accept(&connections) => {}
            () = leaving => {}
        }
        drop(self.listener);
        if timeout(LEAVE_TIMEOUT, connections.shutdown()).await.is_err() {
            tracing::warn!("left while requests were still under way");
        }
    }

    async fn accept(&self, connections: &GracefulShutdown) {
        // A whole episode is one line of the log.
        let mut failing = false;
        let mut pace = self.front.pace();
        loop {
            pace.wait().await;
            let place = self.places.clone().acquire_owned().await.expect("nobody closes it");
            match self.listener.accept().await {
                Ok((stream, peer)) => {
                    failing = false;
                    self.serve(stream, peer, place, connections);
                }
                Err(error) if is_of_the_caller(&error) => {}
                Err(error) => {
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(%error, "cannot accept connections, trying again until it works");
                    }
                    tokio::time::sleep(EXHAUSTED_PAUSE).await;
                }
            }
        }
    }

    fn serve(&self, stream: TcpStream, peer: SocketAddr, place: OwnedSemaphorePermit, connections: &GracefulShutdown) {
        // Answers are one small write; without this some would wait for the caller's acknowledgement.
        let _ = stream.set_nodelay(true);
        let (front, watcher) = (self.front.clone(), connections.watcher());
        let (api, is_leaving) = (self.api.clone(), self.state.is_draining.clone());
        tokio::spawn(async move {
            let _place = place;
            if let Err(dropped) = converse(&front, api, is_leaving, stream, peer, watcher).await {
                let cause = std::error::Error::source(&dropped).map(ToString::to_string).unwrap_or_default();
                tracing::debug!(%peer, error = %dropped, cause, "connection dropped");
            }
        });
    }
}

/// Serves one connection to its end, if it is let in.
async fn converse(
    front: &Front,
    api: Arc<Api>,
    is_leaving: Arc<AtomicBool>,
    mut stream: TcpStream,
    peer: SocketAddr,
    watcher: Watcher,
) -> Result<(), Dropped> {
    let client = front.admit(&mut stream, peer).await?;
    let routes = Arc::new(Guarded { is_leaving, access: front.access.clone(), peer: client, routes: api });
    let asked = Arc::new(AtomicBool::new(false));
    let service = http::service(routes, asked.clone());
    // A caller that breaks the protocol or the connection has been told, or is gone.
    match &front.tls {
        Some(tls) => {
            let stream = tls.accept(stream).await.map_err(Dropped::Tls)?;
            let connection = watcher.watch(http::http1().serve_connection(TokioIo::new(stream), service));
            let _ = http::in_time(connection, &asked).await;
        }
        None => {
            let connection = watcher.watch(http::http1().serve_connection(TokioIo::new(stream), service));
            let _ = http::in_time(connection, &asked).await;
        }
    }
    Ok(())
}

impl Health for State {
    fn live(&self) -> Result<(), String> {
        Ok(())
    }

    fn ready(&self) -> Result<(), String> {
        if self.is_draining.load(Ordering::Acquire) { Err("draining".into()) } else { Ok(()) }
    }
}

fn is_of_the_caller(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset)
}
