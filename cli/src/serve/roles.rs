//! Runs `up`, `gateway` and `publisher` until a signal arrives.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use gateway::{BindError, Gateway};
use publisher::Api;
use shared::app::Apps;
use shared::config::{ConfigError, Mistake, environment};
use shared::serve::admin::Admin;
use shared::serve::listener::Inherited;
use shared::serve::telemetry::metrics::Registry;
use shared::serve::tls::Tls;
use shared::serve::{descriptors, telemetry};
use tokio::signal::unix::Signal;
use tokio::sync::oneshot;
use webhooks::Dispatcher;

use crate::args::{Role, Settings};
use crate::config::Config;
use crate::output::{Failure, print};
use crate::serve::backbone::Backbone;
use crate::serve::banner::Banner;
use crate::serve::certificates;
use crate::serve::signals::{Signals, reload_signal};

/// How long the cleanup in Redis may take after all connections are closed: twice the default timeout of a command.
///
/// With the limits of the drain, the process ends within ten seconds after `drain.accept` and `drain.window`.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(4);

/// Runs a role until SIGINT or SIGTERM, then drains it. A second signal ends the process at once.
pub(crate) async fn run(role: Role, settings: &Settings) -> Result<(), Failure> {
    let config = Config::load(settings, role)?;
    let sockets = sockets(role, &config)?;
    telemetry::log::init(&config.log).context("cannot start the log")?;
    for warning in &config.warnings {
        tracing::warn!("configuration: {warning}");
    }
    let descriptors_max = descriptors::raise_limit().map_err(anyhow::Error::new)?;
    // The handlers must exist before the banner appears, because a signal may follow it at once.
    let signals = Signals::catch().context("cannot catch SIGINT and SIGTERM")?;

    let inherited = sockets.names();
    let node = Node::bind(role, &config, sockets, descriptors_max).await?;
    print(&node.banner(role, &config, descriptors_max, inherited)?);
    node.run(signals).await
}

/// Takes the inherited sockets, and checks that the role uses each of them.
fn sockets(role: Role, config: &Config) -> Result<Inherited, Failure> {
    let refuse = |complaint: String| Failure::from(ConfigError::from(Mistake::new("LISTEN_FDS", complaint)));
    let sockets = Inherited::take(&environment()).map_err(|error| refuse(error.to_string()))?;
    let has_peers = role != Role::Publisher && config.redis.is_set();
    if sockets.peers.is_some() && !has_peers {
        return Err(refuse("expected no socket named peers: only gateways of a cluster have this listener".into()));
    }
    if let (Some(public), true) = (&sockets.public, config.demo) {
        let address = public.local_addr().context("cannot read the address of the public socket")?;
        if !address.ip().is_loopback() {
            let complaint = format!(
                "expected a public socket on a loopback address, not {address}, while no app is configured: the demo app's \
                 secret is public. `carillon app new` creates an app"
            );
            return Err(refuse(complaint));
        }
    }
    Ok(sockets)
}

/// The parts of a running process.
struct Node {
    public: Public,
    admin: Admin,
    backbone: Backbone,
    /// The dispatcher of webhooks; `None` for a gateway, because publishers deliver webhooks.
    webhooks: Option<Arc<Dispatcher>>,
    tls: Option<Arc<Tls>>,
    /// The signal that reloads the certificates.
    reload: Option<Signal>,
    /// How long a publisher continues after the signal. A gateway has this setting itself.
    accept: Duration,
}

/// The server on the public port.
enum Public {
    Gateway(Box<Gateway>),
    Publisher(publisher::Server),
}

impl Node {
    async fn bind(role: Role, config: &Config, mut sockets: Inherited, descriptors_max: u64) -> Result<Self, Failure> {
        let apps = Apps::new(config.apps.iter().cloned()).context("apps")?;
        let tls = Tls::new(&config.tls).context("tls")?;
        let reload = reload_signal(tls.is_some()).context("cannot catch SIGHUP")?;
        let registry = telemetry::metrics::registry(env!("CARGO_PKG_VERSION"));
        let mut backbone = Backbone::new(&config.redis, &apps, &registry, role != Role::Publisher)?;
        let api = || Arc::new(Api::new(publisher_deps(config, &apps, &backbone, &registry)));
        let server = &config.server;
        let accept_policy = server.accept_policy(tls.clone());
        let admin_socket = sockets.admin.take();
        let public = match role {
            Role::Publisher => {
                let (host, port) = (&server.host, server.port);
                let server = publisher::Server::bind(
                    (host, port),
                    sockets.public,
                    accept_policy,
                    api(),
                    &registry,
                    descriptors_max,
                );
                Public::Publisher(server.await.with_context(|| cannot_listen("server", host, port))?)
            }
            Role::Up | Role::Gateway => {
                let deps = gateway::Deps {
                    apps: apps.clone(),
                    bus: backbone.bus(),
                    roster: backbone.roster(),
                    directory: backbone.directory(),
                    accept_policy,
                    routes: if role == Role::Up { Some(api()) } else { None },
                    registry: registry.clone(),
                    sockets,
                    descriptors_max,
                };
                Public::Gateway(Box::new(bind_gateway(config, deps).await?))
            }
        };
        let webhooks = match role {
            Role::Gateway => None,
            Role::Up | Role::Publisher => Some(dispatcher(config, &apps, &backbone, &registry)?),
        };
        let health = match &public {
            Public::Gateway(gateway) => {
                backbone.deliver_to(gateway.envelope_sink());
                backbone.health(gateway.health())
            }
            Public::Publisher(server) => backbone.health(server.health()),
        };
        let admin = Admin::bind(&config.admin, registry, health, admin_socket)
            .await
            .with_context(|| cannot_listen("admin", &config.admin.host, config.admin.port))?;
        Ok(Self { public, admin, backbone, webhooks, tls, reload, accept: config.drain.accept })
    }

