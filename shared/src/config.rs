//! Reads configuration from layers: defaults, a TOML file, `CARILLON_…` variables and flags.
//!
//! Each crate owns its sections, and the binary combines them in one type. Only this module reads the environment.

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

/// The prefix of variables that are configuration. `__` separates the levels of a key.
pub const ENV_PREFIX: &str = "CARILLON_";

/// The reason why a configuration is invalid.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The configuration has mistakes.
    #[error("{}", lines(.0))]
    Mistakes(Vec<Mistake>),
    /// A file that the configuration names cannot be read.
    #[error("cannot read {path}")]
    File {
        /// The path of the file.
        path: String,
        /// The error of the system.
        #[source]
        source: std::io::Error,
    },
}

/// One mistake in a configuration. It never contains a secret: a value is quoted only if its key cannot hold a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The key, with its levels separated by dots. Empty if the mistake has no single key.
    pub key: String,
    /// The problem and the expected value.
    pub complaint: String,
    /// The layer of the value: the path of a file, or a description.
    pub source: Option<String>,
}

impl Mistake {
    /// Creates a mistake without a source. [`Layers::source`] can find it.
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
        // The other lines quote the file.
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

/// The layers of a configuration, in which each value has its source. Later layers override earlier ones.
pub struct Layers(Figment);

impl Layers {
    /// Starts with the configuration file. `file`: the exact path of an existing file. [`Self::extract`] reports its
    /// errors.
    pub fn of_file(file: Option<&Path>) -> Self {
        let layers = Figment::new();
        Self(match file {
            Some(path) => layers.merge(Toml::file_exact(path)),
            None => layers,
        })
    }

    /// Adds `CARILLON_…` variables. Other variables are ignored.
    #[must_use]
    pub fn with_variables(self, variables: &Variables<'_>) -> Self {
        self.overlay(variables.name, variables::read(variables.pairs))
    }

    /// Adds the flags of the command line, in the structure of the configuration.
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

    /// Returns the value of a key. `None` for a default. `key`: levels separated by dots, entries of lists by number.
    pub fn value(&self, key: &str) -> Option<Value> {
        let whole = self.0.find_value("").ok()?;
        key.split('.').try_fold(&whole, |value, level| child(value, level)).cloned()
    }

    /// Returns the source of a key's value. `None` for a default. `key`: as for [`Self::value`]. The source of a
    /// missing value in an entry of a list is that of the entry.
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

    /// Returns whether the value of a key came from the configuration file.
    pub fn is_from_file(&self, key: &str) -> bool {
        let metadata = self.value(key).and_then(|value| self.0.get_metadata(value.tag()));
        metadata.is_some_and(|metadata| matches!(metadata.source, Some(Source::File(_))))
    }

    /// Sets one key above all layers. `key`: as for [`Self::value`]. `source`: the source of the value in errors.
    #[must_use]
    pub fn with(self, key: &str, value: impl Into<Value>, source: &str) -> Self {
        let Value::Dict(_, values) = figment::util::nest(key, value.into()) else { return self };
        self.overlay(source, values)
    }

    /// Adds a layer above the others. It can set entries of lists by number, like `{ apps = { 0 = … } }`.
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

/// The name of the variables of the process in errors.
pub const ENVIRONMENT: &str = "the environment";

/// A layer of `CARILLON_…` variables. Other variables are ignored.
pub struct Variables<'a> {
    /// The name of the layer in errors.
    pub name: &'a str,
    /// Names and values. Later ones override earlier ones.
    pub pairs: &'a [(String, String)],
}

/// A layer of values with a name for errors.
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

/// The flags of the command line as a layer. figment would name a line of this file as their source.
struct Flags<'a, T>(&'a T);

impl<T: Serialize> Provider for Flags<'_, T> {
    fn metadata(&self) -> figment::Metadata {
        figment::Metadata::named("the command line")
    }

    fn data(&self) -> Result<figment::value::Map<Profile, Dict>, figment::Error> {
        Serialized::defaults(self.0).data()
    }
}

/// Serializes a size without rounding. `Display` of the type rounds.
///
/// # Errors
/// An error of the serializer.
pub fn exact_size<S: Serializer>(size: &ByteSize, serializer: S) -> Result<S::Ok, S::Error> {
    const UNITS: [(u64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let bytes = size.as_u64();
    let unit = UNITS.iter().find(|(unit, _)| bytes >= *unit && bytes.is_multiple_of(*unit));
    let text = unit.map_or_else(|| format!("{bytes}B"), |(unit, name)| format!("{}{name}", bytes / unit));
    serializer.serialize_str(&text)
}

/// Returns the variables of the process.
pub fn environment() -> Vec<(String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

#[cfg(test)]
mod tests;
