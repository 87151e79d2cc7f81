//! The messages to clients.

use crate::protocol::{CloseCode, Member, SocketId, UserId};

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
    /// The reply to `pusher:ping`.
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
