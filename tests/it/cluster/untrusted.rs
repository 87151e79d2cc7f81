//! Invalid data from Redis. It is counted and logged once, and other clients are served. After a
//! repair everything works again.

use std::collections::BTreeSet;

use serde_json::json;
use shared::cluster::envelope::unix_us;
use tests::client::members;
use tests::{Cluster, PATIENCE, Redis, TestClient, View, eventually, eventually_within};

const ROOM: &str = "presence-room";
const KEYS: &str = "carillon:{0}";

fn topic(channel: &str) -> String {
    format!("{KEYS}:c:shop/{channel}")
}

fn occurrences(log: &str, text: &str) -> usize {
    log.matches(text).count()
}

/// Another channel, on both gateways, that must work regardless of the first.
struct Bystanders {
    clients: Vec<TestClient>,
    events: usize,
}

impl Bystanders {
    async fn join(cluster: &Cluster) -> Self {
        Self { clients: cluster.subscribers("bystanders").await, events: 0 }
    }

    async fn are_served(&mut self, cluster: &Cluster) {
        self.events += 1;
        cluster.publish("bystanders", "seen", &self.events.to_string()).await;
        for client in &mut self.clients {
            client.expect_event("bystanders", "seen", &self.events.to_string()).await;
        }
        let mut fresh = cluster.client(self.events % 2).await;
        fresh.subscribe(&format!("fresh-{}", self.events)).await;
    }
}

#[tokio::test]
async fn unreadable_messages_on_the_bus_are_counted_and_logged_once() {
    let cluster = Cluster::start().await;
    let mut clients = cluster.subscribers("news").await;
    let malformed: [&[u8]; 18] = [
        b"",
        b"\n",
        b"hello",
        b"{\"event\":\"e\",\"channel\":\"news\",\"data\":\"1\"}",
        b"1",
        b"1 E - - 0 -",
        b"1 E - - 0\n{}",
        b"1 E - - x -\n{}",
        b"1 E - - 0 x\n{}",
        b"1 E 1 - 0 -\n{}",
        b"1 E -1 1 0 -\n{}",
        b"x E - - 0 -\n{}",
        b"1 Z - - 0 -\n{}",
        b"1 A 1 1 0 -\n99:ana",
        b"1 A 1 1 0 -\n0:",
        b"1 A 1 1 0 -\n3:ana{\"not\":json",
        b"1 C - - 0 -\n-5",
        b"\xff\xfe E - - 0 -\n{}",
    ];
    for message in malformed {
        assert_eq!(cluster.redis.publish(&topic("news"), message).await, 2, "both gateways receive it");
    }
    assert_eq!(cluster.redis.publish(&topic("news"), &[b'x'; 1_000_000]).await, 2);
    for message in ["2 E - - 0 -\n{}", "4294967295 whatever\n", "99 E\n"] {
        cluster.redis.publish(&topic("news"), message.as_bytes()).await;
    }
    cluster.publish("news", "good", "1").await;
    for client in &mut clients {
        client.expect_event("news", "good", "1").await;
        client.settle().await;
    }
    let dropped = |reason: &str| format!("carillon_redis_messages_dropped_total{{reason=\"{reason}\"}}");
    for gateway in cluster.gateways() {
        assert_eq!(gateway.metric(&dropped("malformed")).await, malformed.len() as f64 + 1.0);
        assert_eq!(gateway.metric(&dropped("newer_version")).await, 3.0);
    }
    for log in cluster.stop().await.iter().take(2) {
        assert_eq!(occurrences(log, "envelope is malformed"), 1, "{log}");
        assert_eq!(occurrences(log, "envelope version"), 1, "{log}");
    }
}

#[tokio::test]
async fn an_event_that_is_not_text_reaches_no_client() {
    let cluster = Cluster::start().await;
    let mut clients = cluster.subscribers("news").await;
    for kind in ["E - -", "K 1 1"] {
        let head = format!("1 {kind} 0 -\n");
        for payload in [&b"\xff\xfe\xfd"[..], b"{\"event\":\"e\",\"channel\":\"news\",\"data\":\"\xc3\x28\"}"] {
            cluster.redis.publish(&topic("news"), &[head.as_bytes(), payload].concat()).await;
        }
    }
    cluster.publish("news", "good", "1").await;
    for client in &mut clients {
        client.expect_event("news", "good", "1").await;
    }
    cluster.stop().await;
}

