//! The errors of requests, with the status and the body that callers receive.
//!
//! Source: protocol reference 4.3. Texts that Pusher has are the same here.

use std::borrow::Cow;

use hyper::StatusCode;
use hyper::header::{ALLOW, HeaderValue, RETRY_AFTER};
use shared::auth::RequestAuthError;
use shared::cluster::bus::BusError;
use shared::cluster::roster::RosterError;
use shared::excerpt::{NAME_MAX, excerpt};
use shared::protocol::{ChannelName, ChannelNameError, EventNameError, SocketIdError};
use shared::serve::http::{self, Response};

/// The reason why a request was refused. No variant contains event data, a secret or a signature.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    /// No route has this path.
    #[error("path is unknown")]
    NotFound,
    /// The path exists for another method.
    #[error("method is not allowed, only {allow}")]
    MethodNotAllowed {
        /// The value of the `Allow` header.
        allow: &'static str,
    },
    /// No app has this id.
    #[error("app {id:?} is unknown")]
    UnknownApp {
        /// The id in the path, cut to a maximum length.
        id: String,
    },
    /// The app is disabled.
    #[error("app is disabled")]
    AppDisabled,
    /// The signature is missing or wrong.
    #[error("request is not authentic")]
    Auth(#[from] RequestAuthError),
    /// The body is larger than a full batch of the app's events.
    #[error("body is larger than {max} bytes")]
    BodyTooLarge {
        /// The announced size, in bytes.
        bytes: Option<u64>,
        /// Largest body, in bytes.
        max: usize,
    },
    /// The concurrent request bodies of the app use its whole budget.
    #[error("concurrent request bodies of the app use its whole memory budget")]
    TooManyBodies,
    /// The body did not arrive in time.
    #[error("body did not arrive in time")]
    BodyTimeout,
    /// The body was cut off, or is not UTF-8.
    #[error("body is not readable")]
    BodyBroken,
    /// The body is not JSON, or a member has the wrong type.
    #[error("body is not valid JSON")]
    Json(#[source] serde_json::Error),
    /// A required member of the body is absent.
    #[error("parameter {0} is missing")]
    Missing(&'static str),
    /// The name of the event is reserved or not valid.
    #[error("event name is not valid")]
    EventName(#[from] EventNameError),
    /// The name of a channel is not valid.
    #[error("channel name {name:?} is not valid")]
    ChannelName {
        /// The name, cut to a maximum length.
        name: String,
        /// The cause.
        #[source]
        source: ChannelNameError,
    },
    /// The user id contains characters that channel names cannot contain.
    #[error("user id is not valid")]
    UserId(#[source] ChannelNameError),
    /// The excluded connection is not a socket id.
    #[error("socket id is not valid")]
    SocketId(#[from] SocketIdError),
    /// The data of an event is larger than the limit of the app.
    #[error("event data has {bytes} bytes, more than {max}")]
    DataTooLarge {
        /// The size of the data, in bytes.
        bytes: usize,
        /// The channels of the event, for the error text.
        channels: String,
        /// The limit, in bytes.
        max: usize,
    },
    /// An event has more channels than the limit of the app.
    #[error("event has {given} channels, more than {max}")]
    TooManyChannels {
        /// Channels in the request.
        given: usize,
        /// The limit.
        max: usize,
    },
    /// A batch has more events than the limit of the app.
    #[error("batch has {given} events, more than {max}")]
    BatchTooLarge {
        /// Events in the request.
        given: usize,
        /// The limit.
        max: usize,
    },
    /// The user count of a channel without members was requested.
    #[error("user count requested for a channel that is not a presence channel")]
    UserCount,
    /// User counts of channels without members were requested.
    #[error("user counts requested without a presence channel prefix")]
    UserCountPrefix,
    /// The users of a channel without members were requested.
    #[error("users requested for a channel that is not a presence channel")]
    Users,
    /// The app exceeded its rate limit.
    #[error("more than {per_second} events per second")]
    RateLimited {
        /// The limit.
        per_second: u32,
    },
    /// The bus is unavailable.
    #[error("cannot publish events")]
    Bus(#[from] BusError),
    /// The roster is unavailable.
    #[error("cannot read channel state")]
    Roster(#[from] RosterError),
}

impl ApiError {
    pub(crate) fn unknown_app(id: &str) -> Self {
        Self::UnknownApp { id: excerpt(id, NAME_MAX).into_owned() }
    }

    pub(crate) fn channel_name(name: &str, source: ChannelNameError) -> Self {
        Self::ChannelName { name: excerpt(name, NAME_MAX).into_owned(), source }
    }

    pub(crate) fn data_too_large(bytes: usize, max: usize, channels: &[ChannelName]) -> Self {
        let first = channels.first().map_or("", ChannelName::as_str);
        let channels = match channels.len() {
            0 | 1 => format!("channel {first:?}"),
            count => format!("channel {first:?} and {} more", count - 1),
        };
        Self::DataTooLarge { bytes, channels, max }
    }

    /// Returns the response for the caller: a status and one line of plain text.
    pub(crate) fn response(&self) -> Response {
        let mut response = http::text(self.status(), self.client_text().into_owned());
        match self {
            Self::MethodNotAllowed { allow } => {
                response.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
            }
            Self::RateLimited { per_second } => {
                response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
                response.headers_mut().insert("x-ratelimit-limit", HeaderValue::from(*per_second));
                response.headers_mut().insert("x-ratelimit-remaining", HeaderValue::from_static("0"));
            }
            Self::Bus(_) | Self::Roster(_) | Self::TooManyBodies => {
                response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
            }
            _ => {}
        }
        response
    }

    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::NotFound | Self::UnknownApp { .. } => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::AppDisabled => StatusCode::FORBIDDEN,
            Self::Auth(_) => StatusCode::UNAUTHORIZED,
            Self::BodyTooLarge { .. } | Self::DataTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::RateLimited { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::Bus(_) | Self::Roster(_) | Self::TooManyBodies => StatusCode::SERVICE_UNAVAILABLE,
            Self::BodyBroken
            | Self::Json(_)
            | Self::Missing(_)
            | Self::EventName(_)
            | Self::ChannelName { .. }
            | Self::UserId(_)
            | Self::SocketId(_)
            | Self::TooManyChannels { .. }
            | Self::BatchTooLarge { .. }
            | Self::UserCount
            | Self::UserCountPrefix
            | Self::Users => StatusCode::BAD_REQUEST,
        }
    }

    /// Returns the text for the caller. It contains no event data, because client libraries log it.
    fn client_text(&self) -> Cow<'static, str> {
        match self {
            Self::NotFound => "Not found".into(),
            Self::MethodNotAllowed { allow } => format!("Method not allowed, only {allow}").into(),
            Self::UnknownApp { id } => format!("No matching application for ID [{}].", id.escape_debug()).into(),
            Self::AppDisabled => "The application is disabled".into(),
            Self::Auth(error) => error.client_text().into(),
            Self::BodyTooLarge { bytes, max } => {
                let size = bytes.map_or_else(|| "too many bytes".into(), |bytes| format!("{bytes} bytes"));
                format!(
                    "The body of this request has {size}: at most {max} are allowed. The limit follows from the app's \
                     limits.event_bytes, limits.batch and limits.channels_per_event"
                )
                .into()
            }
            Self::TooManyBodies => "Too many concurrent large requests for this app, please retry".into(),
            Self::BodyTimeout => "The body of this request did not arrive in time".into(),
            Self::BodyBroken => "The body of this request is not readable".into(),
            // The text of serde can quote the input.
            Self::Json(error) if error.is_data() => {
                format!("Invalid parameter type at line {} column {}", error.line(), error.column()).into()
            }
            Self::Json(error) => format!("Invalid JSON at line {} column {}", error.line(), error.column()).into(),
            Self::Missing(name) => format!("Missing required parameter: {name}").into(),
            Self::EventName(error) => format!("Invalid event name: {error}").into(),
            Self::ChannelName { name, source } => format!("Invalid channel name {name:?}: {source}").into(),
            Self::UserId(ChannelNameError::TooLong { max }) => {
                format!("Invalid user id: longer than {max} characters").into()
            }
            Self::UserId(_) => "Invalid user id: it is empty or has a character that is not allowed".into(),
            Self::SocketId(_) => "Invalid socket_id: it must be of the form digits.digits".into(),
            Self::DataTooLarge { bytes, channels, max } => format!(
                "The data content of this event exceeds the allowed maximum ({max} bytes): it has {bytes} bytes, for \
                 {channels}. The app's setting limits.event_bytes raises the maximum"
            )
            .into(),
            Self::TooManyChannels { given, max } => format!("Too many channels ({given} > {max})").into(),
            Self::BatchTooLarge { given, max } => format!("Batch too large ({given} > {max})").into(),
            Self::UserCount => "Cannot retrieve the user count unless the channel is a presence channel".into(),
            Self::UserCountPrefix => "user_count may only be requested for presence channels - please supply filter_by_prefix begining with presence-".into(),
            Self::Users => "Users can only be retrieved for presence channels".into(),
            Self::RateLimited { per_second } => {
                format!("Too many events: this app may publish {per_second} per second").into()
            }
            Self::Bus(_) | Self::Roster(_) => "The service is temporarily unavailable, please retry".into(),
        }
    }

    /// Returns the cause as a metric label.
    pub(crate) fn cause_label(&self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::MethodNotAllowed { .. } => "method",
            Self::UnknownApp { .. } => "app",
            Self::AppDisabled => "disabled",
            Self::Auth(error) => error.cause_label(),
            Self::BodyTooLarge { .. } => "body_size",
            Self::TooManyBodies => "bodies",
            Self::BodyTimeout => "body_timeout",
            Self::BodyBroken => "body",
            Self::Json(_) => "json",
            Self::Missing(_) => "parameter",
            Self::EventName(_) => "event_name",
            Self::ChannelName { .. } => "channel_name",
            Self::UserId(_) => "user_id",
            Self::SocketId(_) => "socket_id",
            Self::DataTooLarge { .. } => "data_size",
            Self::TooManyChannels { .. } => "channels",
            Self::BatchTooLarge { .. } => "batch",
            Self::UserCount | Self::UserCountPrefix => "user_count",
            Self::Users => "users",
            Self::RateLimited { .. } => "rate",
            Self::Bus(_) => "bus",
            Self::Roster(_) => "roster",
        }
    }

    /// Returns the cause if the request failed authentication.
    pub(crate) fn auth_failure(&self) -> Option<&'static str> {
        matches!(self, Self::UnknownApp { .. } | Self::AppDisabled | Self::Auth(_)).then(|| self.cause_label())
    }
}
