use std::collections::HashSet;

use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;

#[track_caller]
fn check(raw: &str, expected: Option<&str>) {
    assert_eq!(raw.parse::<SocketId>().ok().map(|id| id.to_string()).as_deref(), expected, "{raw:?}");
}

#[test]
fn two_runs_of_digits_with_a_dot_are_an_id() {
    check("1234.1234", Some("1234.1234"));
    check("131160.155806628", Some("131160.155806628"));
    check("0.0", Some("0.0"));
    check("18446744073709551615.1", Some("18446744073709551615.1"));
}

#[test]
fn anything_else_is_refused() {
    for raw in [
        "", ".", "1", "1.", ".1", "1.2.3", "+1.2", "1.+2", "-1.2", "1.2 ", " 1.2", "a.b", "1,2", "1.2\n", "١.٢",
        "1_0.2",
    ] {
        check(raw, None);
    }
}

#[test]
fn numbers_outside_the_range_of_servers_are_refused() {
    check("18446744073709551616.1", None);
    check("1.99999999999999999999999999", None);
}

#[test]
fn new_ids_differ_and_stay_in_the_range_that_clients_accept() {
    let mut rng = StdRng::seed_from_u64(1);
    let ids: HashSet<SocketId> = (0..10_000).map(|_| SocketId::random(&mut rng)).collect();
    assert_eq!(ids.len(), 10_000);
    for id in ids {
        assert!((1..HALF_END).contains(&id.left) && (1..HALF_END).contains(&id.right), "{id}");
    }
}

proptest! {
    #[test]
    fn an_id_reads_as_it_was_written(left: u64, right: u64) {
        let id = SocketId { left, right };
        prop_assert_eq!(id.to_string().parse(), Ok(id));
    }

    #[test]
    fn no_text_causes_a_panic(raw in any::<String>()) {
        let _ = raw.parse::<SocketId>();
    }
}
