//! The HTTP side of a gateway: accepts TCP connections, serves their requests and turns handshakes into WebSockets.

pub(crate) mod accept;
pub(crate) mod connection;
pub(crate) mod handshake;
pub(crate) mod key;
pub(crate) mod opener;
mod origin;
mod refuse;
mod tls;
pub(crate) mod upgrade;
