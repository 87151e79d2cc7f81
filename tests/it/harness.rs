//! Tests of the harness: a proxy that breaks connections, a
//! Redis that can be killed, paused and restarted, and an nginx that distributes requests.

mod nginx;
mod proxy;
mod redis;
