//! The names of an app: its id and its key.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize};

use crate::config;

/// The id of an app in URLs of the HTTP API, topics and metrics. It is not secret.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct AppId(Arc<str>);

/// The public key that clients identify an app by.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct AppKey(Arc<str>);

/// The rule for keys in error messages; [`is_key`] applies it.
pub const KEY_EXPECTED: &str = "expected a key that a URL path can contain: 1 to 200 bytes, without control characters, `?`, `#` \
                                or `\\`, and without `.` or `..` between slashes";

/// The longest key, in bytes.
const KEY_BYTES_MAX: usize = 200;

/// Checks whether a text can be an app's key.
///
/// Clients put the key into the path of a URL without escapes. All characters that survive there are allowed, for
/// example the `+`, `/` and `=` of Base64.
pub fn is_key(text: &str) -> bool {
    let survives = |character: char| !character.is_control() && !matches!(character, '?' | '#' | '\\');
    (1..=KEY_BYTES_MAX).contains(&text.len())
        && text.trim() == text
        && text.chars().all(survives)
        && !text.split('/').any(|part| matches!(part, "." | ".."))
}

macro_rules! name {
    ($name:ident) => {
        impl $name {
            /// Returns the text as configured.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.into())
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                config::text(deserializer).map(|text| Self(text.into()))
            }
        }
    };
}

name!(AppId);
name!(AppKey);
