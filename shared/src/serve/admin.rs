//! The admin listener of every role: `/metrics`, `/livez`, `/readyz`.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::future::BoxFuture;
use hyper::{Method, Request, StatusCode};
use prometheus::{Encoder, TextEncoder};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio::task::{self, AbortHandle, JoinSet};

use crate::config;
use crate::serve::http::{self, RequestBody, Response, Routes};
use crate::serve::listener::{Acceptor, BoundListener};
use crate::serve::network::{Access, Networks};
use crate::serve::telemetry::metrics::Registry;

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

/// The health of a role.
pub trait Health: Send + Sync {
    /// Checks that the event loops respond. Does not look beyond the process.
    ///
    /// # Errors
    /// The reason why the process is not live.
    fn live(&self) -> Result<(), String>;

    /// Checks that the node can serve new connections.
    ///
    /// # Errors
    /// The reason why the node is not ready.
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

/// The maximum number of connections. Beyond it, the connection that was idle for longest is dropped.
///
/// Otherwise, idle connections could keep health checks out. A node whose `/livez` does not respond is killed.
const CONNECTIONS_MAX: usize = 100;

/// The open connections of the admin listener.
#[derive(Default)]
struct Connections {
    tasks: JoinSet<()>,
    open: HashMap<task::Id, Open>,
    /// A logical clock that counts connections and requests.
    now: Arc<AtomicU64>,
}

struct Open {
    task: AbortHandle,
    /// The logical time of the last request, or of the start of the connection.
    used: Arc<AtomicU64>,
}

/// The routes for one connection. They record the time of each request.
struct ConnectionRoutes {
    routes: Arc<AdminRoutes>,
    now: Arc<AtomicU64>,
    used: Arc<AtomicU64>,
}

impl Admin {
    /// Binds the listener. `inherited`: the socket that the process inherited.
    ///
    /// # Errors
    /// If the address cannot be bound.
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

    /// Returns the address of the listener.
    ///
    /// # Errors
    /// If the system does not report the address.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves requests until the future is dropped.
    pub async fn run(self) {
        let mut connections = Connections::default();
        let mut acceptor = Acceptor::new(&self.listener, "admin");
        loop {
            tokio::select! {
                (stream, peer) = acceptor.accept() => {
                    if self.access.admits(peer.ip()) {
                        connections.serve(stream, &self.routes);
                    } else {
                        tracing::debug!(client.address = %peer, "connection dropped: the address is not allowed");
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
            self.drop_idle();
        }
        let used = Arc::new(AtomicU64::new(self.now.fetch_add(1, Ordering::Relaxed)));
        let routes_of_connection =
            ConnectionRoutes { routes: routes.clone(), now: self.now.clone(), used: used.clone() };
        let task = self.tasks.spawn(async move {
            // A client that disconnects during its request is not an error.
            let _ = http::serve_connection(stream, &routes_of_connection).await;
        });
        self.open.insert(task.id(), Open { task, used });
    }

    /// Drops the connection that was idle for longest.
    fn drop_idle(&mut self) {
        let idle = self.open.iter().min_by_key(|(_, open)| open.used.load(Ordering::Relaxed)).map(|(id, _)| *id);
        if let Some(open) = idle.and_then(|id| self.open.remove(&id)) {
            open.task.abort();
            tracing::debug!(
                "connection limit of the admin listener reached: dropped the connection that was idle for longest"
            );
        }
    }

    /// Removes the next connection that ends. Never resolves if there is none.
    async fn ended(&mut self) {
        match self.tasks.join_next_with_id().await {
            Some(Ok((id, ()))) => drop(self.open.remove(&id)),
            Some(Err(error)) => drop(self.open.remove(&error.id())),
            None => std::future::pending().await,
        }
    }
}

/// The maximum size of a request body that is discarded. No request of this listener needs a body.
const BODY_BYTES_MAX: u64 = 64 * 1024;

impl Routes for ConnectionRoutes {
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
