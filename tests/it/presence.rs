//! Members of presence channels, and their notifications. Source: protocol reference 2.3.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tests::client::members;
use tests::view::user_of;
use tests::{Server, Setup, TestClient, View, Witnesses};
use tokio::task::JoinSet;

const ROOM: &str = "presence-room";

async fn users(server: &Server, channel: &str) -> BTreeSet<String> {
    let reply = server.get(&format!("/channels/{channel}/users")).await;
    let users = reply["users"].as_array().expect("a list").iter();
    users.map(|user| user["id"].as_str().expect("ids are strings").to_owned()).collect()
}

#[tokio::test]
async fn a_user_is_added_with_the_first_socket_and_removed_with_the_last() {
    let server = Server::start(Setup::default().server(Witnesses::SETUP)).await;
    let mut observer = server.client().await;
    assert_eq!(observer.join(ROOM, "observer").await, ["observer"]);
    let mut tabs = Vec::new();
    for _ in 0..6 {
        let mut tab = server.client().await;
        assert_eq!(tab.join(ROOM, "ana").await, ["ana", "observer"]);
        tabs.push(tab);
    }
    assert_eq!(user_of(&observer.expect("pusher_internal:member_added").await), "ana");
    observer.settle().await;
    assert_eq!(
        server.get(&format!("/channels/{ROOM}?info=user_count,subscription_count")).await,
        json!({ "occupied": true, "user_count": 2, "subscription_count": 7 })
    );
    // One socket unsubscribes. The others disconnect, except one.
    tabs[0].unsubscribe(ROOM);
    let last = tabs.pop().expect("six tabs");
    tabs.truncate(1);
    let count = format!("/channels/{ROOM}?info=subscription_count");
    tests::eventually("two sockets are left", async || server.get(&count).await["subscription_count"] == 2).await;
    observer.settle().await;
    drop(last);
    assert_eq!(user_of(&observer.expect("pusher_internal:member_removed").await), "ana");
    assert_eq!(users(&server, ROOM).await, BTreeSet::from(["observer".to_owned()]));
    observer.settle().await;
    server.stop().await;
}

#[tokio::test]
async fn members_carry_their_info_and_numeric_ids_become_strings() {
    let server = Server::plain().await;
    let (mut first, mut second) = (server.client().await, server.client().await);
    first.ask(ROOM, Some(&json!({ "user_id": 10, "user_info": { "name": "Zoë", "n": 1.5 } })));
    let succeeded = first.expect("pusher_internal:subscription_succeeded").await;
    let data: Value = serde_json::from_str(&succeeded.data).expect("the data is JSON");
    let expected = json!({ "count": 1, "ids": ["10"], "hash": { "10": { "name": "Zoë", "n": 1.5 } } });
    assert_eq!(data, json!({ "presence": expected }));
    second.ask(ROOM, Some(&json!({ "user_id": "11" })));
    let succeeded = second.expect("pusher_internal:subscription_succeeded").await;
    assert_eq!(members(&succeeded), ["10", "11"]);
    let added: Value = serde_json::from_str(&first.expect("pusher_internal:member_added").await.data).expect("JSON");
    assert_eq!(added["user_id"], "11");
    // The same user with the id as a string: not a new member.
    let mut third = server.client().await;
    assert_eq!(third.join(ROOM, "10").await, ["10", "11"]);
    first.settle().await;
    second.settle().await;
    assert_eq!(
        server.get(&format!("/channels/{ROOM}/users")).await,
        json!({ "users": [{ "id": "10" }, { "id": "11" }] })
    );
    server.stop().await;
}

