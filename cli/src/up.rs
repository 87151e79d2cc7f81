//! `carillon up`: gateway and publisher in one process, state in memory.

use std::convert::Infallible;
use std::sync::Arc;

use anyhow::Context;
use gateway::{Deps, Gateway};
use shared::admin::Admin;
use shared::app::Apps;
use shared::bus::MemoryBus;
use shared::bus::memory::SWEEP_INTERVAL;
use shared::descriptors;
use shared::roster::MemoryRoster;
use shared::telemetry;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use crate::args::Settings;
use crate::banner::Banner;
use crate::config::Config;
use crate::{Failure, say};

/// What a shell reports for a command that SIGINT ended.
const INTERRUPTED: i32 = 130;

/// Runs the server until SIGINT or SIGTERM, then drains it. A second signal ends the process at once.
pub(crate) async fn run(settings: &Settings) -> Result<(), Failure> {
    let config = Config::load(settings)?;
    telemetry::log::init(&config.log).context("cannot set up the log")?;
    let descriptors_max = descriptors::raise_limit().map_err(anyhow::Error::new)?;
    // Before anything says that the server is up: whoever waits for that may send a signal next.
    let signals = Signals::catch().context("cannot catch SIGINT and SIGTERM")?;

    let node = Node::bind(&config, descriptors_max).await?;
    say(&node.banner(&config)?);
    node.run(signals).await
}

/// Everything that `up` runs.
struct Node {
    gateway: Gateway,
    admin: Admin,
    roster: Arc<MemoryRoster>,
    descriptors_max: u64,
}

impl Node {
    async fn bind(config: &Config, descriptors_max: u64) -> Result<Self, Failure> {
        let apps = Apps::new(config.apps.iter().cloned()).context("apps")?;
        let registry = telemetry::metrics::registry(env!("CARGO_PKG_VERSION"));
        let bus = MemoryBus::new();
        let roster = MemoryRoster::new(bus.clone());
        let api = publisher::Api::new(publisher::Deps {
            apps: apps.clone(),
            bus: bus.clone(),
            roster: roster.clone(),
            registry: registry.clone(),
            path_prefix: config.server.path_prefix.clone(),
        });
        let deps = Deps {
            apps,
            bus: bus.clone(),
            roster: roster.clone(),
            routes: Some(Arc::new(api)),
            registry: registry.clone(),
            descriptors_max,
        };
        let gateway = Gateway::bind(config.gateway(), deps)
            .await
            .with_context(|| cannot_listen("server", &config.server.host, config.server.port))?;
        bus.listen(gateway.listener());
        let admin = Admin::bind(&config.admin, registry, gateway.health())
            .await
            .with_context(|| cannot_listen("admin", &config.admin.host, config.admin.port))?;
        Ok(Self { gateway, admin, roster, descriptors_max })
    }

    fn banner(&self, config: &Config) -> Result<String, Failure> {
        let banner = Banner {
            config,
            public: self.gateway.address(),
            admin: self.admin.address().context("cannot learn the admin listener's address")?,
            connections_max: self.gateway.connections_max(),
            descriptors_max: self.descriptors_max,
        };
        Ok(banner.text())
    }

    async fn run(self, signals: Signals) -> Result<(), Failure> {
        let (leave, leaving) = oneshot::channel();
        let shutdown = async {
            // The other end goes only with this whole function.
            let _ = leaving.await;
        };
        tokio::select! {
            served = self.gateway.run(shutdown) => Ok(served.context("the gateway failed")?),
            never = signals.obey(leave) => match never {},
            never = sweep(&self.roster) => match never {},
            () = self.admin.run() => Err(anyhow::anyhow!("the admin listener ended").into()),
        }
    }
}

fn cannot_listen(section: &str, host: &str, port: u16) -> String {
    format!("cannot listen on {host} port {port} ({section}.host, {section}.port)")
}

async fn sweep(roster: &MemoryRoster) -> Infallible {
    let mut interval = tokio::time::interval(SWEEP_INTERVAL);
    loop {
        interval.tick().await;
        roster.sweep();
    }
}

/// The two signals that end a server.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// From here on neither signal ends the process by itself.
    fn catch() -> std::io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// The first signal sends `leave`, the second ends the process.
    async fn obey(mut self, leave: oneshot::Sender<()>) -> Infallible {
        self.next().await;
        tracing::info!("leaving: closing connections; a second signal ends at once");
        let _ = leave.send(());
        self.next().await;
        std::process::exit(INTERRUPTED)
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
