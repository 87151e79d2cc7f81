//! One thing that happened, as it waits to be told.

use std::collections::HashMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::app::{AppId, Label};
use crate::protocol::{ChannelName, SocketId, UserId};

/// Kinds of occurrences, by the names that endpoints choose them by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WebhookKind {
    /// A channel has its first subscriber.
    ChannelOccupied,
    /// A channel has lost its last subscriber.
    ChannelVacated,
    /// A presence channel has a user more.
    MemberAdded,
    /// A presence channel has a user less.
    MemberRemoved,
    /// A client sent an event.
    ClientEvent,
    /// A client subscribed to a cache channel of which no event is kept.
    CacheMiss,
    /// A channel has another number of subscribers.
    SubscriptionCount,
}

/// What happened on a channel.
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
        /// The event's name.
        event: String,
        /// Its data, as text.
        data: String,
        /// Who sent it.
        socket_id: SocketId,
        /// Their user, on presence channels.
        user_id: Option<UserId>,
    },
    /// See [`WebhookKind::CacheMiss`].
    CacheMiss,
    /// See [`WebhookKind::SubscriptionCount`].
    SubscriptionCount(u64),
}

/// Names an entry in the whole cluster: one transition, one id, however often it is told.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventId(String);

/// A place in a queue; later places are greater, though not as text.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StreamId(String);

/// One occurrence that waits to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookEvent {
    /// Its name.
    pub id: EventId,
    /// Where it stands in its queue; another place when it is told again by hand.
    pub stream_id: StreamId,
    /// When it came into its queue, in milliseconds of Unix time.
    pub at_ms: u64,
    /// The one endpoint that is told, by its label; `None` for all that want to be.
    pub only: Option<String>,
    /// Where it happened.
    pub channel: ChannelName,
    /// What happened.
    pub occurrence: Occurrence,
}

impl WebhookKind {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::ChannelOccupied,
        Self::ChannelVacated,
        Self::MemberAdded,
        Self::MemberRemoved,
        Self::ClientEvent,
        Self::CacheMiss,
        Self::SubscriptionCount,
    ];

    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::ChannelOccupied => "channel_occupied",
            Self::ChannelVacated => "channel_vacated",
            Self::MemberAdded => "member_added",
            Self::MemberRemoved => "member_removed",
            Self::ClientEvent => "client_event",
            Self::CacheMiss => "cache_miss",
            Self::SubscriptionCount => "subscription_count",
        }
    }

    /// One letter for scripts and streams in Redis.
    pub fn letter(self) -> char {
        match self {
            Self::ChannelOccupied => 'O',
            Self::ChannelVacated => 'V',
            Self::MemberAdded => 'A',
            Self::MemberRemoved => 'R',
            Self::ClientEvent => 'E',
            Self::CacheMiss => 'M',
            Self::SubscriptionCount => 'C',
        }
    }
}

impl Occurrence {
    /// Its kind.
    pub fn kind(&self) -> WebhookKind {
        match self {
            Self::ChannelOccupied => WebhookKind::ChannelOccupied,
            Self::ChannelVacated => WebhookKind::ChannelVacated,
            Self::MemberAdded(_) => WebhookKind::MemberAdded,
            Self::MemberRemoved(_) => WebhookKind::MemberRemoved,
            Self::ClientEvent { .. } => WebhookKind::ClientEvent,
            Self::CacheMiss => WebhookKind::CacheMiss,
            Self::SubscriptionCount(_) => WebhookKind::SubscriptionCount,
        }
    }
}

impl StreamId {
    /// The place of this id in a stream.
    pub fn new(stream_id: impl Into<String>) -> Self {
        Self(stream_id.into())
    }

    /// The id in the stream.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// When what stands here was put here, in milliseconds of Unix time.
    ///
    /// # Errors
    /// [`Malformed`] for what is no id of a stream.
    pub fn at_ms(&self) -> Result<u64, Malformed> {
        self.0.split_once('-').and_then(|(at_ms, _)| at_ms.parse().ok()).ok_or(Malformed("id"))
    }
}

