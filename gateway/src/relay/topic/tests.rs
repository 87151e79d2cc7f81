use super::*;

const INTERVAL: Duration = Duration::from_secs(5);

fn count(value: u64) -> Count {
    Count { value: Some(value), ..Count::default() }
}

#[test]
fn a_count_is_sent_only_when_it_differs_from_the_last_one() {
    let now = Instant::now();
    let mut count = count(101);
    assert_eq!(count.take_unsent(now), Some(101));
    assert_eq!(count.take_unsent(now), None);
    count.value = Some(100);
    assert_eq!(count.take_unsent(now), Some(100));
    count.value = Some(101);
    assert_eq!(count.take_unsent(now), Some(101), "it was sent before, but not last");
    assert_eq!(Count::default().take_unsent(now), None, "no count was received");
}

#[test]
fn a_count_is_due_an_interval_after_the_last_notification() {
    let now = Instant::now();
    let mut count = count(101);
    assert!(count.is_due(now, INTERVAL), "no count was sent");
    count.take_unsent(now);
    assert!(!count.is_due(now + INTERVAL - Duration::from_millis(1), INTERVAL));
    assert!(count.is_due(now + INTERVAL, INTERVAL));
}

#[test]
fn a_topic_is_idle_from_the_last_release_to_the_next_user() {
    let mut state = TopicState::new(2);
    state.acquire(0);
    state.acquire(1);
    assert!(!state.release(0) && state.idle_since.is_none());
    assert_eq!(state.shards().collect::<Vec<_>>(), [1]);
    assert!(state.release(1) && state.idle_since.is_some());
    state.acquire(1);
    assert!(state.is_used() && state.idle_since.is_none());
}
