//! Names of events that applications and clients publish.

/// A validated event name.
///
/// Backslash, dot, colon and slash are allowed, because Laravel sends names like `App\Events\OrderShipped`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventName<'a>(&'a str);

/// The reason why an event name was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EventNameError {
    /// The name is empty.
    #[error("event name is empty")]
    Empty,
    /// The name is longer than the app allows.
    #[error("event name is longer than {max} characters")]
    TooLong {
        /// The maximum length in characters.
        max: usize,
    },
    /// The prefixes `pusher:` and `pusher_internal:` are reserved for the server, because clients act on such events.
    #[error("event names that start with pusher: or pusher_internal: are reserved")]
    Reserved,
    /// The name has a control character.
    #[error("event name has a control character")]
    Control,
}

impl<'a> EventName<'a> {
    /// Checks the name of an event that an application or a client publishes.
    ///
    /// `max`: the maximum length in characters.
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

    /// Returns the name as text.
    pub fn as_str(self) -> &'a str {
        self.0
    }
}

/// Returns whether the name is reserved for the server.
pub fn is_reserved(name: &str) -> bool {
    name.starts_with("pusher:") || name.starts_with("pusher_internal:")
}

/// Returns whether the name is that of a client event.
pub fn is_client_event(name: &str) -> bool {
    name.starts_with("client-")
}

#[cfg(test)]
mod tests;
