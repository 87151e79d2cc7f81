//! `GET /up`: whether this process answers; not signed.

use shared::http::{self, Answer};

pub(super) fn get() -> Answer {
    http::health()
}
