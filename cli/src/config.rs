//! The whole configuration: sections that belong to the crates that use them, composed, layered and checked once.
//!
//! Order, weakest first: defaults, file, Laravel's variables, `CARILLON_` variables of the env file, those of the
//! process, flags.

mod env_file;
mod laravel;
mod secrets;

use std::fs;
use std::net::IpAddr;
use std::time::Duration;

use bytesize::ByteSize;
use hyper::header::{HeaderName, HeaderValue};
use publisher::webhook;
use serde::{Deserialize, Serialize};
use shared::app::{App, AppLimits, Apps};
use shared::config::{self, ConfigError, Layers, Mistake, Variables};
use shared::protocol::channel::USER_PREFIX;
use shared::secret::Secret;
use shared::webhook::Endpoint;
use shared::webhook::endpoint::CONCURRENCY_MAX;
use shared::{admin, redis, telemetry, tls};

use crate::args::Settings;

/// Id of the app that is served when none is configured.
pub const DEMO_ID: &str = "app-id";
/// Key of the demo app.
pub const DEMO_KEY: &str = "app-key";
/// Secret of the demo app, known to everyone.
pub const DEMO_SECRET: &str = "app-secret";

/// A connection may own this much while its message is incomplete; no client of the protocol sends a thousandth of it.
const MESSAGE_BYTES_CEILING: ByteSize = ByteSize::mib(64);

/// Where the demo app is served: anyone who reaches it may use it.
const DEMO_HOST: &str = "127.0.0.1";

/// The target of the lines that `--debug` shows.
const ACTIVITY: &str = "activity";

/// The root of the configuration.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// `[server]`.
    pub server: gateway::config::Server,
    /// `[admin]`.
    pub admin: admin::Config,
    /// `[tls]`.
    pub tls: tls::Config,
    /// `[redis]`.
    pub redis: redis::Config,
    /// `[webhooks]`.
    pub webhooks: webhook::Config,
    /// `[drain]`.
    pub drain: gateway::config::Drain,
    /// `[peers]`.
    pub peers: gateway::config::Peers,
    /// `[log]`.
    pub log: telemetry::log::Config,
    /// `[[apps]]`, in the order configured; never empty once loaded.
    pub apps: Vec<App>,
    /// Whether `apps` is the demo app, because none was configured.
    #[serde(skip)]
    pub demo: bool,
}

/// For which command the configuration is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Gateway and publisher in one process.
    Up,
    /// WebSockets.
    Gateway,
    /// The signed HTTP API.
    Publisher,
}

/// Where a publisher listens unless told otherwise: beside a gateway on the same machine.
const PUBLISHER_PORT: u16 = 8081;

/// How long a node of a cluster accepts connections after the signal, unless told otherwise: what balancers take to notice.
/// One process has nobody to go on in its place.
const CLUSTER_ACCEPT: Duration = Duration::from_secs(5);

/// Variables, by name; later ones override earlier ones of the same name.
type Pairs = Vec<(String, String)>;

/// What errors call the layer of the env file.
const ENV_FILE: &str = "the file of --env-file";

/// What ids and keys must be, for [`is_name`].
pub(crate) const NAME_EXPECTED: &str = "expected one or more letters, digits, hyphens, dots, underscores or tildes";

impl Config {
    /// Reads, completes and checks the configuration.
    ///
    /// # Errors
    /// [`ConfigError`], which names each key that is wrong and where it stands, one per line: the first one that cannot be
    /// read, or else all that break a rule.
    pub fn load(settings: &Settings, role: Role) -> Result<Self, ConfigError> {
        Self::load_with(settings, role, &config::environment())
    }

