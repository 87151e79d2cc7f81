//! The broadcasting variables of Laravel's `.env`, and their meaning for this server.
//!
//! Source: `config/reverb.php` of laravel/reverb 1.10, `config/broadcasting.php` of laravel/framework 13.

/// The meaning of a variable to this server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// The value of a setting, by its key.
    Server(&'static str, Form),
    /// The value of a setting of the app that `REVERB_APP_ID` names, by its key in `[[apps]]`.
    App(&'static str, Form),
    /// The variable is read together with others.
    Read,
    /// Only the application and its pages read the variable.
    Application,
    /// The variable has no effect. The text names an alternative or the reason.
    Nothing(&'static str),
}

/// The form of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Text,
    Path,
    Port,
    Seconds,
    Bytes,
    /// At least 1.
    Count,
    /// `all` or `members`; any other value means none.
    Senders,
}

// Short names keep the table readable.
use Form::{Bytes, Count, Path, Port, Seconds, Senders, Text};
use Meaning::{App, Application, Nothing, Read, Server};

const RATE: &str = "client events are limited per second, with `client_events_per_second`";

/// All variables of Laravel and Reverb.
const VARIABLES: [(&str, Meaning); 34] = [
    ("REVERB_APP_ID", Read),
    ("REVERB_APP_KEY", Read),
    ("REVERB_APP_SECRET", Read),
    ("PUSHER_APP_ID", Read),
    ("PUSHER_APP_KEY", Read),
    ("PUSHER_APP_SECRET", Read),
    ("REVERB_SERVER_HOST", Server("server.host", Text)),
    ("REVERB_SERVER_PORT", Server("server.port", Port)),
    ("REVERB_SERVER_PATH", Server("server.path_prefix", Path)),
    ("REVERB_APP_ACTIVITY_TIMEOUT", Server("server.activity_timeout", Seconds)),
    ("REVERB_APP_MAX_CONNECTIONS", App("limits.connections", Count)),
    ("REVERB_APP_MAX_MESSAGE_SIZE", App("limits.message_bytes", Bytes)),
    ("REVERB_MAX_REQUEST_SIZE", App("limits.event_bytes", Bytes)),
    ("REVERB_APP_ACCEPT_CLIENT_EVENTS_FROM", App("client_events", Senders)),
    ("REVERB_APP_RATE_LIMITING_ENABLED", Read),
    ("REVERB_APP_RATE_LIMIT_MAX_ATTEMPTS", Read),
    ("REVERB_APP_RATE_LIMIT_DECAY_SECONDS", Nothing(RATE)),
    (
        "REVERB_APP_RATE_LIMIT_TERMINATE",
        Nothing("a client event above the limit gets an error and closes no connection"),
    ),
    ("REVERB_SCALING_ENABLED", Read),
    ("REVERB_SCALING_CHANNEL", Read),
    ("REVERB_APP_PING_INTERVAL", Nothing("`server.activity_timeout` sets the time of server pings too")),
    ("REVERB_PULSE_INGEST_INTERVAL", Nothing("metrics for Prometheus are at /metrics of the admin port")),
    ("REVERB_TELESCOPE_INGEST_INTERVAL", Nothing("metrics for Prometheus are at /metrics of the admin port")),
    ("REVERB_SERVER", Nothing("there is one kind of server")),
    ("REVERB_ALLOWED_ORIGINS", Nothing(ORIGINS)),
    ("REVERB_APP_ALLOWED_ORIGINS", Nothing(ORIGINS)),
    ("REVERB_HOST", Application),
    ("REVERB_PORT", Application),
    ("REVERB_SCHEME", Application),
    ("PUSHER_HOST", Application),
    ("PUSHER_PORT", Application),
    ("PUSHER_SCHEME", Application),
    ("PUSHER_APP_CLUSTER", Application),
    ("PUSHER_CLUSTER", Application),
];

const ORIGINS: &str = "set `allowed_origins` of the app, like CARILLON_APPS__0__ALLOWED_ORIGINS=[shop.example]";
const TLS: &str = "set `tls.cert` and `tls.key`, or CARILLON_TLS__CERT and CARILLON_TLS__KEY";

/// The prefixes of the variables of Laravel and Reverb.
pub(super) const PREFIXES: [&str; 2] = ["REVERB_", "PUSHER_"];

/// Returns the variables that set a key, with the key and the form. `of_app`: whether the key is one of an app.
pub(super) fn settings(of_app: bool) -> impl Iterator<Item = (&'static str, &'static str, Form)> {
    VARIABLES.iter().filter_map(move |(name, meaning)| match meaning {
        App(key, form) if of_app => Some((*name, *key, *form)),
        Server(key, form) if !of_app => Some((*name, *key, *form)),
        _ => None,
    })
}

/// Returns the meaning of a variable that starts with one of [`PREFIXES`].
pub(super) fn meaning(name: &str) -> Meaning {
    if let Some((_, meaning)) = VARIABLES.iter().find(|(known, _)| *known == name) {
        return *meaning;
    }
    if name.starts_with("REVERB_TLS") || name.starts_with("REVERB_SSL") { Nothing(TLS) } else { Nothing("") }
}
