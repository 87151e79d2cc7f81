//! What every role needs to serve HTTP and to be observed: listeners, TLS, the admin endpoint, logs and metrics.

pub mod admin;
pub mod descriptors;
pub mod http;
pub mod listener;
pub mod network;
pub mod telemetry;
pub mod tls;
