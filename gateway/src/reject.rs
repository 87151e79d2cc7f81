//! The errors and close reasons that clients receive.

use std::borrow::Cow;
use std::error::Error;

use shared::auth::ChannelAuthError;
use shared::excerpt::{NAME_MAX, excerpt};
use shared::protocol::{ChannelNameError, CloseCode, EventNameError, FrameError, MemberError, ServerFrame, UserError};

/// The maximum length of an invalid channel name in the error about it. Clients look up their channel by this name, so
/// it is long enough for a typing error.
const INVALID_CHANNEL_MAX: usize = 512;

/// The text if a connection exceeds its rate of subscriptions and sign-ins.
const REQUESTS_TOO_FAST: &str = "The rate limit for subscriptions and sign-ins of one connection was exceeded.";

/// A refused message of a client. The connection stays open.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("invalid message")]
    Message(#[source] FrameError),
    #[error("unknown event")]
    UnknownEvent { name: String },
    #[error("subscription refused")]
    Subscription {
        channel: String,
        #[source]
        reason: SubscribeError,
    },
    #[error("sign-in refused")]
    SignIn(#[source] SignInError),
    #[error("client event refused")]
    ClientEvent(#[source] ClientEventError),
    /// The sign-in succeeded, but only the first users of the watchlist are watched.
    #[error("watchlist is longer than {max} users")]
    WatchlistTooLong { max: usize },
}

/// The cause of a refused subscription.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SubscribeError {
    #[error(transparent)]
    Name(ChannelNameError),
    #[error(transparent)]
    Auth(ChannelAuthError),
    #[error("{field} is {found}, not a string")]
    Field { field: &'static str, found: &'static str },
    #[error("presence channel without channel data or sign-in")]
    NoMember,
    #[error(transparent)]
    Member(MemberError),
    #[error("the channel belongs to another user")]
    NotThatUser,
    #[error("connection has the maximum of {max} subscriptions")]
    TooManyChannels { max: usize },
    #[error("presence channel has the maximum of {max} members")]
    PresenceFull { max: usize },
    #[error("rate limit of subscriptions and sign-ins exceeded")]
    RateLimited,
    #[error("Redis is not available")]
    Unavailable,
}

/// The cause of a refused sign-in.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SignInError {
    #[error(transparent)]
    Auth(ChannelAuthError),
    #[error(transparent)]
    User(UserError),
    #[error("{field} is {found}, not a string")]
    Field { field: &'static str, found: &'static str },
    #[error("user id is not valid in a channel name")]
    Id(#[source] ChannelNameError),
    #[error("connection is signed in as another user")]
    OtherUser,
    #[error("rate limit of subscriptions and sign-ins exceeded")]
    RateLimited,
    #[error("Redis is not available")]
    Unavailable,
}

/// The cause of a refused client event.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientEventError {
    #[error("client events are disabled for the app")]
    Disabled,
    #[error(transparent)]
    Name(EventNameError),
    #[error("channel kind does not allow client events")]
    Kind,
    #[error("connection is not subscribed to the channel")]
    NotSubscribed { channel: String },
    #[error("data is larger than {max} bytes")]
    TooLarge { max: usize },
    #[error("rate limit of {per_second} client events per second exceeded")]
    RateLimited { per_second: u32 },
    #[error("the queue of client events is full")]
    Busy,
}

impl Refusal {
    /// Returns the messages for the client, as JSON.
    pub(crate) fn messages(&self) -> Vec<String> {
        match self {
            Self::Message(_) => vec![error(Some(4200), "Invalid message format")],
            Self::UnknownEvent { name } => {
                let name = excerpt(name, NAME_MAX);
                vec![error(None, &format!("Unknown event {name:?}: client events start with client-"))]
            }
            Self::Subscription { channel, reason } => {
                // The length of a valid name is limited. An invalid name is as the client sent it.
                let channel = &*match reason {
                    SubscribeError::Name(_) => excerpt(channel, INVALID_CHANNEL_MAX),
                    _ => Cow::Borrowed(channel.as_str()),
                };
                let (kind, status, text) = reason.describe(channel);
                let notice = ServerFrame::SubscriptionError { channel, kind, error: &text, status };
                // pusher-js reads the first message, libraries of other languages the second.
                let code = if kind == "AuthError" { 4009 } else { status };
                vec![notice.encode(), error(Some(code), &text)]
            }
            Self::SignIn(reason) => vec![error(Some(reason.code()), &reason.client_text())],
            Self::ClientEvent(reason) => {
                let (code, text) = reason.describe();
                vec![error(code, &text)]
            }
            Self::WatchlistTooLong { max } => {
                vec![error(
                    Some(4302),
                    &format!("The watchlist is longer than {max} users; the first {max} are watched."),
                )]
            }
        }
    }

    /// Returns the refusal and its causes, for the log.
    pub(crate) fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }

    /// Returns the metric label of the authentication failure, if there is one.
    pub(crate) fn auth_failure(&self) -> Option<&'static str> {
        match self {
            Self::Subscription { reason: SubscribeError::Auth(cause), .. } | Self::SignIn(SignInError::Auth(cause)) => {
                Some(cause.cause_label())
            }
            Self::Subscription { reason: SubscribeError::NotThatUser, .. } => Some("user"),
            _ => None,
        }
    }

    /// Returns the metric label of the exceeded limit, if there is one.
    pub(crate) fn limit(&self) -> Option<&'static str> {
        match self {
            Self::Subscription { reason: SubscribeError::TooManyChannels { .. }, .. } => Some("channels"),
            Self::Subscription { reason: SubscribeError::PresenceFull { .. }, .. } => Some("presence_members"),
            Self::Subscription { reason: SubscribeError::RateLimited, .. } | Self::SignIn(SignInError::RateLimited) => {
                Some("requests")
            }
            Self::ClientEvent(ClientEventError::RateLimited { .. }) => Some("client_events"),
            Self::ClientEvent(ClientEventError::TooLarge { .. }) => Some("event_bytes"),
            Self::ClientEvent(ClientEventError::Busy) => Some("node"),
            Self::WatchlistTooLong { .. } => Some("watchlist"),
            _ => None,
        }
    }
}

