//! The variables that a Laravel application's `.env` already holds.

use shared::app::App;
use shared::config::{ConfigError, ENVIRONMENT, Mistake};

use super::{ENV_FILE, Pairs, app};

/// Laravel's variables, from wherever they came.
pub(super) struct Laravel<'a> {
    /// Those of the process come first, since they override the others.
    sources: [(&'static str, &'a [(String, String)]); 2],
}

/// `CARILLON_` variables that Laravel's own stand for, by the name of Laravel's.
pub(super) type Listener = Vec<(&'static str, Pairs)>;

impl<'a> Laravel<'a> {
    pub(super) fn new(env_file: &'a [(String, String)], environment: &'a [(String, String)]) -> Self {
        Self { sources: [(ENVIRONMENT, environment), (ENV_FILE, env_file)] }
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
                    let complaint = format!("expected a value too, as for {}", set.join(" and "));
                    return Err(Mistake::new(missing.join(" and "), complaint).into());
                }
            }
        }
        Ok(None)
    }

    /// `REVERB_SERVER_HOST` and `_PORT` as our own variables for the same.
    ///
    /// # Errors
    /// When the port is not one.
    pub(super) fn listener(&self) -> Result<Listener, ConfigError> {
        let (host, port) = ("REVERB_SERVER_HOST", "REVERB_SERVER_PORT");
        let mut ours = Listener::new();
        if let Some(value) = self.value(host) {
            // Quoted, or `[::]` would be read as a list.
            ours.push((host, vec![("CARILLON_SERVER__HOST".into(), format!("{value:?}"))]));
        }
        if let Some((source, value)) = self.find(port) {
            let Ok(number) = value.parse::<u16>() else {
                let mistake = Mistake::new(port, format!("expected a port, not {value:?}"));
                return Err(Mistake { source: Some(source.into()), ..mistake }.into());
            };
            ours.push((port, vec![("CARILLON_SERVER__PORT".into(), number.to_string())]));
        }
        Ok(ours)
    }

    fn value(&self, name: &str) -> Option<&'a str> {
        self.find(name).map(|(_, value)| value)
    }

    /// A variable's source and value. One without a value is one that is not set: Laravel's own `.env.example` has such
    /// lines.
    fn find(&self, name: &str) -> Option<(&'static str, &'a str)> {
        self.sources.iter().find_map(|(source, variables)| {
            let (_, value) = variables.iter().rfind(|(variable, value)| variable == name && !value.is_empty())?;
            Some((*source, value.as_str()))
        })
    }
}
