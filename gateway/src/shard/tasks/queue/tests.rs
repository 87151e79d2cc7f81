use serde_json::json;
use shared::protocol::ChannelName;

use super::*;

fn app() -> Arc<App> {
    Arc::new(serde_json::from_value(json!({"id": "app", "key": "key", "secret": "secret"})).expect("an app"))
}

fn topic(name: &str) -> Topic {
    Topic::new(&app().id, &ChannelName::parse(name, 200).expect("a name"))
}

/// Returns a task for this user, to distinguish tasks of one topic.
fn task(channel: &str, user: &str) -> Task {
    Task { app: app(), topic: topic(channel), work: Work::Exit { user_id: Some(UserId::from(user)) } }
}

fn name(task: &Task) -> String {
    match &task.work {
        Work::Exit { user_id: Some(user_id) } => format!("{} {user_id}", task.topic.channel),
        _ => task.topic.channel.to_string(),
    }
}

fn pops(tasks: &mut Tasks) -> Vec<String> {
    std::iter::from_fn(|| tasks.pop()).map(|task| name(&task)).collect()
}

#[test]
fn tasks_of_one_topic_are_done_in_order_by_one_worker() {
    let mut tasks = Tasks::new(10);
    for (channel, user) in [("a", "1"), ("a", "2"), ("b", "1"), ("a", "3")] {
        tasks.push(task(channel, user));
    }
    assert_eq!(pops(&mut tasks), ["a 1", "b 1"]);
    tasks.push(task("a", "4"));
    let mut behind = Vec::new();
    while let Some(task) = tasks.pop_behind(&topic("a")) {
        behind.push(name(&task));
    }
    assert_eq!(behind, ["a 2", "a 3"]);
    tasks.release(&topic("a"));
    tasks.push(task("a", "5"));
    assert_eq!(pops(&mut tasks), ["a 4"]);
    assert_eq!(tasks.pop_behind(&topic("a")).as_ref().map(name).as_deref(), Some("a 5"));
    assert_eq!(tasks.waiting, 0);
}

#[test]
fn a_task_does_not_overtake_an_earlier_one_of_its_topic() {
    let mut tasks = Tasks::new(10);
    let pop = |tasks: &mut Tasks| tasks.pop().as_ref().map(name);
    tasks.push(task("a", "1"));
    tasks.push(task("a", "2"));
    assert_eq!(pop(&mut tasks).as_deref(), Some("a 1"));
    // All workers are busy, and the second task is still in the queue.
    tasks.push(task("a", "3"));
    assert_eq!(tasks.pop_behind(&topic("a")).as_ref().map(name), None);
    tasks.release(&topic("a"));
    assert_eq!(pop(&mut tasks).as_deref(), Some("a 2"));
    assert_eq!(pop(&mut tasks), None);
    assert_eq!(tasks.pop_behind(&topic("a")).as_ref().map(name).as_deref(), Some("a 3"));
}

#[test]
fn tasks_that_remain_behind_a_worker_are_ready_again() {
    let mut tasks = Tasks::new(10);
    tasks.push(task("a", "1"));
    assert_eq!(pops(&mut tasks), ["a 1"]);
    tasks.push(task("a", "2"));
    tasks.push(task("a", "3"));
    assert_eq!(pops(&mut tasks), [""; 0]);
    tasks.release(&topic("a"));
    assert_eq!(pops(&mut tasks), ["a 2"]);
    assert_eq!(tasks.pop_behind(&topic("a")).as_ref().map(name).as_deref(), Some("a 3"));
    assert!(tasks.is_empty());
}

#[test]
fn tasks_of_ended_connections_are_dropped() {
    let key = |slot: usize| ConnectionKey { slot, socket_id: "1.1".parse().expect("a socket id") };
    let query = |channel: &str, slot| {
        let work = Work::QueryWatched { connection: key(slot), watched: Vec::new() };
        Task { app: app(), topic: topic(channel), work }
    };
    let mut tasks = Tasks::new(3);
    tasks.push(task("a", "1"));
    assert_eq!(pops(&mut tasks), ["a 1"]);
    for slot in [0, 1] {
        tasks.push(query("a", slot));
        tasks.push(query("b", slot));
    }
    tasks.push(task("c", "1"));
    assert!(tasks.is_full());
    tasks.retain(|task| task.connection().is_none_or(|connection| connection == key(1)));
    assert_eq!(tasks.waiting, 3);
    assert_eq!(pops(&mut tasks), ["b", "c 1"]);
    assert!(tasks.pop_behind(&topic("a")).is_some() && tasks.pop_behind(&topic("a")).is_none());
}