impl EventId {
    /// The id of what came into the queue of an app and partition at this place.
    pub fn new(app: &AppId, partition: u32, stream_id: &StreamId) -> Self {
        Self(format!("{app}-{partition}-{}", stream_id.as_str()))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// One object of the list `events` in a request's body. Ids and data are texts: receivers' libraries are strict.
#[derive(Serialize)]
struct Told<'a> {
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
        let mut told = Told {
            name: self.occurrence.kind().name(),
            channel: self.channel.as_str(),
            event: None,
            data: None,
            socket_id: None,
            user_id: None,
            subscription_count: None,
            id: self.id.as_str(),
        };
        match &self.occurrence {
            Occurrence::MemberAdded(user_id) | Occurrence::MemberRemoved(user_id) => {
                told.user_id = Some(user_id.as_str());
            }
            Occurrence::ClientEvent { event, data, socket_id, user_id } => {
                told.event = Some(event);
                told.data = Some(data);
                told.socket_id = Some(socket_id.to_string());
                told.user_id = user_id.as_ref().map(UserId::as_str);
            }
            Occurrence::SubscriptionCount(count) => told.subscription_count = Some(*count),
            Occurrence::ChannelOccupied | Occurrence::ChannelVacated | Occurrence::CacheMiss => {}
        }
        told.serialize(serializer)
    }
}

/// Why the fields of a stream's entry are none of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an event of a webhook: {0}")]
pub struct Malformed(pub &'static str);

/// The fields of an entry in a stream: a letter, the channel, and what else its kind needs.
pub type Fields = HashMap<String, String>;

/// The bytes of an entry besides its texts, as far as bounds are concerned.
const EVENT_BYTES: usize = 256;

impl WebhookEvent {
    /// The bytes that it takes in memory, more or less.
    pub fn bytes(&self) -> usize {
        let texts = match &self.occurrence {
            Occurrence::ClientEvent { event, data, .. } => event.len() + data.len(),
            Occurrence::MemberAdded(user) | Occurrence::MemberRemoved(user) => user.as_str().len(),
            _ => 0,
        };
        EVENT_BYTES + self.channel.as_str().len() + texts
    }

    /// Reads what a script or [`Occurrence::fields`] has put into a stream.
    ///
    /// # Errors
    /// [`Malformed`]: what comes from Redis is not trusted.
    pub fn read(app: &AppId, partition: u32, stream_id: StreamId, fields: &Fields) -> Result<Self, Malformed> {
        let field = |name: &'static str| fields.get(name).map(String::as_str).ok_or(Malformed(name));
        let user = || field("u").map(UserId::from);
        let occurrence = match field("k")? {
            "O" => Occurrence::ChannelOccupied,
            "V" => Occurrence::ChannelVacated,
            "A" => Occurrence::MemberAdded(user()?),
            "R" => Occurrence::MemberRemoved(user()?),
            "E" => Occurrence::ClientEvent {
                event: field("e")?.to_owned(),
                data: field("d")?.to_owned(),
                socket_id: field("s")?.parse().map_err(|_| Malformed("s"))?,
                user_id: fields.get("u").map(|user| UserId::from(user.as_str())),
            },
            "M" => Occurrence::CacheMiss,
            "C" => Occurrence::SubscriptionCount(field("n")?.parse().map_err(|_| Malformed("n"))?),
            _ => return Err(Malformed("k")),
        };
        Ok(Self {
            id: fields.get(ID).map_or_else(|| EventId::new(app, partition, &stream_id), |id| EventId(id.clone())),
            at_ms: stream_id.at_ms()?,
            stream_id,
            only: fields.get(ONLY).cloned(),
            channel: ChannelName::parse(field("c")?, usize::MAX).map_err(|_| Malformed("c"))?,
            occurrence,
        })
    }

    /// The fields that [`WebhookEvent::read`] takes to tell `endpoint` of this once more, under the same id.
    pub fn fields_for(&self, endpoint: &Label) -> Vec<(&'static str, String)> {
        let mut fields = self.occurrence.fields(&self.channel);
        fields.extend([(ID, self.id.to_string()), (ONLY, endpoint.to_string())]);
        fields
    }
}

/// Fields of what is told again: its id, and to whom.
const ID: &str = "id";
const ONLY: &str = "to";

impl Occurrence {
    /// The fields that [`WebhookEvent::read`] takes, with the channel.
    pub fn fields(&self, channel: &ChannelName) -> Vec<(&'static str, String)> {
        let mut fields = vec![("k", self.kind().letter().to_string()), ("c", channel.to_string())];
        match self {
            Self::MemberAdded(user_id) | Self::MemberRemoved(user_id) => {
                fields.push(("u", user_id.as_str().to_owned()));
            }
            Self::ClientEvent { event, data, socket_id, user_id } => {
                fields.extend([("e", event.clone()), ("d", data.clone()), ("s", socket_id.to_string())]);
                fields.extend(user_id.as_ref().map(|user_id| ("u", user_id.as_str().to_owned())));
            }
            Self::SubscriptionCount(count) => fields.push(("n", count.to_string())),
            Self::ChannelOccupied | Self::ChannelVacated | Self::CacheMiss => {}
        }
        fields
    }
}
