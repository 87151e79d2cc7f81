//! The metrics of the gateway.
//!
//! Each shard sums the counts of its deliveries, and adds them here once per burst. While it writes to sockets it does
//! not contend with other shards for a cache line.

use hashbrown::HashMap;
use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts};
use shared::app::{AppId, Apps};
use shared::protocol::{ChannelKind, ClientFrame, CloseCode};
use shared::serve::listener::accept_policy::dropped_counter;
use shared::serve::telemetry::EventLoopLag;
use shared::serve::telemetry::metrics::{Registry, app_labels, from_zero, latency, register};

use crate::transport::{ForwardResult, RequestKind, Transport};
use crate::websocket::handshake::InvalidHandshake;

/// The metrics of a gateway.
#[derive(Clone)]
pub(crate) struct Metrics {
    apps: HashMap<AppId, AppMetrics>,
    closed: IntCounterVec,
    subscriptions: IntGaugeVec,
    channels: IntGaugeVec,
    refusals: RefusalMetrics,
    fallback: FallbackMetrics,
    pub(crate) traffic: TrafficMetrics,
    pub(crate) event_loop_lag: EventLoopLag,
    pub(crate) presence: PresenceMetrics,
    pub(crate) draining: IntGauge,
}

/// Registers metrics by name and help text.
struct Registrar<'a>(&'a Registry);

impl Registrar<'_> {
    fn gauge(&self, name: &str, help: &str) -> IntGauge {
        register(self.0, IntGauge::new(name, help))
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        register(self.0, IntGaugeVec::new(Opts::new(name, help), labels))
    }

    fn counter(&self, name: &str, help: &str) -> IntCounter {
        register(self.0, IntCounter::new(name, help))
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        register(self.0, IntCounterVec::new(Opts::new(name, help), labels))
    }

    fn histogram(&self, options: HistogramOpts) -> Histogram {
        register(self.0, Histogram::with_opts(options))
    }
}

/// The metrics of one app, or of all apps beyond [`shared::serve::telemetry::metrics::APP_LABELS_MAX`] together.
#[derive(Clone)]
pub(crate) struct AppMetrics {
    /// By transport.
    connections: [IntGauge; 3],
    opened: [IntCounter; 3],
}

impl AppMetrics {
    /// Returns the gauge of open connections over a transport.
    pub(crate) fn connections(&self, transport: Transport) -> &IntGauge {
        &self.connections[transport.index()]
    }

    /// Returns the counter of opened connections over a transport.
    pub(crate) fn opened(&self, transport: Transport) -> &IntCounter {
        &self.opened[transport.index()]
    }
}

/// The counters of messages from clients, by kind.
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

    /// Returns the counter for a message.
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

/// The counters of refused messages, handshakes and connections.
#[derive(Clone)]
struct RefusalMetrics {
    protocol_errors: IntCounterVec,
    auth_failures: IntCounterVec,
    rate_limited: IntCounterVec,
    handshakes_rejected: IntCounterVec,
    handshakes_invalid: IntCounterVec,
    connections_dropped: IntCounterVec,
}

impl RefusalMetrics {
    fn new(registrar: &Registrar<'_>) -> Self {
        let counters = |name, help, label| registrar.counters(name, help, &[label]);
        let invalid = counters(
            "carillon_handshakes_invalid_total",
            "Invalid WebSocket handshakes, by the violated rule.",
            "reason",
        );
        Self {
            protocol_errors: counters("carillon_protocol_errors_total", "Messages that could not be parsed.", "kind"),
            auth_failures: counters("carillon_auth_failures_total", "Requests with an invalid signature.", "reason"),
            rate_limited: counters("carillon_rate_limited_total", "Requests refused because of a limit.", "scope"),
            handshakes_rejected: counters(
                "carillon_handshakes_rejected_total",
                "Connections refused with a close code.",
                "code",
            ),
            handshakes_invalid: from_zero(invalid, InvalidHandshake::LABELS.map(|reason| [reason])),
            connections_dropped: dropped_counter(registrar.0),
        }
    }
}

/// The counters of requests of the HTTP transports.
#[derive(Clone)]
struct FallbackMetrics {
    requests: IntCounterVec,
    forwarded: IntCounterVec,
}

