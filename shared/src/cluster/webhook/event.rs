//! Webhook events, and their two forms: fields of a Redis stream, and JSON for an endpoint.

use std::collections::HashMap;
use std::fmt;

use serde::Serialize;

use crate::app::{AppId, Endpoint, Label, WebhookKind};
use crate::protocol::{ChannelName, SocketId, UserId};

/// A change or an event on a channel that webhooks report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Occurrence {
    /// See [`WebhookKind::ChannelOccupied`].
    ChannelOccupied,
    /// See [`WebhookKind::ChannelVacated`].
    ChannelVacated,
    /// See [`WebhookKind::MemberAdded`].
    MemberAdded(UserId),
    /// See [`WebhookKind::MemberRemoved`].
    MemberRemoved(UserId),
    /// See [`WebhookKind::ClientEvent`].
    ClientEvent {
        /// The name of the event.
        event: String,
        /// The data of the event, as text.
        data: String,
        /// The connection that sent it.
        socket_id: SocketId,
        /// The user of that connection, on presence channels.
        user_id: Option<UserId>,
    },
    /// See [`WebhookKind::CacheMiss`].
    CacheMiss,
    /// See [`WebhookKind::SubscriptionCount`].
    SubscriptionCount(u64),
}

/// The cluster-wide id of a webhook event. Redeliveries of the event have the same id.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventId(String);

/// The id of an entry in a Redis stream, or its counterpart in memory. Later entries have greater ids, as pairs of
/// numbers and not as text.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StreamId(String);

/// An occurrence in a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookEvent {
    /// The id that endpoints receive.
    pub id: EventId,
    /// The position in the queue. A replay of a dead letter has a new one.
    pub stream_id: StreamId,
    /// The time of queueing, in milliseconds of Unix time.
    pub at_ms: u64,
    /// The label of the endpoint that a replay is for; `None` for all endpoints of the app.
    pub replay_to: Option<String>,
    /// The channel on which it happened.
    pub channel: ChannelName,
    /// The change or event.
    pub occurrence: Occurrence,
}

/// The data of an occurrence. Its kind determines which members are present.
#[derive(Default)]
struct Details<'a> {
    event: Option<&'a str>,
    data: Option<&'a str>,
    socket_id: Option<SocketId>,
    user_id: Option<&'a str>,
    count: Option<u64>,
}

impl<'a> Details<'a> {
    fn of(user_id: &'a UserId) -> Self {
        Self { user_id: Some(user_id.as_str()), ..Self::default() }
    }
}

impl Occurrence {
    /// Returns the kind.
    pub fn kind(&self) -> WebhookKind {
        self.parts().0
    }

    fn parts(&self) -> (WebhookKind, Details<'_>) {
        let none = Details::default();
        match self {
            Self::ChannelOccupied => (WebhookKind::ChannelOccupied, none),
            Self::ChannelVacated => (WebhookKind::ChannelVacated, none),
            Self::MemberAdded(user_id) => (WebhookKind::MemberAdded, Details::of(user_id)),
            Self::MemberRemoved(user_id) => (WebhookKind::MemberRemoved, Details::of(user_id)),
            Self::ClientEvent { event, data, socket_id, user_id } => {
                let details = Details {
                    event: Some(event),
                    data: Some(data),
                    socket_id: Some(*socket_id),
                    user_id: user_id.as_ref().map(UserId::as_str),
                    count: None,
                };
                (WebhookKind::ClientEvent, details)
            }
            Self::CacheMiss => (WebhookKind::CacheMiss, none),
            Self::SubscriptionCount(count) => (WebhookKind::SubscriptionCount, Details { count: Some(*count), ..none }),
        }
    }
}

impl StreamId {
    /// Wraps the id of a stream entry.
    pub fn new(stream_id: impl Into<String>) -> Self {
        Self(stream_id.into())
    }

    /// Returns the id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the time at which the entry was added, in milliseconds of Unix time.
    ///
    /// # Errors
    /// [`Malformed`] if the text is not the id of a stream entry.
    pub fn at_ms(&self) -> Result<u64, Malformed> {
        self.0.split_once('-').and_then(|(at_ms, _)| at_ms.parse().ok()).ok_or(Malformed("id"))
    }
}

impl EventId {
    /// Returns the id of the event that was queued for an app, in a partition, with this stream id.
    pub fn new(app: &AppId, partition: u32, stream_id: &StreamId) -> Self {
        Self(format!("{app}-{partition}-{}", stream_id.as_str()))
    }

    /// Returns the id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// One object of the list `events` in a request body. Ids and data are strings, because receiving libraries are strict.
#[derive(Serialize)]
struct EventJson<'a> {
    name: &'static str,
    channel: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    socket_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subscription_count: Option<u64>,
    id: &'a str,
}

