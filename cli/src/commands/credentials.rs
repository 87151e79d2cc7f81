//! The server, the app and the trusted certificates of `trigger`, `listen` and `doctor`.

use std::path::Path;

use anyhow::anyhow;
use shared::app::App;
use shared::config::Mistake;

use crate::args::{Role, Settings, Target};
use crate::config::Config;
use crate::output::Failure;
use client::{ServerUrl, Trust};

/// Returns the server and the app of the arguments. Missing arguments come from the configuration.
///
/// # Errors
/// If the configuration is invalid or has no such app.
pub(crate) fn of(target: &Target) -> Result<(ServerUrl, App), Failure> {
    if let (Some(url), Some(id), Some(key), Some(secret)) = (&target.url, &target.app_id, &target.key, &target.secret) {
        return Ok((url.clone(), App::with_defaults(id.as_str(), key.as_str(), secret.reveal())));
    }
    let config = Config::load(&Settings { files: target.files.clone(), ..Settings::default() }, Role::Up)?;
    let url = target.url.clone().unwrap_or_else(|| url_of(&config));
    Ok((url, app_of(&config, target)?))
}

/// Returns the trusted CA certificates of the flag `--ca`.
///
/// # Errors
/// If the file cannot be used.
pub(crate) fn trust(ca: Option<&Path>) -> Result<Trust, Failure> {
    Trust::of(ca).map_err(|error| Failure::Config(Mistake::new("--ca", error.to_string()).into()))
}

/// Returns the URL of the configured listener. A server that listens on all addresses is reached at the loopback
/// address.
fn url_of(config: &Config) -> ServerUrl {
    let server = &config.server;
    let host = match server.host.as_str() {
        "0.0.0.0" => "127.0.0.1",
        "::" => "::1",
        host => host,
    };
    let url = ServerUrl::new(host, server.port, &server.path_prefix);
    if config.tls.cert.is_some() { url.with_tls() } else { url }
}

fn app_of(config: &Config, target: &Target) -> Result<App, Failure> {
    let configured = match &target.app_id {
        Some(id) => config.apps.iter().find(|app| app.id == *id),
        None => config.apps.first(),
    };
    let (id, key, secret) = (&target.app_id, &target.key, &target.secret);
    if let Some(configured) = configured {
        let mut app = configured.clone();
        app.key = key.clone().unwrap_or(app.key);
        app.secret = secret.clone().unwrap_or(app.secret);
        return Ok(app);
    }
    match (id, key, secret) {
        (Some(id), Some(key), Some(secret)) => Ok(App::with_defaults(id.as_str(), key.as_str(), secret.reveal())),
        _ => Err(anyhow!("--app-id names no configured app: give --key and --secret too").into()),
    }
}
