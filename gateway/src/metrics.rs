//! The gateway's counters, declared in one place.
//!
//! Per-delivery counts are summed by each shard and added here once per burst, so that no shard waits for another's
//! cache line while it writes to sockets.

use hashbrown::HashMap;
use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};
use shared::app::{AppId, Apps};
use shared::protocol::{ChannelKind, ClientFrame, CloseCode};
use shared::serve::listener::accept_policy::dropped_counter;
use shared::serve::telemetry::EventLoopLag;
use shared::serve::telemetry::metrics::{app_labels, from_zero, latency, register};

use crate::transport::{ForwardResult, RequestKind, Transport};
use crate::websocket::handshake::InvalidHandshake;

/// Everything the gateway counts.
#[derive(Clone)]
pub(crate) struct Metrics {
    apps: HashMap<AppId, AppMetrics>,
    closed: IntCounterVec,
    subscriptions: IntGaugeVec,
    channels: IntGaugeVec,
    pub(crate) messages_received: MessagesReceived,
    protocol_errors: IntCounterVec,
    auth_failures: IntCounterVec,
    rate_limited: IntCounterVec,
    handshakes_rejected: IntCounterVec,
    handshakes_invalid: IntCounterVec,
    connections_dropped: IntCounterVec,
    fallback_requests: IntCounterVec,
    fallback_forwarded: IntCounterVec,
    pub(crate) messages_sent: IntCounter,
    pub(crate) sent_bytes: IntCounter,
    pub(crate) received_bytes: IntCounter,
    pub(crate) delivery_seconds: Histogram,
    pub(crate) fanout_subscribers: Histogram,
    pub(crate) outbox_bytes: IntGauge,
    pub(crate) slow_consumers: IntCounter,
    pub(crate) ping_timeouts: IntCounter,
    pub(crate) client_events_dropped: IntCounter,
    pub(crate) event_loop_lag: EventLoopLag,
    pub(crate) presence: PresenceMetrics,
    pub(crate) draining: IntGauge,
}

/// Counters of one app, or of all apps beyond [`shared::serve::telemetry::metrics::APP_LABELS_MAX`] together.
#[derive(Clone)]
pub(crate) struct AppMetrics {
    /// By transport.
    connections: [IntGauge; 3],
    opened: [IntCounter; 3],
}

impl AppMetrics {
    /// Open connections of that sort.
    pub(crate) fn connections(&self, transport: Transport) -> &IntGauge {
        &self.connections[transport.index()]
    }

    /// Connections of that sort that were accepted.
    pub(crate) fn opened(&self, transport: Transport) -> &IntCounter {
        &self.opened[transport.index()]
    }
}

/// Messages from clients by kind, looked up once.
#[derive(Clone)]
pub(crate) struct MessagesReceived {
    subscribe: IntCounter,
    unsubscribe: IntCounter,
    sign_in: IntCounter,
    ping: IntCounter,
    pong: IntCounter,
    client_event: IntCounter,
    unknown: IntCounter,
}

impl MessagesReceived {
    fn new(counters: &IntCounterVec) -> Self {
        let of = |kind| counters.with_label_values(&[kind]);
        Self {
            subscribe: of("subscribe"),
            unsubscribe: of("unsubscribe"),
            sign_in: of("signin"),
            ping: of("ping"),
            pong: of("pong"),
            client_event: of("client_event"),
            unknown: of("unknown"),
        }
    }

    /// The counter of this message's kind.
    pub(crate) fn of(&self, frame: &ClientFrame<'_>) -> &IntCounter {
        match frame {
            ClientFrame::Subscribe { .. } | ClientFrame::BadSubscribe { .. } => &self.subscribe,
            ClientFrame::Unsubscribe { .. } => &self.unsubscribe,
            ClientFrame::SignIn { .. } | ClientFrame::BadSignIn { .. } => &self.sign_in,
            ClientFrame::Ping => &self.ping,
            ClientFrame::Pong => &self.pong,
            ClientFrame::ClientEvent { .. } => &self.client_event,
            ClientFrame::Unknown { .. } => &self.unknown,
        }
    }
}

