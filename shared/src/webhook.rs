//! What applications are told of by webhooks, and to which of their endpoints. Source: protocol reference 5.

pub mod endpoint;
pub mod entry;

pub use endpoint::Endpoint;
pub use entry::{Entry, EntryId, Kind, Occurrence};

use std::fmt;

use crate::app::App;

/// The kinds of occurrences that at least one endpoint of an app wants: nobody makes or stores the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted(u8);

impl Wanted {
    /// What the endpoints of `app` want together.
    pub fn of(app: &App) -> Self {
        app.webhooks.iter().flat_map(Endpoint::kinds).fold(Self::default(), |wanted, kind| Self(wanted.0 | bit(kind)))
    }

    /// Whether this kind is among them.
    pub fn has(self, kind: Kind) -> bool {
        self.0 & bit(kind) != 0
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// The letters of all kinds, [`Kind::letter`], as scripts in Redis are told of them.
impl fmt::Display for Wanted {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        Kind::ALL.iter().filter(|kind| self.has(**kind)).try_for_each(|kind| write!(formatter, "{}", kind.letter()))
    }
}

fn bit(kind: Kind) -> u8 {
    1 << kind as u8
}

#[cfg(test)]
mod tests;
