//! Names of events that users exchange.

/// Whether an event name may be used, and by whom.
///
/// Backslash, dot, colon and slash are allowed: Laravel sends `App\Events\OrderShipped`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventName<'a>(&'a str);

/// Why an event name was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EventNameError {
    /// No characters.
    #[error("event name is empty")]
    Empty,
    /// Longer than the app allows.
    #[error("event name is longer than {max} characters")]
    TooLong {
        /// Longest name allowed, in characters.
        max: usize,
    },
    /// `pusher:` and `pusher_internal:` are the server's own; clients act on them.
    #[error("event names that start with pusher: or pusher_internal: are reserved")]
    Reserved,
    /// A control character.
    #[error("event name has a control character")]
    Control,
}

impl<'a> EventName<'a> {
    /// Checks a name that a user of the app wants to publish.
    ///
    /// `max`: longest name, in characters.
    ///
    /// # Errors
    /// [`EventNameError`]. Source: protocol reference 3.1.
    pub fn parse(raw: &'a str, max: usize) -> Result<Self, EventNameError> {
        if raw.is_empty() {
            return Err(EventNameError::Empty);
        }
        if raw.chars().count() > max {
            return Err(EventNameError::TooLong { max });
        }
        if is_reserved(raw) {
            return Err(EventNameError::Reserved);
        }
        if raw.chars().any(char::is_control) {
            return Err(EventNameError::Control);
        }
        Ok(Self(raw))
    }

    /// The name as it goes over the wire.
    pub fn as_str(self) -> &'a str {
        self.0
    }
}

/// Whether the server alone may use this event name.
pub fn is_reserved(name: &str) -> bool {
    name.starts_with("pusher:") || name.starts_with("pusher_internal:")
}

/// Whether a name is one that a socket may send.
pub fn is_client_event(name: &str) -> bool {
    name.starts_with("client-")
}

#[cfg(test)]
mod tests;
