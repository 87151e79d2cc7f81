use super::*;

const INTERVAL: Duration = Duration::from_secs(5);

fn count(value: u64) -> Count {
    Count { value: Some(value), ..Count::default() }
}

#[test]
fn a_count_is_news_until_it_has_been_told() {
    let now = Instant::now();
    let mut count = count(101);
    assert_eq!(count.news(now), Some(101));
    assert_eq!(count.news(now), None);
    count.value = Some(100);
    assert_eq!(count.news(now), Some(100));
    count.value = Some(101);
    assert_eq!(count.news(now), Some(101), "it was told before, but not last");
    assert_eq!(Count::default().news(now), None, "nothing has been heard");
}

#[test]
fn a_count_is_due_an_interval_after_it_was_told() {
    let now = Instant::now();
    let mut count = count(101);
    assert!(count.is_due(now, INTERVAL), "nobody was told anything");
    count.news(now);
    assert!(!count.is_due(now + INTERVAL - Duration::from_millis(1), INTERVAL));
    assert!(count.is_due(now + INTERVAL, INTERVAL));
}

#[test]
fn a_topic_is_idle_from_the_last_release_to_the_next_hold() {
    let mut state = TopicState::new(2);
    state.hold(0);
    state.hold(1);
    assert!(!state.release(0) && state.idle_since.is_none());
    assert_eq!(state.holders().collect::<Vec<_>>(), [1]);
    assert!(state.release(1) && state.idle_since.is_some());
    state.hold(1);
    assert!(state.is_held() && state.idle_since.is_none());
}
