//! The names of JSON value kinds in error texts.

use serde_json::value::RawValue;

pub(super) const STRING: &str = "a string";
pub(super) const NUMBER: &str = "a number";
pub(super) const LIST: &str = "a list";

/// Returns the kind of a JSON value, by its first character.
pub(super) fn kind_of(json: &RawValue) -> &'static str {
    match json.get().as_bytes().first() {
        Some(b'"') => STRING,
        Some(b'-' | b'0'..=b'9') => NUMBER,
        Some(b'[') => LIST,
        Some(b'{') => "an object",
        Some(b't' | b'f') => "a boolean",
        _ => "null",
    }
}
