//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};
use client::ServerUrl;
use serde_json::value::RawValue;
use shared::app::{AppId, AppKey};
use shared::protocol::SocketId;
use shared::secret::Secret;

/// A server for the Pusher Channels protocol.
#[derive(Debug, Parser)]
#[command(name = "carillon", version)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the server: WebSockets and the HTTP API on one port
    Up(Settings),
    /// Run a node that holds WebSockets; needs Redis and at least one app
    Gateway(Settings),
    /// Run a node that serves the signed HTTP API; needs Redis and at least one app
    Publisher(Settings),
    /// Check the configuration
    CheckConfig(RoleSettings),
    /// Print the configuration as it would be used, secrets masked
    PrintConfig(RoleSettings),
    /// Check what a node needs: configuration, Redis, descriptors, clock, and its public address
    Doctor(Doctor),
    /// Ask the server on this machine whether it is ready
    Healthcheck(Healthcheck),
    /// Make credentials
    #[command(subcommand)]
    App(AppCommand),
    /// List, replay or delete webhooks that could not be delivered
    #[command(subcommand)]
    Webhooks(WebhooksCommand),
    /// Publish one event through the signed HTTP API
    Trigger(Trigger),
    /// Subscribe to channels and print what arrives
    Listen(Listen),
}

/// What the server is configured with.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Settings {
    /// Where the rest stands.
    #[command(flatten)]
    pub files: Files,
    /// Address to listen on
    #[arg(long, value_name = "ADDRESS")]
    pub host: Option<String>,
    /// Port to listen on; 0 takes any free one
    #[arg(long)]
    pub port: Option<u16>,
    /// Port of /metrics, /livez and /readyz; 0 takes any free one
    #[arg(long, value_name = "PORT")]
    pub admin_port: Option<u16>,
    /// Redis that joins this node with others, as redis://user:password@host:6379/0; a password shows in the list of
    /// processes, which --config and --env-file avoid
    #[arg(long, value_name = "URL", value_parser = |url: &str| Ok::<_, String>(Secret::new(url)))]
    pub redis: Option<Secret>,
    /// Log a line for each connection, subscription and broadcast
    #[arg(long)]
    pub debug: bool,
}

/// The configuration of a role.
#[derive(Clone, Debug, clap::Args)]
pub struct RoleSettings {
    /// The configuration.
    #[command(flatten)]
    pub settings: Settings,
    /// Role that it is for: each has its own defaults and its own rules
    #[arg(long, value_enum, default_value = "up")]
    pub role: Role,
}

/// Files that configuration is read from.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Files {
    /// Configuration file (TOML)
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Env file to take CARILLON_ variables and Laravel's REVERB_ or PUSHER_ variables from
    #[arg(long, value_name = "FILE")]
    pub env_file: Option<PathBuf>,
}

/// Arguments of `doctor`.
#[derive(Debug, clap::Args)]
pub struct Doctor {
    /// What the node would be configured with.
    #[command(flatten)]
    pub settings: Settings,
    /// What the node is to be
    #[arg(long, value_enum, default_value = "up")]
    pub role: Role,
    /// Public address at which clients reach it, as `https://ws.example.org` or `wss://ws.example.org`; it must be running
    #[arg(long)]
    pub url: Option<ServerUrl>,
    /// Trusted CA certificates (PEM) for that address; default: the public CAs
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
}

/// The part of a cluster that a node plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Role {
    /// Gateway and publisher in one process
    Up,
    /// WebSockets
    Gateway,
    /// The signed HTTP API
    Publisher,
}

/// Arguments of `healthcheck`.
#[derive(Debug, clap::Args)]
pub struct Healthcheck {
    /// Where the server is configured.
    #[command(flatten)]
    pub files: Files,
    /// Port of its admin listener; default: the configured one
    #[arg(long, value_name = "PORT")]
    pub admin_port: Option<u16>,
    /// Ask only whether it lives, not whether it takes connections
    #[arg(long)]
    pub live: bool,
}

/// What to do about apps.
#[derive(Debug, Subcommand)]
pub enum AppCommand {
    /// Print a fresh id, key and secret, as configuration and as lines for Laravel's .env
    New(AppNew),
}

/// Commands for dead letters: webhooks that could not be delivered.
#[derive(Debug, Subcommand)]
pub enum WebhooksCommand {
    /// Print them, one per line: when given up, id, app, endpoint, kind, channel, tries, last error
    List(List),
    /// Send them again, under the same ids
    Replay(Replay),
    /// Delete them, and print what was deleted
    Purge(Purge),
}

