//! The configuration: reads the sections of all crates from their layers and checks them.
//!
//! Each layer overrides the ones before it: defaults, file, Laravel's variables, `CARILLON_` variables of the env file,
//! `CARILLON_` variables of the process, flags.

mod env_file;
mod laravel;
mod secrets;
mod validate;

use std::fs;
use std::net::IpAddr;
use std::time::Duration;

use bytesize::ByteSize;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use shared::app::App;
use shared::cluster::redis;
use shared::config::{self, ConfigError, Layers, Mistake, Variables};
use shared::secret::Secret;
use shared::serve::{admin, telemetry, tls};

use crate::args::{Role, Settings};
use env_file::EnvFile;
use laravel::{Completed, Laravel};

pub(crate) use validate::{NAME_EXPECTED, is_name};

/// The id of the demo app, which is served if no app is configured.
pub const DEMO_ID: &str = "app-id";
/// The key of the demo app.
pub const DEMO_KEY: &str = "app-key";
/// The secret of the demo app. It is public.
pub const DEMO_SECRET: &str = "app-secret";

/// The address of a server with the demo app. Any client that reaches the server can use the app.
const DEMO_HOST: &str = "127.0.0.1";

/// The log target of the lines that `--debug` shows.
const ACTIVITY: &str = "activity";

/// The root of the configuration.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The public listener, and the limits of its connections.
    ///
    /// `host` and `port` have no effect if the process inherits its
    /// [listening socket](OPERATIONS.md#sockets-that-outlive-the-process).
    pub server: gateway::config::Server,
    /// The listener for `/metrics`, `/livez` and `/readyz`.
    pub admin: admin::Config,
    /// TLS on the public port, for installations without a proxy in front. Both settings are required together. A TLS
    /// connection takes three file descriptors and one copy of each byte.
    ///
    /// The files are read again within a minute of a change, like that of a mounted Kubernetes secret, and at once on
    /// SIGHUP. Open connections keep their certificate. If the new files cannot be used, the old certificate stays in
    /// use and one error is logged per change. A server without TLS ignores SIGHUP unless it runs in a terminal.
    pub tls: tls::Config,
    /// The Redis that joins gateways and publishers to a cluster. Without `url` and `url_file`, the state is in memory,
    /// which only `carillon up` supports.
    ///
    /// The files are checked at the start and read again for each new connection, so that renewed certificates need no
    /// restart. A certificate that is itself in `ca_file`, byte for byte, is trusted too. A self-signed certificate of
    /// `openssl req -x509` can therefore be both the certificate of the server and the `ca_file`. Its name and dates
    /// are still checked. The same applies to `webhooks.ca_file` and to the flag `--ca`.
    ///
    /// In the URL, special characters of user and password are percent-encoded: `/` is `%2F`, `?` is `%3F`, `#` is
    /// `%23`, `@` is `%40`, `:` is `%3A` and `%` is `%25`.
    pub redis: redis::Config,
    /// The delivery of webhooks to the endpoints of all apps. `carillon publisher` and `carillon up` deliver webhooks.
    pub webhooks: webhooks::Config,
    /// The shutdown of a node after SIGINT or SIGTERM.
    pub drain: gateway::config::Drain,
    /// The listener for requests that gateways of a cluster forward to each other. The requests of one fallback session
    /// can reach any gateway, and the gateway that has the session must handle them. `carillon up` with Redis listens
    /// here too. Nothing listens without Redis.
    ///
    /// Only gateways need access to this port. A forwarded request is signed with the secret of its app and is not
    /// encrypted. The clocks of the gateways must agree within a minute.
    pub peers: gateway::config::Peers,
    /// The log on standard error.
    pub log: telemetry::log::Config,
    /// The apps that clients and the HTTP API use, in the order configured. Without any, `carillon up` serves a demo
    /// app.
    // Never empty once loaded.
    pub apps: Vec<App>,
    /// Whether `apps` is the demo app, because none was configured.
    #[serde(skip)]
    pub demo: bool,
    /// Settings and lines of files that have no effect, as texts for the operator.
    #[serde(skip)]
    pub warnings: Vec<String>,
}

