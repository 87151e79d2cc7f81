//! The library that the gateway and the publisher share.
//!
//! - [`protocol`] and [`auth`] have no IO, clock or async code. [`app`], [`config`] and [`secret`] define the configuration.
//! - [`serve`] has the listeners, HTTP, TLS, logs and metrics of every role.
//! - [`cluster`] has the traits through which nodes exchange events and state, with their Redis and in-memory implementations.
//!
//! A module may import only from its own group and from the groups above it in this list.

pub mod allowance;
pub mod app;
pub mod auth;
pub mod backoff;
pub mod cluster;
pub mod config;
pub mod excerpt;
mod fnv;
pub mod json;
pub(crate) mod limits;
pub mod protocol;
pub mod secret;
pub mod serve;
pub mod sync;
