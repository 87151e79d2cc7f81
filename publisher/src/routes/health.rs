//! `GET /up` and `GET /`: whether this process answers; not signed. Health checks use a new connection each time, so the
//! response ends its connection.

use shared::serve::http::{self, Answer};

pub(super) fn get() -> Answer {
    let mut answer = http::health();
    http::end_connection(&mut answer);
    answer
}