    /// `environment`: where Laravel's variables are looked up after the env file. `CARILLON_` variables are read from the
    /// process itself.
    fn load_with(settings: &Settings, role: Role, environment: &[(String, String)]) -> Result<Self, ConfigError> {
        let env_file = env_file_of(settings)?;
        let laravel = laravel::Laravel::new(&env_file, environment);
        let listener = laravel.listener()?;
        let mut variables: Vec<Variables<'_>> =
            listener.iter().map(|(name, pairs)| Variables { name, pairs }).collect();
        variables.push(Variables { name: ENV_FILE, pairs: &env_file });

        let layers = layers_of(settings, &variables)?;
        let mut config: Self = layers.extract()?;
        if config.apps.is_empty() {
            config.apps.extend(laravel.app()?);
        }
        let mut mistakes = Vec::new();
        if settings.redis.is_some() {
            // The flag stands above a file that a weaker layer names.
            config.redis.url_file = None;
        }
        secrets::read(&mut config, &mut mistakes);
        if role == Role::Publisher && layers.source("server.port").is_none() {
            config.server.port = PUBLISHER_PORT;
        }
        if role != Role::Up && layers.source("drain.accept").is_none() {
            config.drain.accept = CLUSTER_ACCEPT;
        }
        match role {
            Role::Up if config.apps.is_empty() => {
                config.serve_demo(layers.source("server.host").is_some(), &mut mistakes);
            }
            Role::Up => {}
            Role::Gateway | Role::Publisher => config.check_cluster_role(&mut mistakes),
        }
        config.validate(&mut mistakes);
        if !mistakes.is_empty() {
            for mistake in &mut mistakes {
                mistake.source = layers.source(&mistake.key);
            }
            return Err(ConfigError::Mistakes(mistakes));
        }
        config.log.level = with_activity(&config.log.level, settings.debug);
        Ok(config)
    }

