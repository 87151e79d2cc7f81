//! `[server]` and `[drain]`: the gateway's part of the configuration.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use bytesize::ByteSize;
use humantime_serde::re::humantime::format_duration;
use hyper::http::uri::Authority;
use serde::{Deserialize, Serialize};
use shared::config::{self, Mistake, Validate};
use shared::serve::listener::AcceptPolicy;
use shared::serve::network::{Access, Networks};
use shared::serve::tls::Tls;

use crate::limits::{SESSIONS_PER_ADDRESS, SHARDS_MAX};

/// What the gateway is configured with.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// `[server]`.
    pub server: Server,
    /// `[drain]`.
    pub drain: Drain,
    /// `[peers]`.
    pub peers: Peers,
}

/// `[server]`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Server {
    /// Address to listen on.
    #[serde(deserialize_with = "config::host")]
    pub host: String,
    /// Port; 0 takes any free one.
    pub port: u16,
    /// What precedes `/app` and `/apps` in every path, as `/ws`; empty for nothing.
    #[serde(deserialize_with = "config::text")]
    pub path_prefix: String,
    /// Open WebSockets of this node, of all apps together; 0 means as many as the descriptor limit allows.
    pub connections_max: usize,
    /// Open connections of one client address, WebSockets and fallback sessions together; 0 means no limit. Beyond it: 4100.
    /// An IPv6 address counts as its /64 network. Behind loopback and trusted proxies the address in `X-Forwarded-For`
    /// counts; a client that they do not name is not counted.
    pub connections_per_address: usize,
    /// Fallback sessions of one client address, at most half of `connections_max`; 0 means no limit. Beyond it: 4100.
    pub fallback_sessions_per_address: usize,
    /// Threads that hold connections; 0 means one per core.
    pub shards: usize,
    /// Connections accepted in a second; 0 means no limit. The others wait in the system's queue, so that those who return
    /// all at once do not starve those who are in.
    pub accept_rate: u32,
    /// Proxies that are believed about their clients' addresses, by `X-Forwarded-For` or the PROXY protocol.
    pub trusted_proxies: Networks,
    /// Whether every connection begins with a PROXY header.
    pub proxy_protocol: bool,
    /// Networks of clients that are let in; everyone when there are none.
    pub allow: Networks,
    /// Networks of clients that are not.
    pub deny: Networks,
    /// Silence after which a client pings, told to it in whole seconds, and after which the server does.
    #[serde(with = "humantime_serde")]
    pub activity_timeout: Duration,
    /// How long the server then waits for any sign of life before it closes with 4201.
    #[serde(with = "humantime_serde")]
    pub pong_timeout: Duration,
    /// Bytes that may wait for one slow client before it is closed with 4100. A list of members that is larger by itself is
    /// not counted.
    #[serde(serialize_with = "config::exact_size")]
    pub outbox_bytes: ByteSize,
    /// How long a client may take nothing of what waits for it before it is closed with 4100.
    #[serde(with = "humantime_serde")]
    pub outbox_timeout: Duration,
    /// How long a client may stay on an HTTP transport before it is told to reconnect, so that it tries a WebSocket again; 0
    /// means for ever. pusher-js remembers for 30 minutes that HTTP worked, and a shorter time keeps it from forgetting.
    #[serde(with = "humantime_serde")]
    pub fallback_reconnect: Duration,
}

/// `[peers]`: where gateways of a cluster pass requests of the HTTP transports on to each other. Nothing listens there without
/// Redis.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Peers {
    /// Address to listen on.
    #[serde(deserialize_with = "config::host")]
    pub host: String,
    /// Port; 0 takes any free one.
    pub port: u16,
    /// Networks that are let in; everyone when there are none.
    pub allow: Networks,
    /// Networks that are not.
    pub deny: Networks,
    /// `host:port` at which other gateways reach this one; empty for the address by which it reaches Redis.
    #[serde(deserialize_with = "config::text")]
    pub advertise: String,
}

/// `[drain]`: leaving without losing anyone.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Drain {
    /// How long connections are still accepted after the signal, while load balancers notice.
    #[serde(with = "humantime_serde")]
    pub accept: Duration,
    /// Shortest time over which the closes with 4200 are spread. Clients reconnect at once, so the server sets the pace.
    #[serde(with = "humantime_serde")]
    pub window: Duration,
    /// Connections closed in a second, at most; 0 means no limit. A node with more of them than `window` allows takes
    /// longer than `window`.
    pub rate: u32,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            host: "0.0.0.0".into(),
            port: 8080,
            path_prefix: String::new(),
            connections_max: 0,
            connections_per_address: 0,
            fallback_sessions_per_address: SESSIONS_PER_ADDRESS,
            shards: 0,
            accept_rate: 0,
            trusted_proxies: Networks::default(),
            proxy_protocol: false,
            allow: Networks::default(),
            deny: Networks::default(),
            activity_timeout: Duration::from_secs(120),
            pong_timeout: Duration::from_secs(30),
            // 1 MiB: 100 events of 10 KiB, a second of a busy channel.
            outbox_bytes: ByteSize::mib(1),
            outbox_timeout: Duration::from_secs(10),
            fallback_reconnect: Duration::from_secs(31 * 60),
        }
    }
}

