//! The messages of the protocol: [`ClientFrame`] from clients, [`ServerFrame`] to clients.
//!
//! A frame here is one JSON text. The gateway adds the WebSocket header.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::json::{STRING, kind_of};
use super::{CloseCode, Member, SocketId, UserId};

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

/// A message to a client. [`ServerFrame::encode`] decides which `data` is an object and which is a string with JSON.
/// Some clients fail on the wrong form. Source: protocol reference 0.
#[derive(Clone, Debug)]
pub enum ServerFrame<'a> {
    /// The first message of every accepted connection.
    ConnectionEstablished {
        /// The id of the connection.
        socket_id: SocketId,
        /// The inactivity in seconds after which the client pings; at least 1.
        activity_timeout_s: u64,
    },
    /// The confirmation of a subscription to a channel without members.
    Subscribed {
        /// The channel name.
        channel: &'a str,
    },
    /// The confirmation of a subscription to a presence channel.
    SubscribedWithMembers {
        /// The channel name.
        channel: &'a str,
        /// All members, including the new one.
        members: &'a [Member],
    },
    /// The refusal of a subscription. An [`ServerFrame::Error`] is sent too.
    SubscriptionError {
        /// The channel name as the client sent it.
        channel: &'a str,
        /// `AuthError`, `LimitReached` or `ServerError`.
        kind: &'a str,
        /// A text for developers.
        error: &'a str,
        /// 401, or a code that other servers of the protocol use.
        status: u16,
    },
    /// The notification that a user joined a presence channel.
    MemberAdded {
        /// The channel name.
        channel: &'a str,
        /// The member.
        member: &'a Member,
    },
    /// The notification that a user left a presence channel with its last connection.
    MemberRemoved {
        /// The channel name.
        channel: &'a str,
        /// The member.
        user_id: &'a UserId,
    },
    /// The number of subscriptions of a channel.
    SubscriptionCount {
        /// The channel name.
        channel: &'a str,
        /// The number in the whole cluster.
        count: u64,
    },
    /// The notification that a cache channel has no cached event.
    CacheMiss {
        /// The channel name.
        channel: &'a str,
    },
    /// An event on a channel.
    Event {
        /// The channel name.
        channel: &'a str,
        /// The event name.
        name: &'a str,
        /// The unchanged text of the publisher.
        data: &'a str,
        /// The sender's user id, only for client events on presence channels.
        user_id: Option<&'a UserId>,
    },
    /// The confirmation of a sign-in.
    SignedIn {
        /// The unchanged text that was signed.
        user_data: &'a str,
    },
    /// The users of the watchlist that went online or offline.
    Watchlist {
        /// The users that are now signed in on at least one connection.
        online: &'a [UserId],
        /// The users that are now signed in on no connection.
        offline: &'a [UserId],
    },
    /// The refusal of a client's message.
    Error {
        /// A number from the ranges of close codes, if any.
        code: Option<u16>,
        /// A text for developers.
        message: &'a str,
    },
    /// The answer to `pusher:ping`.
    Pong,
}

