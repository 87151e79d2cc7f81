//! Reading configuration: defaults, then a TOML file, then `CARILLON_…` variables, then flags.
//!
//! The sections belong to the crates that use them; the binary composes them into one typed root. This module is the
//! only one that reads the environment.

use std::fmt;
use std::path::Path;

use figment::providers::{Env, Format, Serialized, Toml};
use figment::value::{Dict, Value};
use figment::{Figment, Profile};
use serde::de::{DeserializeOwned, Visitor};
use serde::{Deserializer, Serialize};

/// Variables that start with this are configuration; `__` separates levels.
pub const ENV_PREFIX: &str = "CARILLON_";

/// Why a configuration was refused; names each key, where it came from, and what was expected.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The layers do not make up a configuration.
    #[error("{}", describe(.0))]
    Layers(Box<figment::Error>),
    /// The values are well-formed one by one but do not fit together.
    #[error("{0}")]
    Rule(String),
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

impl From<figment::Error> for ConfigError {
    fn from(error: figment::Error) -> Self {
        Self::Layers(Box::new(error))
    }
}

/// Layers a configuration.
///
/// `file`: read exactly as named, and it must exist. `dotenv`: variables of an env file, which the process' own override.
/// `flags`: only what was given on the command line.
///
/// # Errors
/// [`ConfigError::Layers`] for an unknown key, a value of the wrong type or a missing file.
pub fn layered<T: DeserializeOwned>(
    file: Option<&Path>,
    dotenv: &[(String, String)],
    flags: &impl Serialize,
) -> Result<T, ConfigError> {
    let mut layers = Figment::new();
    if let Some(path) = file {
        layers = layers.merge(Toml::file_exact(path));
    }
    layers = layers
        .merge(EnvFile(dotenv.to_vec()))
        .merge(Env::prefixed(ENV_PREFIX).split("__"))
        .merge(Serialized::defaults(flags));
    Ok(layers.extract()?)
}

/// The `CARILLON_…` variables of an env file, as a layer of their own, so that errors name it.
struct EnvFile(Vec<(String, String)>);

impl figment::Provider for EnvFile {
    fn metadata(&self) -> figment::Metadata {
        figment::Metadata::named("the file of --env-file")
    }

    fn data(&self) -> Result<figment::value::Map<Profile, Dict>, figment::Error> {
        let mut dict = Dict::new();
        for (name, value) in &self.0 {
            let Some(path) = name.strip_prefix(ENV_PREFIX) else { continue };
            let value: Value = value.parse().expect("figment reads any text as a value");
            let nested = figment::util::nest(&path.to_ascii_lowercase().replace("__", "."), value);
            if let Value::Dict(_, nested) = nested {
                merge(&mut dict, nested);
            }
        }
        Ok(figment::value::Map::from([(Profile::Default, dict)]))
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

/// One line per mistake: the key, what is wrong with it, and where it came from.
fn describe(error: &figment::Error) -> String {
    let lines: Vec<String> = error
        .clone()
        .into_iter()
        .map(|mistake| {
            let key = mistake.path.join(".");
            let source = mistake.metadata.as_ref().map(|metadata| match &metadata.source {
                Some(source) => source.to_string(),
                None => metadata.name.to_string(),
            });
            let at = if key.is_empty() { String::new() } else { format!("{key}: ") };
            let from = source.map(|source| format!(" (from {source})")).unwrap_or_default();
            format!("{at}{}{from}", mistake.kind)
        })
        .collect();
    lines.join("\n")
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

/// The process' environment.
pub fn environment() -> Vec<(String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

#[cfg(test)]
mod tests;