    /// Reads `[admin]` and nothing else: what is wrong elsewhere, or a secret that only the server may read, is no concern
    /// of those who ask how a running server is.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub(crate) fn load_admin(settings: &Settings) -> Result<admin::Config, ConfigError> {
        // Others are none of its business, so unknown keys are let through.
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Sections {
            admin: admin::Config,
        }
        let env_file = env_file_of(settings)?;
        let layers = layers_of(settings, &[Variables { name: ENV_FILE, pairs: &env_file }])?;
        Ok(layers.extract::<Sections>()?.admin)
    }

    /// What the gateway takes of it.
    pub fn gateway(&self) -> gateway::Config {
        gateway::Config { server: self.server.clone(), drain: self.drain.clone(), peers: self.peers.clone() }
    }

    fn serve_demo(&mut self, host_given: bool, mistakes: &mut Vec<Mistake>) {
        self.demo = true;
        self.apps.push(app(DEMO_ID, DEMO_KEY, DEMO_SECRET));
        if !host_given {
            self.server.host = DEMO_HOST.into();
        } else if !is_loopback(&self.server.host) {
            let complaint = format!(
                "expected {DEMO_HOST} or another loopback address, not {:?}, while no app is configured: the demo app's \
                 secret is public. `carillon app new` makes an app",
                self.server.host
            );
            mistakes.push(Mistake::new("server.host", complaint));
        }
    }

    /// Nodes that work together must agree on their apps, and have something to meet in.
    fn check_cluster_role(&self, mistakes: &mut Vec<Mistake>) {
        if self.apps.is_empty() {
            mistakes.push(Mistake::new("apps", "expected at least one app: `carillon app new` makes one"));
        }
        if !self.redis.is_set() && self.redis.url_file.is_none() {
            let complaint = "expected the URL of the Redis that joins gateways and publishers, as \
                             \"redis://127.0.0.1:6379\"; `carillon up` needs none";
            mistakes.push(Mistake::new("redis.url", complaint));
        }
    }

    /// Checks what types cannot say.
    fn validate(&self, mistakes: &mut Vec<Mistake>) {
        mistakes.extend(self.gateway().validate());
        if let Err(error) = self.redis.validate() {
            mistakes.push(Mistake::new(error.key(), error.to_string()));
        }
        for (key, complaint) in self.webhooks.mistakes() {
            mistakes.push(Mistake::new(key, complaint));
        }
        if let Err(error) = tls::Tls::new(&self.tls) {
            mistakes.push(Mistake::new(error.key(), error.to_string()));
        }
        for (key, host) in
            [("server.host", &self.server.host), ("admin.host", &self.admin.host), ("peers.host", &self.peers.host)]
        {
            if host.is_empty() {
                mistakes.push(Mistake::new(key, "expected an address to listen on, as \"127.0.0.1\""));
            }
        }
        if telemetry::log::filter(&self.log).is_err() {
            let level = &self.log.level;
            let complaint =
                format!("expected a level or a filter, as \"info\" or \"info,gateway=debug\", not {level:?}");
            mistakes.push(Mistake::new("log.level", complaint));
        }
        for (index, app) in self.apps.iter().enumerate() {
            validate_app(&format!("apps.{index}"), app, mistakes);
            for (number, endpoint) in app.webhooks.iter().enumerate() {
                self.validate_endpoint(&format!("apps.{index}.webhooks.{number}"), endpoint, mistakes);
            }
            self.validate_outbox(&format!("apps.{index}.limits"), &app.limits, mistakes);
        }
        if let Err(error) = Apps::new(self.apps.iter().cloned()) {
            mistakes.push(Mistake::new("apps", format!("expected ids and keys to be unique, but {error}")));
        }
    }

    fn validate_endpoint(&self, key: &str, endpoint: &Endpoint, mistakes: &mut Vec<Mistake>) {
        let mut complain = |name: &str, complaint| mistakes.push(Mistake::new(format!("{key}.{name}"), complaint));
        let url = &endpoint.url;
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            complain("url", format!("expected http:// or https:// and a host, not {}:", url.scheme()));
        }
        if let Err(refused) = webhook::check_url(url, self.webhooks.refuse_private_networks) {
            complain("url", format!("expected another host: {refused}"));
        }
        for (name, value) in &endpoint.headers {
            let lower_case = name.to_ascii_lowercase();
            if webhook::RESERVED_HEADERS.contains(&lower_case.as_str()) {
                complain("headers", format!("expected no {name:?}, which every request has already"));
            } else if name.parse::<HeaderName>().is_err() {
                complain("headers", format!("expected names of headers, not {name:?}"));
            } else if HeaderValue::from_str(value.reveal()).is_err() {
                complain("headers", format!("expected visible ASCII characters as the value of {name:?}"));
            }
        }
        if !(1..=CONCURRENCY_MAX).contains(&endpoint.concurrency) {
            let complaint = format!("expected between 1 and {CONCURRENCY_MAX}, not {}", endpoint.concurrency);
            complain("concurrency", complaint);
        }
    }

    /// The largest messages that the server sends must fit the outbox, or everyone who gets one would be closed.
    fn validate_outbox(&self, key: &str, limits: &AppLimits, mistakes: &mut Vec<Mistake>) {
        let outbox = self.server.outbox_bytes;
        // JSON's escapes may double an event.
        if limits.event_bytes.as_u64().saturating_mul(2) > outbox.as_u64() {
            let event = limits.event_bytes;
            let complaint = format!("expected at most half of server.outbox_bytes, which is {outbox}, not {event}");
            mistakes.push(Mistake::new(format!("{key}.event_bytes"), complaint));
        }
        let members_max = outbox.as_u64() / member_bytes(limits).max(1);
        if count(limits.presence_members) > members_max {
            let complaint = format!(
                "expected at most {members_max}, not {}: the list of all members that a joiner gets must fit \
                 server.outbox_bytes, which is {outbox}",
                limits.presence_members
            );
            mistakes.push(Mistake::new(format!("{key}.presence_members"), complaint));
        }
    }
}

/// The variables of `--env-file`.
fn env_file_of(settings: &Settings) -> Result<Pairs, ConfigError> {
    settings.files.env_file.as_deref().map_or(Ok(Pairs::new()), env_file::read)
}

