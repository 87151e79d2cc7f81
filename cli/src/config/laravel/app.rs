//! The app of `REVERB_APP_ID` or `PUSHER_APP_ID`: its credentials and its limits.

use bytesize::ByteSize;
use shared::app::{AppId, AppLimits, as_usize};
use shared::config::{ConfigError, Layers, Mistake, Value};

use super::variables::{self, Form};
use super::{Found, Laravel};

/// The prefixes of the variables that name an app.
const REVERB: &str = "REVERB_APP_";
const PUSHER: &str = "PUSHER_APP_";

/// The credentials of an app: their keys in `[[apps]]`, and their names behind Laravel's prefixes.
const CREDENTIALS: [(&str, &str); 3] = [("id", "ID"), ("key", "KEY"), ("secret", "SECRET")];

/// The limit of Reverb for a message of a client. It applies to the data of a member too, which is part of a message.
const REVERB_MESSAGE_BYTES: ByteSize = ByteSize::b(10_000);
/// Reverb has no limit for the following values. These are far above normal use and protect other clients.
const PRESENCE_MEMBERS: usize = 10_000;
const CLIENT_EVENTS_PER_SECOND: u32 = 200;
const CHANNELS_PER_EVENT: usize = 1_000;
const NAME_LENGTH: usize = 500;
const USER_ID_LENGTH: usize = 250;
/// The maximum number of events of a batch at the default event size. With a larger size, a batch has fewer events, so
/// that the size of a request stays the same.
const BATCH: usize = 100;

/// The configured app whose credentials come from Laravel's variables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::config) struct Completed {
    /// The index of the app in `apps`.
    pub(in crate::config) index: usize,
    /// The prefix of the variables.
    pub(super) prefix: &'static str,
}

impl Completed {
    /// Returns whether the variables are those of Reverb.
    pub(in crate::config) fn is_of_reverb(&self) -> bool {
        self.prefix == REVERB
    }
}

/// The credentials in Laravel's variables, any of which may be missing.
struct Credentials<'a> {
    prefix: &'static str,
    values: [Option<Found<'a>>; 3],
}

const REVERB_NAMES: [&str; 3] = ["REVERB_APP_ID", "REVERB_APP_KEY", "REVERB_APP_SECRET"];
const PUSHER_NAMES: [&str; 3] = ["PUSHER_APP_ID", "PUSHER_APP_KEY", "PUSHER_APP_SECRET"];

/// Completes the one app that lacks credentials, or adds an app when none is configured.
pub(super) fn complete(layers: Layers, laravel: &Laravel<'_>) -> Result<(Layers, Option<Completed>), ConfigError> {
    let count = match layers.value("apps") {
        None => 0,
        Some(Value::Array(_, apps)) => apps.len(),
        // The value is not a list. Reading the configuration reports the error.
        Some(_) => return Ok((layers, None)),
    };
    let incomplete: Vec<usize> = (0..count).filter(|index| !is_complete(&layers, *index)).collect();
    if count > 0 && incomplete.is_empty() {
        return Ok((layers, None));
    }
    let Some(credentials) = credentials(laravel)? else {
        let mistakes = incomplete.iter().flat_map(|index| missing(&layers, *index, "")).collect();
        return none_or(mistakes).map(|()| (layers, None));
    };
    let prefix = credentials.prefix;
    let matching: Vec<usize> = incomplete.iter().copied().filter(|index| credentials.fit(&layers, *index)).collect();
    let index = match matching.as_slice() {
        [] if count == 0 => 0,
        [index] => *index,
        [] => {
            let complaint = format!(", since {prefix}ID and {prefix}KEY name another app");
            let mistakes = incomplete.iter().flat_map(|index| missing(&layers, *index, &complaint)).collect();
            return none_or(mistakes).map(|()| (layers, None));
        }
        [_, second, ..] => {
            let complaint = format!("expected an id, a key and a secret: {prefix}ID, … complete only one app");
            return Err(Mistake::new(format!("apps.{second}"), complaint).into());
        }
    };
    let layers = credentials.fill(layers, index)?;
    let completed = Completed { index, prefix };
    let layers = if completed.is_of_reverb() { with_settings(layers, laravel, index)? } else { layers };
    Ok((layers, Some(completed)))
}

/// Returns whether an app has its own credentials.
fn is_complete(layers: &Layers, index: usize) -> bool {
    let has = |name: &str| layers.value(&format!("apps.{index}.{name}")).is_some();
    has("id") && has("key") && (has("secret") || has("secret_file"))
}

/// Returns a mistake for each id and key that an app lacks. A missing secret is reported later. `more`: the reason why
/// no variable completes the app.
fn missing(layers: &Layers, index: usize, more: &str) -> Vec<Mistake> {
    let mistake = |(name, laravel): &(&str, &str)| {
        let key = format!("apps.{index}.{name}");
        let complaint = format!("expected a value, here or in {REVERB}{laravel} or {PUSHER}{laravel}{more}");
        let source = layers.source(&format!("apps.{index}"));
        layers.value(&key).is_none().then(|| Mistake { source, ..Mistake::new(key, complaint) })
    };
    CREDENTIALS[..2].iter().filter_map(mistake).collect()
}

fn none_or(mistakes: Vec<Mistake>) -> Result<(), ConfigError> {
    if mistakes.is_empty() { Ok(()) } else { Err(ConfigError::Mistakes(mistakes)) }
}

