//! A small client of the Pusher Channels protocol: WebSocket connections, and signed requests to the HTTP API.
//!
//! The command line, the tests and the benchmarks use it. It does not reconnect and does not support the HTTP fallback.
//! Apart from connecting and closing, timeouts are left to the caller.

mod api;
mod client;
mod connection;
mod error;
mod message;
mod options;
mod socket;
pub mod tls;
mod url;

pub use shared::serve::tls::trust::Trust;

pub use api::{ApiClient, Reply};
pub use client::Client;
pub use error::ClientError;
pub use message::Message;
pub use options::Options;
pub use url::{ServerUrl, UrlError};

#[cfg(test)]
mod tests;
