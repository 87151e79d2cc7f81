//! Reading configuration: defaults, then a TOML file, then `CARILLON_…` variables, then flags.
//!
//! The sections belong to the crates that use them; the binary composes them into one typed root. This module is the
//! only one that reads the environment.

use std::fmt;
use std::path::Path;

use bytesize::ByteSize;
use figment::error::{Actual, Kind};
use figment::providers::{Format, Serialized, Toml};
use figment::value::{Dict, Value};
use figment::{Figment, Profile, Provider};
use serde::de::{DeserializeOwned, Visitor};
use serde::{Deserializer, Serialize, Serializer};

/// Variables that start with this are configuration; `__` separates levels.
pub const ENV_PREFIX: &str = "CARILLON_";

/// Why a configuration was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Something in it is wrong.
    #[error("{}", lines(.0))]
    Mistakes(Vec<Mistake>),
    /// A file that the configuration names cannot be read.
    #[error("cannot read {path}")]
    File {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// One thing that is wrong with a configuration. It never holds a secret: a value that was found is told only where its
/// key cannot hold one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The key, levels separated by dots; empty when no single key is to blame.
    pub key: String,
    /// What is wrong and what was expected.
    pub complaint: String,
    /// The layer that the value came from: a file's path, or words.
    pub source: Option<String>,
}

impl Mistake {
    /// A mistake whose source is still to be found, as by [`Layers::source`].
    pub fn new(key: impl Into<String>, complaint: impl Into<String>) -> Self {
        Self { key: key.into(), complaint: complaint.into(), source: None }
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.complaint)?;
        if let Some(source) = &self.source {
            write!(f, " (from {source})")?;
        }
        Ok(())
    }
}

fn lines(mistakes: &[Mistake]) -> String {
    mistakes.iter().map(Mistake::to_string).collect::<Vec<_>>().join("\n")
}

impl From<Mistake> for ConfigError {
    fn from(mistake: Mistake) -> Self {
        Self::Mistakes(vec![mistake])
    }
}

impl From<figment::Error> for ConfigError {
    fn from(error: figment::Error) -> Self {
        let mistakes = error.into_iter().map(|mistake| Mistake {
            key: mistake.path.join("."),
            complaint: complaint(&mistake.kind),
            source: mistake.metadata.as_ref().map(source),
        });
        Self::Mistakes(mistakes.collect())
    }
}

fn source(metadata: &figment::Metadata) -> String {
    metadata.source.as_ref().map_or_else(|| metadata.name.to_string(), ToString::to_string)
}

fn complaint(kind: &Kind) -> String {
    match kind {
        Kind::InvalidType(found, expected) => format!("invalid type: found {}, expected {expected}", type_name(found)),
        Kind::InvalidValue(found, expected) => {
            format!("invalid value: found {}, expected {expected}", type_name(found))
        }
        // The lines between are the piece of the file where it went wrong.
        Kind::Message(text) if text.starts_with("TOML parse error") => {
            let outer: Vec<&str> = text.lines().filter(|line| !line.contains('|')).collect();
            outer.join(": ")
        }
        kind => kind.to_string(),
    }
}

fn type_name(found: &Actual) -> &'static str {
    match found {
        Actual::Bool(_) => "a boolean",
        Actual::Unsigned(_) | Actual::Signed(_) => "a whole number",
        Actual::Float(_) => "a number",
        Actual::Char(_) | Actual::Str(_) => "a text",
        Actual::Seq => "a list",
        Actual::Map => "a table",
        _ => "something else",
    }
}

/// Everything that was configured, later layers over earlier ones, each value with where it came from.
pub struct Layers(Figment);