/// Counters of presence channels.
#[derive(Clone)]
pub(crate) struct PresenceMetrics {
    members: IntGauge,
    joins: IntCounter,
    leaves: IntCounter,
    resyncs: IntCounter,
    resync_seconds: Histogram,
}

impl PresenceMetrics {
    /// A user's first socket on this node joined.
    pub(crate) fn joined(&self) {
        self.members.inc();
        self.joins.inc();
    }

    /// A user's last socket on this node left.
    pub(crate) fn left(&self) {
        self.members.dec();
        self.leaves.inc();
    }

    /// So many channels were brought up to date with the cluster.
    pub(crate) fn resynchronized(&self, channels: usize, took: std::time::Duration) {
        self.resyncs.inc_by(channels as u64);
        self.resync_seconds.observe(took.as_secs_f64());
    }
}

impl Metrics {
    /// Registers all metrics; `connections_max` and `descriptors_max` are exported as they are.
    pub(crate) fn new(registry: &Registry, apps: &Apps, connections_max: usize, descriptors_max: u64) -> Self {
        let gauges = |name: &str, help: &str, labels: &[&str]| {
            register(registry, IntGaugeVec::new(Opts::new(name, help), labels))
        };
        let counters = |name: &str, help: &str, labels: &[&str]| {
            register(registry, IntCounterVec::new(Opts::new(name, help), labels))
        };
        let gauge = |name: &str, help: &str| register(registry, IntGauge::new(name, help));
        let counter = |name: &str, help: &str| register(registry, IntCounter::new(name, help));
        let histogram = |options: HistogramOpts| register(registry, Histogram::with_opts(options));

        let ceiling = |name: &str, help: &str, value: i64| gauge(name, help).set(value);
        ceiling(
            "carillon_connections_max",
            "Most connections of clients that this node holds.",
            i64::try_from(connections_max).unwrap_or(i64::MAX),
        );
        ceiling(
            "carillon_descriptors_max",
            "Open descriptors that this process may have.",
            i64::try_from(descriptors_max).unwrap_or(i64::MAX),
        );

        let connections = gauges("carillon_connections", "Open connections of clients.", &["app", "transport"]);
        let opened =
            counters("carillon_connections_opened_total", "Connections of clients accepted.", &["app", "transport"]);
        let fanout =
            HistogramOpts::new("carillon_fanout_subscribers", "Subscribers of one shard that an event reached.")
                .buckets(vec![0.0, 1.0, 10.0, 100.0, 1_000.0, 10_000.0, 100_000.0]);
        Self {
            apps: app_metrics(apps, &connections, &opened),
            closed: counters(
                "carillon_connections_closed_total",
                "Connections of clients ended, by close code; 1006 without one.",
                &["code"],
            ),
            subscriptions: gauges("carillon_subscriptions", "Subscriptions held by this node.", &["kind"]),
            channels: gauges("carillon_channels", "Channels with a subscriber, counted per shard.", &["kind"]),
            messages_received: MessagesReceived::new(&counters(
                "carillon_messages_received_total",
                "Messages from clients.",
                &["kind"],
            )),
            protocol_errors: counters("carillon_protocol_errors_total", "Messages that could not be read.", &["kind"]),
            auth_failures: counters("carillon_auth_failures_total", "Signatures refused.", &["reason"]),
            rate_limited: counters("carillon_rate_limited_total", "Refused for a limit.", &["scope"]),
            handshakes_rejected: counters(
                "carillon_handshakes_rejected_total",
                "Connections refused, by close code.",
                &["code"],
            ),
            handshakes_invalid: from_zero(
                counters(
                    "carillon_handshakes_invalid_total",
                    "Requests that cannot open a WebSocket, by the rule that they break.",
                    &["reason"],
                ),
                InvalidHandshake::LABELS.map(|reason| [reason]),
            ),
            connections_dropped: dropped_counter(registry),
            fallback_requests: from_zero(
                counters(
                    "carillon_fallback_requests_total",
                    "Requests of the HTTP transports, by what they are for.",
                    &["kind"],
                ),
                RequestKind::ALL.map(|kind| [kind.label()]),
            ),
            fallback_forwarded: from_zero(
                counters(
                    "carillon_fallback_forwarded_total",
                    "Requests of the HTTP transports whose session another node has, by what became of them.",
                    &["result"],
                ),
                ForwardResult::ALL.map(|result| [result.label()]),
            ),
            messages_sent: counter("carillon_messages_sent_total", "Messages handed to clients' outboxes."),
            sent_bytes: counter("carillon_sent_bytes_total", "Bytes handed to clients' outboxes, with headers."),
            received_bytes: counter("carillon_received_bytes_total", "Bytes read from clients."),
            delivery_seconds: histogram(latency(
                "carillon_delivery_seconds",
                "From the publisher's stamp of an event to the writes of one shard.",
            )),
            fanout_subscribers: histogram(fanout),
            outbox_bytes: gauge("carillon_outbox_bytes", "Bytes that wait for slow clients."),
            ping_timeouts: counter("carillon_ping_timeouts_total", "Connections closed for not answering a ping."),
            slow_consumers: counter("carillon_slow_consumers_total", "Connections closed for reading too slowly."),
            client_events_dropped: counter(
                "carillon_client_events_dropped_total",
                "Client events that the bus did not take.",
            ),
            event_loop_lag: EventLoopLag::new(registry),
            presence: PresenceMetrics {
                members: gauge(
                    "carillon_presence_members",
                    "Users in presence channels that this node has a socket of.",
                ),
                joins: counter("carillon_presence_joins_total", "Users whose first socket on this node joined."),
                leaves: counter("carillon_presence_leaves_total", "Users whose last socket on this node left."),
                resyncs: counter(
                    "carillon_presence_resyncs_total",
                    "Channels that were brought up to date after messages may have been missed.",
                ),
                resync_seconds: register(
                    registry,
                    Histogram::with_opts(latency(
                        "carillon_presence_resync_seconds",
                        "Time to bring all doubtful channels up to date.",
                    )),
                ),
            },
            draining: gauge("carillon_draining", "1 while this node leaves."),
        }
    }

