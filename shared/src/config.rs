//! Reading configuration: defaults, then a TOML file, then `CARILLON_…` variables, then flags.
//!
//! The sections belong to the crates that use them; the binary composes them into one typed root. This module is the
//! only one that reads the environment.

mod kubernetes;
mod lists;
pub mod schema;
mod text;
mod variables;

use std::fmt;
use std::path::Path;

use bytesize::ByteSize;
use figment::error::{Actual, Kind};
use figment::providers::{Format, Serialized, Toml};
use figment::value::Dict;
use figment::{Figment, Profile, Provider, Source};
use lists::Gap;
use serde::de::DeserializeOwned;
use serde::{Serialize, Serializer};

pub use figment::value::Value;
pub use kubernetes::is_of_service;
pub use text::{host, text};

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

/// A part of the configuration that has rules which its types cannot express.
pub trait Validate {
    /// Returns every broken rule, in the order of the settings.
    fn validate(&self) -> Vec<Mistake>;
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
    /// Starts with the configuration file. `file`: read exactly as named, and it must exist. What is wrong with a layer shows
    /// in [`Self::extract`].
    pub fn of_file(file: Option<&Path>) -> Self {
        let layers = Figment::new();
        Self(match file {
            Some(path) => layers.merge(Toml::file_exact(path)),
            None => layers,
        })
    }

    /// Adds `CARILLON_…` variables; others are ignored.
    #[must_use]
    pub fn with_variables(self, variables: &Variables<'_>) -> Self {
        self.overlay(variables.name, variables::read(variables.pairs))
    }

    /// Adds what was given on the command line, and nothing else, in the shape of the configuration.
    #[must_use]
    pub fn with_flags(self, flags: &impl Serialize) -> Self {
        Self(self.0.merge(Flags(flags)))
    }

    /// Reads the values.
    ///
    /// # Errors
    /// [`ConfigError::Mistakes`] for a missing file, and for the first unknown key or value of the wrong type.
    pub fn extract<T: DeserializeOwned>(&self) -> Result<T, ConfigError> {
        Ok(self.0.extract()?)
    }

    /// Returns the value of a key; `None` for a default. `key`: levels separated by dots, entries of lists by number.
    pub fn value(&self, key: &str) -> Option<Value> {
        let whole = self.0.find_value("").ok()?;
        key.split('.').try_fold(&whole, |value, level| child(value, level)).cloned()
    }

    /// Returns where the value of a key came from; `None` for a default. `key`: levels separated by dots, entries of lists
    /// by number. A value that an entry of a list lacks came from where the entry did.
    pub fn source(&self, key: &str) -> Option<String> {
        let whole = self.0.find_value("").ok()?;
        let (mut value, mut is_in_list) = (&whole, false);
        for level in key.split('.') {
            is_in_list |= matches!(value, Value::Array(..));
            match child(value, level) {
                Some(next) => value = next,
                None if is_in_list => break,
                None => return None,
            }
        }
        self.0.get_metadata(value.tag()).map(source)
    }

    /// Whether the value of a key came from the configuration file.
    pub fn is_from_file(&self, key: &str) -> bool {
        let metadata = self.value(key).and_then(|value| self.0.get_metadata(value.tag()));
        metadata.is_some_and(|metadata| matches!(metadata.source, Some(Source::File(_))))
    }

    /// Sets one key above all layers. `key`: as for [`Self::value`]. `source`: what errors call the place where the value
    /// came from.
    #[must_use]
    pub fn with(self, key: &str, value: impl Into<Value>, source: &str) -> Self {
        let Value::Dict(_, values) = figment::util::nest(key, value.into()) else { return self };
        self.overlay(source, values)
    }

    /// Puts a layer above the others. Entries of lists may be given by number, as `{ apps = { 0 = … } }`.
    fn overlay(self, name: &str, values: Dict) -> Self {
        let below = self.0.data().ok().and_then(|mut profiles| profiles.remove(&Profile::Default)).unwrap_or_default();
        let values = values.into_iter().map(|(key, value)| {
            let value = lists::overlay(below.get(&key), value).map_err(|gap| gap.below(&key))?;
            Ok::<_, Gap>((key, value))
        });
        Self(self.0.merge(Layer { name: name.to_owned(), values: values.collect() }))
    }
}

/// Returns an entry of a table, or of a list by number.
fn child<'a>(value: &'a Value, level: &str) -> Option<&'a Value> {
    match value {
        Value::Dict(_, entries) => entries.get(level),
        Value::Array(_, entries) => entries.get(level.parse::<usize>().ok()?),
        _ => None,
    }
}

/// What errors call the variables of the process.
pub const ENVIRONMENT: &str = "the environment";

/// `CARILLON_…` variables as a layer; others are ignored.
pub struct Variables<'a> {
    /// What errors call the layer.
    pub name: &'a str,
    /// Names and values; later ones override earlier ones.
    pub pairs: &'a [(String, String)],
}

/// Values with a name for errors.
struct Layer {
    name: String,
    values: Result<Dict, Gap>,
}

impl Provider for Layer {
    fn metadata(&self) -> figment::Metadata {
        figment::Metadata::named(self.name.clone())
    }

    fn data(&self) -> Result<figment::value::Map<Profile, Dict>, figment::Error> {
        Ok(figment::value::Map::from([(Profile::Default, self.values.clone()?)]))
    }
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
