//! A server to measure, as a file describes it.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::subject::Credentials;

/// The file that names the servers.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    servers: Vec<Server>,
}

/// A server to measure. Either it is started, or it runs already and `ws` says where.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Server {
    pub(crate) name: String,
    /// Servers of one group stand in one table; the first of it is what the others are compared to.
    pub(crate) group: Group,
    /// Program that starts it and stays until it is told to end; relative to the file.
    #[serde(default)]
    pub(crate) start: Option<PathBuf>,
    /// How many addresses take WebSockets.
    #[serde(default = "one")]
    pub(crate) gateways: usize,
    /// Whether the HTTP API has an address of its own; otherwise every gateway serves it.
    #[serde(default)]
    pub(crate) separate_api: bool,
    /// Whether its gateways have metrics of Carillon's names.
    #[serde(default)]
    pub(crate) metrics: bool,
    /// Command that prints its version.
    #[serde(default)]
    pub(crate) version: Vec<String>,
    /// Where a running server takes WebSockets.
    #[serde(default)]
    pub(crate) ws: Vec<SocketAddr>,
    /// Where a running server takes events; the same as `ws` if it is not said.
    #[serde(default)]
    pub(crate) api: Vec<SocketAddr>,
    /// Processes of a running server.
    #[serde(default)]
    pub(crate) pids: Vec<u32>,
    #[serde(default)]
    pub(crate) app: Credentials,
}

/// What can be compared with each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Group {
    OneNode,
    Cluster,
}

impl Server {
    /// Reads the servers of a file; with names, only those, in their order.
    pub(crate) fn read(path: &Path, names: &[String]) -> Result<Vec<Self>> {
        let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        let file: File = toml::from_str(&text).with_context(|| format!("reading {}", path.display()))?;
        let mut chosen = if names.is_empty() { file.servers.clone() } else { Vec::new() };
        for name in names {
            let server = file.servers.iter().find(|server| server.name == *name);
            chosen.push(server.with_context(|| format!("{} names no server {name}", path.display()))?.clone());
        }
        let folder = path.parent().unwrap_or(Path::new("."));
        for server in &mut chosen {
            ensure!(server.start.is_some() || !server.ws.is_empty(), "{} has neither start nor ws", server.name);
            if let Some(start) = &mut server.start {
                let path = folder.join(&*start);
                *start = path.canonicalize().with_context(|| format!("finding {}", path.display()))?;
            }
        }
        Ok(chosen)
    }

    /// What it says of its version, or why it says nothing.
    pub(crate) fn version(&self) -> String {
        let Some((program, arguments)) = self.version.split_first() else { return "unknown".into() };
        match Command::new(program).args(arguments).output() {
            Ok(output) => String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or("unknown").to_owned(),
            Err(error) => format!("unknown: {error}"),
        }
    }
}

impl Group {
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::OneNode => "One node",
            Self::Cluster => "Two nodes and Redis",
        }
    }
}

fn one() -> usize {
    1
}
