//! The arguments of the command line. The doc comments are the help texts.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};
use client::ServerUrl;
use serde_json::value::RawValue;
use shared::app::{AppId, AppKey};
use shared::protocol::SocketId;
use shared::secret::Secret;

/// A WebSocket server for the Pusher Channels protocol.
#[derive(Debug, Parser)]
#[command(name = "carillon", version)]
pub struct Args {
    /// The command to run.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the server, with WebSockets and the HTTP API on one port
    Up(Settings),
    /// Run a gateway, which serves WebSockets; requires Redis and an app
    Gateway(Settings),
    /// Run a publisher, which serves the HTTP API and delivers webhooks; requires Redis and an app
    Publisher(Settings),
    /// Check the configuration, and exit
    CheckConfig(RoleSettings),
    /// Print the resulting configuration with masked secrets
    PrintConfig(RoleSettings),
    /// Check the configuration, Redis, the descriptor limit, the clock, and the public address
    Doctor(Doctor),
    /// Check whether the server on this machine is ready
    Healthcheck(Healthcheck),
    /// Generate the credentials of an app
    #[command(subcommand)]
    App(AppCommand),
    /// List, replay or delete webhooks that could not be delivered
    #[command(subcommand)]
    Webhooks(WebhooksCommand),
    /// Publish one event through the HTTP API
    Trigger(Trigger),
    /// Subscribe to channels and print their messages
    Listen(Listen),
}

/// The configuration of a server.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Settings {
    /// The configuration files.
    #[command(flatten)]
    pub files: Files,
    /// Address to listen on
    #[arg(long, value_name = "ADDRESS")]
    pub host: Option<String>,
    /// Port to listen on; 0 selects any free port
    #[arg(long)]
    pub port: Option<u16>,
    /// Port of /metrics, /livez and /readyz; 0 selects any free port
    #[arg(long, value_name = "PORT")]
    pub admin_port: Option<u16>,
    /// URL of the Redis of the cluster, like `redis://user:password@host:6379/0`
    ///
    /// Other users of the machine can see a password on the command line. Set it in --config or --env-file instead.
    #[arg(long, value_name = "URL", value_parser = |url: &str| Ok::<_, String>(Secret::new(url)))]
    pub redis: Option<Secret>,
    /// Log a line for each connection, subscription and broadcast
    #[arg(long)]
    pub debug: bool,
}

/// The configuration of a role.
#[derive(Clone, Debug, clap::Args)]
pub struct RoleSettings {
    /// The configuration of the server.
    #[command(flatten)]
    pub settings: Settings,
    /// Role whose defaults and rules apply
    #[arg(long, value_enum, default_value = "up")]
    pub role: Role,
}

/// The configuration files.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Files {
    /// Configuration file (TOML)
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// File with CARILLON_ variables and Laravel's REVERB_ or PUSHER_ variables, like Laravel's .env
    #[arg(long, value_name = "FILE")]
    pub env_file: Option<PathBuf>,
}

/// Arguments of `doctor`.
#[derive(Debug, clap::Args)]
pub struct Doctor {
    /// The configuration of the node.
    #[command(flatten)]
    pub settings: Settings,
    /// Role of the node
    #[arg(long, value_enum, default_value = "up")]
    pub role: Role,
    /// Public URL of the running server, like `https://ws.example.org` or `wss://ws.example.org`
    #[arg(long)]
    pub url: Option<ServerUrl>,
    /// PEM file of trusted CA certificates for --url [default: the public CAs]
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
}

/// The parts of the server that a node runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Role {
    /// A gateway and a publisher in one process
    Up,
    /// A gateway, which serves WebSockets
    Gateway,
    /// A publisher, which serves the HTTP API and delivers webhooks
    Publisher,
}

/// Arguments of `healthcheck`.
#[derive(Debug, clap::Args)]
pub struct Healthcheck {
    /// The configuration files of the server.
    #[command(flatten)]
    pub files: Files,
    /// Port of the admin listener [default: the configured one]
    #[arg(long, value_name = "PORT")]
    pub admin_port: Option<u16>,
    /// Check only that the server is live, not that it is ready
    #[arg(long)]
    pub live: bool,
}

/// The commands for apps.
#[derive(Debug, Subcommand)]
pub enum AppCommand {
    /// Print a new id, key and secret, as TOML and as lines for Laravel's .env
    New(AppNew),
}

/// Commands for dead letters: webhooks that could not be delivered.
#[derive(Debug, Subcommand)]
pub enum WebhooksCommand {
    /// Print undelivered webhooks, one per line
    ///
    /// The fields are: time of the last attempt, id, app, endpoint, kind, channel, attempts and last error.
    List(List),
    /// Queue undelivered webhooks again, with the same ids
    Replay(Replay),
    /// Delete undelivered webhooks, and print each of them
    Purge(Purge),
}

