use super::*;

#[test]
fn due_times_have_equal_intervals() {
    let pace = Pace::new(1_000, 500.0, 0.0);
    assert_eq!(pace.due_ns(0), 1_000);
    for index in 0..10_000 {
        assert_eq!(pace.due_ns(index + 1) - pace.due_ns(index), 2_000_000);
    }
}

#[test]
fn a_rate_that_does_not_divide_a_second_does_not_drift() {
    let pace = Pace::new(0, 3.0, 0.0);
    assert_eq!(pace.due_ns(3_000_000), 1_000_000_000_000_000);
}

#[test]
fn senders_that_share_a_rate_alternate() {
    let (first, second) = (Pace::new(0, 100.0, 0.0), Pace::new(0, 100.0, 0.5));
    assert_eq!(second.due_ns(0) - first.due_ns(0), 5_000_000);
    assert_eq!(first.due_ns(1) - second.due_ns(0), 5_000_000);
}

#[test]
fn everything_is_due_at_once_without_a_rate() {
    let pace = Pace::new(7, 0.0, 0.5);
    assert_eq!(pace.due_ns(1_000_000), 7);
}