/// Returns the credentials of the connection that Laravel broadcasts with, or else those that are set.
fn credentials<'a>(laravel: &Laravel<'a>) -> Result<Option<Credentials<'a>>, Mistake> {
    let mut kinds = [(REVERB, &REVERB_NAMES), (PUSHER, &PUSHER_NAMES)];
    let connection = match laravel.set("BROADCAST_CONNECTION")? {
        Some(connection) => Some(connection),
        None => laravel.set("BROADCAST_DRIVER")?,
    };
    if connection.is_some_and(|connection| connection.text() == "pusher") {
        kinds.reverse();
    }
    for (prefix, [id, key, secret]) in kinds {
        let values = [laravel.set(id)?, laravel.set(key)?, laravel.set(secret)?];
        if values.iter().any(Option::is_some) {
            return Ok(Some(Credentials { prefix, values }));
        }
    }
    Ok(None)
}

impl Credentials<'_> {
    /// Returns whether the credentials do not contradict those of an app.
    fn fit(&self, layers: &Layers, index: usize) -> bool {
        CREDENTIALS[..2].iter().zip(&self.values).all(|((name, _), found)| {
            let configured = layers.value(&format!("apps.{index}.{name}"));
            let configured: Option<AppId> = configured.and_then(|value| value.deserialize().ok());
            match (configured, found) {
                (Some(configured), Some(found)) => configured.as_str() == found.text(),
                _ => true,
            }
        })
    }

    /// Adds the missing credentials to an app.
    fn fill(&self, mut layers: Layers, index: usize) -> Result<Layers, ConfigError> {
        let (mut set, mut missing) = (Vec::new(), Vec::new());
        for ((name, laravel), found) in CREDENTIALS.iter().zip(&self.values) {
            let key = format!("apps.{index}.{name}");
            let is_configured =
                layers.value(&key).is_some() || (*name == "secret" && layers.value(&format!("{key}_file")).is_some());
            match found {
                Some(found) => {
                    set.push(found.name);
                    if !is_configured {
                        layers = layers.with(&key, found.text(), &found.source());
                    }
                }
                None if is_configured => {}
                None => missing.push(format!("{}{laravel}", self.prefix)),
            }
        }
        if missing.is_empty() {
            return Ok(layers);
        }
        let complaint = format!("expected a value too, as for {}", set.join(" and "));
        Err(Mistake::new(missing.join(" and "), complaint).into())
    }
}

/// Applies Reverb's variables to the app. They override the file, and `CARILLON_` variables override them.
fn with_settings(mut layers: Layers, laravel: &Laravel<'_>, index: usize) -> Result<Layers, ConfigError> {
    for (name, key, form) in variables::settings(true) {
        let found = if form == Form::Senders { laravel.find(name)? } else { laravel.set(name)? };
        if let Some(found) = found {
            layers = with_app_setting(layers, index, key, found.read(form)?, &found);
        }
    }
    let is_limited = laravel.set("REVERB_APP_RATE_LIMITING_ENABLED")?.is_some_and(|enabled| enabled.text() == "1");
    if is_limited && let Some(attempts) = laravel.set("REVERB_APP_RATE_LIMIT_MAX_ATTEMPTS")? {
        let value = attempts.read(Form::Count)?;
        layers = with_app_setting(layers, index, "limits.client_events_per_second", value, &attempts);
    }
    Ok(layers)
}

fn with_app_setting(layers: Layers, index: usize, key: &str, value: Value, found: &Found<'_>) -> Layers {
    let key = format!("apps.{index}.{key}");
    if layers.value(&key).is_none() || layers.is_from_file(&key) {
        layers.with(&key, value, &found.source())
    } else {
        layers
    }
}

/// Sets the limits that are not configured to those of Reverb, or to a high value if Reverb has no such limit.
///
/// `is_set`: whether a limit is configured, by its name.
pub(in crate::config) fn apply_limits(limits: &mut AppLimits, is_set: impl Fn(&str) -> bool) {
    let usual = AppLimits::default();
    let size = |name: &str, limit: &mut ByteSize, value: ByteSize| {
        if !is_set(name) {
            *limit = value;
        }
    };
    size("message_bytes", &mut limits.message_bytes, REVERB_MESSAGE_BYTES);
    size("user_info_bytes", &mut limits.user_info_bytes, REVERB_MESSAGE_BYTES);
    let events = BATCH * as_usize(usual.event_bytes) / as_usize(limits.event_bytes).max(1);
    let batch = events.clamp(usual.batch, BATCH);
    for (name, limit, value) in [
        ("presence_members", &mut limits.presence_members, PRESENCE_MEMBERS),
        ("channels_per_event", &mut limits.channels_per_event, CHANNELS_PER_EVENT),
        ("batch", &mut limits.batch, batch),
        ("channel_name_length", &mut limits.channel_name_length, NAME_LENGTH),
        ("event_name_length", &mut limits.event_name_length, NAME_LENGTH),
        ("user_id_length", &mut limits.user_id_length, USER_ID_LENGTH),
    ] {
        if !is_set(name) {
            *limit = value;
        }
    }
    if !is_set("client_events_per_second") {
        limits.client_events_per_second = CLIENT_EVENTS_PER_SECOND;
    }
}
