//! Channel names and their kinds. Only this module examines the prefix of a name.

use std::borrow::Borrow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// The prefix of the channel that reaches all signed-in connections of one user.
pub const USER_PREFIX: &str = "#server-to-user-";

/// A validated channel name with its kind.
///
/// Clones share the text.
#[derive(Clone)]
pub struct ChannelName {
    text: Arc<str>,
    kind: ChannelKind,
}

/// The kind of a channel, given by the prefix of its name. The protocol has nine kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChannelKind {
    /// No prefix: a subscription needs no signature.
    Public,
    /// `cache-`: a public channel that sends its last event to new subscribers.
    Cache,
    /// `private-`: a subscription needs a signature.
    Private,
    /// `private-cache-`.
    PrivateCache,
    /// `private-encrypted-`: a subscription needs a signature, and the server cannot read the data.
    Encrypted,
    /// `private-encrypted-cache-`.
    EncryptedCache,
    /// `presence-`: a subscription needs a signature, and subscribers receive the list of members.
    Presence,
    /// `presence-cache-`.
    PresenceCache,
    /// `#server-to-user-`: reaches all connections that are signed in as that user.
    User,
}

/// The reason why a channel name was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChannelNameError {
    /// The name has no characters, or nothing follows `#server-to-user-`.
    #[error("channel name is empty")]
    Empty,
    /// The name is longer than the app allows. `max` counts bytes. In a valid name each character is one byte.
    #[error("channel name is longer than {max} characters")]
    TooLong {
        /// The maximum length.
        max: usize,
    },
    /// The name has a character outside `A-Z a-z 0-9 _ - = @ , . ;`.
    #[error("channel name has a character that is not allowed")]
    Character,
}

impl ChannelName {
    /// Checks the length and the characters, and determines the kind.
    ///
    /// `max`: the maximum length in characters, including the prefix.
    ///
    /// # Errors
    /// [`ChannelNameError`], in the order empty, too long, character. Source: protocol reference 3.1.
    pub fn parse(raw: &str, max: usize) -> Result<Self, ChannelNameError> {
        if raw.len() > max {
            return Err(ChannelNameError::TooLong { max });
        }
        let (checked, user) = match raw.strip_prefix(USER_PREFIX) {
            Some(id) => (id, true),
            None => (raw, false),
        };
        if checked.is_empty() {
            return Err(ChannelNameError::Empty);
        }
        if !checked.bytes().all(allowed) {
            return Err(ChannelNameError::Character);
        }
        let kind = if user { ChannelKind::User } else { kind_of(raw) };
        Ok(Self { text: raw.into(), kind })
    }

    /// Returns the channel that reaches the user `id`.
    ///
    /// # Errors
    /// [`ChannelNameError`] if the id is empty, longer than `max` characters, or has a character that channel names
    /// must not have.
    pub fn of_user(id: &str, max: usize) -> Result<Self, ChannelNameError> {
        if id.len() > max {
            return Err(ChannelNameError::TooLong { max });
        }
        Self::parse(&format!("{USER_PREFIX}{id}"), USER_PREFIX.len() + max)
    }

    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns the kind.
    pub fn kind(&self) -> ChannelKind {
        self.kind
    }

    /// Returns the user of a `#server-to-user-` channel; `None` for every other kind.
    pub fn user_id(&self) -> Option<&str> {
        self.text.strip_prefix(USER_PREFIX)
    }
}

impl ChannelKind {
    /// Returns whether a subscription needs a signature by the app's secret. User channels need a sign-in instead.
    pub fn needs_auth(self) -> bool {
        !matches!(self, Self::Public | Self::Cache | Self::User)
    }

    /// Returns whether subscribers are members of a presence list.
    pub fn is_presence(self) -> bool {
        matches!(self, Self::Presence | Self::PresenceCache)
    }

    /// Returns whether new subscribers receive the last event that was published over the HTTP API.
    pub fn is_cache(self) -> bool {
        matches!(self, Self::Cache | Self::PrivateCache | Self::EncryptedCache | Self::PresenceCache)
    }

    /// Returns whether subscribers may send `client-` events. Source: protocol reference 2.5.
    pub fn takes_client_events(self) -> bool {
        matches!(self, Self::Private | Self::PrivateCache | Self::Presence | Self::PresenceCache)
    }

    /// Returns the kind as a metric label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Cache => "cache",
            Self::Private => "private",
            Self::PrivateCache => "private_cache",
            Self::Encrypted => "encrypted",
            Self::EncryptedCache => "encrypted_cache",
            Self::Presence => "presence",
            Self::PresenceCache => "presence_cache",
            Self::User => "user",
        }
    }
}

/// Returns the kind and compares prefixes from the longest to the shortest. `my-cache-x`, `privatex` and `presence_x`
/// are public.
fn kind_of(name: &str) -> ChannelKind {
    const PREFIXES: [(&str, ChannelKind); 7] = [
        ("private-encrypted-cache-", ChannelKind::EncryptedCache),
        ("private-encrypted-", ChannelKind::Encrypted),
        ("private-cache-", ChannelKind::PrivateCache),
        ("presence-cache-", ChannelKind::PresenceCache),
        ("private-", ChannelKind::Private),
        ("presence-", ChannelKind::Presence),
        ("cache-", ChannelKind::Cache),
    ];
    PREFIXES.iter().find(|(prefix, _)| name.starts_with(prefix)).map_or(ChannelKind::Public, |(_, kind)| *kind)
}

fn allowed(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'=' | b'@' | b',' | b'.' | b';')
}

impl PartialEq for ChannelName {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for ChannelName {}

impl PartialOrd for ChannelName {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ChannelName {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.text.cmp(&other.text)
    }
}

/// Compares, orders and hashes a name like its text.
impl Borrow<str> for ChannelName {
    fn borrow(&self) -> &str {
        &self.text
    }
}

impl Hash for ChannelName {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

impl fmt::Display for ChannelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for ChannelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.text)
    }
}

#[cfg(test)]
mod tests;
