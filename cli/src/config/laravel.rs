//! The variables that a Laravel application's `.env` already holds.

use shared::app::App;
use shared::config::ConfigError;

use super::{Variables, app};

/// Laravel's variables, from wherever they came.
pub(super) struct Laravel<'a> {
    variables: &'a [(String, String)],
}

impl<'a> Laravel<'a> {
    /// `variables`: later ones override earlier ones.
    pub(super) fn new(variables: &'a [(String, String)]) -> Self {
        Self { variables }
    }

    /// The app of `REVERB_APP_ID`, `_KEY` and `_SECRET`, or else of the `PUSHER_APP_` three.
    ///
    /// # Errors
    /// When some of three are set and others are not.
    pub(super) fn app(&self) -> Result<Option<App>, ConfigError> {
        for prefix in ["REVERB_APP_", "PUSHER_APP_"] {
            let names = ["ID", "KEY", "SECRET"].map(|name| format!("{prefix}{name}"));
            match names.each_ref().map(|name| self.value(name)) {
                [None, None, None] => {}
                [Some(id), Some(key), Some(secret)] => return Ok(Some(app(id, key, secret))),
                _ => {
                    let (set, missing): (Vec<&str>, Vec<&str>) =
                        names.iter().map(String::as_str).partition(|name| self.value(name).is_some());
                    let (set, missing) = (set.join(" and "), missing.join(" and "));
                    return Err(ConfigError::Rule(format!("{missing}: expected a value too, as for {set}")));
                }
            }
        }
        Ok(None)
    }

    /// `REVERB_SERVER_HOST` and `_PORT` as our own variables for the same.
    ///
    /// # Errors
    /// When the port is not one.
    pub(super) fn listener(&self) -> Result<Variables, ConfigError> {
        let mut ours = Variables::new();
        if let Some(host) = self.value("REVERB_SERVER_HOST") {
            // Quoted, or `[::]` would be read as a list.
            ours.push(("CARILLON_SERVER__HOST".into(), format!("{host:?}")));
        }
        if let Some(port) = self.value("REVERB_SERVER_PORT") {
            let Ok(port) = port.parse::<u16>() else {
                return Err(ConfigError::Rule(format!("REVERB_SERVER_PORT: expected a port, not {port:?}")));
            };
            ours.push(("CARILLON_SERVER__PORT".into(), port.to_string()));
        }
        Ok(ours)
    }

    /// A variable without a value is one that is not set: Laravel's own `.env.example` has such lines.
    fn value(&self, name: &str) -> Option<&'a str> {
        let (_, value) = self.variables.iter().rfind(|(variable, value)| variable == name && !value.is_empty())?;
        Some(value)
    }
}
