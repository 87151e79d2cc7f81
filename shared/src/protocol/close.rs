//! Why the server ends a connection, and what the client will do next.

/// Why a connection ends.
///
/// pusher-js: 4000 to 4099 never reconnect, 4100 to 4199 reconnect after a second, 4200 to 4299 at once, 1000 to 3999
/// after a second. Source: protocol reference 1.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CloseCode {
    /// 1000: the client asked to close.
    Normal,
    /// 1002: the client broke RFC 6455.
    ProtocolError,
    /// 1003: a binary message, which the protocol does not have.
    UnsupportedData,
    /// 1007: a text that is not UTF-8.
    InvalidText,
    /// 1008: the rest of a message did not arrive in time.
    PolicyViolation,
    /// 1009: a message above the app's limit.
    MessageTooBig,
    /// 4001: no app has this key.
    UnknownApp,
    /// 4003: the app is switched off.
    AppDisabled,
    /// 4004: the app has as many connections as it may.
    OverQuota,
    /// 4005: no WebSocket is served at this path.
    PathNotFound,
    /// 4006: the protocol version is not a number.
    InvalidVersion,
    /// 4007: a protocol version that this server does not speak.
    UnsupportedVersion,
    /// 4009: wrong origin, a terminated user, or no sign-in within the app's time.
    Unauthorized,
    /// 4100: the node is full, it restarts, it cannot tell whether the app is over its quota, or this client reads too slowly.
    OverCapacity,
    /// 4200: reconnect at once; the node is shutting down and others take its clients over.
    Reconnect,
    /// 4201: nothing was heard from the client in time.
    PongTimeout,
}

impl CloseCode {
    /// The number in the close frame.
    pub fn code(self) -> u16 {
        match self {
            Self::Normal => 1000,
            Self::ProtocolError => 1002,
            Self::UnsupportedData => 1003,
            Self::InvalidText => 1007,
            Self::PolicyViolation => 1008,
            Self::MessageTooBig => 1009,
            Self::UnknownApp => 4001,
            Self::AppDisabled => 4003,
            Self::OverQuota => 4004,
            Self::PathNotFound => 4005,
            Self::InvalidVersion => 4006,
            Self::UnsupportedVersion => 4007,
            Self::Unauthorized => 4009,
            Self::OverCapacity => 4100,
            Self::Reconnect => 4200,
            Self::PongTimeout => 4201,
        }
    }

    /// Whether clients never connect again by themselves after this code.
    pub fn is_final(self) -> bool {
        (4000..4100).contains(&self.code())
    }

    /// Whether a `pusher:error` with the same code goes ahead of the close frame: clients that announce protocol 5
    /// read only that.
    pub fn announced(self) -> bool {
        self.code() >= 4000
    }

    /// The code as a metric label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Normal => "1000",
            Self::ProtocolError => "1002",
            Self::UnsupportedData => "1003",
            Self::InvalidText => "1007",
            Self::PolicyViolation => "1008",
            Self::MessageTooBig => "1009",
            Self::UnknownApp => "4001",
            Self::AppDisabled => "4003",
            Self::OverQuota => "4004",
            Self::PathNotFound => "4005",
            Self::InvalidVersion => "4006",
            Self::UnsupportedVersion => "4007",
            Self::Unauthorized => "4009",
            Self::OverCapacity => "4100",
            Self::Reconnect => "4200",
            Self::PongTimeout => "4201",
        }
    }
}