    /// The counters of an app.
    pub(crate) fn app(&self, id: &AppId) -> &AppMetrics {
        self.apps.get(id).expect("every configured app has its counters")
    }

    pub(crate) fn closed(&self, code: Option<CloseCode>) {
        self.closed.with_label_values(&[code.map_or("1006", CloseCode::label)]).inc();
    }

    pub(crate) fn connection_dropped(&self, reason: &str) {
        self.connections_dropped.with_label_values(&[reason]).inc();
    }

    pub(crate) fn handshake_invalid(&self, invalid: InvalidHandshake) {
        self.handshakes_invalid.with_label_values(&[invalid.label()]).inc();
    }

    pub(crate) fn fallback_request(&self, kind: RequestKind) {
        self.fallback_requests.with_label_values(&[kind.label()]).inc();
    }

    pub(crate) fn fallback_forwarded(&self, result: ForwardResult) {
        self.fallback_forwarded.with_label_values(&[result.label()]).inc();
    }

    pub(crate) fn handshake_rejected(&self, code: CloseCode) {
        self.handshakes_rejected.with_label_values(&[code.label()]).inc();
    }

    pub(crate) fn subscriptions(&self, kind: ChannelKind) -> IntGauge {
        self.subscriptions.with_label_values(&[kind.label()])
    }

    pub(crate) fn channels(&self, kind: ChannelKind) -> IntGauge {
        self.channels.with_label_values(&[kind.label()])
    }

    pub(crate) fn protocol_error(&self, kind: &str) {
        self.protocol_errors.with_label_values(&[kind]).inc();
    }

    pub(crate) fn auth_failure(&self, reason: &str) {
        self.auth_failures.with_label_values(&[reason]).inc();
    }

    pub(crate) fn rate_limited(&self, scope: &str) {
        self.rate_limited.with_label_values(&[scope]).inc();
    }
}

fn app_metrics(apps: &Apps, connections: &IntGaugeVec, opened: &IntCounterVec) -> HashMap<AppId, AppMetrics> {
    let labelled = app_labels(apps).into_iter().map(|(id, label)| {
        let metrics = AppMetrics {
            connections: Transport::ALL.map(|transport| connections.with_label_values(&[label, transport.label()])),
            opened: Transport::ALL.map(|transport| opened.with_label_values(&[label, transport.label()])),
        };
        (id.clone(), metrics)
    });
    labelled.collect()
}
