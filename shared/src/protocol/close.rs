//! The codes with which the server closes a connection.

/// Defines [`CloseCode`] from one table of names and numbers.
macro_rules! close_codes {
    ($(#[doc = $doc:literal] $name:ident = $code:literal,)*) => {
        /// The reason why the server closes a connection, as the status code of the close frame.
        ///
        /// pusher-js does not reconnect after 4000 to 4099. It reconnects at once after 4200 to 4299, and after a
        /// second for all other codes. Source: protocol reference 1.3.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum CloseCode {
            $(#[doc = concat!(stringify!($code), ":", $doc)] $name = $code,)*
        }

        impl CloseCode {
            /// All codes in ascending order.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// Returns the code as a metric label.
            pub fn label(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($code),)*
                }
            }
        }
    };
}

close_codes! {
    /// The client asked to close.
    Normal = 1000,
    /// The client violated RFC 6455.
    ProtocolError = 1002,
    /// The client sent a binary message. The protocol has only text messages.
    UnsupportedData = 1003,
    /// The client sent a text message that is not valid UTF-8.
    InvalidText = 1007,
    /// The rest of a message did not arrive in time.
    PolicyViolation = 1008,
    /// The client sent a message that is larger than the app allows.
    MessageTooBig = 1009,
    /// No app has this key.
    UnknownApp = 4001,
    /// The app is disabled.
    AppDisabled = 4003,
    /// The app has reached its connection limit.
    OverQuota = 4004,
    /// The path is not a WebSocket endpoint.
    PathNotFound = 4005,
    /// The protocol version is not a number.
    InvalidVersion = 4006,
    /// The server does not support the protocol version.
    UnsupportedVersion = 4007,
    /// The origin or network is not allowed, the user was terminated, or the connection did not sign in in time.
    Unauthorized = 4009,
    /// The node is full or restarts, the app's connection count is uncertain, or the client reads too slowly.
    OverCapacity = 4100,
    /// The node shuts down, and the client must reconnect to another node.
    Reconnect = 4200,
    /// The client sent nothing within the timeout.
    PongTimeout = 4201,
}

impl CloseCode {
    /// Returns the status code of the close frame.
    pub fn code(self) -> u16 {
        self as u16
    }

    /// Returns whether clients do not reconnect by themselves after this code.
    pub fn is_final(self) -> bool {
        (4000..4100).contains(&self.code())
    }

    /// Returns whether a `pusher:error` with the same code precedes the close frame. Clients that announce protocol 5
    /// read only the `pusher:error`.
    pub fn announced(self) -> bool {
        self.code() >= 4000
    }
}
