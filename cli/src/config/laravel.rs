//! Reads the variables of a Laravel application from its `.env` and from the environment.
//!
//! Like in Laravel, a variable of the environment overrides that of the file, even if it is empty.

mod app;
mod redis;
mod value;
mod variables;

use std::collections::BTreeSet;

use shared::config::{self, ConfigError, ENVIRONMENT, Layers, Mistake, is_of_service};
use shared::secret::Secret;

use super::ENV_FILE;
use super::env_file::EnvFile;
use value::Value;
use variables::{Form, Meaning};

pub(super) use app::{Completed, apply_limits};

/// The variables of Laravel from the environment and the env file.
#[derive(Clone, Copy)]
pub(super) struct Laravel<'a> {
    environment: &'a [(String, String)],
    env_file: &'a EnvFile,
}

/// A variable that is set.
struct Found<'a> {
    name: &'a str,
    value: Value<'a>,
    /// The layer that sets the variable.
    layer: &'static str,
}

/// Variables that Kubernetes overrides if a Service is named `redis`, `reverb`, `reverb-server` or `pusher`, like
/// `REDIS_PORT=tcp://10.0.0.1:6379`.
const PORTS: [&str; 4] = ["REDIS_PORT", "REVERB_PORT", "REVERB_SERVER_PORT", "PUSHER_PORT"];

/// Removes the ports that Kubernetes sets for Services, so that those of the env file apply. Other variables of
/// Services stay, because a file may refer to them, like `REDIS_HOST=${REDIS_SERVICE_HOST}`.
pub(super) fn without_service_ports(environment: &[(String, String)]) -> Vec<(String, String)> {
    let is_service_port = |name: &str, value: &str| PORTS.contains(&name) && is_of_service(name, value);
    environment.iter().filter(|(name, value)| !is_service_port(name, value)).cloned().collect()
}

impl<'a> Laravel<'a> {
    pub(super) fn new(env_file: &'a EnvFile, environment: &'a [(String, String)]) -> Self {
        Self { environment, env_file }
    }

    /// Returns the settings that the variables give, each with the name of its variable as its source.
    ///
    /// # Errors
    /// The first variable that cannot be read.
    pub(super) fn settings(&self) -> Result<Vec<Setting>, ConfigError> {
        let mut settings = Vec::new();
        for (name, key, form) in variables::settings(false) {
            if let Some(found) = self.set(name)? {
                settings.push(Setting { key, value: found.read(form)?, source: found.source() });
            }
        }
        Ok(settings)
    }

    /// Returns the URL and the prefix of the Redis that Reverb would use for scaling. `None` if scaling is off.
    ///
    /// # Errors
    /// The first variable that cannot be read.
    pub(super) fn redis(&self) -> Result<Option<(Secret, Option<Setting>)>, ConfigError> {
        if !self.set("REVERB_SCALING_ENABLED")?.is_some_and(|enabled| enabled.value.is_true()) {
            return Ok(None);
        }
        let prefix = self.set("REVERB_SCALING_CHANNEL")?.map(|channel| Setting {
            key: "redis.prefix",
            value: config::Value::from(channel.text()),
            source: channel.source(),
        });
        Ok(Some((redis::url(self)?, prefix)))
    }

    /// Adds the app of the variables to the configured apps, or completes one of them.
    ///
    /// # Errors
    /// If an app lacks credentials, or a variable cannot be read.
    pub(super) fn complete(&self, layers: Layers) -> Result<(Layers, Option<Completed>), ConfigError> {
        app::complete(layers, self)
    }

    /// Returns a warning for each variable that is set and has no effect.
    pub(super) fn warnings(&self, completed: Option<&Completed>, keys: &[&str]) -> Vec<String> {
        let own = self.environment.iter().filter(|(name, value)| !is_of_service(name, value));
        let names = own.chain(&self.env_file.variables).map(|(name, _)| name.as_str());
        let of_laravel = |name: &&str| variables::PREFIXES.iter().any(|prefix| name.starts_with(prefix));
        let names: BTreeSet<&str> = names.filter(of_laravel).collect();
        let found = names.into_iter().filter_map(|name| self.set(name).ok().flatten());
        found.filter_map(|found| found.warning(completed, keys)).collect()
    }

