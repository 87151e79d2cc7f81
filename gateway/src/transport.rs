//! The ways in which clients of the protocol reach a gateway.

/// How a client is connected. Source: the strategy names of pusher-js.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    /// A WebSocket.
    WebSocket,
    /// Messages come in an HTTP response that does not end.
    XhrStreaming,
    /// Messages come in HTTP responses, one after the other.
    XhrPolling,
}

impl Transport {
    /// All of them, in the order of [`Transport::index`].
    pub(crate) const ALL: [Self; 3] = [Self::WebSocket, Self::XhrStreaming, Self::XhrPolling];

    /// The place in [`Transport::ALL`].
    pub(crate) fn index(self) -> usize {
        self as usize
    }

    /// As a metric label.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::WebSocket => "websocket",
            Self::XhrStreaming => "xhr_streaming",
            Self::XhrPolling => "xhr_polling",
        }
    }
}
