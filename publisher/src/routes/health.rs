//! `GET /up`: whether this process answers; not signed. Who asks that seldom asks more, and leaves its place to others.

use shared::http::{self, Answer};
use shared::listener::front::end_connection;

pub(super) fn get() -> Answer {
    let mut answer = http::health();
    end_connection(&mut answer);
    answer
}
