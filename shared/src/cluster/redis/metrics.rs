//! The metrics of Redis, for all roles.

use std::time::Duration;

use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts};

use super::error::Refusal;
use super::state::State;
use crate::serve::telemetry::metrics::{Registry, from_zero, latency, register};

/// The metrics of Redis.
#[derive(Clone)]
pub struct Metrics {
    subscriber: SubscriberMetrics,
    up: IntGauge,
    state: IntGaugeVec,
    refusing: IntGaugeVec,
    dropped: IntCounterVec,
    command_seconds: HistogramVec,
    command_errors: IntCounterVec,
    pub(crate) fenced: IntCounter,
    pub(crate) lost_channels: IntCounter,
    pub(crate) evictions: IntCounter,
    pub(crate) evicted_members: IntCounter,
    pub(crate) damaged_entries: IntCounter,
}

/// The metrics of the subscriber.
#[derive(Clone)]
struct SubscriberMetrics {
    live: IntGauge,
    reconnects: IntCounterVec,
    resync_seconds: Histogram,
    topics: IntGauge,
    received: IntCounter,
    probe_seconds: Histogram,
}

/// The reason why a subscriber's connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DisconnectReason {
    Connect,
    Subscribe,
    Disconnected,
    Ping,
    Probe,
    Overflow,
    /// The server must not be used, or the address leads to another server.
    Moved,
}

impl DisconnectReason {
    pub(crate) const ALL: [Self; 7] =
        [Self::Connect, Self::Subscribe, Self::Disconnected, Self::Ping, Self::Probe, Self::Overflow, Self::Moved];

    /// Returns the metric label.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Subscribe => "subscribe",
            Self::Disconnected => "disconnected",
            Self::Ping => "ping",
            Self::Probe => "probe",
            Self::Overflow => "overflow",
            Self::Moved => "moved",
        }
    }
}

impl SubscriberMetrics {
    fn new(registry: &Registry) -> Self {
        let gauge = |name: &str, help: &str| register(registry, IntGauge::new(name, help));
        let histogram = |name: &str, help: &str| register(registry, Histogram::with_opts(latency(name, help)));
        let reconnects = Opts::new(
            "carillon_redis_reconnects_total",
            "Disconnects and failed connection attempts of the subscriber, by reason.",
        );
        Self {
            live: gauge("carillon_redis_subscriber_live", "1 while all subscriptions of this node are confirmed."),
            reconnects: from_zero(
                register(registry, IntCounterVec::new(reconnects, &["reason"])),
                DisconnectReason::ALL.map(|reason| [reason.label()]),
            ),
            resync_seconds: histogram(
                "carillon_redis_resubscribe_seconds",
                "Time from a new connection to the last confirmed subscription.",
            ),
            topics: gauge("carillon_redis_subscribed_topics", "Topics that this node is subscribed to."),
            received: register(
                registry,
                IntCounter::new("carillon_redis_messages_received_total", "Envelopes received."),
            ),
            probe_seconds: histogram("carillon_redis_probe_seconds", "Round trip of a probe message through Redis."),
        }
    }
}

impl Metrics {
    /// Registers the metrics. Those of the subscriber are registered only for a role that subscribes.
    pub fn new(registry: &Registry, subscribes: bool) -> Self {
        let nowhere = Registry::new();
        let gauges =
            |name: &str, help: &str, label: &str| register(registry, IntGaugeVec::new(Opts::new(name, help), &[label]));
        let counter = |name: &str, help: &str| register(registry, IntCounter::new(name, help));
        let counters = |name: &str, help: &str, label: &str| {
            register(registry, IntCounterVec::new(Opts::new(name, help), &[label]))
        };
        Self {
            subscriber: SubscriberMetrics::new(if subscribes { registry } else { &nowhere }),
            up: register(registry, IntGauge::new("carillon_redis_up", "1 while Redis replies to commands.")),
            state: gauges(
                "carillon_redis_state",
                "1 for the current state of the Redis server, as seen by this node.",
                "state",
            ),
            refusing: gauges(
                "carillon_redis_refusing",
                "1 for the reason why the Redis server must not be used, if any.",
                "reason",
            ),
            dropped: counters(
                "carillon_redis_messages_dropped_total",
                "Messages that could not be decoded, by reason.",
                "reason",
            ),
            command_seconds: register(
                registry,
                HistogramVec::new(latency("carillon_redis_command_seconds", "Duration of a command."), &["command"]),
            ),
            command_errors: counters(
                "carillon_redis_command_errors_total",
                "Failed commands, by kind of error.",
                "kind",
            ),
            fenced: counter("carillon_presence_fenced_total", "Number of times that other nodes swept this node."),
            lost_channels: counter(
                "carillon_presence_lost_channels_total",
                "Channels for which Redis had lost state of this node.",
            ),
            evictions: counter("carillon_presence_evictions_total", "Dead nodes swept by this node."),
            evicted_members: counter(
                "carillon_presence_evicted_members_total",
                "Users removed in sweeps of dead nodes.",
            ),
            damaged_entries: counter(
                "carillon_presence_damaged_entries_total",
                "Channels of dead nodes that could not be swept because a key has an unexpected type.",
            ),
        }
    }

    pub(crate) fn state_changed(&self, state: State, answers: bool) {
        self.up.set(i64::from(answers));
        for label in State::LABELS {
            self.state.with_label_values(&[label]).set(i64::from(label == state.label()));
        }
        for refusal in Refusal::ALL {
            let is_it = state == State::Refusing(refusal);
            self.refusing.with_label_values(&[refusal.label()]).set(i64::from(is_it));
        }
    }

    pub(crate) fn subscriber_live(&self, took: Duration) {
        self.subscriber.live.set(1);
        self.subscriber.resync_seconds.observe(took.as_secs_f64());
    }

    pub(crate) fn subscriber_down(&self, reason: DisconnectReason) {
        self.subscriber.live.set(0);
        self.subscriber.reconnects.with_label_values(&[reason.label()]).inc();
    }

    pub(crate) fn subscribed_topics(&self, count: usize) {
        self.subscriber.topics.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    pub(crate) fn received(&self) {
        self.subscriber.received.inc();
    }

    pub(crate) fn dropped(&self, reason: &str) {
        self.dropped.with_label_values(&[reason]).inc();
    }

    /// Counts a dropped message. Returns whether it is the first for this reason.
    pub(crate) fn dropped_first(&self, reason: &str) -> bool {
        let counter = self.dropped.with_label_values(&[reason]);
        counter.inc();
        counter.get() == 1
    }

    pub(crate) fn probed(&self, took: Duration) {
        self.subscriber.probe_seconds.observe(took.as_secs_f64());
    }

    pub(crate) fn answered(&self, command: &str, took: Duration) {
        self.command_seconds.with_label_values(&[command]).observe(took.as_secs_f64());
    }

    pub(crate) fn failed(&self, kind: &str) {
        self.command_errors.with_label_values(&[kind]).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reconnects_start_at_zero_for_every_reason() {
        let registry = Registry::new();
        Metrics::new(&registry, true);
        let families = registry.gather();
        let family = families
            .iter()
            .find(|family| family.name() == "carillon_redis_reconnects_total")
            .expect("a registered metric");
        let counts = family.get_metric().iter().map(|metric| metric.get_counter().get_value());
        assert_eq!(counts.collect::<Vec<_>>(), [0.0; DisconnectReason::ALL.len()]);
    }
}