    /// Returns a variable. `None` if it is not set or `null`.
    ///
    /// # Errors
    /// If a line that seems to set it cannot be read.
    fn find<'n>(&self, name: &'n str) -> Result<Option<Found<'n>>, Mistake>
    where
        'a: 'n,
    {
        let own = self.environment.iter().rfind(|(variable, _)| variable == name);
        let found = match own {
            Some((_, value)) => Some((ENVIRONMENT, value.as_str())),
            None => self.env_file.value(name)?.map(|value| (ENV_FILE, value)),
        };
        let found = found.map(|(layer, value)| Found { name, value: Value::new(value), layer });
        Ok(found.filter(|found| found.value != Value::Null))
    }

    /// Returns a variable. `None` if it is not set, `null` or empty. The `.env.example` of Laravel has lines without a
    /// value.
    ///
    /// # Errors
    /// If a line that seems to set it cannot be read.
    fn set<'n>(&self, name: &'n str) -> Result<Option<Found<'n>>, Mistake>
    where
        'a: 'n,
    {
        Ok(self.find(name)?.filter(|found| !found.text().is_empty()))
    }
}

/// A setting that comes from a variable.
#[derive(Debug)]
pub(super) struct Setting {
    pub(super) key: &'static str,
    pub(super) value: config::Value,
    /// The name of the variable in errors.
    pub(super) source: String,
}

// === impl Found ===

impl<'a> Found<'a> {
    fn text(&self) -> &'a str {
        self.value.text()
    }

    fn source(&self) -> String {
        format!("{} in {}", self.name, self.layer)
    }

    fn mistake(&self, complaint: impl Into<String>) -> Mistake {
        Mistake { source: Some(self.layer.into()), ..Mistake::new(self.name, complaint) }
    }

    /// Reads the value in the form of the variable.
    fn read(&self, form: Form) -> Result<config::Value, Mistake> {
        let text = self.text();
        let number = |expected: &str| {
            let number = text.trim().parse::<u64>();
            number.map_err(|_| self.mistake(format!("expected {expected}, not {text:?}")))
        };
        Ok(match form {
            Form::Text => text.into(),
            Form::Path => match text.trim().trim_matches('/') {
                "" => "".into(),
                path => format!("/{path}").into(),
            },
            Form::Port => match text.trim().parse::<u16>() {
                Ok(port) => port.into(),
                Err(_) => return Err(self.mistake(format!("expected a port, not {text:?}"))),
            },
            Form::Seconds => format!("{}s", number("a whole number of seconds")?).into(),
            Form::Bytes => number("a number of bytes")?.into(),
            Form::Count => match number("a whole number")? {
                0 => return Err(self.mistake("expected at least 1, or no value for no limit, not 0")),
                count => count.into(),
            },
            Form::Senders => matches!(text, "all" | "members").into(),
        })
    }

    /// Returns a warning that the variable has no effect. `None` if it has one.
    fn warning(&self, completed: Option<&Completed>, keys: &[&str]) -> Option<String> {
        let nothing = match variables::meaning(self.name) {
            Meaning::Server(..) | Meaning::Application => return None,
            Meaning::Nothing("") => "it has no meaning here".to_owned(),
            Meaning::Nothing("there is one kind of server") if self.text() == "reverb" => return None,
            Meaning::Nothing(instead) => instead.to_owned(),
            Meaning::App(..) => match completed {
                Some(completed) if completed.is_of_reverb() => return self.senders_warning(),
                _ => "no app has the id in REVERB_APP_ID".to_owned(),
            },
            Meaning::Read => {
                let credentials = ["REVERB_APP_ID", "REVERB_APP_KEY", "REVERB_APP_SECRET"];
                let is_credential = credentials.contains(&self.name) || self.name.starts_with("PUSHER_");
                let is_used = completed.is_some_and(|completed| self.name.starts_with(completed.prefix));
                if !is_credential || is_used || keys.contains(&self.text()) {
                    return None;
                }
                "another app is configured".to_owned()
            }
        };
        Some(format!("{} is not used: {nothing} (from {})", self.name, self.layer))
    }

    /// Returns a warning if the value for the senders of client events has another effect than in Reverb.
    fn senders_warning(&self) -> Option<String> {
        if self.name != "REVERB_APP_ACCEPT_CLIENT_EVENTS_FROM" {
            return None;
        }
        let name = self.name;
        match self.text() {
            "members" | "none" => None,
            "all" => Some(format!("{name}: client events are taken from subscribers of the channel only")),
            other => Some(format!(
                "{name}: client events are off, since {other:?} is neither \"all\" nor \"members\" (from {})",
                self.layer
            )),
        }
    }
}

#[cfg(test)]
mod tests;
