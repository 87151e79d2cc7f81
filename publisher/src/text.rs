//! JSON strings in request bodies.

use std::borrow::Cow;
use std::ops::Deref;

use serde::Deserialize;
use serde_json::value::RawValue;

/// A JSON string, borrowed from the request if it has no escapes. serde always copies an `Option<Cow<str>>`.
#[derive(Deserialize)]
pub(crate) struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'a> Text<'a> {
    pub(crate) fn into_inner(self) -> Cow<'a, str> {
        self.0
    }
}

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

/// Returns the text that clients receive as `data`: the content of a string, or the JSON of another value without white
/// space. Numbers and the order of members are preserved.
///
/// # Errors
/// Fails if a string contains half of a surrogate pair, which UTF-8 cannot represent.
pub(crate) fn data_of(value: &RawValue) -> Result<Cow<'_, str>, serde_json::Error> {
    let json = value.get();
    if json.starts_with('"') {
        return serde_json::from_str::<Text<'_>>(json).map(Text::into_inner);
    }
    Ok(compact(json))
}

/// Removes the white space between the tokens of valid JSON.
fn compact(json: &str) -> Cow<'_, str> {
    let mut inside_string = false;
    let mut escaped = false;
    let mut is_kept = |character: char| {
        if inside_string {
            inside_string = escaped || character != '"';
            escaped = !escaped && character == '\\';
            return true;
        }
        inside_string = character == '"';
        !matches!(character, ' ' | '\t' | '\n' | '\r')
    };
    if json.contains([' ', '\t', '\n', '\r']) {
        Cow::Owned(json.chars().filter(|character| is_kept(*character)).collect())
    } else {
        Cow::Borrowed(json)
    }
}

#[cfg(test)]
mod tests;
