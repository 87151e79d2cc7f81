//! Parsing of JSON from external sources.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};

/// A value that is parsed from a JSON object only. A derived `Deserialize` also accepts an array of the members by
/// position.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Object<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OfMap<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for OfMap<T> {
            type Value = Object<T>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }

        deserializer.deserialize_map(OfMap(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::value::RawValue;

    use super::*;

    #[derive(Deserialize)]
    struct Inner<'a> {
        #[serde(borrow)]
        raw: Option<&'a RawValue>,
    }

    #[derive(Deserialize)]
    struct Outer<'a> {
        name: &'a str,
        #[serde(borrow)]
        inner: Vec<Object<Inner<'a>>>,
    }

    #[test]
    fn an_object_is_read_with_what_it_borrows() {
        let json = r#" {"name":"n","more":[1],"inner":[{"raw":{"a": 1}},{}]}"#;
        let Object(outer) = serde_json::from_str::<Object<Outer<'_>>>(json).unwrap();
        let raw: Vec<_> = outer.inner.iter().map(|inner| inner.0.raw.map(RawValue::get)).collect();
        assert_eq!((outer.name, raw), ("n", vec![Some(r#"{"a": 1}"#), None]));
    }

    #[test]
    fn an_array_by_position_is_refused_on_every_level() {
        for json in [r#"["n",[]]"#, r#"{"name":"n","inner":[[1]]}"#, r#"{"name":"n","inner":[[]]}"#, "[]", "null", "1"]
        {
            assert!(serde_json::from_str::<Object<Outer<'_>>>(json).is_err(), "{json}");
        }
    }
}