impl FallbackMetrics {
    fn new(registrar: &Registrar<'_>) -> Self {
        let requests = registrar.counters(
            "carillon_fallback_requests_total",
            "Requests of the HTTP transports, by purpose.",
            &["kind"],
        );
        let forwarded = registrar.counters(
            "carillon_fallback_forwarded_total",
            "Requests of the HTTP transports forwarded to the node with their session, by result.",
            &["result"],
        );
        Self {
            requests: from_zero(requests, RequestKind::ALL.map(|kind| [kind.label()])),
            forwarded: from_zero(forwarded, ForwardResult::ALL.map(|result| [result.label()])),
        }
    }
}

/// The metrics of messages from and to clients.
#[derive(Clone)]
pub(crate) struct TrafficMetrics {
    pub(crate) messages_received: MessagesReceived,
    pub(crate) messages_sent: IntCounter,
    pub(crate) sent_bytes: IntCounter,
    pub(crate) received_bytes: IntCounter,
    pub(crate) delivery_seconds: Histogram,
    pub(crate) fanout_subscribers: Histogram,
    pub(crate) outbox_bytes: IntGauge,
    pub(crate) slow_consumers: IntCounter,
    pub(crate) ping_timeouts: IntCounter,
    pub(crate) client_events_dropped: IntCounter,
}

impl TrafficMetrics {
    fn new(registrar: &Registrar<'_>) -> Self {
        let counter = |name, help| registrar.counter(name, help);
        let received =
            registrar.counters("carillon_messages_received_total", "Messages received from clients.", &["kind"]);
        let fanout =
            HistogramOpts::new("carillon_fanout_subscribers", "Subscribers of one shard that received an event.")
                .buckets(vec![0.0, 1.0, 10.0, 100.0, 1_000.0, 10_000.0, 100_000.0]);
        Self {
            messages_received: MessagesReceived::new(&received),
            messages_sent: counter("carillon_messages_sent_total", "Messages sent to clients."),
            sent_bytes: counter("carillon_sent_bytes_total", "Bytes sent to clients, including WebSocket headers."),
            received_bytes: counter("carillon_received_bytes_total", "Bytes received from clients."),
            delivery_seconds: registrar.histogram(latency(
                "carillon_delivery_seconds",
                "Time from the publish of an event to the writes of one shard.",
            )),
            fanout_subscribers: registrar.histogram(fanout),
            outbox_bytes: registrar.gauge("carillon_outbox_bytes", "Bytes queued for slow clients."),
            ping_timeouts: counter(
                "carillon_ping_timeouts_total",
                "Connections closed because a ping was not answered.",
            ),
            slow_consumers: counter(
                "carillon_slow_consumers_total",
                "Connections closed because the client read too slowly.",
            ),
            client_events_dropped: counter(
                "carillon_client_events_dropped_total",
                "Client events dropped because they could not be published.",
            ),
        }
    }
}

/// The metrics of presence channels.
#[derive(Clone)]
pub(crate) struct PresenceMetrics {
    members: IntGauge,
    joins: IntCounter,
    leaves: IntCounter,
    resyncs: IntCounter,
    resync_seconds: Histogram,
}

impl PresenceMetrics {
    fn new(registrar: &Registrar<'_>) -> Self {
        Self {
            members: registrar
                .gauge("carillon_presence_members", "Members of presence channels with a connection on this node."),
            joins: registrar
                .counter("carillon_presence_joins_total", "Members whose first connection on this node joined."),
            leaves: registrar
                .counter("carillon_presence_leaves_total", "Members whose last connection on this node left."),
            resyncs: registrar.counter(
                "carillon_presence_resyncs_total",
                "Channels resynchronized after changes may have been missed.",
            ),
            resync_seconds: registrar.histogram(latency(
                "carillon_presence_resync_seconds",
                "Time to resynchronize all unverified channels.",
            )),
        }
    }

    /// Counts a user whose first connection on this node joined.
    pub(crate) fn joined(&self) {
        self.members.inc();
        self.joins.inc();
    }

    /// Counts a user whose last connection on this node left.
    pub(crate) fn left(&self) {
        self.members.dec();
        self.leaves.inc();
    }

    /// Counts resynchronized channels.
    pub(crate) fn resynchronized(&self, channels: usize, took: std::time::Duration) {
        self.resyncs.inc_by(channels as u64);
        self.resync_seconds.observe(took.as_secs_f64());
    }
}

