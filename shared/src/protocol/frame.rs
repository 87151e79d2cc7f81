//! The messages of the protocol: [`ClientFrame`] from clients, [`ServerFrame`] to clients.
//!
//! A frame here is one JSON text. The gateway adds the WebSocket header.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::json::{STRING, kind_of};

mod server;

pub use server::ServerFrame;

/// A message from a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientFrame<'a> {
    /// `pusher:subscribe`.
    Subscribe {
        /// As sent; not yet checked.
        channel: String,
        /// `KEY:HEX`. pusher-js sends an empty text for public channels.
        auth: Option<String>,
        /// The raw text that the signature covers. An empty text is different from `None`.
        channel_data: Option<String>,
    },
    /// A `pusher:subscribe` with a channel and another field of the wrong type.
    BadSubscribe {
        /// As sent; not yet checked.
        channel: String,
        /// The name of the field.
        field: &'static str,
        /// The kind of its value, for the error text.
        found: &'static str,
    },
    /// A `pusher:signin` with a field that is not a string.
    BadSignIn {
        /// The name of the field.
        field: &'static str,
        /// The kind of its value, for the error text.
        found: &'static str,
    },
    /// `pusher:unsubscribe`.
    Unsubscribe {
        /// As sent; not yet checked.
        channel: String,
    },
    /// `pusher:signin`.
    SignIn {
        /// `KEY:HEX`.
        auth: String,
        /// The raw text that the signature covers.
        user_data: String,
    },
    /// `pusher:ping`.
    Ping,
    /// `pusher:pong`.
    Pong,
    /// An event whose name starts with `client-`.
    ClientEvent {
        /// As sent; not yet checked.
        name: Cow<'a, str>,
        /// As sent; not yet checked.
        channel: Cow<'a, str>,
        /// The text that other clients receive as `data`: the content of a string, or the JSON of any other value.
        data: Cow<'a, str>,
    },
    /// Any other event name.
    Unknown {
        /// As sent.
        name: Cow<'a, str>,
    },
}

/// The reason why a message could not be read.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The message is not JSON, or not an object with an `event`.
    #[error("message is not a JSON object with an event")]
    Json(#[source] serde_json::Error),
    /// The `data` of a `pusher:` event lacks a required field.
    #[error("data of {event} is not valid")]
    Data {
        /// The event's name.
        event: &'static str,
        /// The error of the JSON parser.
        #[source]
        source: serde_json::Error,
    },
    /// The client event has no channel.
    #[error("client event has no channel")]
    NoChannel,
}

impl FrameError {
    /// Returns the error as a metric label.
    pub fn cause_label(&self) -> &'static str {
        match self {
            Self::Json(_) => "json",
            Self::Data { .. } => "data",
            Self::NoChannel => "no_channel",
        }
    }
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    event: Cow<'a, str>,
    #[serde(borrow, default)]
    channel: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct SubscribeData {
    channel: String,
    #[serde(default)]
    auth: Option<Box<RawValue>>,
    #[serde(default)]
    channel_data: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
struct UnsubscribeData {
    channel: String,
}

#[derive(Deserialize)]
struct SignInData {
    auth: Box<RawValue>,
    user_data: Box<RawValue>,
}

impl<'a> ClientFrame<'a> {
    /// Parses one message. Unknown members are ignored. The `data` of `pusher:` events may be an object or a string
    /// with the JSON of an object.
    ///
    /// # Errors
    /// [`FrameError`]. Source: protocol reference 2.1.
    pub fn parse(text: &'a str) -> Result<Self, FrameError> {
        let message: Message<'a> = super::read_object(text).map_err(FrameError::Json)?;
        let data = message.data.map_or("{}", RawValue::get);
        Ok(match &*message.event {
            "pusher:subscribe" => {
                let SubscribeData { channel, auth, channel_data } = read_data("pusher:subscribe", data)?;
                match (text_in(auth.as_deref()), text_in(channel_data.as_deref())) {
                    (Ok(auth), Ok(channel_data)) => Self::Subscribe { channel, auth, channel_data },
                    (Err(found), _) => Self::BadSubscribe { channel, field: "auth", found },
                    (_, Err(found)) => Self::BadSubscribe { channel, field: "channel_data", found },
                }
            }
            "pusher:unsubscribe" => {
                let UnsubscribeData { channel } = read_data("pusher:unsubscribe", data)?;
                Self::Unsubscribe { channel }
            }
            "pusher:signin" => {
                let SignInData { auth, user_data } = read_data("pusher:signin", data)?;
                match (text_in(Some(&auth)), text_in(Some(&user_data))) {
                    (Ok(auth), Ok(user_data)) => {
                        Self::SignIn { auth: auth.unwrap_or_default(), user_data: user_data.unwrap_or_default() }
                    }
                    (Err(found), _) => Self::BadSignIn { field: "auth", found },
                    (_, Err(found)) => Self::BadSignIn { field: "user_data", found },
                }
            }
            "pusher:ping" => Self::Ping,
            "pusher:pong" => Self::Pong,
            name if super::event::is_client_event(name) => Self::ClientEvent {
                name: message.event,
                channel: message.channel.ok_or(FrameError::NoChannel)?,
                data: text_of(message.data),
            },
            _ => Self::Unknown { name: message.event },
        })
    }
}

/// Parses the `data` of a `pusher:` event: an object, or a string with the JSON of an object.
fn read_data<T: DeserializeOwned>(event: &'static str, data: &str) -> Result<T, FrameError> {
    let object = match serde_json::from_str::<Cow<'_, str>>(data) {
        Ok(text) => text,
        Err(_) => Cow::Borrowed(data),
    };
    super::read_object(&object).map_err(|source| FrameError::Data { event, source })
}

/// Returns the text of a JSON string, or the kind of any other value.
fn text_in(json: Option<&RawValue>) -> Result<Option<String>, &'static str> {
    let Some(json) = json else { return Ok(None) };
    match kind_of(json) {
        STRING => serde_json::from_str(json.get()).map(Some).map_err(|_| "a string that is not valid JSON"),
        found => Err(found),
    }
}

/// Returns the content of a JSON string, or the JSON of any other value; `null` for an absent value.
fn text_of(data: Option<&RawValue>) -> Cow<'_, str> {
    let raw = data.map_or("null", RawValue::get);
    match serde_json::from_str::<Cow<'_, str>>(raw) {
        Ok(text) => Cow::Owned(text.into_owned()),
        Err(_) => Cow::Borrowed(raw),
    }
}

#[cfg(test)]
mod tests;