/// The default port of a publisher. It differs from that of a gateway, so that both can run on one machine.
const PUBLISHER_PORT: u16 = 8081;

/// The default of `drain.accept` for a node of a cluster. Load balancers take this long to remove a node.
const CLUSTER_ACCEPT: Duration = Duration::from_secs(5);

/// The default activity timeout of Reverb. A proxy in front of Reverb may close connections that are silent for a
/// minute.
const REVERB_ACTIVITY_TIMEOUT: Duration = Duration::from_secs(30);

/// Names and values of variables. A later one overrides an earlier one of the same name.
type Pairs = Vec<(String, String)>;

/// The name of the env file in errors.
const ENV_FILE: &str = "the file of --env-file";

impl Config {
    /// Reads, completes and checks the configuration.
    ///
    /// # Errors
    /// [`ConfigError`], which names each wrong key and its source, one per line. It has the first key that cannot be
    /// read, or all keys that violate a rule.
    pub fn load(settings: &Settings, role: Role) -> Result<Self, ConfigError> {
        Self::load_with(settings, role, &config::environment())
    }

    /// Loads the configuration. `environment`: the variables in which Laravel's are looked up before the env file.
    /// `CARILLON_` variables always come from the process.
    fn load_with(settings: &Settings, role: Role, environment: &[(String, String)]) -> Result<Self, ConfigError> {
        let environment = laravel::without_service_ports(environment);
        let env_file = env_file_of(settings, &environment)?;
        env_file.refuse_broken(config::ENV_PREFIX)?;
        let laravel = Laravel::new(&env_file, &environment);
        let layers = layers_of(settings, &laravel.settings()?, &env_file)?;
        let layers = with_redis(layers, &laravel)?;
        let (layers, completed) = laravel.complete(layers)?;

        let mut config: Self = layers.extract()?;
        let mut mistakes = Vec::new();
        if settings.redis.is_some() {
            // The flag overrides the file that a lower layer names.
            config.redis.url_file = None;
        }
        secrets::read(&mut config, &mut mistakes);
        if let Some(completed) = completed.as_ref().filter(|completed| completed.is_of_reverb()) {
            config.apply_reverb_defaults(completed, &layers);
        }
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
        let keys: Vec<&str> = config.apps.iter().map(|app| app.key.as_str()).collect();
        config.warnings = env_file.warnings();
        config.warnings.extend(laravel.warnings(completed.as_ref(), &keys));
        Ok(config)
    }

    /// Sets the settings that are not configured to the values of Reverb.
    fn apply_reverb_defaults(&mut self, completed: &Completed, layers: &Layers) {
        let Some(app) = self.apps.get_mut(completed.index) else { return };
        let key = |name: &str| format!("apps.{}.limits.{name}", completed.index);
        laravel::apply_limits(&mut app.limits, |name| layers.value(&key(name)).is_some());
        if layers.value("server.activity_timeout").is_none() {
            self.server.activity_timeout = REVERB_ACTIVITY_TIMEOUT;
        }
        if layers.value("server.outbox_bytes").is_none() {
            // JSON escapes can double the size of an event.
            let event = ByteSize::b(app.limits.event_bytes.as_u64().saturating_mul(2));
            self.server.outbox_bytes = self.server.outbox_bytes.max(event);
        }
    }

