//! `carillon healthcheck`: checks the server on this machine, for containers without a shell.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use anyhow::{Context, anyhow};

use crate::args::{Healthcheck, Settings};
use crate::config::Config;
use crate::output::{Failure, print};

/// How long the server may take to respond. A healthy server responds at once.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Succeeds if the admin listener reports that the server is healthy.
pub(crate) async fn run(args: &Healthcheck) -> Result<(), Failure> {
    let settings = Settings { files: args.files.clone(), admin_port: args.admin_port, ..Settings::default() };
    let admin = Config::load_admin(&settings)?;
    let path = if args.live { "livez" } else { "readyz" };
    let url = format!("http://{}:{}/{path}", host_of(&admin.host), admin.port);
    let client =
        reqwest::Client::builder().no_proxy().timeout(TIMEOUT).build().context("cannot create an HTTP client")?;
    let response = client.get(&url).send().await.with_context(|| format!("cannot reach {url}"))?;
    let status = response.status();
    let text = response.text().await.with_context(|| format!("cannot read the response of {url}"))?;
    if status.is_success() {
        print(&format!("{}\n", text.trim_end()));
        return Ok(());
    }
    Err(anyhow!("{url} responded with {status}: {}", text.trim_end()).into())
}

/// Returns the host of a listener for a URL. A listener on all addresses is reached at the loopback address of the same
/// family.
fn host_of(listener: &str) -> String {
    match listener.parse() {
        Ok(IpAddr::V4(Ipv4Addr::UNSPECIFIED)) => Ipv4Addr::LOCALHOST.to_string(),
        Ok(IpAddr::V6(Ipv6Addr::UNSPECIFIED)) => format!("[{}]", Ipv6Addr::LOCALHOST),
        Ok(IpAddr::V6(address)) => format!("[{address}]"),
        _ => listener.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_is_reached_at_its_address_or_at_the_loopback_address() {
        for (listener, host) in [
            ("127.0.0.1", "127.0.0.1"),
            ("0.0.0.0", "127.0.0.1"),
            ("::", "[::1]"),
            ("::1", "[::1]"),
            ("0:0:0:0:0:0:0:1", "[::1]"),
            ("fd00::7", "[fd00::7]"),
            ("localhost", "localhost"),
            ("node-1.internal", "node-1.internal"),
        ] {
            assert_eq!(host_of(listener), host, "{listener}");
            let url = format!("http://{}:9090/livez", host_of(listener));
            assert!(url.parse::<reqwest::Url>().is_ok(), "{url}");
        }
    }
}
