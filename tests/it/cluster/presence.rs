//! The member list is the same on all nodes.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tests::client::members;
use tests::view::user_of;
use tests::{Cluster, Setup, TestClient, View, eventually};

const ROOM: &str = "presence-room";

/// Publishes a marker and applies all earlier messages. Returns the resulting view of the channel.
async fn view_at_marker(cluster: &Cluster, clients: &mut [(TestClient, View)]) -> Vec<BTreeSet<String>> {
    cluster.publish(ROOM, "marker", "").await;
    let mut views = Vec::new();
    for (client, view) in clients {
        loop {
            let message = client.next().await;
            if message.event == "marker" {
                break;
            }
            view.apply(&message);
        }
        views.push(view.members.clone().expect("it has joined"));
    }
    views
}

#[tokio::test]
async fn a_user_on_both_gateways_is_added_once_and_removed_once() {
    let cluster = Cluster::start().await;
    let mut observers = Vec::new();
    for gateway in 0..2 {
        let mut observer = cluster.client(gateway).await;
        observer.join(ROOM, &format!("observer-{gateway}")).await;
        observers.push(observer);
    }
    observers[0].expect("pusher_internal:member_added").await;
    let mut tabs = Vec::new();
    for tab in 0..4 {
        let mut client = cluster.client(tab % 2).await;
        assert_eq!(client.join(ROOM, "ana").await, ["ana", "observer-0", "observer-1"]);
        tabs.push(client);
    }
    cluster.publish(ROOM, "marker", "").await;
    for observer in &mut observers {
        assert_eq!(user_of(&observer.expect("pusher_internal:member_added").await), "ana");
        observer.expect("marker").await;
    }
    let path = format!("/channels/{ROOM}?info=user_count,subscription_count");
    let expected = json!({ "occupied": true, "user_count": 3, "subscription_count": 6 });
    eventually("all are counted", async || cluster.get(&path).await == expected).await;
    // One socket unsubscribes, the others disconnect. The user stays until the last one.
    tabs[0].unsubscribe(ROOM);
    let last = tabs.pop().expect("four tabs");
    tabs.truncate(1);
    eventually("one tab is left", async || cluster.get(&path).await["subscription_count"] == 3).await;
    cluster.publish(ROOM, "marker", "").await;
    for observer in &mut observers {
        observer.expect("marker").await;
    }
    drop(last);
    for observer in &mut observers {
        assert_eq!(user_of(&observer.expect("pusher_internal:member_removed").await), "ana");
    }
    cluster.users_become(ROOM, &["observer-0", "observer-1"]).await;
    cluster.publish(ROOM, "marker", "").await;
    for observer in &mut observers {
        observer.expect("marker").await;
    }
    cluster.stop().await;
}

#[tokio::test]
async fn every_node_keeps_the_first_info_of_a_user_until_the_last_socket_leaves() {
    let cluster = Cluster::start().await;
    let (mut first, mut second) = (cluster.client(0).await, cluster.client(1).await);
    let info = |name: &str| json!({ "user_id": "7", "user_info": { "name": name } });
    let hash = |message: &client::Message| {
        let data: Value = serde_json::from_str(&message.data).expect("the data is JSON");
        data["presence"]["hash"].clone()
    };
    first.ask(ROOM, Some(&info("first \"quoted\" \u{1F514}")));
    let expected = json!({ "7": { "name": "first \"quoted\" \u{1F514}" } });
    assert_eq!(hash(&first.expect("pusher_internal:subscription_succeeded").await), expected);
    second.ask(ROOM, Some(&info("second")));
    assert_eq!(hash(&second.expect("pusher_internal:subscription_succeeded").await), expected);
    first.unsubscribe(ROOM);
    first.settle().await;
    let mut third = cluster.client(0).await;
    third.ask(ROOM, Some(&info("third")));
    assert_eq!(hash(&third.expect("pusher_internal:subscription_succeeded").await), expected);
    drop((first, second, third));
    cluster.users_become(ROOM, &[]).await;
    let mut fourth = cluster.client(1).await;
    fourth.ask(ROOM, Some(&info("fourth")));
    let expected = json!({ "7": { "name": "fourth" } });
    assert_eq!(hash(&fourth.expect("pusher_internal:subscription_succeeded").await), expected);
    cluster.stop().await;
}

