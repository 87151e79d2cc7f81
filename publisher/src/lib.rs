//! The signed HTTP API: takes events from applications' own servers and answers what they ask about channels.
//!
//! Reached through [`Api`], which any listener that speaks HTTP can serve, as the [`Server`] of the role of its own
//! does. It never meets a client's socket: events go to the bus, questions to the roster. Source: protocol reference 4.

use std::collections::HashMap;
use std::error::Error;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use hyper::Request;
use hyper::body::Body;
use prometheus::Registry;
use shared::allowance::Allowance;
use shared::app::{AppId, Apps};
use shared::cluster::bus::Bus;
use shared::cluster::roster::Roster;
use shared::serve::http::{RequestBody, Response, Routes};
use tokio::sync::Semaphore;

mod api_error;
mod event;
mod info;
mod limits;
mod metrics;
mod publish;
mod received;
mod refusal_log;
mod routes;
mod server;
mod signed;
mod text;

pub use server::Server;

use api_error::ApiError;
use metrics::Metrics;
use received::Received;
use refusal_log::RefusalLog;
use routes::{Path, Route};

/// What the API works with.
pub struct Deps {
    /// The tenants, found by the id in a request's path.
    pub apps: Apps,
    /// Takes the events.
    pub bus: Arc<dyn Bus>,
    /// Knows members, occupancy and last events.
    pub roster: Arc<dyn Roster>,
    /// Where metrics are registered.
    pub registry: Registry,
    /// What precedes `/apps` in every path, as `/ws`; empty for nothing.
    pub path_prefix: String,
}

/// The HTTP API of all apps.
pub struct Api {
    apps: Apps,
    bus: Arc<dyn Bus>,
    roster: Arc<dyn Roster>,
    metrics: Metrics,
    path_prefix: String,
    /// What each app may still publish in this second; behind a lock that is held for a few instructions.
    allowances: HashMap<AppId, Mutex<Allowance>>,
    /// The bytes of request bodies that each app may still have under way.
    body_budgets: HashMap<AppId, Semaphore>,
    refusal_log: RefusalLog,
}

impl Api {
    /// Puts the API together and registers its metrics.
    ///
    /// # Panics
    /// When the registry has an API's metrics already.
    pub fn new(deps: Deps) -> Self {
        let Deps { apps, bus, roster, registry, path_prefix } = deps;
        let metrics = Metrics::new(&registry, &apps);
        let allowances = apps.iter().map(|app| (app.id.clone(), Mutex::default())).collect();
        let body_budgets = apps.iter().map(|app| (app.id.clone(), Semaphore::new(signed::body_budget(app)))).collect();
        let refusal_log = RefusalLog::default();
        Self { apps, bus, roster, metrics, path_prefix, allowances, body_budgets, refusal_log }
    }

    /// Answers one request, whatever its body is made of.
    async fn handle<B>(&self, request: Request<B>) -> Response
    where
        B: Body<Data = Bytes>,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let started = Instant::now();
        let (head, body) = request.into_parts();
        let path = Path::split(head.uri.path(), &self.path_prefix);
        let segments = path.segments();
        let route = Route::find(&segments);
        let endpoint = route.as_ref().map_or(metrics::UNKNOWN_ENDPOINT, Route::label);
        let mut body = Received::new(body);
        let response = match &route {
            Some(route) => routes::respond(self, route, &head, &mut body).await,
            None => Err(ApiError::NotFound),
        };
        let response = match response {
            Ok(response) => response,
            Err(error) => {
                if let Some(reason) = error.auth_failure() {
                    self.metrics.auth_failed(reason);
                }
                let (app, channel) = route.as_ref().map_or((None, None), Route::names);
                self.refusal_log.write(endpoint, app, channel, &head, &mut body, &error).await;
                error.response()
            }
        };
        self.metrics.answered(endpoint, response.status(), started.elapsed());
        response
    }
}

impl Routes for Api {
    fn respond(&self, request: Request<RequestBody>) -> BoxFuture<'_, Response> {
        Box::pin(self.handle(request))
    }

    fn body_bytes_max(&self) -> u64 {
        self.apps.iter().map(|app| app.limits.request_bytes()).max().unwrap_or_default() as u64
    }
}

#[cfg(test)]
mod tests;
