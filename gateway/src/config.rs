//! The settings of a gateway: `[server]`, `[peers]` and `[drain]`.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use bytesize::ByteSize;
use humantime_serde::re::humantime::format_duration;
use hyper::http::uri::Authority;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use shared::config::{self, Mistake, Validate, schema};
use shared::serve::listener::AcceptPolicy;
use shared::serve::network::{Access, Networks};
use shared::serve::tls::Tls;

use crate::limits::{SESSIONS_PER_ADDRESS, SHARDS_MAX};

/// The configuration of a gateway.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// The settings of connections.
    pub server: Server,
    /// The settings of the shutdown.
    pub drain: Drain,
    /// The settings of the listener for other gateways.
    pub peers: Peers,
}

/// The public listener of a gateway or a publisher, and the limits of its connections.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Server {
    /// The address to listen on. An IPv6 address may be written with or without brackets. If no app is configured, the
    /// server listens on `127.0.0.1`.
    #[serde(deserialize_with = "config::host")]
    pub host: String,
    /// The port for WebSockets, the HTTP transports and the HTTP API. 0 selects any free port, and the start banner
    /// shows it. The default of `carillon publisher` is 8081.
    pub port: u16,
    /// A path that precedes `/app`, `/pusher/app` and `/apps`, like `/ws`.
    #[serde(deserialize_with = "config::text")]
    #[schemars(schema_with = "schema::text")]
    pub path_prefix: String,
    /// The maximum number of connections of this node, over all apps and transports. Further clients are closed with
    /// 4100. 0 means as many as the limit of open files allows: the limit minus 256, minus 4 for each of `shards`. The
    /// server does not start if that leaves no room.
    pub connections_max: usize,
    /// The maximum number of connections of one client address on this node, WebSockets and fallback sessions together.
    /// Further clients are closed with 4100 and retry. 0 means no limit.
    ///
    /// An IPv6 address counts as its /64 network. For connections from loopback addresses and `trusted_proxies`, the
    /// address in `X-Forwarded-For` counts. A client that such a proxy does not name is not counted. Allow for many
    /// users behind one address.
    pub connections_per_address: usize,
    /// The maximum number of fallback sessions of one client address on this node, at most half of `connections_max`. 0
    /// means no limit. It counts and refuses like `connections_per_address`.
    ///
    /// Raise it if all clients come through a proxy that is not in `trusted_proxies`. In addition, one TCP connection
    /// may have at most 64 live sessions.
    pub fallback_sessions_per_address: usize,
    /// The number of threads that serve connections. 0 means one per core.
    #[schemars(range(max = SHARDS_MAX))]
    pub shards: usize,
    /// The maximum number of connections to accept per second. Further connections wait in the queue of the operating
    /// system, so that a wave of reconnects does not starve connected clients. 0 means no limit.
    pub accept_rate: u32,
    /// The networks of trusted proxies. The client address comes from the `X-Forwarded-For` header or the PROXY
    /// protocol header of a trusted proxy. In `X-Forwarded-For`, the last address that is not itself a trusted proxy
    /// counts.
    #[schemars(schema_with = "schema::networks")]
    pub trusted_proxies: Networks,
    /// Whether every connection begins with a PROXY protocol header, version 1 or 2. If `trusted_proxies` is set,
    /// connections from other addresses are dropped.
    pub proxy_protocol: bool,
    /// The networks that clients may connect from, like `["10.0.0.0/8", "::1"]`. An empty list allows all. Connections
    /// from other addresses are dropped. Behind a trusted proxy, other clients are closed with 4009 and their requests
    /// get 403.
    #[schemars(schema_with = "schema::networks")]
    pub allow: Networks,
    /// The networks that clients may not connect from. It takes precedence over `allow`.
    #[schemars(schema_with = "schema::networks")]
    pub deny: Networks,
    /// How long a client may be silent before it sends a ping, in whole seconds. The server pings a third of
    /// `pong_timeout` later, so that it does not ping clients that ping by themselves. At least 1s.
    ///
    /// The default is 30s if an app comes from `REVERB_APP_ID`. Proxies in front of the server need a longer read
    /// timeout.
    #[serde(with = "humantime_serde")]
    #[schemars(schema_with = "schema::duration")]
    pub activity_timeout: Duration,
    /// How long after `activity_timeout` the server closes a silent client, with 4201. At least 1s.
    #[serde(with = "humantime_serde")]
    #[schemars(schema_with = "schema::duration")]
    pub pong_timeout: Duration,
    /// The maximum size of the send queue of one client. A slower client is closed with 4100. At least 16KiB, and at
    /// least twice the `event_bytes` of every app. A list of members that is larger does not count.
    #[serde(serialize_with = "config::exact_size")]
    #[schemars(schema_with = "schema::size")]
    pub outbox_bytes: ByteSize,
    /// How long a client may read nothing from its send queue before it is closed with 4100. A caller of the HTTP API
    /// that reads nothing of its response for this time is disconnected. At least 1s.
    #[serde(with = "humantime_serde")]
    #[schemars(schema_with = "schema::duration")]
    pub outbox_timeout: Duration,
    /// How long a client may use an HTTP transport before it is closed with 4200 and tries a WebSocket again. The
    /// server adds up to a twentieth, so that clients do not reconnect together. `0s` means no limit; other values are
    /// at least 1s.
    ///
    /// pusher-js remembers for 30 minutes that HTTP worked. With a shorter time, it keeps using HTTP.
    #[serde(with = "humantime_serde")]
    #[schemars(schema_with = "schema::duration")]
    pub fallback_reconnect: Duration,
}