#[tokio::test]
async fn extreme_numbers_are_handled() {
    let cluster = Cluster::start().await;
    let mut clients = cluster.subscribers("news").await;
    let mut room = cluster.client(0).await;
    room.join(ROOM, "ana").await;
    let max = u64::MAX;
    let frame = r#"{"event":"e","channel":"news","data":"1"}"#;
    for stamp in [0, unix_us() + 3_600_000_000, max] {
        cluster.redis.publish(&topic("news"), format!("1 E - - {stamp} -\n{frame}").as_bytes()).await;
        for client in &mut clients {
            client.expect_event("news", "e", "1").await;
        }
    }
    cluster.redis.publish(&topic("news"), format!("1 K {max} {max} {max} -\n{frame}").as_bytes()).await;
    cluster.redis.publish(&topic("news"), format!("1 C - - 0 -\n{max}").as_bytes()).await;
    for client in &mut clients {
        client.expect_event("news", "e", "1").await;
    }
    for message in
        [format!("1 A {max} {max} {max} -\n5:ghost"), format!("1 R {max} {max} 0 -\nana"), "1 R 0 0 0 -\nana".into()]
    {
        cluster.redis.publish(&topic(ROOM), message.as_bytes()).await;
    }
    // Wrong counts are corrected.
    let mut view = View { members: Some(BTreeSet::from(["ana".to_owned()])) };
    let mut bo = cluster.client(1).await;
    assert_eq!(bo.join(ROOM, "bo").await, ["ana", "bo"]);
    cluster.publish(ROOM, "marker", "").await;
    let both = BTreeSet::from(["ana".to_owned(), "bo".to_owned()]);
    while view.members.as_ref() != Some(&both) {
        view.apply(&room.next().await);
    }
    cluster.stop().await;
}

#[tokio::test]
async fn an_unreadable_member_change_causes_a_resynchronization() {
    let cluster = Cluster::start().await;
    let mut ana = cluster.client(0).await;
    ana.join(ROOM, "ana").await;
    // A node of a newer version adds a user with a message that this version cannot parse.
    for (kind, key, words) in [("A", "pm", "HSET"), ("R", "pm", "HDEL")] {
        let sequence: u64 = cluster.redis.run(&format!("HINCRBY {KEYS}:m:shop/{ROOM} s 1")).await;
        let epoch: String = cluster.redis.run(&format!("HGET {KEYS}:m:shop/{ROOM} e")).await;
        let value: &[&str] = if kind == "A" { &["newcomer", ""] } else { &["newcomer"] };
        let key = format!("{KEYS}:{key}:shop/{ROOM}");
        let command: Vec<&str> = [words, &key].into_iter().chain(value.iter().copied()).collect();
        cluster.redis.query::<u64>(&command).await;
        let message = format!("2 {kind} {epoch} {sequence} 0 - more\nnewcomer");
        cluster.redis.publish(&topic(ROOM), message.as_bytes()).await;
        // The next change reveals the gap.
        let user = format!("after-{kind}");
        let mut other = cluster.client(1).await;
        other.join(ROOM, &user).await;
        let mut view = BTreeSet::new();
        while view.len() < 2 {
            let message = ana.next().await;
            view.insert(format!("{} {}", message.event, tests::view::user_of(&message)));
        }
        let change = if kind == "A" { "added" } else { "removed" };
        let expected =
            [format!("pusher_internal:member_added {user}"), format!("pusher_internal:member_{change} newcomer")];
        assert_eq!(view, BTreeSet::from(expected));
        drop(other);
        ana.expect("pusher_internal:member_removed").await;
    }
    cluster.stop().await;
}

/// Replaces a key with a list. No key of Carillon is a list.
async fn spoil(redis: &Redis, key: &str) {
    // Uses one step. Otherwise a node could write the key in between.
    redis.query::<u64>(&["RPUSH", "spoiled", "spoiled"]).await;
    redis.query::<()>(&["RENAME", "spoiled", key]).await;
}

/// Waits until a requested subscription succeeds. Repeats the request after a refusal.
async fn enter_eventually(client: &mut TestClient, channel: &str, user: Option<&str>) -> Vec<String> {
    let member = user.map(|user| json!({ "user_id": user }));
    loop {
        let message = client.next().await;
        match message.event.as_str() {
            "pusher_internal:subscription_succeeded" => {
                return if user.is_some() { members(&message) } else { Vec::new() };
            }
            "pusher:error" => client.ask(channel, member.as_ref()),
            _ => {}
        }
    }
}

