//! Deserializers of texts.

use std::fmt;
use std::net::Ipv6Addr;

use serde::Deserializer;
use serde::de::{SeqAccess, Visitor};

/// Reads a text that may be written as a number. figment reads variables like `REVERB_APP_ID=123456` as numbers.
///
/// # Errors
/// If the value has another type.
pub fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    struct Text;

    impl Visitor<'_> for Text {
        type Value = String;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a text")
        }

        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<String, E> {
            Ok(text.to_owned())
        }

        fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<String, E> {
            Ok(number.to_string())
        }

        fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<String, E> {
            Ok(number.to_string())
        }

        fn visit_u128<E: serde::de::Error>(self, number: u128) -> Result<String, E> {
            Ok(number.to_string())
        }
    }

    deserializer.deserialize_any(Text)
}

/// Reads the address of a listener. Removes the brackets of an IPv6 address.
///
/// # Errors
/// If the value is not a text.
pub fn host<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    struct Host;

    impl<'de> Visitor<'de> for Host {
        type Value = String;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an address")
        }

        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<String, E> {
            Ok(without_brackets(text).to_owned())
        }

        fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<String, E> {
            Ok(number.to_string())
        }

        /// figment reads `[::1]` in a variable as a list with one text.
        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<String, A::Error> {
            let address: Option<String> = list.next_element()?;
            match (address.filter(|text| is_ipv6(text)), list.next_element::<String>()?) {
                (Some(address), None) => Ok(address),
                _ => Err(serde::de::Error::invalid_type(serde::de::Unexpected::Seq, &self)),
            }
        }
    }

    deserializer.deserialize_any(Host)
}

fn without_brackets(text: &str) -> &str {
    let inner = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    inner.filter(|inner| is_ipv6(inner)).unwrap_or(text)
}

/// Returns whether the text is an IPv6 address, with or without a zone.
fn is_ipv6(text: &str) -> bool {
    text.split('%').next().is_some_and(|address| address.parse::<Ipv6Addr>().is_ok())
}
