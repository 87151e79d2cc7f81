use super::*;

#[track_caller]
fn check(arrived: &[u64], end: u64, expected: Tally) {
    let (mut track, mut tally) = (Track::default(), Tally::default());
    for sequence in arrived {
        track.arrived(*sequence, &mut tally);
    }
    track.finish(end, &mut tally);
    assert_eq!(tally, expected);
}

fn tally(deliveries: u64, lost: u64, doubled: u64, out_of_order: u64) -> Tally {
    Tally { deliveries, lost, doubled, out_of_order }
}

#[test]
fn events_in_order_are_clean() {
    check(&[0, 1, 2], 3, tally(3, 0, 0, 0));
}

#[test]
fn a_skipped_event_is_lost() {
    check(&[0, 3, 4], 5, tally(3, 2, 0, 0));
}

#[test]
fn a_missing_event_at_the_end_is_lost() {
    check(&[0], 4, tally(1, 3, 0, 0));
    check(&[], 4, tally(0, 4, 0, 0));
}

#[test]
fn a_repeated_event_is_duplicated() {
    check(&[0, 0, 1, 1, 0], 2, tally(5, 0, 3, 0));
}

#[test]
fn a_late_event_is_out_of_order_and_not_lost() {
    check(&[0, 4, 2, 1, 3], 5, tally(5, 0, 0, 3));
}

#[test]
fn a_late_and_repeated_event_counts_as_both() {
    check(&[0, 2, 1, 1], 3, tally(4, 0, 1, 1));
}