/// Everything that was configured. `variables`: weakest first, the process' own left out.
fn layers_of(settings: &Settings, variables: &[Variables<'_>]) -> Result<Layers, ConfigError> {
    let file = settings.files.config.as_deref();
    if let Some(path) = file {
        // figment, which reads it again, does not name a file that is missing or not text.
        let cannot_read = |source| ConfigError::File { path: format!("{} (--config)", path.display()), source };
        fs::read_to_string(path).map_err(cannot_read)?;
    }
    Ok(Layers::new(file, variables, &Flags::new(settings)))
}

/// What one member may take in a list of members. The list is JSON inside a JSON string: the escapes of `user_info`,
/// which is JSON already, can double it but no more. The id is there twice, as an item and as a name; doubled too, though
/// one of control characters alone would take seven times its length: no application has such ids.
fn member_bytes(limits: &AppLimits) -> u64 {
    let ids = count(limits.user_id_length).saturating_mul(2);
    limits.user_info_bytes.as_u64().saturating_add(ids).saturating_mul(2)
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

/// An app with every setting at its default.
pub fn app(id: &str, key: &str, secret: &str) -> App {
    serde_json::from_value(serde_json::json!({ "id": id, "key": key, "secret": secret }))
        .expect("an app needs no more than these three")
}

/// Whether a text may be an app's id or key: both stand in URLs, and the key ends at a colon.
pub(crate) fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte))
}

fn validate_app(key: &str, app: &App, mistakes: &mut Vec<Mistake>) {
    let mut complain = |name: &str, complaint| mistakes.push(Mistake::new(format!("{key}.{name}"), complaint));
    for (name, value) in [("id", app.id.as_str()), ("key", app.key.as_str())] {
        if !is_name(value) {
            complain(name, format!("{NAME_EXPECTED}, not {value:?}"));
        }
    }
    if app.secret.is_empty() && app.secret_file.is_none() {
        complain("secret", "expected a secret, or secret_file".into());
    }
    let limits = &app.limits;
    let positive = [
        ("limits.channels_per_connection", limits.channels_per_connection == 0),
        ("limits.event_bytes", limits.event_bytes.as_u64() == 0),
        ("limits.channel_name_length", limits.channel_name_length == 0),
        ("limits.event_name_length", limits.event_name_length == 0),
        ("limits.channels_per_event", limits.channels_per_event == 0),
        ("limits.batch", limits.batch == 0),
        ("limits.presence_members", limits.presence_members == 0),
        ("limits.user_id_length", limits.user_id_length == 0),
    ];
    for (name, _) in positive.iter().filter(|(_, is_zero)| *is_zero) {
        complain(name, "expected at least 1, since 0 would refuse everything".into());
    }
    if limits.message_bytes > MESSAGE_BYTES_CEILING {
        complain("limits.message_bytes", format!("expected at most 64MiB, not {}", limits.message_bytes));
    }
    let user_channel_length = USER_PREFIX.len() + limits.user_id_length;
    if limits.channel_name_length < user_channel_length {
        let complaint = format!(
            "expected at least {user_channel_length}, or users could not subscribe to their own channel, not {}",
            limits.channel_name_length
        );
        complain("limits.channel_name_length", complaint);
    }
    if limits.message_bytes < limits.event_bytes {
        let (event, message) = (limits.event_bytes, limits.message_bytes);
        complain("limits.message_bytes", format!("expected at least event_bytes, which is {event}, not {message}"));
    }
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

/// The log filter with activity lines on or off, unless it has an opinion of its own on them.
fn with_activity(level: &str, debug: bool) -> String {
    if debug {
        format!("{level},{ACTIVITY}=debug")
    } else if level.contains(ACTIVITY) {
        level.to_owned()
    } else {
        format!("{level},{ACTIVITY}=off")
    }
}

/// What was given on the command line, in the shape of [`Config`].
#[derive(Serialize)]
struct Flags<'a> {
    server: ServerFlags<'a>,
    admin: AdminFlags,
    redis: RedisFlags<'a>,
}

#[derive(Serialize)]
struct ServerFlags<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
}

#[derive(Serialize)]
struct AdminFlags {
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
}

#[derive(Serialize)]
struct RedisFlags<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<&'a str>,
}

impl<'a> Flags<'a> {
    fn new(settings: &'a Settings) -> Self {
        Self {
            server: ServerFlags { host: settings.host.as_deref(), port: settings.port },
            admin: AdminFlags { port: settings.admin_port },
            redis: RedisFlags { url: settings.redis.as_ref().map(Secret::reveal) },
        }
    }
}

#[cfg(test)]
mod tests;