impl Default for Peers {
    fn default() -> Self {
        let (allow, deny) = (Networks::default(), Networks::default());
        Self { host: "0.0.0.0".into(), port: 0, allow, deny, advertise: String::new() }
    }
}

impl Default for Drain {
    fn default() -> Self {
        // Accepting a connection costs 70 us: 5,000 a second are a third of a core of the gateway that takes them over.
        Self { accept: Duration::ZERO, window: Duration::from_secs(1), rate: 5000 }
    }
}

impl Drain {
    /// How long closing so many connections takes.
    pub(crate) fn duration(&self, connections: usize) -> Duration {
        match self.rate {
            0 => self.window,
            rate => self.window.max(Duration::from_secs_f64(connections as f64 / f64::from(rate))),
        }
    }
}

impl Server {
    /// How many threads hold connections.
    pub fn shard_count(&self) -> usize {
        match self.shards {
            0 => thread::available_parallelism().map_or(1, usize::from),
            count => count,
        }
    }

    /// What its listener asks of connections.
    pub fn accept_policy(&self, tls: Option<Arc<Tls>>) -> AcceptPolicy {
        let access = Access {
            allow: self.allow.clone(),
            deny: self.deny.clone(),
            trusted_proxies: self.trusted_proxies.clone(),
        };
        AcceptPolicy { access, proxy_protocol: self.proxy_protocol, accept_rate: self.accept_rate, tls }
    }
}

impl Validate for Config {
    fn validate(&self) -> Vec<Mistake> {
        let server = &self.server;
        let mut mistakes = Vec::new();
        for (key, time) in [
            // pusher-js throws on a handshake that says 0.
            ("server.activity_timeout", server.activity_timeout),
            ("server.pong_timeout", server.pong_timeout),
            ("server.outbox_timeout", server.outbox_timeout),
        ] {
            if time < Duration::from_secs(1) {
                let complaint = format!("expected at least 1s, not {}", format_duration(time));
                mistakes.push(Mistake::new(key, complaint));
            }
        }
        let reconnect = server.fallback_reconnect;
        if !reconnect.is_zero() && reconnect < Duration::from_secs(1) {
            let complaint = format!("expected at least 1s, or 0s for never, not {}", format_duration(reconnect));
            mistakes.push(Mistake::new("server.fallback_reconnect", complaint));
        }
        if server.shards > SHARDS_MAX {
            let complaint = format!("expected at most {SHARDS_MAX}, or 0 for one per core, not {}", server.shards);
            mistakes.push(Mistake::new("server.shards", complaint));
        }
        if server.outbox_bytes < ByteSize::kib(16) {
            let complaint =
                format!("expected at least 16KiB, or single events would not fit, not {}", server.outbox_bytes);
            mistakes.push(Mistake::new("server.outbox_bytes", complaint));
        }
        let is_selective = !(server.allow.is_empty() && server.deny.is_empty());
        if server.proxy_protocol && is_selective && server.trusted_proxies.is_empty() {
            let complaint = "expected the balancers, since with proxy_protocol anyone else could name an address that \
                             server.allow and server.deny let in";
            mistakes.push(Mistake::new("server.trusted_proxies", complaint));
        }
        let is_address = |authority: Authority| {
            let has_port = authority.port_u16().is_some_and(|port| port > 0);
            has_port && !authority.host().is_empty() && !authority.as_str().contains('@')
        };
        if !self.peers.advertise.is_empty() && !self.peers.advertise.parse().is_ok_and(is_address) {
            let complaint = format!("expected a host and a port, as \"10.0.0.7:8082\", not {:?}", self.peers.advertise);
            mistakes.push(Mistake::new("peers.advertise", complaint));
        }
        let prefix = &server.path_prefix;
        if !prefix.is_empty() && (!prefix.starts_with('/') || prefix.ends_with('/')) {
            let complaint = format!("expected a path like \"/ws\", without a slash at the end, not {prefix:?}");
            mistakes.push(Mistake::new("server.path_prefix", complaint));
        }
        mistakes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drain_takes_its_window_or_as_long_as_its_rate_needs() {
        let drain = |window_ms, rate, connections| {
            let drain = Drain { accept: Duration::ZERO, window: Duration::from_millis(window_ms), rate };
            drain.duration(connections).as_millis()
        };
        assert_eq!(drain(1000, 5000, 0), 1000);
        assert_eq!(drain(1000, 5000, 5000), 1000);
        assert_eq!(drain(1000, 5000, 500_000), 100_000);
        assert_eq!(drain(0, 20, 60), 3000);
        assert_eq!(drain(1000, 0, 500_000), 1000, "no limit");
        assert_eq!(Drain::default().duration(500_000), Duration::from_secs(100));
    }
}
