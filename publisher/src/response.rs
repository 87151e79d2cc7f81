//! Responses of successful requests.

use hyper::StatusCode;
use serde::Serialize;
use shared::serve::http::{self, Response};

/// Returns a 200 with `body` as JSON.
pub(crate) fn ok(body: &impl Serialize) -> Response {
    let body = serde_json::to_vec(body).expect("responses contain only strings and numbers");
    http::json(StatusCode::OK, body)
}

/// Returns a 200 with an empty object. pusher-http-php has no type for anything else.
pub(crate) fn ok_empty() -> Response {
    http::json(StatusCode::OK, "{}")
}
