//! The servers that a configuration file lists.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::subject::Credentials;

/// The configuration file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    servers: Vec<Server>,
}

/// A server to measure: one that `start` starts, or one that is already running at the addresses in `ws`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Server {
    pub(crate) name: String,
    /// The servers of one group share a table, and the others are compared to its first server.
    pub(crate) group: Group,
    /// The start script, relative to the file. It runs until SIGTERM.
    #[serde(default)]
    pub(crate) start: Option<PathBuf>,
    /// The number of addresses that accept WebSockets.
    #[serde(default = "one")]
    pub(crate) gateways: usize,
    /// Whether the HTTP API has a separate address. Otherwise every gateway serves it.
    #[serde(default)]
    pub(crate) separate_api: bool,
    /// Whether its gateways serve Carillon's metrics.
    #[serde(default)]
    pub(crate) metrics: bool,
    /// The command that prints its version.
    #[serde(default)]
    pub(crate) version: Vec<String>,
    /// The addresses where a running server accepts WebSockets.
    #[serde(default)]
    pub(crate) ws: Vec<SocketAddr>,
    /// The addresses of a running server's HTTP API; by default those of `ws`.
    #[serde(default)]
    pub(crate) api: Vec<SocketAddr>,
    /// The processes of a running server.
    #[serde(default)]
    pub(crate) pids: Vec<u32>,
    #[serde(default)]
    pub(crate) app: Credentials,
}

/// A group of servers that are compared with each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Group {
    OneNode,
    Cluster,
}

impl Server {
    /// Reads the servers of a file. With `names`, returns only those, in that order.
    pub(crate) fn read(path: &Path, names: &[String]) -> Result<Vec<Self>> {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let file: File = toml::from_str(&text).with_context(|| format!("cannot parse {}", path.display()))?;
        let mut chosen = if names.is_empty() { file.servers.clone() } else { Vec::new() };
        for name in names {
            let server = file.servers.iter().find(|server| server.name == *name);
            chosen.push(server.with_context(|| format!("{} has no server {name}", path.display()))?.clone());
        }
        let folder = path.parent().unwrap_or(Path::new("."));
        for server in &mut chosen {
            ensure!(server.start.is_some() || !server.ws.is_empty(), "{} has neither start nor ws", server.name);
            if let Some(start) = &mut server.start {
                let path = folder.join(&*start);
                *start = path.canonicalize().with_context(|| format!("cannot find {}", path.display()))?;
            }
        }
        Ok(chosen)
    }

    /// Returns the version that the server's command prints, or the error of the command.
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