    fn banner(
        &self,
        role: Role,
        config: &Config,
        descriptors_max: u64,
        inherited: Vec<&'static str>,
    ) -> Result<String, Failure> {
        let redis = if config.redis.is_set() { Some(config.redis.address().context("redis")?) } else { None };
        let banner = Banner {
            role,
            config,
            public: self.public.address().context("cannot read the address of the public listener")?,
            admin: self.admin.address().context("cannot read the address of the admin listener")?,
            redis,
            peers: self.public.peers_address(),
            inherited,
            connections_max: self.public.connections_max(),
            descriptors_max,
        };
        Ok(banner.text())
    }

    async fn run(self, signals: Signals) -> Result<(), Failure> {
        let Self { public, admin, backbone, webhooks, tls, reload, accept } = self;
        let (shutdown_sender, shutdown_signal) = oneshot::channel();
        let shutdown = async {
            // The sender is dropped only with this function.
            let _ = shutdown_signal.await;
            if let Some(webhooks) = &webhooks {
                webhooks.flush().await;
            }
        };
        let serve = async {
            match public {
                Public::Gateway(gateway) => gateway.run(shutdown).await.context("the gateway failed")?,
                Public::Publisher(server) => server.run(shutdown, accept).await,
            }
            let webhooks_drain = async {
                if let Some(webhooks) = &webhooks {
                    webhooks.drain().await;
                }
            };
            let cleanup = async { tokio::join!(backbone.release(), webhooks_drain) };
            if tokio::time::timeout(SHUTDOWN_TIMEOUT, cleanup).await.is_err() {
                tracing::warn!("shut down before Redis confirmed the cleanup; other nodes will remove this node");
            }
            Ok(())
        };
        tokio::select! {
            served = serve => served,
            never = signals.run(shutdown_sender) => match never {},
            never = backbone.run() => match never {},
            never = send(webhooks.as_deref()) => match never {},
            never = certificates::watch(tls, reload, certificates::CHECK_INTERVAL) => match never {},
            () = admin.run() => Err(anyhow::anyhow!("the admin listener stopped").into()),
        }
    }
}

impl Public {
    fn address(&self) -> std::io::Result<SocketAddr> {
        match self {
            Self::Gateway(gateway) => Ok(gateway.address()),
            Self::Publisher(server) => server.address(),
        }
    }

    /// Returns the address for other gateways. `None` for a publisher, and for a process without a cluster.
    fn peers_address(&self) -> Option<SocketAddr> {
        match self {
            Self::Gateway(gateway) => gateway.peers_address(),
            Self::Publisher(_) => None,
        }
    }

    /// Returns the maximum number of connections. `None` for a publisher.
    fn connections_max(&self) -> Option<usize> {
        match self {
            Self::Gateway(gateway) => Some(gateway.connections_max()),
            Self::Publisher(_) => None,
        }
    }
}

fn publisher_deps(config: &Config, apps: &Apps, backbone: &Backbone, registry: &Registry) -> publisher::Deps {
    publisher::Deps {
        apps: apps.clone(),
        bus: backbone.bus(),
        roster: backbone.roster(),
        registry: registry.clone(),
        path_prefix: config.server.path_prefix.clone(),
    }
}

fn dispatcher(
    config: &Config,
    apps: &Apps,
    backbone: &Backbone,
    registry: &Registry,
) -> anyhow::Result<Arc<Dispatcher>> {
    let (queues, queues_survive) = backbone.queues();
    let deps = webhooks::Deps { apps: apps.clone(), queues, registry: registry.clone(), queues_survive };
    Ok(Dispatcher::new(&config.webhooks, deps)?)
}

async fn send(webhooks: Option<&Dispatcher>) -> Infallible {
    match webhooks {
        Some(webhooks) => webhooks.run().await,
        None => std::future::pending().await,
    }
}

async fn bind_gateway(config: &Config, deps: gateway::Deps) -> anyhow::Result<Gateway> {
    let Config { server, peers, .. } = config;
    Gateway::bind(config.gateway(), deps).await.map_err(|error| match error {
        BindError::Public(error) => {
            anyhow::Error::new(error).context(cannot_listen("server", &server.host, server.port))
        }
        BindError::Descriptors(error) => anyhow::Error::new(error),
        BindError::Peers(error) => anyhow::Error::new(error).context(cannot_listen("peers", &peers.host, peers.port)),
    })
}

fn cannot_listen(section: &str, host: &str, port: u16) -> String {
    format!("cannot listen on {host} port {port} ({section}.host, {section}.port)")
}
