//! Excerpts of external text for errors and log lines.

use std::borrow::Cow;
use std::fmt::{self, Write};

/// The maximum length of a name in characters.
pub const NAME_MAX: usize = 64;

/// The maximum length of a logged client message in characters.
pub const MESSAGE_MAX: usize = 256;

/// The maximum length of a text that should have been signed, in characters. Only large channel data or user data
/// exceeds it.
pub const SIGNED_TEXT_MAX: usize = 1024;

/// Returns the text, or its first `characters_max` characters and an ellipsis.
pub fn excerpt(text: &str, characters_max: usize) -> Cow<'_, str> {
    match text.char_indices().nth(characters_max) {
        Some((end, _)) => Cow::Owned(format!("{}…", &text[..end])),
        None => Cow::Borrowed(text),
    }
}

/// Returns external text for a log field: cut, and with escapes for characters that break a line, control a terminal or
/// change the text direction.
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

/// Returns whether the character is a control, a line or paragraph separator, or a mark that reorders text.
fn must_be_escaped(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests;
