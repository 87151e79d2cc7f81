//! The errors of the client.

use std::io;
use std::time::Duration;

use shared::protocol::ChannelNameError;

/// The reason why an operation failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The TCP connection failed.
    #[error("cannot connect to {address}")]
    Connect {
        /// Host and port.
        address: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The TLS handshake failed, or the certificate of the server is not trusted.
    #[error("TLS handshake with {address} failed")]
    Tls {
        /// Host and port.
        address: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The connection was lost.
    #[error("the connection was lost")]
    Io(#[from] io::Error),
    /// The server did not respond in time.
    #[error("no response from the server within {0:?}")]
    Timeout(Duration),
    /// The HTTP connection failed.
    #[error("the HTTP request failed")]
    Http(#[from] hyper::Error),
    /// The request cannot be encoded.
    #[error("the request is not valid")]
    Request(#[from] hyper::http::Error),
    /// The server refused the upgrade to a WebSocket.
    #[error("the server responded with {status} instead of opening a WebSocket: {text}")]
    NotUpgraded {
        /// The status of the response.
        status: hyper::StatusCode,
        /// The body of the response.
        text: String,
    },
    /// The server sent `pusher:error` or `pusher:subscription_error`.
    #[error("the server refused: {message}{}", in_parentheses(*code))]
    Refused {
        /// The error code, if the server sent one.
        code: Option<u16>,
        /// The text of the server.
        message: String,
    },
    /// The server closed the connection.
    #[error("the server closed the connection: {reason}{}", in_parentheses(*code))]
    Closed {
        /// The code of the close frame. `None` without a close frame or without a code in it.
        code: Option<u16>,
        /// The reason in the close frame.
        reason: String,
    },
    /// The server violated the protocol.
    #[error("the server violated the protocol: {0}")]
    Protocol(String),
    /// The name of the channel is not valid, so it cannot be signed.
    #[error(transparent)]
    Channel(#[from] ChannelNameError),
}

fn in_parentheses(code: Option<u16>) -> String {
    code.map(|code| format!(" ({code})")).unwrap_or_default()
}
