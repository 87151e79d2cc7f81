//! The whole configuration: sections that belong to the crates that use them, composed, layered and checked once.
//!
//! Order, weakest first: defaults, file, Laravel's variables, `CARILLON_` variables of the env file, those of the
//! process, flags.

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

/// Id of the app that is served when none is configured.
pub const DEMO_ID: &str = "app-id";
/// Key of the demo app.
pub const DEMO_KEY: &str = "app-key";
/// Secret of the demo app, known to everyone.
pub const DEMO_SECRET: &str = "app-secret";

/// Where the demo app is served: anyone who reaches it may use it.
const DEMO_HOST: &str = "127.0.0.1";

/// The target of the lines that `--debug` shows.
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
    /// TLS on the public port, for installations without a proxy in front. Both settings are required together. A TLS connection
    /// takes three file descriptors and one copy of each byte.
    ///
    /// The files are read again within a minute of a change, like that of a mounted Kubernetes secret, and at once on SIGHUP. Open
    /// connections keep their certificate. If the new files cannot be used, the old certificate stays in use and one error is
    /// logged per change. A server without TLS ignores SIGHUP unless it runs in a terminal.
    pub tls: tls::Config,
    /// The Redis that joins gateways and publishers to a cluster. Without `url` and `url_file`, the state is in memory, which only
    /// `carillon up` supports.
    ///
    /// The files are checked at the start and read again for each new connection, so that renewed certificates need no restart. A
    /// certificate that is itself in `ca_file`, byte for byte, is trusted too. A self-signed certificate of `openssl req -x509` can
    /// therefore be both the certificate of the server and the `ca_file`. Its name and dates are still checked. The same applies to
    /// `webhooks.ca_file` and to the flag `--ca`.
    ///
    /// In the URL, special characters of user and password are percent-encoded: `/` is `%2F`, `?` is `%3F`, `#` is `%23`, `@` is
    /// `%40`, `:` is `%3A` and `%` is `%25`.
    pub redis: redis::Config,
    /// The delivery of webhooks to the endpoints of all apps. `carillon publisher` and `carillon up` deliver webhooks.
    pub webhooks: webhooks::Config,
    /// The shutdown of a node after SIGINT or SIGTERM.
    pub drain: gateway::config::Drain,
    /// The listener for requests that gateways of a cluster forward to each other. The requests of one fallback session can reach any
    /// gateway, and the gateway that has the session must handle them. `carillon up` with Redis listens here too. Nothing listens
    /// without Redis.
    ///
    /// Only gateways need access to this port. A forwarded request is signed with the secret of its app and is not encrypted. The
    /// clocks of the gateways must agree within a minute.
    pub peers: gateway::config::Peers,
    /// The log on standard error.
    pub log: telemetry::log::Config,
    /// The apps that clients and the HTTP API use, in the order configured. Without any, `carillon up` serves a demo app.
    // Never empty once loaded.
    pub apps: Vec<App>,
    /// Whether `apps` is the demo app, because none was configured.
    #[serde(skip)]
    pub demo: bool,
    /// Settings and lines of files that have no effect, as texts for the operator.
    #[serde(skip)]
    pub warnings: Vec<String>,
}

/// Where a publisher listens unless told otherwise: beside a gateway on the same machine.
const PUBLISHER_PORT: u16 = 8081;

/// How long a node of a cluster accepts connections after the signal, unless told otherwise: what balancers take to notice.
/// One process has nobody to go on in its place.
const CLUSTER_ACCEPT: Duration = Duration::from_secs(5);

/// The activity timeout of Reverb by default. Proxies in front of Reverb may close a connection that is silent for a minute.
const REVERB_ACTIVITY_TIMEOUT: Duration = Duration::from_secs(30);

/// Variables, by name; later ones override earlier ones of the same name.
type Pairs = Vec<(String, String)>;

/// What errors call the layer of the env file.
const ENV_FILE: &str = "the file of --env-file";

impl Config {
    /// Reads, completes and checks the configuration.
    ///
    /// # Errors
    /// [`ConfigError`], which names each key that is wrong and where it stands, one per line: the first one that cannot be
    /// read, or else all that break a rule.
    pub fn load(settings: &Settings, role: Role) -> Result<Self, ConfigError> {
        Self::load_with(settings, role, &config::environment())
    }

    /// `environment`: where Laravel's variables are looked up before the env file. `CARILLON_` variables are read from the
    /// process itself.
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
            // The flag stands above a file that a weaker layer names.
            config.redis.url_file = None;
        }
        secrets::read(&mut config, &mut mistakes);
        if let Some(completed) = completed.as_ref().filter(|completed| completed.is_of_reverb()) {
            config.do_as_reverb(completed, &layers);
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

    /// Gives what is not configured the values that Reverb has.
    fn do_as_reverb(&mut self, completed: &Completed, layers: &Layers) {
        let Some(app) = self.apps.get_mut(completed.index) else { return };
        let key = |name: &str| format!("apps.{}.limits.{name}", completed.index);
        laravel::apply_limits(&mut app.limits, |name| layers.value(&key(name)).is_some());
        if layers.value("server.activity_timeout").is_none() {
            self.server.activity_timeout = REVERB_ACTIVITY_TIMEOUT;
        }
        if layers.value("server.outbox_bytes").is_none() {
            // JSON's escapes may double an event.
            let event = ByteSize::b(app.limits.event_bytes.as_u64().saturating_mul(2));
            self.server.outbox_bytes = self.server.outbox_bytes.max(event);
        }
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
        let environment = config::environment();
        let env_file = env_file_of(settings, &environment)?;
        env_file.refuse_broken(&format!("{}ADMIN_", config::ENV_PREFIX))?;
        Ok(layers_of(settings, &[], &env_file)?.extract::<Sections>()?.admin)
    }

    /// What the gateway takes of it.
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
}

/// The variables of `--env-file`.
fn env_file_of(settings: &Settings, environment: &[(String, String)]) -> Result<EnvFile, ConfigError> {
    let path = settings.files.env_file.as_deref();
    path.map_or_else(|| Ok(EnvFile::default()), |path| EnvFile::read(path, environment))
}

/// Everything that was configured, but for the app and the Redis that Laravel's variables name.
fn layers_of(settings: &Settings, of_laravel: &[laravel::Setting], env_file: &EnvFile) -> Result<Layers, ConfigError> {
    let file = settings.files.config.as_deref();
    if let Some(path) = file {
        // figment, which reads it again, does not name a file that is missing or not text.
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

/// Takes the Redis of Laravel's variables, when Reverb would scale with it and no other one is configured.
fn with_redis(layers: Layers, laravel: &Laravel<'_>) -> Result<Layers, ConfigError> {
    if layers.value("redis.url").is_some() || layers.value("redis.url_file").is_some() {
        return Ok(layers);
    }
    let Some((url, prefix)) = laravel.redis()? else { return Ok(layers) };
    let layers = layers.with("redis.url", url.reveal(), "the REDIS_ variables that REVERB_SCALING_ENABLED asks for");
    Ok(match prefix {
        Some(prefix) if layers.value(prefix.key).is_none() => layers.with(prefix.key, prefix.value, &prefix.source),
        _ => layers,
    })
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
