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
fn a_topic_is_sent_confirmed_and_ended_on_a_connection() {
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
    assert!(topics.wanted("a").is_none());
    let changes = topics.take_changes(10);
    assert_eq!((changes.subscribe.len(), changes.unsubscribe), (0, vec!["a".to_owned()]));
    assert_eq!((topics.len(), topics.has_changes()), (0, false));
}

#[test]
fn one_that_is_wanted_again_before_its_end_was_sent_stays() {
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
fn one_that_is_left_while_it_is_being_sent_is_ended_behind_its_confirmation() {
    let mut topics = Topics::default();
    topics.subscribe("a", &topic("a"));
    topics.connected();
    topics.unsubscribe("a");
    topics.confirmed(&["a".to_owned()]);
    assert_eq!(topics.take_changes(10).unsubscribe, ["a"]);
}

#[test]
fn a_new_connection_begins_with_what_is_wanted() {
    let mut topics = Topics::default();
    for name in ["a", "b", "c"] {
        topics.subscribe(name, &topic(name));
    }
    topics.connected();
    topics.confirmed(&["a".to_owned(), "b".to_owned()]);
    topics.unsubscribe("b");
    topics.disconnected();
    assert!(!is_confirmed(&mut topics, "a"));
    assert_eq!(topics.len(), 2, "of what was left nothing remains");
    let mut all = topics.connected();
    all.sort();
    assert_eq!((all, topics.has_changes()), (vec!["a".to_owned(), "c".to_owned()], false));
}

#[test]
fn changes_go_out_in_parts() {
    let mut topics = Topics::default();
    topics.connected();
    for number in 0..25 {
        topics.subscribe(&number.to_string(), &topic("a"));
    }
    let sizes: Vec<usize> = (0..3).map(|_| topics.take_changes(10).subscribe.len()).collect();
    assert_eq!((sizes, topics.has_changes()), (vec![10, 10, 5], false));
}

#[test]
fn nothing_piles_up_whether_there_is_a_connection_or_not() {
    for is_connected in [false, true] {
        let mut topics = Topics::default();
        if is_connected {
            topics.connected();
        }
        topics.subscribe("kept", &topic("kept"));
        for number in 0..100_000 {
            let name = number.to_string();
            topics.subscribe(&name, &topic("a"));
            // Again and again the same one, and a new one each time.
            topics.subscribe("kept", &topic("kept"));
            topics.unsubscribe(&name);
            assert!(topics.len() <= 1 && topics.changed.len() <= 1, "after {number}");
        }
        assert_eq!((topics.len(), topics.has_changes()), (1, is_connected));
    }
}