/// A selection of dead letters.
#[derive(Debug, clap::Args)]
pub struct Letters {
    /// Where Redis and the apps are configured.
    #[command(flatten)]
    pub files: Files,
    /// Redis in which they are kept; default: the configured one
    #[arg(long, value_name = "URL", value_parser = |url: &str| Ok::<_, String>(Secret::new(url)))]
    pub redis: Option<Secret>,
    /// Those of this app only
    #[arg(long, value_name = "ID", value_parser = |id: &str| Ok::<_, String>(AppId::from(id)))]
    pub app_id: Option<AppId>,
    /// Ids of events
    #[arg(value_name = "ID")]
    pub ids: Vec<String>,
}

/// Arguments of `webhooks list`.
#[derive(Debug, clap::Args)]
pub struct List {
    /// Which letters; without ids all.
    #[command(flatten)]
    pub letters: Letters,
    /// Select undelivered webhooks of this endpoint only, by its label
    #[arg(long, visible_alias = "to", value_name = "LABEL")]
    pub endpoint: Option<String>,
}

/// Arguments of `webhooks replay`.
#[derive(Debug, clap::Args)]
pub struct Replay {
    /// Which letters; without ids all.
    #[command(flatten)]
    pub letters: Letters,
    /// Select undelivered webhooks of this endpoint only, by its label
    #[arg(long, value_name = "LABEL")]
    pub endpoint: Option<String>,
    /// Endpoint to send them to, by its label; default: the one that each was for
    #[arg(long, value_name = "LABEL")]
    pub to: Option<String>,
}

/// Arguments of `webhooks purge`.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("selection").required(true).multiple(false).args(["ids", "all"]))]
pub struct Purge {
    /// Which letters.
    #[command(flatten)]
    pub letters: Letters,
    /// Select undelivered webhooks of this endpoint only, by its label
    #[arg(long, visible_alias = "to", value_name = "LABEL")]
    pub endpoint: Option<String>,
    /// All of them, as far as --app-id and --endpoint do not narrow it down
    #[arg(long)]
    pub all: bool,
}

/// Arguments of `app new`.
#[derive(Debug, Default, clap::Args)]
pub struct AppNew {
    /// Id of the app instead of a random one
    #[arg(long)]
    pub id: Option<String>,
}

/// Which server to talk to, and as which app: the configured one, or the demo app.
#[derive(Debug, clap::Args)]
pub struct Target {
    /// Where the apps are configured.
    #[command(flatten)]
    pub files: Files,
    /// Server, as `http://127.0.0.1:8080` or `https://ws.example.org`; default: where the configuration says it listens
    #[arg(long)]
    pub url: Option<ServerUrl>,
    /// Id of the app; default: the first configured one, or the demo app
    #[arg(long, value_name = "ID", value_parser = |id: &str| Ok::<_, String>(AppId::from(id)))]
    pub app_id: Option<AppId>,
    /// Key of the app
    #[arg(long, value_parser = |key: &str| Ok::<_, String>(AppKey::from(key)))]
    pub key: Option<AppKey>,
    /// Secret of the app; shows in the list of processes, which --env-file and --config avoid
    #[arg(long, value_parser = |secret: &str| Ok::<_, String>(Secret::new(secret)))]
    pub secret: Option<Secret>,
    /// Trusted CA certificates (PEM) for an https server; default: the public CAs
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
}

/// Arguments of `trigger`.
#[derive(Debug, clap::Args)]
pub struct Trigger {
    /// Who sends, and to whom.
    #[command(flatten)]
    pub target: Target,
    /// Connection that must not get the event
    #[arg(long, value_name = "DIGITS.DIGITS")]
    pub socket_id: Option<SocketId>,
    /// Channel to publish on
    pub channel: String,
    /// Name of the event
    pub event: String,
    /// Data of the event, usually JSON
    pub data: String,
}

/// Arguments of `listen`.
#[derive(Debug, clap::Args)]
pub struct Listen {
    /// Who listens, and to whom.
    #[command(flatten)]
    pub target: Target,
    /// User to be in presence channels
    #[arg(long, value_name = "ID", default_value = "listener")]
    pub user_id: String,
    /// What other members see of that user
    #[arg(long, value_name = "JSON", value_parser = json)]
    pub user_info: Option<Box<RawValue>>,
    /// Exit after this many lines
    #[arg(long, value_name = "N")]
    pub count: Option<u64>,
    /// Give up after this time, as 30s
    #[arg(long, value_name = "TIME", value_parser = humantime_serde::re::humantime::parse_duration)]
    pub timeout: Option<Duration>,
    /// Channels to subscribe to
    #[arg(required = true, value_name = "CHANNEL")]
    pub channels: Vec<String>,
}

fn json(text: &str) -> Result<Box<RawValue>, String> {
    serde_json::from_str(text).map_err(|error| format!("not JSON: {error}"))
}
