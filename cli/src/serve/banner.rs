//! The start banner: addresses, limits, apps, and snippets for clients.

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

use shared::app::{App, AppLimits};

use crate::args::Role;
use crate::config::{Config, DEMO_ID, DEMO_KEY, DEMO_SECRET};

/// The maximum number of apps in the banner.
const APPS_NAMED: usize = 5;

/// The content of the start banner.
pub(crate) struct Banner<'a> {
    /// The role of the node.
    pub(crate) role: Role,
    /// The configuration of the node.
    pub(crate) config: &'a Config,
    /// The address of the public listener.
    pub(crate) public: SocketAddr,
    /// The address of the admin listener.
    pub(crate) admin: SocketAddr,
    /// The address of the listener for other gateways; `None` without a cluster.
    pub(crate) peers: Option<SocketAddr>,
    /// The names of the listeners with inherited sockets.
    pub(crate) inherited: Vec<&'static str>,
    /// The address of Redis; `None` if the state is in memory.
    pub(crate) redis: Option<String>,
    /// The maximum number of connections; `None` for a publisher.
    pub(crate) connections_max: Option<usize>,
    /// The limit of open descriptors.
    pub(crate) descriptors_max: u64,
}

impl Banner<'_> {
    /// Returns the text of the banner. It contains no secret except that of the demo app, which is public.
    pub(crate) fn text(&self) -> String {
        let mut text = format!("Carillon {}\n\n", env!("CARGO_PKG_VERSION"));
        let prefix = &self.config.server.path_prefix;
        let serves = match self.role {
            Role::Up => "WebSocket and HTTP API",
            Role::Gateway => "WebSocket",
            Role::Publisher => "HTTP API",
        };
        self.row(&mut text, "public", &format!("http://{}{prefix}   {serves}", self.public));
        self.row(&mut text, "admin", &format!("http://{}   /metrics /livez /readyz", self.admin));
        if let Some(peers) = self.peers {
            self.row(&mut text, "peers", &format!("http://{peers}   requests that other gateways forward"));
        }
        if !self.inherited.is_empty() {
            let names = self.inherited.join(", ");
            self.row(
                &mut text,
                "socket",
                &format!("{names} inherited (LISTEN_FDS); configured host and port are ignored"),
            );
        }
        if let Some(redis) = &self.redis {
            self.row(&mut text, "redis", redis);
        }
        if let Some(connections_max) = self.connections_max {
            let limit = format!("{connections_max} connections ({} descriptors)", self.descriptors_max);
            self.row(&mut text, "limit", &limit);
        }
        self.row(&mut text, "apps", &self.apps());
        for app in self.config.apps.iter().take(APPS_NAMED) {
            if let Some(limits) = unusual_limits(&app.limits) {
                let of_app = if self.config.apps.len() > 1 { format!("{}: ", app.id) } else { String::new() };
                self.row(&mut text, "limits", &format!("{of_app}{limits}   (others are Pusher's)"));
            }
        }
        if let [app] = self.config.apps.as_slice()
            && self.role != Role::Publisher
        {
            self.write_snippet(&mut text, app);
        }
        text.push('\n');
        text
    }

    fn row(&self, text: &mut String, label: &str, value: &str) {
        let _ = writeln!(text, "  {label:<6}  {value}");
    }

    fn apps(&self) -> String {
        let apps = &self.config.apps;
        if self.config.demo {
            let host = self.public.ip();
            return format!("{DEMO_ID} (demo: any client that reaches this port can use it; bound to {host})");
        }
        let named: Vec<&str> = apps.iter().take(APPS_NAMED).map(|app| app.id.as_str()).collect();
        match apps.len().saturating_sub(APPS_NAMED) {
            0 => named.join(", "),
            more => format!("{} and {more} more", named.join(", ")),
        }
    }

    fn write_snippet(&self, text: &mut String, app: &App) {
        let port = self.public.port();
        // A page on another machine reaches the server at the host of its own URL.
        let host = match self.public.ip() {
            ip if ip.is_unspecified() => "location.hostname".to_owned(),
            ip => format!("'{}'", host_of_url(ip)),
        };
        let path = match self.config.server.path_prefix.as_str() {
            "" => String::new(),
            prefix => format!(" wsPath: '{prefix}', httpPath: '{prefix}/pusher',"),
        };
        let _ = write!(
            text,
            "\n  // paste into your page:\n  new Pusher('{}', {{ wsHost: {host}, wsPort: {port}, httpHost: {host}, httpPort: \
             {port},{path}\n    enabledTransports: ['ws', 'xhr_streaming', 'xhr_polling'], forceTLS: false, cluster: '' \
             }})\n",
            app.key.as_str().replace('\'', "\\'")
        );
        if self.config.demo {
            let host = host_of_url(self.public.ip());
            let _ = write!(
                text,
                "\n  # paste into the .env of Laravel:\n  BROADCAST_CONNECTION=reverb\n  REVERB_APP_ID={DEMO_ID}\n  \
                 REVERB_APP_KEY={DEMO_KEY}\n  REVERB_APP_SECRET={DEMO_SECRET}\n  REVERB_HOST={host}\n  \
                 REVERB_PORT={port}\n  REVERB_SCHEME=http\n"
            );
        }
    }
}

/// Returns the limits that differ from the defaults, which are those of Pusher if Pusher has such a limit.
fn unusual_limits(limits: &AppLimits) -> Option<String> {
    let usual = AppLimits::default();
    let counts = [
        ("connections", limits.connections, usual.connections),
        ("channels_per_connection", limits.channels_per_connection, usual.channels_per_connection),
        ("client_events_per_second", count(limits.client_events_per_second), count(usual.client_events_per_second)),
        ("events_per_second", count(limits.events_per_second), count(usual.events_per_second)),
        ("channel_name_length", limits.channel_name_length, usual.channel_name_length),
        ("event_name_length", limits.event_name_length, usual.event_name_length),
        ("channels_per_event", limits.channels_per_event, usual.channels_per_event),
        ("batch", limits.batch, usual.batch),
        ("presence_members", limits.presence_members, usual.presence_members),
        ("user_id_length", limits.user_id_length, usual.user_id_length),
        ("watchlist", limits.watchlist, usual.watchlist),
    ];
    let sizes = [
        ("message_bytes", limits.message_bytes, usual.message_bytes),
        ("event_bytes", limits.event_bytes, usual.event_bytes),
        ("user_info_bytes", limits.user_info_bytes, usual.user_info_bytes),
    ];
    let counts = counts.iter().filter(|(_, limit, usual)| limit != usual);
    let sizes = sizes.iter().filter(|(_, limit, usual)| limit != usual);
    let named: Vec<String> = counts
        .map(|(name, limit, _)| format!("{name} {limit}"))
        .chain(sizes.map(|(name, limit, _)| format!("{name} {}", limit.as_u64())))
        .collect();
    (!named.is_empty()).then(|| named.join(", "))
}

fn count(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// Returns the host part of a URL. Clients insert it without changes.
fn host_of_url(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

#[cfg(test)]
mod tests;
