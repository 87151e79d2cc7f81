//! The responses of the fallback transports.

use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_MAX_AGE,
    CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue,
};

use super::body::{Body, Response};
use super::lines;
use crate::reject::Farewell;

/// Stops nginx and similar proxies from buffering lines.
const UNBUFFERED: HeaderName = HeaderName::from_static("x-accel-buffering");

/// Returns a response of lines.
pub(super) fn lines(body: Body) -> Response {
    let mut response = Response::new(body);
    allow_any_origin(&mut response);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/javascript; charset=UTF-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store, no-transform"));
    headers.insert(UNBUFFERED, HeaderValue::from_static("no"));
    response
}

/// Returns a response that announces a new session. A client that had an open session learns that it is lost.
pub(super) fn open() -> Response {
    lines(Bytes::from_static(lines::OPEN.as_bytes()).into())
}

/// Returns a response without messages, after which the client sends the next request.
pub(super) fn heartbeat() -> Response {
    lines(Bytes::from_static(lines::HEARTBEAT.as_bytes()).into())
}

/// Returns a response that opens a session and ends it with `farewell`. The client ignores the text of any other
/// response.
pub(super) fn refused(farewell: &Farewell) -> Response {
    lines(Bytes::from(format!("{}{}", lines::OPEN, lines::farewell(farewell))).into())
}

/// Returns a response without a body.
pub(super) fn no_content() -> Response {
    let mut response = Response::default();
    *response.status_mut() = StatusCode::NO_CONTENT;
    allow_any_origin(&mut response);
    response
}

/// Returns the response to a CORS preflight. Every origin is allowed here because requests carry no credentials. The
/// allowed origins of the app are checked when the session is opened.
pub(super) fn preflight() -> Response {
    let mut response = no_content();
    let headers = response.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("POST, OPTIONS"));
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("content-type"));
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
    response
}

/// Returns an error as plain text.
pub(super) fn error(status: StatusCode, text: &str) -> Response {
    let mut response = shared::serve::http::text(status, text.to_owned()).map(Body::Whole);
    allow_any_origin(&mut response);
    response
}

/// Returns the error for a session that no node has.
pub(super) fn unknown_session() -> Response {
    error(StatusCode::NOT_FOUND, "Unknown session")
}

fn allow_any_origin(response: &mut Response) {
    response.headers_mut().insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
}