#[tokio::test]
async fn a_full_channel_is_full_on_every_node() {
    let cluster = Cluster::start().setup(Setup::default().limit("presence_members = 2")).await;
    let mut clients = Vec::new();
    for (gateway, user) in [(0, "1"), (1, "2"), (1, "1"), (0, "2")] {
        let mut client = cluster.client(gateway).await;
        client.join(ROOM, user).await;
        clients.push(client);
    }
    for gateway in 0..2 {
        let mut third = cluster.client(gateway).await;
        third.ask(ROOM, Some(&json!({ "user_id": "3" })));
        assert_eq!(third.expect_refusal(ROOM, 4100).await, ("LimitReached".into(), 4100));
    }
    // Both sockets of user 2, one on each gateway.
    drop((clients.remove(3), clients.remove(1)));
    cluster.users_become(ROOM, &["1"]).await;
    assert_eq!(cluster.client(0).await.join(ROOM, "3").await.len(), 2);
    cluster.stop().await;
}

/// The list of all members must fit into an outbox.
fn large() -> Setup {
    Setup::default().limit("presence_members = 1000").server("outbox_bytes = \"4MiB\"")
}

#[tokio::test]
async fn five_hundred_members_join_across_two_nodes_with_consistent_views() {
    const MEMBERS: usize = 500;
    let cluster = Cluster::start().setup(large()).await;
    let mut clients = Vec::new();
    for number in 0..MEMBERS {
        clients.push((cluster.client(number % 2).await, View::default()));
    }
    for (number, (client, _)) in clients.iter().enumerate() {
        client.ask(ROOM, Some(&json!({ "user_id": format!("u{number}") })));
    }
    for (number, (client, view)) in clients.iter_mut().enumerate() {
        await_answer(client, view, number).await;
    }
    let expected: BTreeSet<String> = (0..MEMBERS).map(|number| format!("u{number}")).collect();
    eventually("all members have joined", async || cluster.users(ROOM).await == expected).await;
    let views = view_at_marker(&cluster, &mut clients).await;
    assert!(views.iter().all(|view| *view == expected), "a view is inconsistent");
    cluster.stop().await;
}

#[tokio::test]
async fn a_draining_gateway_removes_its_members_at_once() {
    let mut cluster = Cluster::start().setup(Setup::default().drain("window = \"200ms\"")).await;
    let mut observer = (cluster.client(1).await, View::default());
    observer.0.ask(ROOM, Some(&json!({ "user_id": "observer" })));
    let mut leaving = Vec::new();
    for user in ["ana", "bo", "observer"] {
        let mut client = cluster.client(0).await;
        client.join(ROOM, user).await;
        client.subscribe("only-there").await;
        leaving.push(client);
    }
    let started = std::time::Instant::now();
    cluster.stop_gateway(0).await;
    cluster.users_become(ROOM, &["observer"]).await;
    let took = started.elapsed();
    assert!(took < std::time::Duration::from_secs(10), "the removal does not wait for the lease: {took:?}");
    let views = view_at_marker(&cluster, std::slice::from_mut(&mut observer)).await;
    assert_eq!(views, [BTreeSet::from(["observer".to_owned()])]);
    let channels = cluster.get("/channels?info=subscription_count").await;
    assert_eq!(channels, json!({ "channels": { (ROOM): { "subscription_count": 1 } } }));
    cluster.start_gateway(0).await;
    let mut back = cluster.client(0).await;
    assert_eq!(back.join(ROOM, "ana").await, ["ana", "observer"]);
    cluster.stop().await;
}

/// Applies all messages up to the next list of members.
async fn await_answer(client: &mut TestClient, view: &mut View, number: usize) {
    loop {
        let message = client.next().await;
        view.apply(&message);
        if message.event == "pusher_internal:subscription_succeeded" {
            assert!(members(&message).contains(&format!("u{number}")), "a new member is in its own list");
            return;
        }
    }
}

#[tokio::test]
async fn the_member_list_of_a_new_member_is_consistent_with_later_changes() {
    const JOINERS: usize = 60;
    let cluster = Cluster::start().await;
    let mut clients = Vec::new();
    for number in 0..JOINERS {
        clients.push((cluster.client(number % 2).await, View::default()));
    }
    for (number, (client, _)) in clients.iter().enumerate() {
        client.ask(ROOM, Some(&json!({ "user_id": format!("u{number}") })));
    }
    for (number, (client, view)) in clients.iter_mut().enumerate() {
        await_answer(client, view, number).await;
    }
    for (number, (client, _)) in clients.iter().enumerate().filter(|(number, _)| number % 3 == 0) {
        client.unsubscribe(ROOM);
        client.ask(ROOM, Some(&json!({ "user_id": format!("u{number}") })));
    }
    for (number, (client, view)) in clients.iter_mut().enumerate().filter(|(number, _)| number % 3 == 0) {
        await_answer(client, view, number).await;
    }
    let expected: BTreeSet<String> = (0..JOINERS).map(|number| format!("u{number}")).collect();
    eventually("all members have joined", async || cluster.users(ROOM).await == expected).await;
    let views = view_at_marker(&cluster, &mut clients).await;
    assert!(views.iter().all(|view| *view == expected), "{views:?}");
    cluster.stop().await;
}
