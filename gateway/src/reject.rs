//! The errors that a client sees: each with its message, and whether the connection ends.

use std::borrow::Cow;
use std::error::Error;

use shared::auth::ChannelAuthError;
use shared::excerpt::{NAME_MAX, excerpt};
use shared::protocol::{ChannelNameError, CloseCode, EventNameError, FrameError, MemberError, ServerFrame, UserError};

/// Characters of a channel name that is not valid in the error about it: enough for every name that may be a slip,
/// since clients look up their channel by it.
const INVALID_CHANNEL_MAX: usize = 512;

/// The text for a subscription or a sign-in over the connection's rate.
const REQUESTS_TOO_FAST: &str = "The rate limit for subscriptions and sign-ins of one connection was exceeded.";

/// Why something that a client did was refused. The connection stays open.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("unreadable message")]
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
    /// The sign-in stands, but with fewer watched users than asked for.
    #[error("watchlist is longer than {max}")]
    WatchlistTooLong { max: usize },
}

/// Why a subscription was refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SubscribeError {
    #[error(transparent)]
    Name(ChannelNameError),
    #[error(transparent)]
    Auth(ChannelAuthError),
    #[error("{field} is {found}")]
    Field { field: &'static str, found: &'static str },
    #[error("presence channel without channel data or sign-in")]
    NoMember,
    #[error(transparent)]
    Member(MemberError),
    #[error("user channel of another user")]
    NotThatUser,
    #[error("connection has {max} subscriptions")]
    TooManyChannels { max: usize },
    #[error("presence channel has {max} members")]
    PresenceFull { max: usize },
    #[error("too many subscriptions and sign-ins in a short time")]
    RateLimited,
    #[error("the cluster is not reachable")]
    Unavailable,
}

/// Why a sign-in was refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SignInError {
    #[error(transparent)]
    Auth(ChannelAuthError),
    #[error(transparent)]
    User(UserError),
    #[error("{field} is {found}")]
    Field { field: &'static str, found: &'static str },
    #[error("user id cannot name a channel")]
    Id(#[source] ChannelNameError),
    #[error("signed in as another user")]
    OtherUser,
    #[error("too many subscriptions and sign-ins in a short time")]
    RateLimited,
    #[error("the cluster is not reachable")]
    Unavailable,
}

/// Why a client event was refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientEventError {
    #[error("client events are switched off")]
    Disabled,
    #[error(transparent)]
    Name(EventNameError),
    #[error("channel kind takes no client events")]
    Kind,
    #[error("not subscribed")]
    NotSubscribed { channel: String },
    #[error("data is larger than {max} bytes")]
    TooLarge { max: usize },
    #[error("over {per_second} per second")]
    RateLimited { per_second: u32 },
    #[error("the node has no room for more events")]
    Busy,
}

impl Refusal {
    /// The messages that tell the client, as JSON.
    pub(crate) fn messages(&self) -> Vec<String> {
        match self {
            Self::Message(_) => vec![error(Some(4200), "Invalid message format")],
            Self::UnknownEvent { name } => {
                let name = excerpt(name, NAME_MAX);
                vec![error(None, &format!("Unknown event {name:?}: client events start with client-"))]
            }
            Self::Subscription { channel, reason } => {
                // A valid name has its bound; any other stands here as the client wrote it.
                let channel = &*match reason {
                    SubscribeError::Name(_) => excerpt(channel, INVALID_CHANNEL_MAX),
                    _ => Cow::Borrowed(channel.as_str()),
                };
                let (kind, status, text) = reason.describe(channel);
                let notice = ServerFrame::SubscriptionError { channel, kind, error: &text, status };
                // Clients in different languages listen to different ones of the two.
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

    /// The refusal and its causes, for the log.
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

    /// The auth failure behind the refusal, for the metrics.
    pub(crate) fn auth_failure(&self) -> Option<&'static str> {
        match self {
            Self::Subscription { reason: SubscribeError::Auth(cause), .. } | Self::SignIn(SignInError::Auth(cause)) => {
                Some(cause.cause_label())
            }
            Self::Subscription { reason: SubscribeError::NotThatUser, .. } => Some("user"),
            _ => None,
        }
    }

    /// The limit behind the refusal, for the metrics.
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
    /// Type and status as other servers of the protocol give them, and a text for developers.
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
                ("LimitReached", 4100, format!("This connection has as many subscriptions as it may: {max}"))
            }
            Self::PresenceFull { max } => {
                ("LimitReached", 4100, format!("{channel} has as many members as it may: {max}"))
            }
            Self::RateLimited => ("LimitReached", 4301, REQUESTS_TOO_FAST.into()),
            Self::Unavailable => ("ServerError", 4302, "The server cannot subscribe now; try again".into()),
        }
    }
}

/// The text for a field that must be passed on as the application's server returned it.
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
            Self::Id(_) => "Invalid user data: the id may have only A-Z a-z 0-9 _ - = @ , . ;".into(),
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
            Self::Busy => (Some(4301), "The server takes no more client events now; try again.".into()),
        }
    }
}

/// Why a connection ends, as the client is told.
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

    /// The same reason with a code after which clients try again.
    pub(crate) fn not_final(self) -> Self {
        if self.code.is_final() { Self { code: CloseCode::OverCapacity, ..self } } else { self }
    }

    /// The announcement that clients of protocol 5 need; `None` for codes of RFC 6455 itself.
    pub(crate) fn announcement(&self) -> Option<String> {
        self.code.announced().then(|| ServerFrame::closing(self.code, &self.message).encode())
    }
}

fn error(code: Option<u16>, message: &str) -> String {
    ServerFrame::Error { code, message }.encode()
}

#[cfg(test)]
mod tests;
