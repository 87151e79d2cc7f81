//! The scenarios and parameters of `bench compare`.

use crate::figure::Figure;
use crate::publisher::Sending;
use crate::scenario::{Bursts, ClientEvents, Fanout, Idle, Presence, Routing, Scenario, SlowReaders, Storm};

use super::server::Group;

/// A scenario with its parameters and the figures that the summary shows.
pub(crate) struct Case {
    /// The name in the tables and for `--only`.
    pub(crate) name: &'static str,
    pub(crate) scenario: Scenario,
    groups: &'static [Group],
    /// The figures in the summary. Faults are always shown, and the JSON file has all figures. Scenarios with a steady rate
    /// include the lateness of requests.
    pub(crate) figures: &'static [Figure],
}

const ONE_NODE: &[Group] = &[Group::OneNode];
const BOTH: &[Group] = &[Group::OneNode, Group::Cluster];

impl Case {
    /// Returns whether servers of `group` run this case.
    pub(crate) fn is_for(&self, group: Group) -> bool {
        self.groups.contains(&group)
    }

    /// Returns all cases. `divisor` divides the numbers of events and sockets.
    pub(crate) fn all(divisor: u64) -> Vec<Self> {
        [
            Self::idle(divisor),
            Self::fan_out(divisor),
            Self::routing(divisor),
            Self::clients(divisor),
            Self::slow(divisor),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// Sockets without events.
    fn idle(divisor: u64) -> Vec<Self> {
        use Figure as F;
        let small = smaller(divisor);
        vec![Self {
            name: "idle",
            scenario: Scenario::Idle(Idle { sockets: 10_000 / small, in_flight: 64, hold_s: 3 }),
            groups: ONE_NODE,
            figures: &[F::ResidentPerSocketBytes, F::CpuPerSocketUs],
        }]
    }

    /// Events to many subscribers of one channel.
    fn fan_out(divisor: u64) -> Vec<Self> {
        use Figure as F;
        let small = smaller(divisor);
        let sending = Sending::default();
        vec![
            Self {
                name: "fanout-1000",
                scenario: Scenario::Fanout(Fanout {
                    subscribers: 1000,
                    rate: 100.0,
                    events: 1000 / divisor,
                    data_bytes: 100,
                    sending,
                }),
                groups: BOTH,
                figures: &[F::CpuPerDeliveryUs, F::LatencyP50Ms, F::LatencyP99Ms, F::LatenessP99Ms, F::OwnCpuRatio],
            },
            Self {
                name: "fanout-10000",
                scenario: Scenario::Fanout(Fanout {
                    subscribers: 10_000 / small,
                    rate: 10.0,
                    events: 100 / divisor,
                    data_bytes: 100,
                    sending,
                }),
                groups: ONE_NODE,
                figures: &[F::CpuPerDeliveryUs, F::LatencyP50Ms, F::LatenessP99Ms, F::OwnCpuRatio],
            },
            Self {
                name: "bursts",
                scenario: Scenario::Bursts(Bursts {
                    subscribers: 1000,
                    batch: 10,
                    rate: 0.0,
                    events: 3_000 / divisor,
                    data_bytes: 100,
                    sending,
                }),
                groups: BOTH,
                figures: &[F::CpuPerDeliveryUs, F::DeliveriesPerSecond],
            },
        ]
    }

    /// Events to many channels.
    fn routing(divisor: u64) -> Vec<Self> {
        use Figure as F;
        let sending = Sending::default();
        // Four concurrent requests; each channel belongs to one of the four connections.
        let spread = Sending { connections: 4, in_flight: 1 };
        vec![
            Self {
                name: "routing",
                scenario: Scenario::Routing(Routing {
                    channels: 2000,
                    batch: 10,
                    rate: 0.0,
                    events_per_channel: 100 / divisor,
                    data_bytes: 100,
                    sending: spread,
                }),
                groups: BOTH,
                figures: &[F::CpuPerEventUs, F::EventsPerSecond],
            },
            Self {
                name: "latency",
                scenario: Scenario::Routing(Routing {
                    channels: 2000,
                    batch: 1,
                    rate: 500.0,
                    events_per_channel: 2,
                    data_bytes: 100,
                    sending,
                }),
                groups: BOTH,
                figures: &[F::LatencyP50Ms, F::LatencyP99Ms, F::CpuPerEventUs, F::LatenessP99Ms, F::OwnCpuRatio],
            },
        ]
    }

    /// Members, connections and events of clients.
    fn clients(divisor: u64) -> Vec<Self> {
        use Figure as F;
        let small = smaller(divisor);
        vec![
            Self {
                name: "presence",
                scenario: Scenario::Presence(Presence { members: 100 }),
                groups: BOTH,
                figures: &[F::JoinedMs, F::HalfLeftMs, F::CpuPerJoinUs],
            },
            Self {
                name: "storm",
                scenario: Scenario::Storm(Storm { sockets: 5000 / small, waves: 2, in_flight: 500, channels: 1 }),
                groups: ONE_NODE,
                figures: &[F::CpuPerSocketUs, F::CpuPerLeaveUs, F::SocketsPerSecond, F::LatencyP99Ms],
            },
            Self {
                name: "client-events",
                scenario: Scenario::ClientEvents(ClientEvents {
                    channels: 100,
                    members: 10,
                    rate: 8.0,
                    events_per_channel: 80 / divisor,
                    data_bytes: 100,
                }),
                groups: BOTH,
                figures: &[F::CpuPerDeliveryUs, F::LatencyP50Ms, F::LatenessP99Ms, F::OwnCpuRatio],
            },
        ]
    }

    /// Sockets that stop reading.
    fn slow(divisor: u64) -> Vec<Self> {
        use Figure as F;
        vec![Self {
            name: "slow-readers",
            scenario: Scenario::SlowReaders(SlowReaders {
                subscribers: 1000,
                slow: 50,
                rate: 100.0,
                seconds: (30 / divisor).max(2),
                data_bytes: 2000,
            }),
            groups: ONE_NODE,
            figures: &[
                F::P99BeforeMs,
                F::LatencyP99Ms,
                F::P99Ratio,
                F::ResidentPeakMib,
                F::ResidentAfterMib,
                F::ClosedAsSlow,
                F::LeftOpen,
                F::LatenessP99Ms,
                F::OwnCpuRatio,
            ],
        }]
    }
}

/// Returns the divisor for numbers of sockets.
fn smaller(divisor: u64) -> usize {
    usize::try_from(divisor).unwrap_or(1).max(1)
}
