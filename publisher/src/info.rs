//! What callers ask about channels with `info`, and what they get.

use std::borrow::Cow;

use serde::ser::{Serialize, Serializer};
use serde_json::value::RawValue;
use shared::cluster::envelope::Topic;
use shared::cluster::roster::Occupancy;
use shared::protocol::ChannelName;

use crate::Api;
use crate::api_error::ApiError;

/// The attributes that a caller asks for. Source: protocol reference 4.2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Info {
    /// Distinct users; only presence channels have them.
    pub(crate) user_count: bool,
    /// Subscribed sockets.
    pub(crate) subscription_count: bool,
    /// The last event; only cache channels have it, and only single ones tell.
    pub(crate) cache: bool,
}

/// The attributes of one channel; what was not asked for is left out.
#[derive(Debug, Default, serde::Serialize)]
pub(crate) struct Attributes {
    #[serde(skip_serializing_if = "Option::is_none")]
    user_count: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subscription_count: Option<u64>,
}

/// `{"channels":{name: attributes}}`, in the order given; `{}` and never `[]` when there are none.
#[derive(serde::Serialize)]
pub(crate) struct ChannelList {
    #[serde(serialize_with = "as_object")]
    pub(crate) channels: Vec<(ChannelName, Attributes)>,
}

impl Info {
    /// Reads a list of attributes with commas between them; unknown ones are ignored.
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

    /// Reads the `info` member of an event. It never refuses the event: a value of another type asks for nothing.
    pub(crate) fn of_event(json: Option<&RawValue>) -> Self {
        let json = json.map_or("null", RawValue::get);
        if let Ok(list) = serde_json::from_str::<Cow<'_, str>>(json) {
            return Self::parse(Some(&list));
        }
        let names: Vec<Cow<'_, str>> = serde_json::from_str(json).unwrap_or_default();
        Self::parse(Some(&names.join(",")))
    }

    /// Whether any count is asked for.
    pub(crate) fn counts(self) -> bool {
        self.user_count || self.subscription_count
    }

    /// Refuses a question about the user count of a channel that has none. Publishes are never refused for it: there
    /// the channel goes without the attribute.
    ///
    /// # Errors
    /// [`ApiError::UserCount`].
    pub(crate) fn check(self, channel: &ChannelName) -> Result<(), ApiError> {
        if self.user_count && !channel.kind().is_presence() {
            return Err(ApiError::UserCount);
        }
        Ok(())
    }

    /// Returns the requested attributes of one channel that its kind has and the cluster has answered.
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

/// Asks for the occupancy of a publish's topics, before the publish. A failure leaves all of them out: the event is
/// published all the same.
pub(crate) async fn occupancies(api: &Api, topics: &[Topic]) -> Vec<Option<Occupancy>> {
    match api.roster.occupancy(topics).await {
        Ok(occupancies) => occupancies.into_iter().map(Some).collect(),
        Err(error) => {
            tracing::debug!(%error, "publishing without the counts that info asks for");
            vec![None; topics.len()]
        }
    }
}

fn as_object<S: Serializer, V: Serialize>(pairs: &[(ChannelName, V)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(pairs.iter().map(|(name, value)| (name.as_str(), value)))
}