impl ServerFrame<'_> {
    /// Returns the error message that is sent before a close frame.
    pub fn closing(code: CloseCode, message: &str) -> ServerFrame<'_> {
        ServerFrame::Error { code: Some(code.code()), message }
    }

    /// Returns the message as JSON text.
    pub fn encode(&self) -> String {
        match self {
            Self::ConnectionEstablished { socket_id, activity_timeout_s } => {
                let data = format!(r#"{{"socket_id":"{socket_id}","activity_timeout":{activity_timeout_s}}}"#);
                message("pusher:connection_established", None, &quoted(&data))
            }
            Self::Subscribed { channel } => message("pusher_internal:subscription_succeeded", Some(channel), r#""{}""#),
            Self::SubscribedWithMembers { channel, members } => {
                message("pusher_internal:subscription_succeeded", Some(channel), &quoted(&members_json(members)))
            }
            Self::SubscriptionError { channel, kind, error, status } => {
                let data = format!(r#"{{"type":{},"error":{},"status":{status}}}"#, quoted(kind), quoted(error));
                message("pusher:subscription_error", Some(channel), &quoted(&data))
            }
            Self::MemberAdded { channel, member } => {
                let info = member.user_info.as_deref().unwrap_or("null");
                let data = format!(r#"{{"user_id":{},"user_info":{info}}}"#, quoted(member.user_id.as_str()));
                message("pusher_internal:member_added", Some(channel), &quoted(&data))
            }
            Self::MemberRemoved { channel, user_id } => {
                let data = format!(r#"{{"user_id":{}}}"#, quoted(user_id.as_str()));
                message("pusher_internal:member_removed", Some(channel), &quoted(&data))
            }
            Self::SubscriptionCount { channel, count } => {
                let data = format!(r#"{{"subscription_count":{count}}}"#);
                message("pusher_internal:subscription_count", Some(channel), &quoted(&data))
            }
            Self::CacheMiss { channel } => message("pusher:cache_miss", Some(channel), r#""{}""#),
            Self::Event { channel, name, data, user_id } => event(channel, name, data, *user_id),
            Self::SignedIn { user_data } => {
                message("pusher:signin_success", None, &format!(r#"{{"user_data":{}}}"#, quoted(user_data)))
            }
            Self::Watchlist { online, offline } => {
                message("pusher_internal:watchlist_events", None, &watchlist_json(online, offline))
            }
            Self::Error { code, message: text } => {
                let code = code.map_or_else(|| "null".into(), |code| code.to_string());
                let data = format!(r#"{{"code":{code},"message":{}}}"#, quoted(text));
                message("pusher:error", None, &data)
            }
            Self::Pong => message("pusher:pong", None, "{}"),
        }
    }
}

/// Encodes a message. `data`: JSON in the form that the event requires.
fn message(event: &str, channel: Option<&str>, data: &str) -> String {
    let mut json = String::with_capacity(48 + event.len() + channel.map_or(0, str::len) + data.len());
    json.push_str(r#"{"event":""#);
    json.push_str(event);
    json.push('"');
    if let Some(channel) = channel {
        json.push_str(r#","channel":"#);
        json.push_str(&quoted(channel));
    }
    json.push_str(r#","data":"#);
    json.push_str(data);
    json.push('}');
    json
}

/// Encodes a channel event. This is the only message that is encoded for each event.
fn event(channel: &str, name: &str, data: &str, user_id: Option<&UserId>) -> String {
    // 48 bytes for member names and punctuation, and an eighth of the data for the escapes of typical JSON inside a
    // string.
    let mut json = Vec::with_capacity(48 + name.len() + channel.len() + data.len() + data.len() / 8);
    json.extend_from_slice(br#"{"event":"#);
    quote_into(&mut json, name);
    json.extend_from_slice(br#","channel":"#);
    quote_into(&mut json, channel);
    json.extend_from_slice(br#","data":"#);
    quote_into(&mut json, data);
    if let Some(user_id) = user_id {
        json.extend_from_slice(br#","user_id":"#);
        quote_into(&mut json, user_id.as_str());
    }
    json.push(b'}');
    String::from_utf8(json).expect("JSON made from texts is UTF-8")
}

fn members_json(members: &[Member]) -> String {
    let mut json = format!(r#"{{"presence":{{"count":{},"ids":["#, members.len());
    for (index, member) in members.iter().enumerate() {
        if index > 0 {
            json.push(',');
        }
        json.push_str(&quoted(member.user_id.as_str()));
    }
    json.push_str(r#"],"hash":{"#);
    for (index, member) in members.iter().enumerate() {
        if index > 0 {
            json.push(',');
        }
        json.push_str(&quoted(member.user_id.as_str()));
        json.push(':');
        json.push_str(member.user_info.as_deref().unwrap_or("null"));
    }
    json.push_str("}}}");
    json
}

fn watchlist_json(online: &[UserId], offline: &[UserId]) -> String {
    let group = |name: &str, users: &[UserId]| {
        let ids: Vec<String> = users.iter().map(|user| quoted(user.as_str())).collect();
        format!(r#"{{"name":"{name}","user_ids":[{}]}}"#, ids.join(","))
    };
    let mut groups = Vec::new();
    if !online.is_empty() {
        groups.push(group("online", online));
    }
    if !offline.is_empty() {
        groups.push(group("offline", offline));
    }
    format!(r#"{{"events":[{}]}}"#, groups.join(","))
}

/// Returns `text` as a JSON string with its quotes.
fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("a text is always valid JSON")
}

fn quote_into(json: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(json, text).expect("writing to memory does not fail");
}

#[cfg(test)]
mod tests;
