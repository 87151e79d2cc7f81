//! The admin listener of every role: `/metrics`, `/livez`, `/readyz`.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use hyper::body::Incoming;
use hyper::{Method, Request, StatusCode};
use prometheus::{Encoder, Registry, TextEncoder};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::config;
use crate::http::{self, Answer, Routes};
use crate::network::{Access, Networks};

/// `[admin]`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Address to listen on.
    #[serde(deserialize_with = "config::text")]
    pub host: String,
    /// Port; 0 takes any free one.
    pub port: u16,
    /// Networks that are let in; everyone when there are none.
    pub allow: Networks,
    /// Networks that are not.
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
    listener: TcpListener,
    access: Access,
    routes: Arc<AdminRoutes>,
}

struct AdminRoutes {
    registry: Registry,
    health: Arc<dyn Health>,
}

/// Scrapers and probes are few; a hundred at once is a mistake.
const CONNECTIONS_MAX: usize = 100;

impl Admin {
    /// Binds the listener.
    ///
    /// # Errors
    /// When the address cannot be had.
    pub async fn bind(config: &Config, registry: Registry, health: Arc<dyn Health>) -> io::Result<Self> {
        let listener = crate::listener::listen(&config.host, config.port).await?;
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
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = self.listener.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                    Ok((_, peer)) if !self.access.admits(peer.ip()) => {
                        tracing::debug!(%peer, "connection dropped: the address is not let in");
                    }
                    Ok((stream, _)) => {
                        let routes = self.routes.clone();
                        connections.spawn(async move {
                            // A scraper that goes away in the middle is its own affair.
                            let _ = http::serve_connection(stream, &*routes).await;
                        });
                    }
                    Err(error) => {
                        tracing::warn!(%error, "admin listener cannot accept");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                },
                Some(_) = connections.join_next() => {}
            }
        }
    }
}

impl Routes for AdminRoutes {
    fn answer(&self, request: Request<Incoming>) -> BoxFuture<'_, Answer> {
        let answer = if !matches!(*request.method(), Method::GET | Method::HEAD) {
            http::text(StatusCode::METHOD_NOT_ALLOWED, "Method not allowed")
        } else {
            match request.uri().path() {
                "/metrics" => self.metrics(),
                "/livez" => health(self.health.live()),
                "/readyz" => health(self.health.ready()),
                _ => http::text(StatusCode::NOT_FOUND, "Not found: try /metrics, /livez or /readyz"),
            }
        };
        Box::pin(std::future::ready(answer))
    }
}

impl AdminRoutes {
    fn metrics(&self) -> Answer {
        let mut body = Vec::new();
        match TextEncoder::new().encode(&self.registry.gather(), &mut body) {
            Ok(()) => http::answer(StatusCode::OK, prometheus::TEXT_FORMAT, body),
            Err(error) => http::text(StatusCode::INTERNAL_SERVER_ERROR, &format!("cannot encode metrics: {error}")),
        }
    }
}

fn health(state: Result<(), String>) -> Answer {
    match state {
        Ok(()) => http::text(StatusCode::OK, "ok"),
        Err(reason) => http::text(StatusCode::SERVICE_UNAVAILABLE, &reason),
    }
}