/// Damages one key of a channel. Other channels are served, the log has one line for each command that fails,
/// and the channel works again when the key is removed.
async fn a_damaged_key(kind: &str, channel: &str, user: Option<&str>) {
    let cluster = Cluster::start().await;
    let mut bystanders = Bystanders::join(&cluster).await;
    let key = format!("{KEYS}:{kind}:shop/{channel}");
    spoil(&cluster.redis, &key).await;
    let mut clients = [cluster.client(0).await, cluster.client(1).await];
    for client in &clients {
        client.ask(channel, user.map(|user| json!({ "user_id": user })).as_ref());
    }
    for gateway in cluster.gateways() {
        let refused = "carillon_redis_command_errors_total{kind=\"refused\"}";
        eventually("refusals are counted", async || gateway.metric(refused).await > 0.0).await;
    }
    for _ in 0..3 {
        bystanders.are_served(&cluster).await;
    }
    for gateway in cluster.gateways() {
        assert_eq!((gateway.readiness().await.0, gateway.admin_get("/livez").await.status), (200, 200));
    }
    cluster.redis.query::<u64>(&["DEL", &key]).await;
    for client in &mut clients {
        let members = enter_eventually(client, channel, user).await;
        assert!(user.is_none_or(|user| members == [user]), "{members:?}");
    }
    cluster.publish(channel, "repaired", "1").await;
    for client in &mut clients {
        while client.next().await.event != "repaired" {}
    }
    let occupied = format!("/channels/{channel}?info=subscription_count");
    let expected = json!({ "occupied": true, "subscription_count": 2 });
    eventually("counted", async || cluster.get(&occupied).await == expected).await;
    bystanders.are_served(&cluster).await;
    for log in cluster.stop().await.iter().take(2) {
        let refusals = occurrences(log, "redis rejected a roster command");
        assert!((1..=6).contains(&refusals), "once for each command and cause, not {refusals} times:\n{log}");
    }
}

#[tokio::test]
async fn a_list_of_members_of_the_wrong_type() {
    a_damaged_key("pm", ROOM, Some("ana")).await;
}

#[tokio::test]
async fn references_of_the_wrong_type() {
    a_damaged_key("pr", ROOM, Some("ana")).await;
}

#[tokio::test]
async fn a_sequence_of_the_wrong_type() {
    a_damaged_key("m", ROOM, Some("ana")).await;
}

#[tokio::test]
async fn a_count_of_the_wrong_type() {
    a_damaged_key("oc", "news", None).await;
}

#[tokio::test]
async fn a_cached_event_of_the_wrong_type() {
    a_damaged_key("k", "cache-news", None).await;
}

/// Damages keys that several channels need. Clients can have to wait, but no member is lost.
async fn a_damaged_shared_key(key: &str) {
    let cluster = Cluster::start().await;
    let mut clients = cluster.subscribers("news").await;
    let mut ana = cluster.client(0).await;
    ana.join(ROOM, "ana").await;
    spoil(&cluster.redis, key).await;
    let mut bo = cluster.client(1).await;
    bo.ask(ROOM, Some(&json!({ "user_id": "bo" })));
    for number in 0..5 {
        cluster.publish("news", "still", &number.to_string()).await;
        for client in &mut clients {
            client.expect_event("news", "still", &number.to_string()).await;
        }
    }
    // Long enough for heartbeats and sweeps of both nodes to fail.
    tokio::time::sleep(std::time::Duration::from_secs(8)).await;
    cluster.redis.query::<u64>(&["DEL", key]).await;
    loop {
        let message = bo.next().await;
        if message.event == "pusher:error" {
            bo.ask(ROOM, Some(&json!({ "user_id": "bo" })));
        }
        if message.event == "pusher_internal:subscription_succeeded" {
            break;
        }
    }
    cluster.users_become(ROOM, &["ana", "bo"]).await;
    let expected = json!({ "channels": {
        "news": { "subscription_count": 2 }, (ROOM): { "subscription_count": 2 },
    }});
    // The state that was lost with the key is restored when its expiry is due to be extended.
    let counted = async || cluster.get("/channels?info=subscription_count").await == expected;
    eventually_within(PATIENCE, "everything is counted", counted).await;
    drop(bo);
    cluster.users_become(ROOM, &["ana"]).await;
    for gateway in cluster.gateways() {
        gateway.ready().await;
    }
    cluster.stop().await;
}

