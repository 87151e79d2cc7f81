//! Listeners, TLS, the admin endpoint, logs and metrics of every role.

pub mod admin;
pub mod descriptors;
pub mod http;
pub mod listener;
pub mod network;
pub mod telemetry;
pub mod tls;
