//! The channel attributes that callers request with `info`.

use std::borrow::Cow;

use serde::ser::{Serialize, Serializer};
use serde_json::value::RawValue;
use shared::cluster::envelope::Topic;
use shared::cluster::roster::{Occupancy, Roster};
use shared::protocol::ChannelName;

use crate::api_error::ApiError;

/// The requested attributes. Source: protocol reference 4.2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Info {
    /// The number of distinct users, for presence channels.
    pub(crate) user_count: bool,
    /// The number of subscriptions.
    pub(crate) subscription_count: bool,
    /// The cached event, for a request about a single cache channel.
    pub(crate) cache: bool,
}

/// The attributes of one channel. Attributes that were not requested are absent.
#[derive(Debug, Default, serde::Serialize)]
pub(crate) struct Attributes {
    #[serde(skip_serializing_if = "Option::is_none")]
    user_count: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subscription_count: Option<u64>,
}

/// The JSON `{"channels":{name: attributes}}`. Without channels the inner value is `{}`, never `[]`.
#[derive(serde::Serialize)]
pub(crate) struct ChannelList {
    #[serde(serialize_with = "as_object")]
    pub(crate) channels: Vec<(ChannelName, Attributes)>,
}

impl Info {
    /// Parses a comma-separated list of attributes. Ignores unknown attributes.
    pub(crate) fn parse(list: Option<&str>) -> Self {
        let mut info = Self::default();
        for attribute in list.unwrap_or_default().split(',') {
            match attribute.trim() {
                "user_count" => info.user_count = true,
                "subscription_count" => info.subscription_count = true,
                "cache" => info.cache = true,
                _ => {}
            }
        }
        info
    }

    /// Parses the `info` member of an event. A value of another type requests no attributes, and is not an error.
    pub(crate) fn of_event(json: Option<&RawValue>) -> Self {
        let json = json.map_or("null", RawValue::get);
        if let Ok(list) = serde_json::from_str::<Cow<'_, str>>(json) {
            return Self::parse(Some(&list));
        }
        let names: Vec<Cow<'_, str>> = serde_json::from_str(json).unwrap_or_default();
        Self::parse(Some(&names.join(",")))
    }

    /// Checks whether any count is requested.
    pub(crate) fn counts(self) -> bool {
        self.user_count || self.subscription_count
    }

    /// Refuses a request for the user count of a channel without users. A publish is not refused for this; its response
    /// has no such attribute.
    ///
    /// # Errors
    /// [`ApiError::UserCount`].
    pub(crate) fn check(self, channel: &ChannelName) -> Result<(), ApiError> {
        if self.user_count && !channel.kind().is_presence() {
            return Err(ApiError::UserCount);
        }
        Ok(())
    }

    /// Returns the requested attributes that the kind of the channel has. `occupancy`: `None` if the roster is
    /// unavailable.
    ///
    /// pusher-http-php's `testPushWithInfo` expects
    /// `{"my-channel":{"subscription_count":1},"presence-my-channel":{"user_count":0,"subscription_count":0}}`.
    pub(crate) fn attributes(self, channel: &ChannelName, occupancy: Option<Occupancy>) -> Attributes {
        let Some(occupancy) = occupancy else { return Attributes::default() };
        Attributes {
            user_count: (self.user_count && channel.kind().is_presence()).then_some(occupancy.users),
            subscription_count: self.subscription_count.then_some(occupancy.subscriptions),
        }
    }
}

/// Returns the occupancy of topics before a publish. After an error it is `None` for all topics, and the event is
/// published without counts.
pub(crate) async fn occupancies(roster: &dyn Roster, topics: &[Topic]) -> Vec<Option<Occupancy>> {
    match roster.occupancy(topics).await {
        Ok(occupancies) => occupancies.into_iter().map(Some).collect(),
        Err(error) => {
            tracing::debug!(%error, "cannot read channel counts; publishing the event without them");
            vec![None; topics.len()]
        }
    }
}

fn as_object<S: Serializer, V: Serialize>(pairs: &[(ChannelName, V)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(pairs.iter().map(|(name, value)| (name.as_str(), value)))
}
