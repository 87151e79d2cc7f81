//! `GET /up` and `GET /`: reports that this process is running. These requests need no signature.
//!
//! Closes the connection after the response, because health checks rarely send a second request.

use shared::serve::http::{self, Response};

pub(super) fn get() -> Response {
    let mut response = http::health();
    http::end_connection(&mut response);
    response
}
