//! Channel names, and the one place where their prefixes are looked at.

use std::borrow::Borrow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// Names of the channel that reaches every signed-in connection of one user start with this.
pub const USER_PREFIX: &str = "#server-to-user-";

/// A validated channel name; its kind is decided once, here.
///
/// Cheap to clone: the text is shared.
#[derive(Clone)]
pub struct ChannelName {
    text: Arc<str>,
    kind: ChannelKind,
}

/// What a channel's prefix says about it; the nine kinds of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChannelKind {
    /// No prefix: anyone may subscribe.
    Public,
    /// `cache-`: public, and the last event is replayed to new subscribers.
    Cache,
    /// `private-`: a signature is needed.
    Private,
    /// `private-cache-`.
    PrivateCache,
    /// `private-encrypted-`: a signature is needed and the payload is opaque to the server.
    Encrypted,
    /// `private-encrypted-cache-`.
    EncryptedCache,
    /// `presence-`: a signature is needed and subscribers see each other.
    Presence,
    /// `presence-cache-`.
    PresenceCache,
    /// `#server-to-user-`: reaches every connection that is signed in as that user.
    User,
}

/// Why a channel name was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChannelNameError {
    /// The name has no characters, or nothing follows `#server-to-user-`.
    #[error("channel name is empty")]
    Empty,
    /// The name is longer than the app allows; `max` counts bytes, which for valid names are characters.
    #[error("channel name is longer than {max} characters")]
    TooLong {
        /// Longest name allowed.
        max: usize,
    },
    /// A character outside `A-Z a-z 0-9 _ - = @ , . ;`.
    #[error("channel name has a character that is not allowed")]
    Character,
}

impl ChannelName {
    /// Checks length and characters and decides the kind.
    ///
    /// `max`: longest name in characters, the prefix included.
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

    /// The channel that reaches the user `id`.
    ///
    /// # Errors
    /// [`ChannelNameError`] when the id is empty, longer than `max` characters, or has characters that no channel name
    /// may have.
    pub fn of_user(id: &str, max: usize) -> Result<Self, ChannelNameError> {
        if id.len() > max {
            return Err(ChannelNameError::TooLong { max });
        }
        Self::parse(&format!("{USER_PREFIX}{id}"), USER_PREFIX.len() + max)
    }

    /// The name as it goes over the wire.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// What the prefix says.
    pub fn kind(&self) -> ChannelKind {
        self.kind
    }

    /// The user that a `#server-to-user-` channel belongs to; `None` for every other kind.
    pub fn user_id(&self) -> Option<&str> {
        self.text.strip_prefix(USER_PREFIX)
    }
}

impl ChannelKind {
    /// Whether subscribing takes a signature by the app's secret. User channels take a sign-in instead.
    pub fn needs_auth(self) -> bool {
        !matches!(self, Self::Public | Self::Cache | Self::User)
    }

    /// Whether subscribers are members that see each other.
    pub fn is_presence(self) -> bool {
        matches!(self, Self::Presence | Self::PresenceCache)
    }

    /// Whether the last event published over the HTTP API is replayed to new subscribers.
    pub fn is_cache(self) -> bool {
        matches!(self, Self::Cache | Self::PrivateCache | Self::EncryptedCache | Self::PresenceCache)
    }

    /// Whether a subscriber may send `client-` events to the others. Source: protocol reference 2.5.
    pub fn takes_client_events(self) -> bool {
        matches!(self, Self::Private | Self::PrivateCache | Self::Presence | Self::PresenceCache)
    }

    /// The kind as a metric label.
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

/// Longest prefix first, anchored and with the dash: `my-cache-x`, `privatex` and `presence_x` are public.
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

/// Equal, ordered and hashed like its text.
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
