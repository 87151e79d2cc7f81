//! Members of presence channels and signed-in users, parsed from the data that applications sign.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::json::{LIST, NUMBER, STRING, kind_of};

/// A user id of a presence channel or a sign-in: a non-empty text. It is compared and sent as a string even if the
/// application signed a number.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UserId(Arc<str>);

/// A user of a presence channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The id, unique in the channel. Several connections may have it.
    pub user_id: UserId,
    /// The data that the other members receive: raw JSON, unchanged; `None` if the application sent none.
    pub user_info: Option<Arc<str>>,
}

/// A signed-in user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The user id.
    pub id: UserId,
    /// Raw JSON, used as `user_info` if the user joins a presence channel without channel data.
    pub user_info: Option<Arc<str>>,
    /// The users whose online status this user is notified of, in the given order, without duplicates.
    pub watchlist: Vec<UserId>,
}

/// The reason why `channel_data` was refused.
#[derive(Debug, thiserror::Error)]
pub enum MemberError {
    /// The text is not a JSON object of the expected form.
    #[error("channel_data is not valid JSON with a user_id")]
    Json(#[source] serde_json::Error),
    /// `user_id` is neither a string nor a number.
    #[error("user_id in channel_data is {found}; expected a string or a number")]
    UserIdKind {
        /// The kind of its value.
        found: &'static str,
    },
    /// `user_id` is missing or empty.
    #[error("channel_data has no user_id")]
    NoUserId,
    /// `user_id` is longer than the app allows.
    #[error("user_id is longer than {max} characters")]
    UserIdTooLong {
        /// The maximum length in characters.
        max: usize,
    },
    /// `user_info` is larger than the app allows.
    #[error("user_info is larger than {max} bytes")]
    UserInfoTooLarge {
        /// The maximum size in bytes of JSON.
        max: usize,
    },
}

/// The reason why `user_data` was refused.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// The text is not a JSON object of the expected form.
    #[error("user_data is not valid JSON with an id")]
    Json(#[source] serde_json::Error),
    /// The id is not a string. pusher-js ignores the reply to such a sign-in.
    #[error("id in user_data is {found}; expected a string, like \"7\"")]
    IdKind {
        /// The kind of its value.
        found: &'static str,
    },
    /// The watchlist is not a list.
    #[error("watchlist in user_data is {found}; expected a list of user ids as strings, like [\"7\"]")]
    WatchlistKind {
        /// The kind of its value.
        found: &'static str,
    },
    /// An entry of the watchlist is not a string.
    #[error("watchlist in user_data has {found} in it; expected user ids as strings, like [\"7\"]")]
    WatchedKind {
        /// The kind of its value.
        found: &'static str,
    },
    /// The id is missing or empty.
    #[error("user_data has no id, which must be a non-empty string")]
    NoId,
    /// The id is longer than the app allows.
    #[error("user id is longer than {max} characters")]
    IdTooLong {
        /// The maximum length in characters.
        max: usize,
    },
}

impl UserId {
    /// Returns the id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for UserId {
    fn from(id: &str) -> Self {
        Self(id.into())
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

/// Reads an id from a JSON string or number. A number keeps its notation, because members and applications compare
/// texts. Any other value is an error.
fn id_text(json: &RawValue) -> Result<Cow<'_, str>, MemberError> {
    match kind_of(json) {
        STRING => serde_json::from_str::<String>(json.get()).map(Cow::Owned).map_err(MemberError::Json),
        NUMBER => Ok(Cow::Borrowed(json.get())),
        found => Err(MemberError::UserIdKind { found }),
    }
}

impl Member {
    /// Parses the `channel_data` of a presence subscription: `{"user_id": string | number, "user_info"?: any}`.
    ///
    /// `id_max` counts characters, `info_max` bytes of JSON.
    ///
    /// # Errors
    /// [`MemberError`].
    pub fn parse(channel_data: &str, id_max: usize, info_max: usize) -> Result<Self, MemberError> {
        #[derive(Deserialize)]
        struct ChannelData<'a> {
            #[serde(borrow, default)]
            user_id: Option<&'a RawValue>,
            #[serde(borrow, default)]
            user_info: Option<&'a RawValue>,
        }
        let data: ChannelData<'_> = super::read_object(channel_data).map_err(MemberError::Json)?;
        let id = data.user_id.map(id_text).transpose()?;
        let id = id.filter(|id| !id.is_empty()).ok_or(MemberError::NoUserId)?;
        if id.chars().count() > id_max {
            return Err(MemberError::UserIdTooLong { max: id_max });
        }
        let info = data.user_info.map(RawValue::get);
        if info.is_some_and(|info| info.len() > info_max) {
            return Err(MemberError::UserInfoTooLarge { max: info_max });
        }
        Ok(Self { user_id: UserId::from(&*id), user_info: info.map(Arc::from) })
    }
}

impl User {
    /// Parses the `user_data` of a sign-in: `{"id": string, "user_info"?: any, "watchlist"?: [string]}`.
    ///
    /// # Errors
    /// [`UserError`].
    pub fn parse(user_data: &str, id_max: usize) -> Result<Self, UserError> {
        #[derive(Deserialize)]
        struct UserData<'a> {
            #[serde(borrow, default)]
            id: Option<&'a RawValue>,
            #[serde(borrow, default)]
            user_info: Option<&'a RawValue>,
            #[serde(borrow, default)]
            watchlist: Option<&'a RawValue>,
        }
        let data: UserData<'_> = super::read_object(user_data).map_err(UserError::Json)?;
        let text = |json: &RawValue| serde_json::from_str::<String>(json.get()).map_err(UserError::Json);
        let id = match data.id.map(|id| (kind_of(id), id)) {
            None => None,
            Some((STRING, id)) => Some(text(id)?),
            Some((found, _)) => return Err(UserError::IdKind { found }),
        };
        let watched: Vec<&RawValue> = match data.watchlist.map(|list| (kind_of(list), list)) {
            None => Vec::new(),
            Some((LIST, list)) => serde_json::from_str(list.get()).map_err(UserError::Json)?,
            Some((found, _)) => return Err(UserError::WatchlistKind { found }),
        };
        let id = id.filter(|id| !id.is_empty()).ok_or(UserError::NoId)?;
        if id.chars().count() > id_max {
            return Err(UserError::IdTooLong { max: id_max });
        }
        let mut watchlist: Vec<UserId> = Vec::new();
        let mut seen = hashbrown::HashSet::new();
        for watched in watched {
            let watched = match kind_of(watched) {
                STRING => UserId::from(&*text(watched)?),
                found => return Err(UserError::WatchedKind { found }),
            };
            if seen.insert(watched.clone()) {
                watchlist.push(watched);
            }
        }
        Ok(Self { id: UserId::from(&*id), user_info: data.user_info.map(|info| info.get().into()), watchlist })
    }

    /// Returns this user as a member of a presence channel that it joined without channel data.
    pub fn as_member(&self) -> Member {
        Member { user_id: self.id.clone(), user_info: self.user_info.clone() }
    }
}

#[cfg(test)]
mod tests;