/// A selection of dead letters.
#[derive(Debug, clap::Args)]
pub struct Letters {
    /// The configuration files with Redis and the apps.
    #[command(flatten)]
    pub files: Files,
    /// URL of Redis [default: the configured one]
    #[arg(long, value_name = "URL", value_parser = |url: &str| Ok::<_, String>(Secret::new(url)))]
    pub redis: Option<Secret>,
    /// Select undelivered webhooks of this app only
    #[arg(long, value_name = "ID", value_parser = |id: &str| Ok::<_, String>(AppId::from(id)))]
    pub app_id: Option<AppId>,
    /// Select undelivered webhooks with these ids only
    #[arg(value_name = "ID")]
    pub ids: Vec<String>,
}

/// Arguments of `webhooks list`.
#[derive(Debug, clap::Args)]
pub struct List {
    /// The selection. Without ids, it contains all dead letters.
    #[command(flatten)]
    pub letters: Letters,
    /// Select undelivered webhooks of this endpoint only, by its label
    #[arg(long, visible_alias = "to", value_name = "LABEL")]
    pub endpoint: Option<String>,
}

/// Arguments of `webhooks replay`.
#[derive(Debug, clap::Args)]
pub struct Replay {
    /// The selection. Without ids, it contains all dead letters.
    #[command(flatten)]
    pub letters: Letters,
    /// Select undelivered webhooks of this endpoint only, by its label
    #[arg(long, value_name = "LABEL")]
    pub endpoint: Option<String>,
    /// Endpoint to send the webhooks to, by its label [default: the original one]
    #[arg(long, value_name = "LABEL")]
    pub to: Option<String>,
}

/// Arguments of `webhooks purge`.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("selection").required(true).multiple(false).args(["ids", "all"]))]
pub struct Purge {
    /// The selection.
    #[command(flatten)]
    pub letters: Letters,
    /// Select undelivered webhooks of this endpoint only, by its label
    #[arg(long, visible_alias = "to", value_name = "LABEL")]
    pub endpoint: Option<String>,
    /// Select all undelivered webhooks; --app-id and --endpoint still apply
    #[arg(long)]
    pub all: bool,
}

/// Arguments of `app new`.
#[derive(Debug, Default, clap::Args)]
pub struct AppNew {
    /// Id of the app [default: a random number]
    #[arg(long)]
    pub id: Option<String>,
}

/// The server and the app of a client command. The default is the configured app, or the demo app.
#[derive(Debug, clap::Args)]
pub struct Target {
    /// The configuration files with the apps.
    #[command(flatten)]
    pub files: Files,
    /// URL of the server, like `http://127.0.0.1:8080` or `https://ws.example.org` [default: the configured listener]
    #[arg(long)]
    pub url: Option<ServerUrl>,
    /// Id of the app [default: the first configured app, or the demo app]
    #[arg(long, value_name = "ID", value_parser = |id: &str| Ok::<_, String>(AppId::from(id)))]
    pub app_id: Option<AppId>,
    /// Key of the app
    #[arg(long, value_parser = |key: &str| Ok::<_, String>(AppKey::from(key)))]
    pub key: Option<AppKey>,
    /// Secret of the app
    ///
    /// Other users of the machine can see it on the command line. Set it in --config or --env-file instead.
    #[arg(long, value_parser = |secret: &str| Ok::<_, String>(Secret::new(secret)))]
    pub secret: Option<Secret>,
    /// PEM file of trusted CA certificates for --url [default: the public CAs]
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
}

/// Arguments of `trigger`.
#[derive(Debug, clap::Args)]
pub struct Trigger {
    /// The server and the app.
    #[command(flatten)]
    pub target: Target,
    /// Socket id of a connection that does not receive the event
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
    /// The server and the app.
    #[command(flatten)]
    pub target: Target,
    /// User id in presence channels
    #[arg(long, value_name = "ID", default_value = "listener")]
    pub user_id: String,
    /// User info in presence channels
    #[arg(long, value_name = "JSON", value_parser = json)]
    pub user_info: Option<Box<RawValue>>,
    /// Exit after this number of messages
    #[arg(long, value_name = "N")]
    pub count: Option<u64>,
    /// Exit after this time, like 30s
    #[arg(long, value_name = "TIME", value_parser = humantime_serde::re::humantime::parse_duration)]
    pub timeout: Option<Duration>,
    /// Channels to subscribe to
    #[arg(required = true, value_name = "CHANNEL")]
    pub channels: Vec<String>,
}

fn json(text: &str) -> Result<Box<RawValue>, String> {
    serde_json::from_str(text).map_err(|error| format!("not JSON: {error}"))
}