/// The listener for forwarded requests of other gateways.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Peers {
    /// The address to listen on. Use `::` if gateways reach Redis over IPv6.
    #[serde(deserialize_with = "config::host")]
    pub host: String,
    /// The port. 0 selects any free port. Set a number if a firewall or a network policy must allow it.
    pub port: u16,
    /// The networks that other gateways may connect from. An empty list allows all.
    #[schemars(schema_with = "schema::networks")]
    pub allow: Networks,
    /// The networks that other gateways may not connect from. It takes precedence over `allow`.
    #[schemars(schema_with = "schema::networks")]
    pub deny: Networks,
    /// The `host:port` at which other gateways reach this one. If it is empty, they use `port` and the address from
    /// which this gateway connects to Redis.
    ///
    /// Set it if that address is not reachable, like that of a container whose ports are published on its host. Also
    /// set it if `host` is another address.
    #[serde(deserialize_with = "config::text")]
    #[schemars(schema_with = "schema::text")]
    pub advertise: String,
}

/// The shutdown of a node.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Drain {
    /// How long the node still accepts connections after the signal, until load balancers stop sending them. The
    /// default of `carillon gateway` and `carillon publisher` is 5s. `carillon up` has no other node to replace it and
    /// stops at once.
    #[serde(with = "humantime_serde")]
    #[schemars(schema_with = "schema::duration")]
    pub accept: Duration,
    /// The minimum time over which a gateway spreads its closes with 4200. `carillon up` without Redis closes all
    /// clients at once with 4100.
    #[serde(with = "humantime_serde")]
    #[schemars(schema_with = "schema::duration")]
    pub window: Duration,
    /// The maximum number of connections that a gateway closes per second. 0 means no limit. Other gateways must accept
    /// these clients, which costs about 70 us of CPU time each.
    ///
    /// A gateway with more than `window` times `rate` connections takes longer than `window`. Set the grace period of
    /// the process manager accordingly.
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
            // 100 events of 10 KiB: one second of a busy channel.
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
        // Accepting a connection costs 70 us. For 5,000 per second, the other gateways need a third of a core.
        Self { accept: Duration::ZERO, window: Duration::from_secs(1), rate: 5000 }
    }
}

impl Drain {
    /// Returns the time that closing this many connections takes.
    pub(crate) fn duration(&self, connections: usize) -> Duration {
        match self.rate {
            0 => self.window,
            rate => self.window.max(Duration::from_secs_f64(connections as f64 / f64::from(rate))),
        }
    }
}

impl Server {
    /// Returns the number of threads that serve connections.
    pub fn shard_count(&self) -> usize {
        match self.shards {
            0 => thread::available_parallelism().map_or(1, usize::from),
            count => count,
        }
    }

    /// Returns the policy of the public listener.
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
            // pusher-js throws if the handshake announces an activity timeout of 0.
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
            let complaint = "expected the networks of the load balancers: with proxy_protocol, any other client \
                             could claim an address that server.allow and server.deny admit";
            mistakes.push(Mistake::new("server.trusted_proxies", complaint));
        }
        let is_address = |authority: Authority| {
            let has_port = authority.port_u16().is_some_and(|port| port > 0);
            has_port && !authority.host().is_empty() && !authority.as_str().contains('@')
        };
        if !self.peers.advertise.is_empty() && !self.peers.advertise.parse().is_ok_and(is_address) {
            let complaint =
                format!("expected a host and a port, like \"10.0.0.7:8082\", not {:?}", self.peers.advertise);
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
    fn a_drain_takes_its_window_or_longer_if_its_rate_requires_it() {
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
