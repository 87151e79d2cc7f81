//! The kinds of webhook events.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Declares the kinds from one table: each row has the kind, its name on the wire and in the configuration, and its
/// letter in Redis.
macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident, $name:literal, $letter:literal;)*) => {
        /// A kind of webhook event, in the configuration one of `event_types`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
        #[schemars(inline)]
        pub enum WebhookKind {
            $($(#[$doc])* #[serde(rename = $name)] $kind,)*
        }

        impl WebhookKind {
            /// All kinds.
            pub const ALL: &[Self] = &[$(Self::$kind),*];

            /// Returns the name on the wire.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$kind => $name,)*
                }
            }

            /// Returns the letter of the kind in streams and scripts.
            pub fn letter(self) -> char {
                match self {
                    $(Self::$kind => $letter,)*
                }
            }
        }
    };
}

kinds! {
    /// A channel has its first subscriber.
    ChannelOccupied, "channel_occupied", 'O';
    /// A channel lost its last subscriber.
    ChannelVacated, "channel_vacated", 'V';
    /// A user joined a presence channel.
    MemberAdded, "member_added", 'A';
    /// A user left a presence channel.
    MemberRemoved, "member_removed", 'R';
    /// A client sent an event.
    ClientEvent, "client_event", 'E';
    /// A client subscribed to a cache channel that has no cached event.
    CacheMiss, "cache_miss", 'M';
    /// The number of subscribers of a channel changed.
    SubscriptionCount, "subscription_count", 'C';
}

/// A set of kinds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WebhookKinds(u8);

impl WebhookKind {
    /// Returns the kind with this letter.
    pub fn from_letter(letter: char) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.letter() == letter)
    }
}

impl WebhookKinds {
    /// Checks whether the set contains a kind.
    pub fn has(self, kind: WebhookKind) -> bool {
        self.0 & bit(kind) != 0
    }

    /// Checks whether the set is empty.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl FromIterator<WebhookKind> for WebhookKinds {
    fn from_iter<I: IntoIterator<Item = WebhookKind>>(kinds: I) -> Self {
        Self(kinds.into_iter().fold(0, |bits, kind| bits | bit(kind)))
    }
}

/// The letters of the kinds in the set, the form that scripts in Redis receive.
impl fmt::Display for WebhookKinds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        WebhookKind::ALL.iter().filter(|kind| self.has(**kind)).try_for_each(|kind| write!(f, "{}", kind.letter()))
    }
}

fn bit(kind: WebhookKind) -> u8 {
    1 << kind as u8
}
