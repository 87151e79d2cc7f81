//! The index of what a node may have in Redis, which a sweep reads.

use std::fmt;
use std::time::Duration;

use redis::ScriptInvocation;

use super::millis;
use crate::app::AppId;
use crate::cluster::envelope::Topic;
use crate::cluster::redis::scripts;
use crate::protocol::ChannelName;

/// Time to live of an index. It is longer than that of the channels.
pub(super) const INDEX_TTL: Duration = Duration::from_secs(3600);

/// An entry of an index. Its text is `APP/CHANNEL`, or `APP/` for the connections of an app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum IndexEntry {
    Channel(Topic),
    Connections(AppId),
}

impl IndexEntry {
    /// Parses an entry. Returns `None` for a text that no node has written.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (app, channel) = text.split_once('/')?;
        let app = AppId::from(app);
        if channel.is_empty() {
            return Some(Self::Connections(app));
        }
        let channel = ChannelName::parse(channel, usize::MAX).ok()?;
        Some(Self::Channel(Topic::new(&app, &channel)))
    }
}

impl fmt::Display for IndexEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Channel(topic) => write!(f, "{topic}"),
            Self::Connections(app) => write!(f, "{app}/"),
        }
    }
}

/// Returns the call that adds entries to the index with this key.
pub(super) fn add_to_index<'a>(
    index: &str,
    entries: impl IntoIterator<Item = &'a IndexEntry>,
) -> ScriptInvocation<'static> {
    let mut call = scripts::add_to_index().key(index);
    call.arg(millis(INDEX_TTL));
    for entry in entries {
        call.arg(entry.to_string());
    }
    call
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_parsed_from_its_text() {
        let topic = Topic::new(&AppId::from("shop"), &ChannelName::parse("presence-room", 200).unwrap());
        for entry in [IndexEntry::Channel(topic), IndexEntry::Connections(AppId::from("shop"))] {
            assert_eq!(IndexEntry::parse(&entry.to_string()), Some(entry));
        }
    }

    #[test]
    fn other_texts_are_not_entries() {
        for text in ["", "shop", "shop/a channel"] {
            assert_eq!(IndexEntry::parse(text), None, "{text}");
        }
    }
}
