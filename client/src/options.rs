//! The options of a WebSocket connection.

use shared::serve::tls::trust::Trust;

/// The options of a connection. The defaults are those of pusher-js outside of a browser.
#[derive(Clone, Debug)]
pub struct Options {
    /// The query parameter `protocol`. `None` omits it.
    pub protocol: Option<String>,
    /// The `Origin` header.
    pub origin: Option<String>,
    /// The `Sec-WebSocket-Protocol` header.
    pub subprotocol: Option<String>,
    /// The trusted CA certificates, for TLS.
    pub trust: Trust,
    /// The largest message that the client accepts, in bytes.
    pub message_bytes_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            protocol: Some("7".into()),
            origin: None,
            subprotocol: None,
            trust: Trust::default(),
            // The largest message is the member list of a presence channel: 10,000 members of 1 KiB each, with escapes.
            message_bytes_max: 16 * 1024 * 1024,
        }
    }
}
