//! Counters of everything that goes through Redis, for both roles.

use std::time::Duration;

use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts};

use super::error::Refusal;
use super::primary_state::State;
use crate::serve::telemetry::metrics::{Registry, from_zero, latency, register};

/// What is counted of Redis.
#[derive(Clone)]
pub struct Metrics {
    up: IntGauge,
    state: IntGaugeVec,
    refusing: IntGaugeVec,
    live: IntGauge,
    reconnects: IntCounterVec,
    resync_seconds: Histogram,
    topics: IntGauge,
    received: IntCounter,
    dropped: IntCounterVec,
    probe_seconds: Histogram,
    command_seconds: HistogramVec,
    command_errors: IntCounterVec,
    pub(crate) fenced: IntCounter,
    pub(crate) lost_channels: IntCounter,
    pub(crate) evictions: IntCounter,
    pub(crate) evicted_members: IntCounter,
    pub(crate) damaged_entries: IntCounter,
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
    /// The server must not be used any more, or the address leads to another one.
    Moved,
}

impl DisconnectReason {
    pub(crate) const ALL: [Self; 7] =
        [Self::Connect, Self::Subscribe, Self::Disconnected, Self::Ping, Self::Probe, Self::Overflow, Self::Moved];

    /// The reason as a metric label.
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

impl Metrics {
    /// Registers all of them; those of a subscriber only for a role that `hears`. Others would show a subscription that is
    /// down for ever.
    pub fn new(registry: &Registry, hears: bool) -> Self {
        let nowhere = Registry::new();
        let of_subscriber = if hears { registry } else { &nowhere };
        let gauge = |registry: &Registry, name: &str, help: &str| register(registry, IntGauge::new(name, help));
        let gauges =
            |name: &str, help: &str, label: &str| register(registry, IntGaugeVec::new(Opts::new(name, help), &[label]));
        let counter = |name: &str, help: &str| register(registry, IntCounter::new(name, help));
        let counters = |name: &str, help: &str, labels: &[&str]| {
            register(registry, IntCounterVec::new(Opts::new(name, help), labels))
        };
        let histogram = |name: &str, help: &str| register(of_subscriber, Histogram::with_opts(latency(name, help)));
        Self {
            up: gauge(registry, "carillon_redis_up", "1 while Redis answers commands."),
            state: gauges("carillon_redis_state", "1 for the state of the Redis server that this node sees.", "state"),
            refusing: gauges(
                "carillon_redis_refusing",
                "1 for the reason why the Redis server must not be used, while it must not.",
                "reason",
            ),
            live: gauge(of_subscriber, "carillon_redis_subscriber_live", "1 while everything wanted is subscribed to."),
            reconnects: from_zero(
                register(
                    of_subscriber,
                    IntCounterVec::new(
                        Opts::new(
                            "carillon_redis_reconnects_total",
                            "Ends of the subscriber's connection, or failed attempts at one, by reason.",
                        ),
                        &["reason"],
                    ),
                ),
                DisconnectReason::ALL.map(|reason| [reason.label()]),
            ),
            resync_seconds: histogram(
                "carillon_redis_resubscribe_seconds",
                "From a new connection to the last confirmed subscription.",
            ),
            topics: gauge(of_subscriber, "carillon_redis_subscribed_topics", "Topics that this node subscribes to."),
            received: register(
                of_subscriber,
                IntCounter::new("carillon_redis_messages_received_total", "Envelopes heard."),
            ),
            dropped: counters("carillon_redis_messages_dropped_total", "Messages that could not be read.", &["reason"]),
            probe_seconds: histogram("carillon_redis_probe_seconds", "A probe's way through Redis and back."),
            command_seconds: register(
                registry,
                HistogramVec::new(latency("carillon_redis_command_seconds", "Time of a command."), &["command"]),
            ),
            command_errors: counters("carillon_redis_command_errors_total", "Commands without an answer.", &["kind"]),
            fenced: counter("carillon_presence_fenced_total", "Times that this node found itself swept."),
            lost_channels: counter(
                "carillon_presence_lost_channels_total",
                "Channels of which Redis had lost something that this node had put there.",
            ),
            evictions: counter("carillon_presence_evictions_total", "Dead nodes swept by this one."),
            evicted_members: counter("carillon_presence_evicted_members_total", "Users removed with dead nodes."),
            damaged_entries: counter(
                "carillon_presence_damaged_entries_total",
                "Channels of dead nodes that could not be swept, because a key has the wrong type.",
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
        self.live.set(1);
        self.resync_seconds.observe(took.as_secs_f64());
    }

    pub(crate) fn subscriber_down(&self, reason: DisconnectReason) {
        self.live.set(0);
        self.reconnects.with_label_values(&[reason.label()]).inc();
    }

    pub(crate) fn subscribed_topics(&self, count: usize) {
        self.topics.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    pub(crate) fn received(&self) {
        self.received.inc();
    }

    pub(crate) fn dropped(&self, reason: &str) {
        self.dropped.with_label_values(&[reason]).inc();
    }

    /// Counts a message that was dropped; returns whether it is the first for this reason.
    pub(crate) fn dropped_first(&self, reason: &str) -> bool {
        let counter = self.dropped.with_label_values(&[reason]);
        counter.inc();
        counter.get() == 1
    }

    pub(crate) fn probed(&self, took: Duration) {
        self.probe_seconds.observe(took.as_secs_f64());
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
    fn reconnects_are_counted_from_zero_by_every_reason() {
        let registry = Registry::new();
        Metrics::new(&registry, true);
        let families = registry.gather();
        let family = families.iter().find(|family| family.name() == "carillon_redis_reconnects_total").expect("it is");
        let counts = family.get_metric().iter().map(|metric| metric.get_counter().get_value());
        assert_eq!(counts.collect::<Vec<_>>(), [0.0; DisconnectReason::ALL.len()]);
    }
}
