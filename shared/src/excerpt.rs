//! How much of a stranger's text an error repeats.

use std::borrow::Cow;

/// Of a name, in characters.
pub const NAME_MAX: usize = 64;

/// Of a text that should have been signed, in characters: all of it but for large channel data or user data.
pub const SIGNED_TEXT_MAX: usize = 1024;

/// The text, or its beginning of `characters_max` characters and an ellipsis.
pub fn excerpt(text: &str, characters_max: usize) -> Cow<'_, str> {
    match text.char_indices().nth(characters_max) {
        Some((end, _)) => Cow::Owned(format!("{}…", &text[..end])),
        None => Cow::Borrowed(text),
    }
}

#[cfg(test)]
mod tests;