    /// Reads only `[admin]`. A health check must work despite mistakes in other sections, and without access to
    /// secrets.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub(crate) fn load_admin(settings: &Settings) -> Result<admin::Config, ConfigError> {
        // Other sections are ignored, so unknown keys are allowed.
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Sections {
            admin: admin::Config,
        }
        let environment = config::environment();
        let env_file = env_file_of(settings, &environment)?;
        env_file.refuse_broken(&format!("{}ADMIN_", config::ENV_PREFIX))?;
        Ok(layers_of(settings, &[], &env_file)?.extract::<Sections>()?.admin)
    }

    /// Returns the configuration of the gateway.
    pub fn gateway(&self) -> gateway::Config {
        gateway::Config { server: self.server.clone(), drain: self.drain.clone(), peers: self.peers.clone() }
    }

    fn serve_demo(&mut self, host_given: bool, mistakes: &mut Vec<Mistake>) {
        self.demo = true;
        self.apps.push(App::with_defaults(DEMO_ID, DEMO_KEY, DEMO_SECRET));
        if !host_given {
            self.server.host = DEMO_HOST.into();
        } else if !is_loopback(&self.server.host) {
            let complaint = format!(
                "expected {DEMO_HOST} or another loopback address, not {:?}, while no app is configured: the demo app's \
                 secret is public. `carillon app new` creates an app",
                self.server.host
            );
            mistakes.push(Mistake::new("server.host", complaint));
        }
    }

    /// Checks that a node of a cluster has an app and Redis.
    fn check_cluster_role(&self, mistakes: &mut Vec<Mistake>) {
        if self.apps.is_empty() {
            mistakes.push(Mistake::new("apps", "expected at least one app: `carillon app new` creates one"));
        }
        if !self.redis.is_set() && self.redis.url_file.is_none() {
            let complaint = "expected the URL of the Redis that joins gateways and publishers, like \
                             \"redis://127.0.0.1:6379\"; only `carillon up` runs without Redis";
            mistakes.push(Mistake::new("redis.url", complaint));
        }
    }
}

/// Reads the variables of `--env-file`.
fn env_file_of(settings: &Settings, environment: &[(String, String)]) -> Result<EnvFile, ConfigError> {
    let path = settings.files.env_file.as_deref();
    path.map_or_else(|| Ok(EnvFile::default()), |path| EnvFile::read(path, environment))
}

/// Returns all layers without the app and the Redis of Laravel's variables.
fn layers_of(settings: &Settings, of_laravel: &[laravel::Setting], env_file: &EnvFile) -> Result<Layers, ConfigError> {
    let file = settings.files.config.as_deref();
    if let Some(path) = file {
        // figment reads the file again. Its errors do not name a file that is missing or not text.
        let cannot_read = |source| ConfigError::File { path: format!("{} (--config)", path.display()), source };
        fs::read_to_string(path).map_err(cannot_read)?;
    }
    let mut layers = Layers::of_file(file);
    for setting in of_laravel {
        layers = layers.with(setting.key, setting.value.clone(), &setting.source);
    }
    let environment = config::environment();
    let layers = layers
        .with_variables(&Variables { name: ENV_FILE, pairs: &env_file.variables })
        .with_variables(&Variables { name: config::ENVIRONMENT, pairs: &environment });
    Ok(layers.with_flags(&Flags::new(settings)))
}

/// Adds the Redis of Laravel's variables if Reverb would use it for scaling and no other Redis is configured.
fn with_redis(layers: Layers, laravel: &Laravel<'_>) -> Result<Layers, ConfigError> {
    if layers.value("redis.url").is_some() || layers.value("redis.url_file").is_some() {
        return Ok(layers);
    }
    let Some((url, prefix)) = laravel.redis()? else { return Ok(layers) };
    let layers = layers.with("redis.url", url.reveal(), "the REDIS_ variables that REVERB_SCALING_ENABLED enables");
    Ok(match prefix {
        Some(prefix) if layers.value(prefix.key).is_none() => layers.with(prefix.key, prefix.value, &prefix.source),
        _ => layers,
    })
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

/// Returns the log filter with activity lines on or off. A filter that names the target of these lines is kept.
fn with_activity(level: &str, debug: bool) -> String {
    if debug {
        format!("{level},{ACTIVITY}=debug")
    } else if level.contains(ACTIVITY) {
        level.to_owned()
    } else {
        format!("{level},{ACTIVITY}=off")
    }
}

/// The flags of the command line, in the structure of [`Config`].
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
