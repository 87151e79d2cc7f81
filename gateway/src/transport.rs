//! The transports of the protocol, and labels of fallback requests.

/// The transport of a connection. Source: the strategy names of pusher-js.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    /// A WebSocket.
    WebSocket,
    /// An HTTP response that stays open.
    XhrStreaming,
    /// One HTTP response for each group of messages.
    XhrPolling,
}

impl Transport {
    /// All transports, in the order of [`Transport::index`].
    pub(crate) const ALL: [Self; 3] = [Self::WebSocket, Self::XhrStreaming, Self::XhrPolling];

    /// Returns the index in [`Transport::ALL`].
    pub(crate) fn index(self) -> usize {
        self as usize
    }

    /// Returns the transport as a metric label.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::WebSocket => "websocket",
            Self::XhrStreaming => "xhr_streaming",
            Self::XhrPolling => "xhr_polling",
        }
    }
}

/// The purpose of a fallback request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RequestKind {
    /// A CORS preflight of a browser.
    Preflight,
    /// A request for messages to the client.
    Receive,
    /// A request with messages from the client.
    Send,
    /// A request with another method or path.
    Unknown,
}

impl RequestKind {
    pub(crate) const ALL: [Self; 4] = [Self::Preflight, Self::Receive, Self::Send, Self::Unknown];

    /// Returns the kind as a metric label.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Preflight => "preflight",
            Self::Receive => "receive",
            Self::Send => "send",
            Self::Unknown => "unknown",
        }
    }
}

/// The result of a forwarded fallback request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ForwardResult {
    /// The other node answered.
    Answered,
    /// The other node does not have the session.
    Unknown,
    /// The other node rejected the signature of this node.
    Refused,
    /// There was no response from a node.
    Failed,
}

impl ForwardResult {
    pub(crate) const ALL: [Self; 4] = [Self::Answered, Self::Unknown, Self::Refused, Self::Failed];

    /// Returns the result as a metric label.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Unknown => "unknown",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}
