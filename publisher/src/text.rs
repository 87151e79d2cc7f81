//! JSON strings as callers send them.

use std::borrow::Cow;
use std::ops::Deref;

use serde::Deserialize;
use serde_json::value::RawValue;

/// A JSON string, borrowed from the request when it has no escapes; a `Cow` inside an `Option` would always copy.
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

/// The text that clients get as `data`: a string's content, any other value as its JSON without white space. Numbers
/// and the order of members stay as they were written.
///
/// # Errors
/// When a string holds half of a surrogate pair, which no UTF-8 text can.
pub(crate) fn data_of(value: &RawValue) -> Result<Cow<'_, str>, serde_json::Error> {
    let json = value.get();
    if json.starts_with('"') {
        return serde_json::from_str::<Text<'_>>(json).map(Text::into_inner);
    }
    Ok(compact(json))
}

/// Takes the white space between the tokens of valid JSON away.
fn compact(json: &str) -> Cow<'_, str> {
    let mut in_string = false;
    let mut escaped = false;
    let mut kept = |character: char| {
        if in_string {
            in_string = escaped || character != '"';
            escaped = !escaped && character == '\\';
            return true;
        }
        in_string = character == '"';
        !matches!(character, ' ' | '\t' | '\n' | '\r')
    };
    if json.contains([' ', '\t', '\n', '\r']) {
        Cow::Owned(json.chars().filter(|character| kept(*character)).collect())
    } else {
        Cow::Borrowed(json)
    }
}

#[cfg(test)]
mod tests;
