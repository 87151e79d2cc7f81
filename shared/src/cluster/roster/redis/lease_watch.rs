//! Decides which nodes are dead, without anybody's clock but this process' own.
//!
//! Redis' clock may jump, and Redis may be away for longer than a lease, with its data or without. So the expiry that
//! stands in Redis proves nothing. This node looks at all leases every two seconds. A node whose lease has not changed
//! for [`Times::silence`] is dead.

use std::time::{Duration, Instant};

use hashbrown::HashMap;

use super::Times;

/// The lease of an identity that its node has given up.
const GIVEN_UP: &str = "0";

/// The leases of other nodes as this node has seen them change.
#[derive(Default)]
pub(super) struct Watch {
    seen: HashMap<String, Seen>,
    last_look: Option<Instant>,
}

struct Seen {
    /// The lease as Redis showed it. Every renewal changes it.
    lease: String,
    /// How long it has not changed.
    silence: Duration,
}

impl Watch {
    /// Takes the leases of one look, and returns the nodes that have been silent for too long, with their leases.
    ///
    /// A look counts for [`Times::credit`] at most, however long ago the one before it was. In a longer gap this process was
    /// paused, or Redis was away, so that others could not renew their leases either.
    pub(super) fn look(&mut self, now: Instant, leases: Vec<(String, String)>, times: &Times) -> Vec<(String, String)> {
        let elapsed = self.last_look.map_or(Duration::ZERO, |last| now.saturating_duration_since(last));
        self.last_look = Some(now);
        let credit = elapsed.min(times.credit);
        let mut silent = Vec::new();
        let mut seen = HashMap::with_capacity(leases.len());
        for (node, lease) in leases {
            let silence = match self.seen.get(&node) {
                Some(before) if before.lease == lease => before.silence + credit,
                _ => Duration::ZERO,
            };
            let silence_max = if lease == GIVEN_UP { times.given_up } else { times.silence };
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

    const LOOK: Duration = Duration::from_secs(2);

    struct Scene {
        watch: Watch,
        now: Instant,
    }

    impl Scene {
        fn new() -> Self {
            Self { watch: Watch::default(), now: Instant::now() }
        }

        fn look(&mut self, after: Duration, leases: &[(&str, u64)]) -> Vec<String> {
            self.now += after;
            let leases = leases.iter().map(|(node, lease)| ((*node).to_owned(), lease.to_string())).collect();
            self.watch.look(self.now, leases, &Times::REAL).into_iter().map(|(node, _)| node).collect()
        }
    }

    #[test]
    fn a_node_that_renews_is_alive_whatever_its_lease_says() {
        let mut scene = Scene::new();
        for round in 0..100 {
            // Renewed with every third look, by a clock that runs backward.
            assert_eq!(scene.look(LOOK, &[("ana", 1_000_000 - 15_000 * (round / 3))]), [""; 0]);
        }
    }

    #[test]
    fn a_node_whose_lease_does_not_change_is_dead_after_the_silence_and_not_before() {
        let mut scene = Scene::new();
        for look in 0..30 {
            let silent = scene.look(LOOK, &[("ana", 7), ("bo", look)]);
            assert_eq!(silent.contains(&"ana".to_owned()), look >= 9, "look {look}");
            assert!(!silent.contains(&"bo".to_owned()));
        }
    }

    #[test]
    fn a_long_gap_between_looks_counts_as_one_look() {
        let mut scene = Scene::new();
        for _ in 0..3 {
            assert_eq!(scene.look(LOOK, &[("ana", 7)]), [""; 0]);
        }
        assert_eq!(scene.look(Duration::from_secs(3600), &[("ana", 7)]), [""; 0]);
        // What was seen before the gap still counts.
        let more = (1..).find(|_| !scene.look(LOOK, &[("ana", 7)]).is_empty());
        assert_eq!(more, Some(6));
    }

    #[test]
    fn a_change_of_any_kind_is_a_sign_of_life() {
        let mut scene = Scene::new();
        for _ in 0..8 {
            scene.look(LOOK, &[("ana", 50_000)]);
        }
        // An older state came back, as from a replica that lags.
        for _ in 0..9 {
            assert_eq!(scene.look(LOOK, &[("ana", 10_000)]), [""; 0]);
        }
        assert_eq!(scene.look(LOOK, &[("ana", 10_000)]), ["ana"]);
    }

    #[test]
    fn a_node_that_was_missing_meanwhile_is_new() {
        let mut scene = Scene::new();
        for _ in 0..8 {
            scene.look(LOOK, &[("ana", 7)]);
        }
        scene.look(LOOK, &[]);
        assert_eq!(scene.look(LOOK, &[("ana", 7)]), [""; 0]);
    }

    #[test]
    fn an_identity_that_was_given_up_is_dead_soon() {
        let mut scene = Scene::new();
        for look in 0..6 {
            let silent = scene.look(LOOK, &[("ana", 0), ("bo", 7)]);
            assert_eq!(silent.len(), usize::from(look >= 4), "look {look}: {silent:?}");
        }
    }
}
