//! One event of a publish: as it stands in the request, and once it is known to be fit for its app.

use std::borrow::Cow;
use std::collections::HashSet;

use serde::Deserialize;
use serde_json::value::RawValue;
use shared::app::{AppId, AppLimits, as_usize};
use shared::cluster::bus::Message;
use shared::cluster::envelope::{Body, Envelope, Topic};
use shared::protocol::{ChannelName, EventName, SocketId};

use crate::api_error::ApiError;
use crate::info::Info;
use crate::limits::KEPT_EVENT_TTL;
use crate::text::{Text, data_of};

mod frames;

/// An event as it stands in a request; nothing is checked. `null` counts as absent, unknown members are ignored.
#[derive(Deserialize)]
pub(crate) struct EventFields<'a> {
    #[serde(borrow)]
    name: Option<Text<'a>>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    channel: Option<Text<'a>>,
    #[serde(borrow)]
    channels: Option<Vec<Text<'a>>>,
    #[serde(borrow)]
    socket_id: Option<Text<'a>>,
    #[serde(borrow)]
    info: Option<&'a RawValue>,
}

/// An event that may be published.
pub(crate) struct Event<'a> {
    name: EventName<'a>,
    data: Cow<'a, str>,
    channels: Vec<ChannelName>,
    except: Option<SocketId>,
}

impl EventFields<'_> {
    /// Every channel of `channels`, or else the one of `channel`; each once, in the order given.
    pub(crate) fn channels(&self, limits: &AppLimits) -> Result<Vec<ChannelName>, ApiError> {
        let given = match &self.channels {
            Some(names) if !names.is_empty() => names,
            _ => return Ok(vec![self.channel(limits)?]),
        };
        if given.len() > limits.channels_per_event {
            return Err(ApiError::TooManyChannels { given: given.len(), max: limits.channels_per_event });
        }
        let mut seen = HashSet::with_capacity(given.len());
        given.iter().filter(|name| seen.insert(&***name)).map(|name| parse_channel(name, limits)).collect()
    }

    /// The one channel of an event in a batch.
    pub(crate) fn channel(&self, limits: &AppLimits) -> Result<ChannelName, ApiError> {
        let name = self.channel.as_deref().ok_or(ApiError::Missing("channel"))?;
        parse_channel(name, limits)
    }

    /// What the caller wants to know about the channels.
    pub(crate) fn info(&self) -> Info {
        Info::of_event(self.info)
    }

    /// The event on `channels`.
    pub(crate) fn event(&self, channels: Vec<ChannelName>, limits: &AppLimits) -> Result<Event<'_>, ApiError> {
        let name = self.name.as_deref().ok_or(ApiError::Missing("name"))?;
        let data = data_of(self.data.ok_or(ApiError::Missing("data"))?).map_err(ApiError::Json)?;
        Event::new(name, data, channels, self.socket_id.as_deref(), limits)
    }
}

impl<'a> Event<'a> {
    /// Checks an event against the limits of its app.
    ///
    /// `data`: passed to clients exactly. `socket_id`: names the connection that must not get the event.
    ///
    /// # Errors
    /// [`ApiError`], in the order name, data, socket id.
    pub(crate) fn new(
        name: &'a str,
        data: Cow<'a, str>,
        channels: Vec<ChannelName>,
        socket_id: Option<&str>,
        limits: &AppLimits,
    ) -> Result<Self, ApiError> {
        let name = EventName::parse(name, limits.event_name_length)?;
        let max = as_usize(limits.event_bytes);
        if data.len() > max {
            return Err(ApiError::data_too_large(data.len(), max, &channels));
        }
        let except = socket_id.map(str::parse).transpose()?;
        Ok(Self { name, data, channels, except })
    }

    pub(crate) fn name(&self) -> &'a str {
        self.name.as_str()
    }

    pub(crate) fn channels(&self) -> &[ChannelName] {
        &self.channels
    }

    pub(crate) fn data_bytes(&self) -> usize {
        self.data.len()
    }

    /// One message for each channel, in order. The event is encoded here, once per channel, and never again.
    pub(crate) fn messages(&self, app: &AppId, published_at_us: u64) -> impl Iterator<Item = Message> {
        let frames = frames::encode(self.name(), &self.data, &self.channels);
        self.channels.iter().zip(frames).map(move |(channel, frame)| Message {
            topic: Topic::new(app, channel),
            envelope: Envelope {
                published_at_us,
                position: None,
                body: Body::Event { frame, except: self.except, kept: false },
            },
            keep: channel.kind().is_cache().then_some(KEPT_EVENT_TTL),
            webhook: None,
        })
    }
}

fn parse_channel(name: &str, limits: &AppLimits) -> Result<ChannelName, ApiError> {
    ChannelName::parse(name, limits.channel_name_length).map_err(|source| ApiError::channel_name(name, source))
}