impl Layers {
    /// `file`: read exactly as named, and it must exist. `variables`: weakest first; the process' own override them.
    /// `flags`: only what was given on the command line. What is wrong with one of them shows in [`Self::extract`].
    pub fn new(file: Option<&Path>, variables: &[Variables<'_>], flags: &impl Serialize) -> Self {
        Self::over(file, variables, &environment(), flags)
    }

    fn over(
        file: Option<&Path>,
        variables: &[Variables<'_>],
        environment: &[(String, String)],
        flags: &impl Serialize,
    ) -> Self {
        let mut layers = Figment::new();
        if let Some(path) = file {
            layers = layers.merge(Toml::file_exact(path));
        }
        for variables in variables {
            layers = layers.merge(variables);
        }
        let environment = Variables { name: ENVIRONMENT, pairs: environment };
        Self(layers.merge(&environment).merge(Flags(flags)))
    }

    /// Reads the values.
    ///
    /// # Errors
    /// [`ConfigError::Mistakes`] for a missing file, and for the first unknown key or value of the wrong type.
    pub fn extract<T: DeserializeOwned>(&self) -> Result<T, ConfigError> {
        Ok(self.0.extract()?)
    }

    /// Where the value of a key came from; `None` for a default. `key`: levels separated by dots. What stands in a list
    /// came from where the list did.
    pub fn source(&self, key: &str) -> Option<String> {
        let in_list = key.split('.').position(|level| level.bytes().all(|byte| byte.is_ascii_digit()));
        let levels: Vec<&str> = key.split('.').take(in_list.unwrap_or(usize::MAX)).collect();
        self.0.find_metadata(&levels.join(".")).map(source)
    }
}

/// What errors call the variables of the process.
pub const ENVIRONMENT: &str = "the environment";

/// `CARILLON_…` variables as a layer, which errors name; others are ignored. figment's own layer panics on a name like
/// `CARILLON___X`.
pub struct Variables<'a> {
    /// What errors call the layer.
    pub name: &'a str,
    /// Names and values; later ones override earlier ones.
    pub pairs: &'a [(String, String)],
}

impl Provider for &Variables<'_> {
    fn metadata(&self) -> figment::Metadata {
        figment::Metadata::named(self.name.to_owned())
    }

    fn data(&self) -> Result<figment::value::Map<Profile, Dict>, figment::Error> {
        let mut dict = Dict::new();
        for (name, value) in self.pairs {
            let Some(path) = name.strip_prefix(ENV_PREFIX) else { continue };
            let nested = figment::util::nest(&path.to_ascii_lowercase().replace("__", "."), read_value(value));
            if let (false, Value::Dict(_, nested)) = (path.is_empty(), nested) {
                merge(&mut dict, nested);
            }
        }
        Ok(figment::value::Map::from([(Profile::Default, dict)]))
    }
}

/// figment's reading of a variable, except that it takes `007` and `+7` for the number 7, which an id or a secret is
/// not. Inside a list, as in `[{id=007}]`, it still does; quotes help there.
fn read_value(text: &str) -> Value {
    let trimmed = text.trim();
    let zeros = trimmed.len() > 1 && trimmed.starts_with('0') && trimmed.bytes().all(|byte| byte.is_ascii_digit());
    if zeros || trimmed.starts_with('+') {
        return Value::from(trimmed);
    }
    text.parse().expect("figment reads any text as a value")
}

/// The command line as a layer; figment would name the line of this file as its source.
struct Flags<'a, T>(&'a T);

impl<T: Serialize> Provider for Flags<'_, T> {
    fn metadata(&self) -> figment::Metadata {
        figment::Metadata::named("the command line")
    }

    fn data(&self) -> Result<figment::value::Map<Profile, Dict>, figment::Error> {
        Serialized::defaults(self.0).data()
    }
}

fn merge(into: &mut Dict, from: Dict) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Dict(_, into)), Value::Dict(_, from)) => merge(into, from),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}

/// Reads a text that may have been written as a number: variables like `REVERB_APP_ID=123456` are numbers to figment.
///
/// # Errors
/// The deserializer's, for any other type.
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

/// Writes a size so that reading it gives the same bytes; the type's own text form rounds.
///
/// # Errors
/// The serializer's.
pub fn exact_size<S: Serializer>(size: &ByteSize, serializer: S) -> Result<S::Ok, S::Error> {
    const UNITS: [(u64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let bytes = size.as_u64();
    let unit = UNITS.iter().find(|(unit, _)| bytes >= *unit && bytes.is_multiple_of(*unit));
    let text = unit.map_or_else(|| format!("{bytes}B"), |(unit, name)| format!("{}{name}", bytes / unit));
    serializer.serialize_str(&text)
}

/// The process' environment.
pub fn environment() -> Vec<(String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

#[cfg(test)]
mod tests;
