//! What the gateway and the publisher agree on.
//!
//! [`protocol`] and [`auth`] are pure: no IO, no clock, no async. [`bus`] and [`roster`] are the two contracts where
//! the roles meet; everything else here is what every role needs to be configured, observed and reached over HTTP.

pub mod admin;
pub mod allowance;
pub mod app;
pub mod auth;
pub mod bus;
pub mod config;
pub mod descriptors;
pub mod envelope;
pub mod excerpt;
pub mod http;
pub mod json;
pub(crate) mod limits;
pub mod listener;
pub mod network;
pub mod node;
pub mod protocol;
pub mod redis;
pub mod roster;
pub mod secret;
pub mod telemetry;
pub mod tls;
pub mod webhook;
