use std::time::Duration;

use proptest::prelude::*;

use super::*;

/// Takes at each time, in milliseconds; `expected`: one letter per take, `y` where one was left.
#[track_caller]
fn check(per_second: u32, times_ms: &[u64], expected: &str) {
    let (mut allowance, start) = (Allowance::default(), Instant::now());
    let mut taken = String::new();
    for time_ms in times_ms {
        let granted = allowance.take(1, per_second, start + Duration::from_millis(*time_ms));
        taken.push(if granted { 'y' } else { 'n' });
    }
    assert_eq!(taken, expected, "{per_second} per second at {times_ms:?}");
}

#[test]
fn a_burst_may_be_as_large_as_a_second() {
    check(10, &[0; 12], "yyyyyyyyyynn");
    check(1, &[0; 3], "ynn");
}

#[test]
fn tokens_refill_evenly() {
    check(2, &[0, 0, 0, 499, 500, 501, 999, 1000], "yynnynny");
    check(10, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 99, 100, 101], "yyyyyyyyyynyn");
    check(1, &[0, 999, 1000, 1999, 2000], "ynyny");
}

#[test]
fn a_refused_request_removes_no_tokens() {
    check(1, &[0, 100, 200, 300, 400, 500, 600, 700, 800, 900, 1000], "ynnnnnnnnny");
}

#[test]
fn the_bucket_has_at_most_one_second_of_tokens() {
    check(2, &[0, 60_000, 60_000, 60_000], "yyyn");
}

#[test]
fn zero_means_no_limit() {
    check(0, &[0; 40], &"y".repeat(40));
}

#[test]
fn an_allowance_is_one_word() {
    assert_eq!(size_of::<Allowance>(), 8);
}

#[test]
fn a_burst_may_be_larger_than_a_second() {
    let (mut allowance, start) = (Allowance::default(), Instant::now());
    let mut granted = |at_ms| {
        (0..2_000).filter(|_| allowance.take_of_burst(1, 1_000, 50, start + Duration::from_millis(at_ms))).count()
    };
    assert_eq!(granted(0), 1_000);
    assert_eq!(granted(1_000), 50);
    assert_eq!(granted(3_000), 100);
    assert_eq!(granted(3_600_000), 1_000);
}

#[test]
fn the_largest_numbers_do_not_overflow() {
    let (mut allowance, start) = (Allowance::default(), Instant::now());
    assert!(allowance.take_of_burst(usize::MAX, u32::MAX, 1, start));
    assert!(!allowance.take_of_burst(1, u32::MAX, 1, start));
    assert!(allowance.take_of_burst(1, u32::MAX, 1, start + Duration::from_secs(1)));
    assert!(Allowance::default().take_of_burst(
        usize::MAX,
        1,
        u32::MAX,
        start + Duration::from_secs(u64::from(u32::MAX))
    ));
}

#[test]
fn a_stopped_clock_refills_nothing() {
    let (mut allowance, start) = (Allowance::default(), Instant::now());
    assert!(allowance.take_of_burst(3, 3, 1, start + Duration::from_secs(5)));
    assert!(!allowance.take_of_burst(1, 3, 1, start));
}

proptest! {
    #[test]
    fn any_period_grants_its_share_and_at_most_one_burst(
        per_second in 1_u32..50, steps_ms in prop::collection::vec(0_u64..400, 1..200),
    ) {
        let (mut allowance, start) = (Allowance::default(), Instant::now());
        let (mut now_ms, mut granted_ms) = (0, Vec::new());
        for step_ms in steps_ms {
            now_ms += step_ms;
            if allowance.take(1, per_second, start + Duration::from_millis(now_ms)) {
                granted_ms.push(now_ms);
            }
        }
        for (index, from) in granted_ms.iter().enumerate() {
            for (count, to) in (1_u32..).zip(&granted_ms[index..]) {
                let share = f64::from(per_second) * ((to - from) as f64 / 1_000.0 + 1.0);
                prop_assert!(f64::from(count) <= share + 1e-6, "{count} from {from} to {to} ms");
            }
        }
    }

    #[test]
    fn a_steady_pace_at_the_limit_is_never_refused(per_second in 1_u32..100, takes in 1_u32..300) {
        let (mut allowance, start) = (Allowance::default(), Instant::now());
        // A whole number of nanoseconds, never short of the share.
        let pause = Duration::from_nanos(u64::from(1_000_000_000_u32.div_ceil(per_second)));
        for take in 0..takes {
            prop_assert!(allowance.take(1, per_second, start + pause * take));
        }
    }
}

#[test]
fn a_request_for_several_tokens_is_all_or_nothing() {
    let (mut allowance, start) = (Allowance::default(), Instant::now());
    assert!(allowance.take(7, 10, start));
    assert!(!allowance.take(4, 10, start));
    assert!(allowance.take(3, 10, start));
    assert!(!allowance.take(1, 10, start));
}

#[test]
fn a_request_above_the_capacity_empties_the_bucket() {
    let (mut allowance, start) = (Allowance::default(), Instant::now());
    assert!(allowance.take(25, 10, start));
    assert!(!allowance.take(1, 10, start));
    assert!(allowance.take(25, 10, start + Duration::from_secs(1)));
}
