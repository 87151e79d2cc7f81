//! The signed HTTP API: publishes events of applications and returns the state of channels.
//!
//! [`Api`] is served by a gateway's listener, or by the [`Server`] of the publisher role. It has no access to clients:
//! events go to the bus, and the roster has the state of channels. Source: protocol reference 4.

use std::error::Error;
use std::time::Instant;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use hyper::Request;
use hyper::body::Body;
use shared::serve::http::{RequestBody, Response, Routes};

mod api;
mod api_error;
mod event;
mod info;
mod limits;
mod metrics;
mod publish;
mod received;
mod refusal_log;
mod response;
mod routes;
mod server;
mod signed;
mod text;

pub use api::{Api, Deps};
pub use server::Server;

use api_error::ApiError;
use received::Received;
use routes::{Path, RouteMatch};

impl Api {
    /// Creates the API and registers its metrics.
    ///
    /// # Panics
    /// Panics if the registry already has these metrics.
    pub fn new(deps: Deps) -> Self {
        Self::with_routes(deps, routes::labels())
    }

    /// Handles one request. The body can have any type.
    async fn handle<B>(&self, request: Request<B>) -> Response
    where
        B: Body<Data = Bytes>,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let started = Instant::now();
        let (head, body) = request.into_parts();
        let path = Path::split(head.uri.path(), &self.path_prefix);
        let segments = path.segments();
        let found = RouteMatch::find(&segments);
        let label = found.as_ref().map_or(metrics::UNKNOWN_ROUTE, RouteMatch::label);
        let mut body = Received::new(body);
        let result = match &found {
            Some(found) => found.respond(self, &head, &mut body).await,
            None => Err(ApiError::NotFound),
        };
        let response = match result {
            Ok(response) => response,
            Err(error) => {
                if let Some(reason) = error.auth_failure() {
                    self.metrics.auth_failed(reason);
                }
                let (app, channel) = found.as_ref().map_or((None, None), |found| (found.app, found.channel));
                self.refusal_log.write(label, app, channel, &head, &mut body, &error).await;
                error.response()
            }
        };
        self.metrics.answered(label, response.status(), started.elapsed());
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
