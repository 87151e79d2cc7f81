//! `carillon healthcheck`: asks a server on this machine how it is, for containers without a shell.

use std::time::Duration;

use anyhow::{Context, anyhow};

use crate::args::{Healthcheck, Settings};
use crate::config::{Config, Role};
use crate::{Failure, say};

/// Probes have little patience; a server that is well answers at once.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Succeeds when the admin listener says that all is well.
pub(crate) async fn run(args: &Healthcheck) -> Result<(), Failure> {
    let settings = Settings { files: args.files.clone(), admin_port: args.admin_port, ..Settings::default() };
    let admin = Config::load(&settings, Role::Up)?.admin;
    let host = match admin.host.as_str() {
        "0.0.0.0" => "127.0.0.1",
        "::" => "[::1]",
        host => host,
    };
    let path = if args.live { "livez" } else { "readyz" };
    let url = format!("http://{host}:{}/{path}", admin.port);
    let client = reqwest::Client::builder().no_proxy().timeout(TIMEOUT).build().context("cannot prepare a request")?;
    let answer = client.get(&url).send().await.with_context(|| format!("cannot reach {url}"))?;
    let status = answer.status();
    let text = answer.text().await.with_context(|| format!("cannot read the answer of {url}"))?;
    if status.is_success() {
        say(&text);
        return Ok(());
    }
    Err(anyhow!("{url} answered {status}: {}", text.trim_end()).into())
}