impl Serialize for WebhookEvent {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (kind, Details { event, data, socket_id, user_id, count }) = self.occurrence.parts();
        let json = EventJson {
            name: kind.name(),
            channel: self.channel.as_str(),
            event,
            data,
            socket_id: socket_id.map(|socket_id| socket_id.to_string()),
            user_id,
            subscription_count: count,
            id: self.id.as_str(),
        };
        json.serialize(serializer)
    }
}

/// An error for a stream entry that is not a webhook event. It names the wrong field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("stream entry is not a webhook event: field {0} is missing or invalid")]
pub struct Malformed(pub &'static str);

/// The fields of a stream entry: the letter of the kind, the channel, and the details of the kind.
pub type Fields = HashMap<String, String>;

const KIND: &str = "k";
const CHANNEL: &str = "c";
const USER_ID: &str = "u";
const EVENT: &str = "e";
const DATA: &str = "d";
const SOCKET_ID: &str = "s";
const COUNT: &str = "n";

/// Fields of a replay: the id of the event, and the label of the endpoint.
const ID: &str = "id";
const REPLAY_TO: &str = "to";

/// The size of an event without its texts, in bytes. Used for the bounds of queues.
const EVENT_BYTES: usize = 256;

impl WebhookEvent {
    /// Checks whether an endpoint receives events like this one.
    pub fn is_for(&self, endpoint: &Endpoint) -> bool {
        endpoint.accepts(self.occurrence.kind(), self.channel.as_str())
    }

    /// Estimates the memory of the event, in bytes.
    pub fn bytes(&self) -> usize {
        let (_, Details { event, data, user_id, .. }) = self.occurrence.parts();
        let length = |text: Option<&str>| text.map_or(0, str::len);
        let texts = if event.is_some() { length(event) + length(data) } else { length(user_id) };
        EVENT_BYTES + self.channel.as_str().len() + texts
    }

    /// Parses the fields of a stream entry, which a script or [`Occurrence::fields`] wrote.
    ///
    /// # Errors
    /// [`Malformed`]: data from Redis is not trusted.
    pub fn read(app: &AppId, partition: u32, stream_id: StreamId, fields: &Fields) -> Result<Self, Malformed> {
        let field = |name: &'static str| fields.get(name).map(String::as_str).ok_or(Malformed(name));
        let user = || field(USER_ID).map(UserId::from);
        let kind = field(KIND)?.parse().ok().and_then(WebhookKind::from_letter).ok_or(Malformed(KIND))?;
        let occurrence = match kind {
            WebhookKind::ChannelOccupied => Occurrence::ChannelOccupied,
            WebhookKind::ChannelVacated => Occurrence::ChannelVacated,
            WebhookKind::MemberAdded => Occurrence::MemberAdded(user()?),
            WebhookKind::MemberRemoved => Occurrence::MemberRemoved(user()?),
            WebhookKind::ClientEvent => Occurrence::ClientEvent {
                event: field(EVENT)?.to_owned(),
                data: field(DATA)?.to_owned(),
                socket_id: field(SOCKET_ID)?.parse().map_err(|_| Malformed(SOCKET_ID))?,
                user_id: fields.get(USER_ID).map(|user| UserId::from(user.as_str())),
            },
            WebhookKind::CacheMiss => Occurrence::CacheMiss,
            WebhookKind::SubscriptionCount => {
                Occurrence::SubscriptionCount(field(COUNT)?.parse().map_err(|_| Malformed(COUNT))?)
            }
        };
        Ok(Self {
            id: fields.get(ID).map_or_else(|| EventId::new(app, partition, &stream_id), |id| EventId(id.clone())),
            at_ms: stream_id.at_ms()?,
            stream_id,
            replay_to: fields.get(REPLAY_TO).cloned(),
            channel: ChannelName::parse(field(CHANNEL)?, usize::MAX).map_err(|_| Malformed(CHANNEL))?,
            occurrence,
        })
    }

    /// Returns the fields of a stream entry that delivers the event to `endpoint` once more, under the same id.
    pub fn fields_for(&self, endpoint: &Label) -> Vec<(&'static str, String)> {
        let mut fields = self.occurrence.fields(&self.channel);
        fields.extend([(ID, self.id.to_string()), (REPLAY_TO, endpoint.to_string())]);
        fields
    }
}

impl Occurrence {
    /// Returns the fields of a stream entry, which [`WebhookEvent::read`] parses.
    pub fn fields(&self, channel: &ChannelName) -> Vec<(&'static str, String)> {
        let (kind, Details { event, data, socket_id, user_id, count }) = self.parts();
        let mut fields = vec![(KIND, kind.letter().to_string()), (CHANNEL, channel.to_string())];
        let details = [
            (EVENT, event.map(str::to_owned)),
            (DATA, data.map(str::to_owned)),
            (SOCKET_ID, socket_id.map(|socket_id| socket_id.to_string())),
            (USER_ID, user_id.map(str::to_owned)),
            (COUNT, count.map(|count| count.to_string())),
        ];
        fields.extend(details.into_iter().filter_map(|(name, text)| Some((name, text?))));
        fields
    }
}