impl SubscribeError {
    /// Returns the type and the status that other servers of the protocol send, and a text for developers.
    fn describe(&self, channel: &str) -> (&'static str, u16, String) {
        let auth = |text: String| ("AuthError", 401, text);
        match self {
            Self::Name(cause @ ChannelNameError::TooLong { .. }) => {
                ("LimitReached", 4009, format!("Invalid channel name: {cause}"))
            }
            Self::Name(cause) => {
                ("ServerError", 4009, format!("Invalid channel name {:?}: {cause}", excerpt(channel, NAME_MAX)))
            }
            Self::Auth(cause) => auth(cause.client_text(&format!("subscription to {channel}"))),
            Self::Field { field, found } => auth(not_a_string("subscription", field, found)),
            Self::NoMember => {
                auth(format!("Subscription to {channel} needs channel_data with a user_id, or a signed-in user"))
            }
            Self::Member(cause @ (MemberError::UserInfoTooLarge { .. } | MemberError::UserIdTooLong { .. })) => {
                ("LimitReached", 4301, format!("Invalid channel data: {cause}"))
            }
            Self::Member(cause) => auth(format!("Invalid channel data: {cause}")),
            Self::NotThatUser => auth(format!("Subscription to {channel} needs a sign-in as that user")),
            Self::TooManyChannels { max } => {
                ("LimitReached", 4100, format!("Subscription limit reached: at most {max} channels per connection"))
            }
            Self::PresenceFull { max } => {
                ("LimitReached", 4100, format!("Member limit reached: {channel} has at most {max} members"))
            }
            Self::RateLimited => ("LimitReached", 4301, REQUESTS_TOO_FAST.into()),
            Self::Unavailable => ("ServerError", 4302, "The server cannot subscribe now; try again".into()),
        }
    }
}

/// Returns the text for a field that the client must send exactly as the application's server returned it.
fn not_a_string(request: &str, field: &str, found: &str) -> String {
    format!(
        "Invalid {request}: {field} is {found}; expected the string that was signed, exactly as the application's server returned it"
    )
}

impl SignInError {
    fn code(&self) -> u16 {
        match self {
            Self::RateLimited => 4301,
            _ => 4009,
        }
    }

    fn client_text(&self) -> String {
        match self {
            Self::Auth(cause) => cause.client_text("sign-in"),
            Self::User(cause) => format!("Invalid user data: {cause}"),
            Self::Field { field, found } => not_a_string("sign-in", field, found),
            Self::Id(_) => "Invalid user data: the id may only contain A-Z a-z 0-9 _ - = @ , . ;".into(),
            Self::OtherUser => "This connection is signed in as another user".into(),
            Self::RateLimited => REQUESTS_TOO_FAST.into(),
            Self::Unavailable => "The server cannot sign in users now; try again".into(),
        }
    }
}

impl ClientEventError {
    fn describe(&self) -> (Option<u16>, String) {
        match self {
            Self::Disabled => (
                None,
                "To send client events, you must enable this feature: client_events in the app's configuration.".into(),
            ),
            Self::Name(cause) => (None, format!("Invalid client event: {cause}")),
            Self::Kind => (None, "Client event rejected - only supported on private and presence channels".into()),
            Self::NotSubscribed { channel } => {
                let channel = excerpt(channel, NAME_MAX);
                (None, format!("Client event rejected - the connection is not subscribed to {channel:?}"))
            }
            Self::TooLarge { max } => {
                (Some(4301), format!("The data content of this event exceeds the allowed maximum ({max} bytes)."))
            }
            Self::RateLimited { .. } => {
                (Some(4301), "The rate limit for sending client events exceeded the quota.".into())
            }
            Self::Busy => (Some(4301), "The server is busy and dropped this client event; try again.".into()),
        }
    }
}

/// The close code and the reason that a client receives when its connection is closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Farewell {
    pub(crate) code: CloseCode,
    pub(crate) message: String,
}

impl Farewell {
    pub(crate) fn new(code: CloseCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// Returns the farewell of a node that is shutting down while other nodes run: pusher-js reconnects at once.
    pub(crate) fn going_away() -> Self {
        Self::new(CloseCode::Reconnect, "The server is shutting down, reconnect")
    }

    /// Returns the farewell of a node that is shutting down and has no other nodes. pusher-js reconnects after a
    /// second, when the next process listens. If it reconnected at once, it would be refused and then retry only after
    /// 15 s.
    pub(crate) fn restarting() -> Self {
        Self::new(CloseCode::OverCapacity, "The server is restarting, reconnect")
    }

    /// Replaces a final code by one after which clients retry.
    pub(crate) fn not_final(self) -> Self {
        if self.code.is_final() { Self { code: CloseCode::OverCapacity, ..self } } else { self }
    }

    /// Returns the error message that precedes the close frame, which clients of protocol 5 need. `None` for the codes
    /// of RFC 6455.
    pub(crate) fn announcement(&self) -> Option<String> {
        self.code.announced().then(|| ServerFrame::closing(self.code, &self.message).encode())
    }
}

fn error(code: Option<u16>, message: &str) -> String {
    ServerFrame::Error { code, message }.encode()
}

#[cfg(test)]
mod tests;
