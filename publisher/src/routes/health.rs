//! `GET /up`: whether this process answers; not signed.

use hyper::StatusCode;
use shared::http::{self, Answer};

/// The body is Reverb's.
pub(super) fn get() -> Answer {
    http::json(StatusCode::OK, r#"{"health":"OK"}"#)
}
