use super::*;
use crate::app::AppId;
use crate::protocol::ChannelName;

fn topic(name: &str) -> Topic {
    Topic::new(&AppId::from("shop"), &ChannelName::parse(name, 200).unwrap())
}

fn is_confirmed(topics: &mut Topics, name: &str) -> bool {
    matches!(topics.subscription(name), Subscription::Confirmed)
}

#[test]
fn a_topic_is_subscribed_confirmed_and_unsubscribed() {
    let mut topics = Topics::default();
    assert!(topics.connected().is_empty());
    topics.subscribe("a", &topic("a"));
    topics.subscribe("a", &topic("a"));
    let changes = topics.take_changes(10);
    assert_eq!((changes.subscribe, changes.unsubscribe.len()), (vec!["a".to_owned()], 0));
    assert!(!is_confirmed(&mut topics, "a"));
    topics.confirmed(&["a".to_owned()]);
    assert!(is_confirmed(&mut topics, "a"));
    topics.unsubscribe("a");
    assert!(topics.subscribed("a").is_none());
    let changes = topics.take_changes(10);
    assert_eq!((changes.subscribe.len(), changes.unsubscribe), (0, vec!["a".to_owned()]));
    assert_eq!((topics.len(), topics.has_changes()), (0, false));
}

#[test]
fn a_topic_that_is_subscribed_again_before_its_unsubscribe_was_sent_stays() {
    let mut topics = Topics::default();
    topics.subscribe("a", &topic("a"));
    assert_eq!(topics.connected(), ["a"]);
    topics.confirmed(&["a".to_owned()]);
    topics.unsubscribe("a");
    topics.subscribe("a", &topic("a"));
    assert!(is_confirmed(&mut topics, "a"));
    let changes = topics.take_changes(10);
    assert!(changes.subscribe.is_empty() && changes.unsubscribe.is_empty());
}

#[test]
fn an_unsubscribe_is_sent_after_a_pending_subscribe_is_confirmed() {
    let mut topics = Topics::default();
    topics.subscribe("a", &topic("a"));
    topics.connected();
    topics.unsubscribe("a");
    topics.confirmed(&["a".to_owned()]);
    assert_eq!(topics.take_changes(10).unsubscribe, ["a"]);
}

#[test]
fn a_new_connection_subscribes_to_all_topics() {
    let mut topics = Topics::default();
    for name in ["a", "b", "c"] {
        topics.subscribe(name, &topic(name));
    }
    topics.connected();
    topics.confirmed(&["a".to_owned(), "b".to_owned()]);
    topics.unsubscribe("b");
    topics.disconnected();
    assert!(!is_confirmed(&mut topics, "a"));
    assert_eq!(topics.len(), 2, "an unsubscribed topic is removed");
    let mut all = topics.connected();
    all.sort();
    assert_eq!((all, topics.has_changes()), (vec!["a".to_owned(), "c".to_owned()], false));
}

#[test]
fn changes_are_sent_in_batches() {
    let mut topics = Topics::default();
    topics.connected();
    for number in 0..25 {
        topics.subscribe(&number.to_string(), &topic("a"));
    }
    let sizes: Vec<usize> = (0..3).map(|_| topics.take_changes(10).subscribe.len()).collect();
    assert_eq!((sizes, topics.has_changes()), (vec![10, 10, 5], false));
}

#[test]
fn topics_do_not_accumulate_with_or_without_a_connection() {
    for is_connected in [false, true] {
        let mut topics = Topics::default();
        if is_connected {
            topics.connected();
        }
        topics.subscribe("stays", &topic("stays"));
        for number in 0..100_000 {
            let name = number.to_string();
            topics.subscribe(&name, &topic("a"));
            // Subscribes to the same topic every time, and to a new one.
            topics.subscribe("stays", &topic("stays"));
            topics.unsubscribe(&name);
            assert!(topics.len() <= 1 && topics.changed.len() <= 1, "after {number}");
        }
        assert_eq!((topics.len(), topics.has_changes()), (1, is_connected));
    }
}