impl Metrics {
    /// Registers all metrics. `connections_max` and `descriptors_max` are exported unchanged.
    pub(crate) fn new(registry: &Registry, apps: &Apps, connections_max: usize, descriptors_max: u64) -> Self {
        let registrar = Registrar(registry);
        let (connections_max, descriptors_max) = (i64::try_from(connections_max), i64::try_from(descriptors_max));
        let max = registrar.gauge("carillon_connections_max", "Maximum number of client connections of this node.");
        max.set(connections_max.unwrap_or(i64::MAX));
        let max =
            registrar.gauge("carillon_descriptors_max", "Maximum number of open file descriptors of this process.");
        max.set(descriptors_max.unwrap_or(i64::MAX));

        let labels = ["app", "transport"];
        let connections = registrar.gauges("carillon_connections", "Open client connections.", &labels);
        let opened = registrar.counters("carillon_connections_opened_total", "Client connections opened.", &labels);
        Self {
            apps: app_metrics(apps, &connections, &opened),
            closed: registrar.counters(
                "carillon_connections_closed_total",
                "Client connections closed, by close code; 1006 means that there was none.",
                &["code"],
            ),
            subscriptions: registrar.gauges("carillon_subscriptions", "Subscriptions of this node.", &["kind"]),
            channels: registrar.gauges(
                "carillon_channels",
                "Channels with subscribers, counted once per shard.",
                &["kind"],
            ),
            refusals: RefusalMetrics::new(&registrar),
            fallback: FallbackMetrics::new(&registrar),
            traffic: TrafficMetrics::new(&registrar),
            event_loop_lag: EventLoopLag::new(registry),
            presence: PresenceMetrics::new(&registrar),
            draining: registrar.gauge("carillon_draining", "1 while this node is draining."),
        }
    }

    /// Returns the metrics of an app.
    pub(crate) fn app(&self, id: &AppId) -> &AppMetrics {
        self.apps.get(id).expect("every configured app has metrics")
    }

    pub(crate) fn closed(&self, code: Option<CloseCode>) {
        self.closed.with_label_values(&[code.map_or("1006", CloseCode::label)]).inc();
    }

    pub(crate) fn connection_dropped(&self, reason: &str) {
        self.refusals.connections_dropped.with_label_values(&[reason]).inc();
    }

    pub(crate) fn handshake_invalid(&self, invalid: InvalidHandshake) {
        self.refusals.handshakes_invalid.with_label_values(&[invalid.label()]).inc();
    }

    pub(crate) fn fallback_request(&self, kind: RequestKind) {
        self.fallback.requests.with_label_values(&[kind.label()]).inc();
    }

    pub(crate) fn fallback_forwarded(&self, result: ForwardResult) {
        self.fallback.forwarded.with_label_values(&[result.label()]).inc();
    }

    pub(crate) fn handshake_rejected(&self, code: CloseCode) {
        self.refusals.handshakes_rejected.with_label_values(&[code.label()]).inc();
    }

    pub(crate) fn subscriptions(&self, kind: ChannelKind) -> IntGauge {
        self.subscriptions.with_label_values(&[kind.label()])
    }

    pub(crate) fn channels(&self, kind: ChannelKind) -> IntGauge {
        self.channels.with_label_values(&[kind.label()])
    }

    pub(crate) fn protocol_error(&self, kind: &str) {
        self.refusals.protocol_errors.with_label_values(&[kind]).inc();
    }

    pub(crate) fn auth_failure(&self, reason: &str) {
        self.refusals.auth_failures.with_label_values(&[reason]).inc();
    }

    pub(crate) fn rate_limited(&self, scope: &str) {
        self.refusals.rate_limited.with_label_values(&[scope]).inc();
    }
}

fn app_metrics(apps: &Apps, connections: &IntGaugeVec, opened: &IntCounterVec) -> HashMap<AppId, AppMetrics> {
    let labeled = app_labels(apps).into_iter().map(|(id, label)| {
        let metrics = AppMetrics {
            connections: Transport::ALL.map(|transport| connections.with_label_values(&[label, transport.label()])),
            opened: Transport::ALL.map(|transport| opened.with_label_values(&[label, transport.label()])),
        };
        (id.clone(), metrics)
    });
    labeled.collect()
}
