//! `GET /up` and `GET /`: whether this process answers; not signed. Health checks use a new connection each time, so the
//! response ends its connection.

use shared::serve::http::{self, Response};

pub(super) fn get() -> Response {
    let mut response = http::health();
    http::end_connection(&mut response);
    response
}