#[tokio::test]
async fn a_full_channel_accepts_only_current_members() {
    let server = Server::start(Setup::default().limit("presence_members = 2")).await;
    let mut clients = Vec::new();
    for user in ["1", "2", "1", "2"] {
        let mut client = server.client().await;
        client.join(ROOM, user).await;
        clients.push(client);
    }
    let mut third = server.client().await;
    third.ask(ROOM, Some(&json!({ "user_id": "3" })));
    assert_eq!(third.expect_refusal(ROOM, 4100).await, ("LimitReached".into(), 4100));
    assert_eq!(server.metric("carillon_rate_limited_total{scope=\"presence_members\"}").await, 1.0);
    // The refused client receives no messages of the channel.
    server.publish(ROOM, "hello", "1").await;
    third.settle().await;
    // Both sockets of user 2.
    drop((clients.remove(3), clients.remove(1)));
    tests::eventually("one user is left", async || users(&server, ROOM).await.len() == 1).await;
    assert_eq!(third.join(ROOM, "3").await.len(), 2);
    server.stop().await;
}

#[tokio::test]
async fn client_events_carry_the_verified_sender() {
    let server = Server::plain().await;
    let (mut ana, mut bo) = (server.client().await, server.client().await);
    ana.join(ROOM, "ana").await;
    bo.join(ROOM, "bo").await;
    ana.expect("pusher_internal:member_added").await;
    bo.send(json!({ "event": "client-hi", "channel": ROOM, "data": "x", "user_id": "mallory" }).to_string());
    let received = ana.expect("client-hi").await;
    assert_eq!((received.user_id.as_deref(), received.data.as_str()), (Some("bo"), "x"));
    server.publish(ROOM, "from-server", "x").await;
    assert_eq!(ana.expect("from-server").await.user_id, None);
    assert_eq!(bo.expect("from-server").await.user_id, None, "its own client event was not returned to it");
    server.stop().await;
}

const JOINERS: usize = 50;
const USERS: usize = 17;
const ROUNDS: usize = 12;

/// Joins and leaves repeatedly and checks every message. Stays joined at the end if `stays` is set.
async fn join_and_leave(mut client: TestClient, user: String, stays: bool) -> (TestClient, View) {
    let mut view = View::default();
    for round in 0..ROUNDS {
        client.ask(ROOM, Some(&json!({ "user_id": user })));
        loop {
            let message = client.next().await;
            view.apply(&message);
            if message.event == "pusher_internal:subscription_succeeded" {
                let known = view.members.as_ref().expect("just taken");
                assert!(known.contains(&user), "a new member is in its own list");
                break;
            }
        }
        if round == ROUNDS - 1 && stays {
            break;
        }
        client.unsubscribe(ROOM);
        // The remaining messages belong to the old subscription.
        view.members = None;
    }
    (client, view)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn member_lists_are_consistent_while_fifty_sockets_join_and_leave() {
    let server = Server::start(Setup::default().server("shards = 4")).await;
    let mut observers = Vec::new();
    for number in 0..4 {
        let mut client = server.client().await;
        let mut view = View::default();
        client.ask(ROOM, Some(&json!({ "user_id": format!("observer-{number}") })));
        view.apply(&client.next().await);
        observers.push((client, view));
    }
    let mut joiners = JoinSet::new();
    let mut expected: BTreeSet<String> = (0..4).map(|number| format!("observer-{number}")).collect();
    for number in 0..JOINERS {
        let (client, user) = (server.client().await, format!("user-{}", number % USERS));
        // Whole users leave: those with an odd number, on every socket.
        let stays = (number % USERS).is_multiple_of(2);
        if stays {
            expected.insert(user.clone());
        }
        joiners.spawn(join_and_leave(client, user, stays));
    }
    let finished = joiners.join_all().await;
    tests::eventually("all leaving members have left", async || users(&server, ROOM).await == expected).await;
    // All changes precede this event for every observer.
    server.publish(ROOM, "marker", "").await;
    for (mut client, mut view) in observers.into_iter().chain(finished) {
        if view.members.is_none() {
            continue;
        }
        loop {
            let message = client.next().await;
            if message.event == "marker" {
                break;
            }
            view.apply(&message);
        }
        assert_eq!(view.members.as_ref(), Some(&expected));
    }
    server.stop().await;
}
