//! How much of an outside text an error or a log line repeats.

use std::borrow::Cow;
use std::fmt::{self, Write};

/// Of a name, in characters.
pub const NAME_MAX: usize = 64;

/// Of a message for a client, in characters, where it is logged.
pub const MESSAGE_MAX: usize = 256;

/// Of a text that should have been signed, in characters: all of it but for large channel data or user data.
pub const SIGNED_TEXT_MAX: usize = 1024;

/// The text, or its beginning of `characters_max` characters and an ellipsis.
pub fn excerpt(text: &str, characters_max: usize) -> Cow<'_, str> {
    match text.char_indices().nth(characters_max) {
        Some((end, _)) => Cow::Owned(format!("{}…", &text[..end])),
        None => Cow::Borrowed(text),
    }
}

/// Outside text as a log field shows it: its beginning, with escapes for all characters that could break a line, drive a
/// terminal or change the direction of the text.
pub fn logged(text: &str, characters_max: usize) -> impl fmt::Display + '_ {
    Logged { text, characters_max }
}

struct Logged<'a> {
    text: &'a str,
    characters_max: usize,
}

impl fmt::Display for Logged<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut characters = self.text.chars();
        for character in characters.by_ref().take(self.characters_max) {
            if must_be_escaped(character) {
                write!(f, "{}", character.escape_default())?;
            } else {
                f.write_char(character)?;
            }
        }
        if characters.next().is_some() { f.write_char('…') } else { Ok(()) }
    }
}

/// Controls, line and paragraph separators, and the marks that reorder text.
fn must_be_escaped(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests;
