//! The admin listener of every role: `/metrics`, `/livez`, `/readyz`.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::future::BoxFuture;
use hyper::{Method, Request, StatusCode};
use prometheus::{Encoder, Registry, TextEncoder};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio::task::{self, AbortHandle, JoinSet};

use crate::config;
use crate::serve::http::{self, RequestBody, Response, Routes};
use crate::serve::listener::{Acceptor, BoundListener};
use crate::serve::network::{Access, Networks};

/// The listener for metrics and health checks.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The address to listen on.
    #[serde(deserialize_with = "config::host")]
    pub host: String,
    /// The port. 0 selects any free port.
    pub port: u16,
    /// The networks that may connect, like `["10.0.0.0/8"]`. An empty list allows all.
    #[schemars(schema_with = "config::schema::networks")]
    pub allow: Networks,
    /// The networks that may not connect. It takes precedence over `allow`.
    #[schemars(schema_with = "config::schema::networks")]
    pub deny: Networks,
}

impl Default for Config {
    fn default() -> Self {
        Self { host: "127.0.0.1".into(), port: 9090, allow: Networks::default(), deny: Networks::default() }
    }
}

/// What a role says of itself.
pub trait Health: Send + Sync {
    /// Whether the event loops turn. Never looks beyond the process.
    fn live(&self) -> Result<(), String>;

    /// Whether new connections should come here, and if not, why.
    fn ready(&self) -> Result<(), String>;
}

/// A bound admin listener.
pub struct Admin {
    listener: BoundListener,
    access: Access,
    routes: Arc<AdminRoutes>,
}

struct AdminRoutes {
    registry: Registry,
    health: Arc<dyn Health>,
}

/// Scrapers and probes are few. Beyond this many whoever was silent for longest is dropped, so that nobody keeps a probe
/// out by holding connections open: a node whose `/livez` does not answer is killed.
const CONNECTIONS_MAX: usize = 100;

/// The open connections.
#[derive(Default)]
struct Connections {
    tasks: JoinSet<()>,
    open: HashMap<task::Id, Open>,
    /// Counts connections and requests: a clock that only orders.
    now: Arc<AtomicU64>,
}

struct Open {
    task: AbortHandle,
    /// When its last request came, or it was opened.
    used: Arc<AtomicU64>,
}

/// The routes, for one connection.
struct Watched {
    routes: Arc<AdminRoutes>,
    now: Arc<AtomicU64>,
    used: Arc<AtomicU64>,
}

impl Admin {
    /// Binds the listener. `inherited`: the socket that the process was started with.
    ///
    /// # Errors
    /// When the address cannot be had.
    pub async fn bind(
        config: &Config,
        registry: Registry,
        health: Arc<dyn Health>,
        inherited: Option<std::net::TcpListener>,
    ) -> io::Result<Self> {
        let listener = crate::serve::listener::listen(&config.host, config.port, inherited).await?;
        let access = Access { allow: config.allow.clone(), deny: config.deny.clone(), ..Access::default() };
        Ok(Self { listener, access, routes: Arc::new(AdminRoutes { registry, health }) })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until the future is dropped.
    pub async fn run(self) {
        let mut connections = Connections::default();
        let mut acceptor = Acceptor::new(&self.listener, "admin");
        loop {
            tokio::select! {
                (stream, peer) = acceptor.accept() => {
                    if self.access.admits(peer.ip()) {
                        connections.serve(stream, &self.routes);
                    } else {
                        tracing::debug!(%peer, "connection dropped: the address is not let in");
                    }
                }
                () = connections.ended() => {}
            }
        }
    }
}

impl Connections {
    fn serve(&mut self, stream: TcpStream, routes: &Arc<AdminRoutes>) {
        if self.open.len() >= CONNECTIONS_MAX {
            self.drop_silent();
        }
        let used = Arc::new(AtomicU64::new(self.now.fetch_add(1, Ordering::Relaxed)));
        let watched = Watched { routes: routes.clone(), now: self.now.clone(), used: used.clone() };
        let task = self.tasks.spawn(async move {
            // A scraper that goes away in the middle is its own affair.
            let _ = http::serve_connection(stream, &watched).await;
        });
        self.open.insert(task.id(), Open { task, used });
    }

    /// Ends the connection that has asked nothing for longest.
    fn drop_silent(&mut self) {
        let silent = self.open.iter().min_by_key(|(_, open)| open.used.load(Ordering::Relaxed)).map(|(id, _)| *id);
        if let Some(open) = silent.and_then(|id| self.open.remove(&id)) {
            open.task.abort();
            tracing::debug!("the admin listener has as many connections as it keeps: the most silent one is dropped");
        }
    }

    /// One of them, once it has ended; waits for ever where there is none.
    async fn ended(&mut self) {
        match self.tasks.join_next_with_id().await {
            Some(Ok((id, ()))) => drop(self.open.remove(&id)),
            Some(Err(error)) => drop(self.open.remove(&error.id())),
            None => std::future::pending().await,
        }
    }
}

/// The largest body of a request that is discarded. No request of this listener needs one.
const BODY_BYTES_MAX: u64 = 64 * 1024;

impl Routes for Watched {
    fn respond(&self, request: Request<RequestBody>) -> BoxFuture<'_, Response> {
        self.used.store(self.now.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        self.routes.respond(request)
    }

    fn body_bytes_max(&self) -> u64 {
        BODY_BYTES_MAX
    }
}

impl Routes for AdminRoutes {
    fn respond(&self, request: Request<RequestBody>) -> BoxFuture<'_, Response> {
        let response = if !matches!(*request.method(), Method::GET | Method::HEAD) {
            http::text(StatusCode::METHOD_NOT_ALLOWED, "Method not allowed")
        } else {
            match request.uri().path() {
                "/metrics" => self.metrics(),
                "/livez" => health(self.health.live()),
                "/readyz" => health(self.health.ready()),
                _ => http::text(StatusCode::NOT_FOUND, "Not found: try /metrics, /livez or /readyz"),
            }
        };
        Box::pin(std::future::ready(response))
    }
}

impl AdminRoutes {
    fn metrics(&self) -> Response {
        let mut body = Vec::new();
        match TextEncoder::new().encode(&self.registry.gather(), &mut body) {
            Ok(()) => http::response(StatusCode::OK, prometheus::TEXT_FORMAT, body),
            Err(error) => http::text(StatusCode::INTERNAL_SERVER_ERROR, format!("cannot encode metrics: {error}")),
        }
    }
}

fn health(state: Result<(), String>) -> Response {
    match state {
        Ok(()) => http::text(StatusCode::OK, "ok"),
        Err(reason) => http::text(StatusCode::SERVICE_UNAVAILABLE, reason),
    }
}

#[cfg(test)]
mod tests;
