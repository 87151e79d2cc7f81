//! The subject of a scenario: a server of the protocol, or the floor.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Result, anyhow, bail};
use clap::Args;
use serde_json::json;
use shared::app::App;

use crate::floor::{Floor, FloorPublishing};
use crate::metrics;
use crate::plan::Plan;
use crate::publisher::backlog::Backlog;
use crate::publisher::{Published, Publishing, Sending};

/// The app of all connections and requests.
#[derive(Args, Clone, Debug, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Credentials {
    /// Id of the app
    #[arg(long, default_value = "app-id")]
    pub(crate) app_id: String,
    /// Key of the app
    #[arg(long, default_value = "app-key")]
    pub(crate) app_key: String,
    /// Secret of the app
    #[arg(long, default_value = "app-secret")]
    pub(crate) app_secret: String,
}

impl Default for Credentials {
    fn default() -> Self {
        Self { app_id: "app-id".into(), app_key: "app-key".into(), app_secret: "app-secret".into() }
    }
}

/// The addresses and processes of a running server.
#[derive(Args, Clone, Debug)]
pub(crate) struct Target {
    /// Address for WebSockets, like ws=127.0.0.1:8080; with several, the sockets use them in turn
    #[arg(long = "target", value_name = "ws=ADDRESS", required = true, value_parser = ws_address)]
    pub(crate) ws: Vec<SocketAddr>,
    /// Address of the HTTP API; default: the targets
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) api: Vec<SocketAddr>,
    /// Process ids of the server and of Redis, to read CPU time and memory
    #[arg(long = "pid", value_delimiter = ',')]
    pub(crate) pids: Vec<u32>,
    /// Address of Carillon's metrics, for figures that only the server can count
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) metrics: Vec<SocketAddr>,
    #[command(flatten)]
    pub(crate) credentials: Credentials,
}

/// The server or the floor that a scenario runs against.
pub(crate) struct Subject {
    pub(crate) name: String,
    pub(crate) ws: Vec<SocketAddr>,
    pub(crate) pids: Vec<u32>,
    pub(crate) app: App,
    metrics: Vec<SocketAddr>,
    source: EventSource,
}

/// The publisher of the events.
enum EventSource {
    /// This program, over the HTTP API.
    Api(Vec<SocketAddr>),
    /// The floor itself.
    Floor(Floor),
}

/// A plan in progress.
pub(crate) enum Running {
    Api(Publishing),
    Floor(FloorPublishing),
}

impl Subject {
    pub(crate) fn server(name: impl Into<String>, target: Target) -> Result<Self> {
        let Target { ws, api, pids, metrics, credentials } = target;
        let api = if api.is_empty() { ws.clone() } else { api };
        if let Some(address) = ws.iter().chain(&api).chain(&metrics).find(|address| !address.ip().is_loopback()) {
            bail!("{address} is not a loopback address; the load generator connects only to loopback");
        }
        Ok(Self { name: name.into(), app: credentials.app()?, ws, pids, metrics, source: EventSource::Api(api) })
    }

    /// Starts a floor.
    pub(crate) fn floor() -> Result<Self> {
        let floor = Floor::start()?;
        Ok(Self {
            name: "floor".into(),
            ws: vec![floor.address],
            pids: vec![floor.pid()],
            app: Credentials::default().app()?,
            metrics: Vec::new(),
            source: EventSource::Floor(floor),
        })
    }

    /// Returns the sum of a counter over all nodes and labels; `None` if the subject has no metrics addresses.
    pub(crate) fn counted(&self, name: &str) -> Result<Option<f64>> {
        let mut sum = None;
        for address in &self.metrics {
            *sum.get_or_insert(0.0) += metrics::counter(*address, name)?;
        }
        Ok(sum)
    }

    /// Starts a plan.
    pub(crate) fn publish(&self, plan: Plan, sending: Sending, backlog: &Arc<Backlog>) -> Result<Running> {
        match &self.source {
            EventSource::Api(api) => Ok(Running::Api(Publishing::start(api, &self.app, plan, sending, backlog))),
            EventSource::Floor(floor) => Ok(Running::Floor(floor.publish(&plan)?)),
        }
    }
}

impl Running {
    /// Waits until all events are sent.
    pub(crate) fn join(self) -> Result<Published> {
        match self {
            Self::Api(publishing) => publishing.join(),
            Self::Floor(publishing) => publishing.join().map(|()| Published::nothing()),
        }
    }
}

impl Credentials {
    pub(crate) fn app(&self) -> Result<App> {
        let Self { app_id, app_key, app_secret } = self;
        serde_json::from_value(json!({ "id": app_id, "key": app_key, "secret": app_secret }))
            .map_err(|error| anyhow!("invalid app: {error}"))
    }
}

fn ws_address(text: &str) -> Result<SocketAddr, String> {
    let address = text.strip_prefix("ws=").unwrap_or(text);
    address.parse().map_err(|error| format!("{error}: expected ws=ADDRESS:PORT"))
}
