//! Events in publish requests: [`EventFields`] as received, and [`Event`] once validated.

use std::borrow::Cow;
use std::collections::HashSet;

use serde::Deserialize;
use serde_json::value::RawValue;
use shared::app::{AppLimits, as_usize};
use shared::protocol::{ChannelName, EventName, SocketId};

use crate::api_error::ApiError;
use crate::info::Info;
use crate::text::{Text, data_of};

/// The fields of an event in a request, not validated. `null` counts as absent; unknown members are ignored.
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

/// A valid event.
pub(crate) struct Event<'a> {
    name: EventName<'a>,
    data: Cow<'a, str>,
    channels: Vec<ChannelName>,
    except: Option<SocketId>,
}

impl EventFields<'_> {
    /// Returns the channels of `channels`, or the one of `channel`. Removes duplicates and keeps the order.
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

    /// Returns the single channel of an event in a batch.
    pub(crate) fn channel(&self, limits: &AppLimits) -> Result<ChannelName, ApiError> {
        let name = self.channel.as_deref().ok_or(ApiError::Missing("channel"))?;
        parse_channel(name, limits)
    }

    /// Returns the channel attributes that the caller requests.
    pub(crate) fn info(&self) -> Info {
        Info::of_event(self.info)
    }

    /// Validates the event for `channels`.
    pub(crate) fn event(&self, channels: Vec<ChannelName>, limits: &AppLimits) -> Result<Event<'_>, ApiError> {
        let name = self.name.as_deref().ok_or(ApiError::Missing("name"))?;
        let data = data_of(self.data.ok_or(ApiError::Missing("data"))?).map_err(ApiError::Json)?;
        Event::new(name, data, channels, self.socket_id.as_deref(), limits)
    }
}

impl<'a> Event<'a> {
    /// Validates an event against the limits of its app.
    ///
    /// `data`: sent to clients unchanged. `socket_id`: the connection that does not receive the event.
    ///
    /// # Errors
    /// [`ApiError`]. The order of the checks is: name, data, socket id.
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

    pub(crate) fn data(&self) -> &str {
        &self.data
    }

    pub(crate) fn channels(&self) -> &[ChannelName] {
        &self.channels
    }

    /// Returns the connection that does not receive the event.
    pub(crate) fn except(&self) -> Option<SocketId> {
        self.except
    }
}

fn parse_channel(name: &str, limits: &AppLimits) -> Result<ChannelName, ApiError> {
    ChannelName::parse(name, limits.channel_name_length).map_err(|source| ApiError::channel_name(name, source))
}