#[tokio::test]
async fn leases_of_the_wrong_type() {
    a_damaged_shared_key("carillon:nodes").await;
}

#[tokio::test]
async fn a_list_of_dead_nodes_of_the_wrong_type() {
    a_damaged_shared_key("carillon:dead").await;
}

#[tokio::test]
async fn occupied_channels_of_the_wrong_type() {
    a_damaged_shared_key("carillon:{0}:ch:shop").await;
}

#[tokio::test]
async fn connections_of_the_wrong_type() {
    a_damaged_shared_key("carillon:conn:shop").await;
}

#[tokio::test]
async fn invalid_values_are_omitted() {
    let cluster = Cluster::start().await;
    let mut bystanders = Bystanders::join(&cluster).await;
    let redis = &cluster.redis;
    // A member. Without it the list would have no owner, and the next member would start a new one.
    let mut bo = cluster.client(1).await;
    bo.join(ROOM, "bo").await;
    redis.query::<u64>(&["HSET", &format!("{KEYS}:pm:shop/{ROOM}"), "mallory", "{not json"]).await;
    redis.query::<u64>(&["SADD", "carillon:{0}:ch:shop", "not a channel", "", "\u{7f}", "#server-to-user-x"]).await;
    redis.query::<()>(&["SET", &format!("{KEYS}:k:shop/cache-news"), "no position"]).await;
    let mut ana = cluster.client(0).await;
    assert_eq!(ana.join(ROOM, "ana").await, ["ana", "bo"]);
    ana.subscribe("cache-news").await;
    ana.expect("pusher:cache_miss").await;
    assert_eq!(cluster.users(ROOM).await, BTreeSet::from(["ana".to_owned(), "bo".to_owned()]));
    let dropped = |reason: &str| format!("carillon_redis_messages_dropped_total{{reason=\"{reason}\"}}");
    let gateway = cluster.gateway(0);
    assert!(gateway.metric(&dropped("malformed_member")).await >= 1.0);
    assert!(gateway.metric(&dropped("malformed_kept")).await >= 1.0);
    bystanders.are_served(&cluster).await;
    let channels = cluster.get("/channels?filter_by_prefix=presence").await;
    assert_eq!(channels, json!({ "channels": { (ROOM): {} } }));
    cluster.publish("cache-news", "new", "1").await;
    ana.expect_event("cache-news", "new", "1").await;
    let mut cy = cluster.client(1).await;
    cy.subscribe("cache-news").await;
    cy.expect_event("cache-news", "new", "1").await;
    cluster.stop().await;
}

#[tokio::test]
async fn scripts_missing_in_redis_are_sent_again() {
    let cluster = Cluster::start().await;
    let mut ana = cluster.client(0).await;
    for round in 0..3 {
        let flush = async || cluster.redis.run::<()>("SCRIPT FLUSH").await;
        flush().await;
        assert_eq!(ana.join(ROOM, "ana").await, ["ana"]);
        flush().await;
        ana.subscribe("cache-news").await;
        let miss_or_old = ana.next().await;
        assert_eq!(miss_or_old.event, if round == 0 { "pusher:cache_miss" } else { "kept" });
        flush().await;
        cluster.publish("cache-news", "kept", &round.to_string()).await;
        ana.expect_event("cache-news", "kept", &round.to_string()).await;
        flush().await;
        ana.unsubscribe(ROOM);
        ana.unsubscribe("cache-news");
        cluster.users_become(ROOM, &[]).await;
    }
    cluster.stop().await;
}

