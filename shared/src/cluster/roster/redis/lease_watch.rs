//! Detects dead nodes from their leases.
//!
//! Redis' clock may jump. Redis may also be unavailable for longer than a lease, and may lose data. The expiry of a
//! lease therefore does not show whether its node is running. This node reads all leases every two seconds, and
//! measures time with the clock of its process. A node is dead if its lease has not changed for [`Times::silence`].

use std::time::{Duration, Instant};

use hashbrown::HashMap;

use super::Times;

/// The lease of an earlier id that its node has released.
const RELEASED: &str = "0";

/// The leases of all nodes at the last check.
#[derive(Default)]
pub(super) struct LeaseWatch {
    seen: HashMap<String, Seen>,
    last_check: Option<Instant>,
}

struct Seen {
    /// The lease in Redis. Every renewal changes it.
    lease: String,
    /// The time for which the lease has not changed.
    silence: Duration,
}

impl LeaseWatch {
    /// Updates the leases, and returns the nodes whose leases have not changed for too long, with their leases.
    ///
    /// A check adds at most [`Times::credit_max`] to a silence. If the previous check was earlier, this process was
    /// paused or Redis was unavailable. Other nodes could not renew their leases either.
    pub(super) fn check(
        &mut self,
        now: Instant,
        leases: Vec<(String, String)>,
        times: &Times,
    ) -> Vec<(String, String)> {
        let elapsed = self.last_check.map_or(Duration::ZERO, |last| now.saturating_duration_since(last));
        self.last_check = Some(now);
        let credit = elapsed.min(times.credit_max);
        let mut silent = Vec::new();
        let mut seen = HashMap::with_capacity(leases.len());
        for (node, lease) in leases {
            let silence = match self.seen.get(&node) {
                Some(before) if before.lease == lease => before.silence + credit,
                _ => Duration::ZERO,
            };
            let silence_max = if lease == RELEASED { times.released_silence } else { times.silence };
            if silence >= silence_max {
                silent.push((node.clone(), lease.clone()));
            }
            seen.insert(node, Seen { lease, silence });
        }
        self.seen = seen;
        silent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(2);

    struct Fixture {
        watch: LeaseWatch,
        now: Instant,
    }

    impl Fixture {
        fn new() -> Self {
            Self { watch: LeaseWatch::default(), now: Instant::now() }
        }

        fn check(&mut self, after: Duration, leases: &[(&str, u64)]) -> Vec<String> {
            self.now += after;
            let leases = leases.iter().map(|(node, lease)| ((*node).to_owned(), lease.to_string())).collect();
            self.watch.check(self.now, leases, &Times::REAL).into_iter().map(|(node, _)| node).collect()
        }
    }

    #[test]
    fn a_node_that_renews_its_lease_is_alive_whatever_the_expiry_is() {
        let mut fixture = Fixture::new();
        for round in 0..100 {
            // The node renews the lease at every third check, while Redis' clock runs backward.
            assert_eq!(fixture.check(INTERVAL, &[("ana", 1_000_000 - 15_000 * (round / 3))]), [""; 0]);
        }
    }

    #[test]
    fn a_node_is_dead_once_its_lease_has_not_changed_for_the_silence() {
        let mut fixture = Fixture::new();
        for check in 0..30 {
            let silent = fixture.check(INTERVAL, &[("ana", 7), ("bo", check)]);
            assert_eq!(silent.contains(&"ana".to_owned()), check >= 9, "check {check}");
            assert!(!silent.contains(&"bo".to_owned()));
        }
    }

    #[test]
    fn a_long_gap_between_checks_counts_as_one_check() {
        let mut fixture = Fixture::new();
        for _ in 0..3 {
            assert_eq!(fixture.check(INTERVAL, &[("ana", 7)]), [""; 0]);
        }
        assert_eq!(fixture.check(Duration::from_secs(3600), &[("ana", 7)]), [""; 0]);
        // The silence before the gap still counts.
        let more = (1..).find(|_| !fixture.check(INTERVAL, &[("ana", 7)]).is_empty());
        assert_eq!(more, Some(6));
    }

    #[test]
    fn any_change_of_a_lease_shows_that_its_node_is_alive() {
        let mut fixture = Fixture::new();
        for _ in 0..8 {
            fixture.check(INTERVAL, &[("ana", 50_000)]);
        }
        // Redis returned with an older state, for example that of a replica with a lag.
        for _ in 0..9 {
            assert_eq!(fixture.check(INTERVAL, &[("ana", 10_000)]), [""; 0]);
        }
        assert_eq!(fixture.check(INTERVAL, &[("ana", 10_000)]), ["ana"]);
    }

    #[test]
    fn a_node_that_was_missing_at_a_check_counts_as_new() {
        let mut fixture = Fixture::new();
        for _ in 0..8 {
            fixture.check(INTERVAL, &[("ana", 7)]);
        }
        fixture.check(INTERVAL, &[]);
        assert_eq!(fixture.check(INTERVAL, &[("ana", 7)]), [""; 0]);
    }

    #[test]
    fn a_released_id_is_dead_after_a_short_time() {
        let mut fixture = Fixture::new();
        for check in 0..6 {
            let silent = fixture.check(INTERVAL, &[("ana", 0), ("bo", 7)]);
            assert_eq!(silent.len(), usize::from(check >= 4), "check {check}: {silent:?}");
        }
    }
}