#[tokio::test]
async fn while_redis_is_read_only_publishes_are_refused_and_subscriptions_wait() {
    let cluster = Cluster::start().await;
    let mut clients = cluster.subscribers("news").await;
    let mut ana = cluster.client(0).await;
    ana.join(ROOM, "ana").await;
    // A replica without a master. It keeps its data and refuses changes.
    cluster.redis.run::<()>("REPLICAOF 127.0.0.1 1").await;
    for server in cluster.servers() {
        server.metric_reaches("carillon_redis_refusing{reason=\"replica\"}", 1.0).await;
        let (status, reason) = server.readiness().await;
        assert!(status == 503 && reason.contains("replica"), "{status} {reason}");
        assert_eq!(server.admin_get("/livez").await.status, 200);
    }
    let mut bo = cluster.client(1).await;
    bo.ask(ROOM, Some(&json!({ "user_id": "bo" })));
    let mut cy = cluster.client(1).await;
    cy.ask("fresh", None);
    for channel in ["news", "cache-news"] {
        let reply = cluster.try_publish(channel, "lost", "1").await;
        assert_eq!(reply.status.as_u16(), 503, "{}", reply.body);
    }
    for client in &mut clients {
        client.settle().await;
    }
    // Longer than self-fencing and a lease.
    tokio::time::sleep(std::time::Duration::from_secs(17)).await;
    cluster.redis.run::<()>("REPLICAOF NO ONE").await;
    assert_eq!(enter_eventually(&mut bo, ROOM, Some("bo")).await, ["ana", "bo"]);
    enter_eventually(&mut cy, "fresh", None).await;
    cluster.ready().await;
    cluster.users_become(ROOM, &["ana", "bo"]).await;
    cluster.publish("cache-news", "kept", "1").await;
    cluster.publish("fresh", "e", "1").await;
    cy.expect_event("fresh", "e", "1").await;
    let mut view = View { members: Some(BTreeSet::from(["ana".to_owned()])) };
    // The gateway can still be resynchronizing. No further message can arrive after it is known.
    while view.members.as_ref().is_none_or(|members| !members.contains("bo")) {
        view.apply(&ana.next().await);
    }
    cluster.publish(ROOM, "marker", "").await;
    view_at_marker(&mut ana, &mut view).await;
    assert_eq!(view.members, Some(BTreeSet::from(["ana".to_owned(), "bo".to_owned()])));
    for log in cluster.stop().await {
        assert_eq!(occurrences(&log, "redis cannot be used"), 1, "more than one line:\n{log}");
        assert_eq!(occurrences(&log, "redis accepts writes again"), 1, "{log}");
    }
}

/// Lets a member of [`ROOM`] receive all messages before the next marker.
async fn view_at_marker(member: &mut TestClient, view: &mut View) {
    loop {
        let message = member.next().await;
        if message.event == "marker" {
            return;
        }
        view.apply(&message);
    }
}

#[tokio::test]
async fn nodes_restore_the_state_that_redis_has_lost() {
    let cluster = Cluster::start().await;
    let mut clients = Vec::new();
    for (gateway, user) in [(0, "ana"), (1, "bo")] {
        let mut client = cluster.client(gateway).await;
        client.subscribe("news").await;
        client.ask(ROOM, Some(&json!({ "user_id": user })));
        clients.push((client, View::default()));
        cluster.users_become(ROOM, if user == "ana" { &["ana"] } else { &["ana", "bo"] }).await;
    }
    cluster.redis.run::<()>("FLUSHALL").await;
    for gateway in cluster.gateways() {
        let lost = async || gateway.metric("carillon_presence_lost_channels_total").await >= 2.0;
        eventually("the loss is detected", lost).await;
        assert_eq!(gateway.metric("carillon_presence_fenced_total").await, 0.0, "it was never swept");
    }
    cluster.users_become(ROOM, &["ana", "bo"]).await;
    let expected = json!({ "channels": {
        "news": { "subscription_count": 2 }, (ROOM): { "subscription_count": 2 },
    }});
    eventually("everything is counted", async || cluster.get("/channels?info=subscription_count").await == expected)
        .await;
    cluster.swept().await;
    let both = BTreeSet::from(["ana".to_owned(), "bo".to_owned()]);
    for (client, view) in &mut clients {
        while view.members.as_ref() != Some(&both) {
            view.apply(&client.next().await);
        }
    }
    cluster.publish(ROOM, "marker", "").await;
    for (client, view) in &mut clients {
        view_at_marker(client, view).await;
        assert_eq!(view.members.as_ref(), Some(&both));
    }
    assert_eq!(cluster.get("/channels?info=subscription_count").await, expected);
    clients.pop();
    assert_eq!(tests::view::user_of(&clients[0].0.expect("pusher_internal:member_removed").await), "bo");
    cluster.users_become(ROOM, &["ana"]).await;
    cluster.stop().await;
}
