//! Floods of allowed requests: subscriptions, sign-ins, and changes that other clients are notified of.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tests::client::subscription;
use tests::raw::{FIN, PING, PONG, TEXT};
use tests::{PATIENCE, Raw, Server, Setup, TestClient, within, within_time};
use tokio::time::{Instant, sleep_until};

use super::start;

const RATE_LIMITED: &str = "carillon_rate_limited_total{scope=\"requests\"}";

/// Joins and leaves a presence channel as fast as the server reads, until `stop`.
async fn turn(mut client: TestClient, user: String, stop: Arc<AtomicBool>) {
    let member = json!({ "user_id": user, "user_info": "x".repeat(900) });
    let request = client.subscription("presence-room", Some(&member));
    while !stop.load(Ordering::Relaxed) {
        for _ in 0..50 {
            client.send_event("pusher:subscribe", &request);
            client.unsubscribe("presence-room");
        }
        client.send_event("pusher:ping", &json!({}));
        while client.next().await.event != "pusher:pong" {}
    }
}

/// A member that reads at most 1 MB/s, sends pings, and checks every message.
struct SlowMember {
    raw: Raw,
    members: BTreeSet<String>,
    received_bytes: usize,
    began: Instant,
}

impl SlowMember {
    const BYTES_PER_SECOND: f64 = 1_000_000.0;

    async fn join(server: &Server) -> Self {
        let mut raw = Raw::connect_narrow(server.public).await;
        let socket_id = raw.establish(&server.app).await;
        let data = subscription(&server.app, socket_id, "presence-room", Some(&json!({ "user_id": "honest" })));
        raw.send_text(&json!({ "event": "pusher:subscribe", "data": data }).to_string()).await;
        assert_eq!(raw.message().await["event"], "pusher_internal:subscription_succeeded");
        Self { raw, members: BTreeSet::from(["honest".into()]), received_bytes: 0, began: Instant::now() }
    }

    /// Reads until the pong of a ping.
    async fn ping(&mut self) {
        self.raw.send_frame(FIN | PING, b"p").await;
        loop {
            let frame = self.raw.frame().await.expect("a slow member stays connected");
            self.received_bytes += frame.payload.len();
            match frame.opcode {
                PONG => break,
                TEXT => self.check(&serde_json::from_slice(&frame.payload).expect("messages are JSON")),
                opcode => panic!("opcode {opcode}: {:?}", String::from_utf8_lossy(&frame.payload)),
            }
            let pace = Duration::from_secs_f64(self.received_bytes as f64 / Self::BYTES_PER_SECOND);
            sleep_until(self.began + pace).await;
        }
    }

    fn check(&mut self, message: &Value) {
        let data: Value = serde_json::from_str(message["data"].as_str().expect("data")).expect("the data is JSON");
        let user = data["user_id"].as_str().expect("a user").to_owned();
        match message["event"].as_str() {
            Some("pusher_internal:member_added") => assert!(self.members.insert(user), "added twice: {message}"),
            Some("pusher_internal:member_removed") => assert!(self.members.remove(&user), "not there: {message}"),
            _ => panic!("{message}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_member_stays_connected_while_members_join_and_leave_continuously() {
    const FLOODERS: usize = 8;
    let (server, mut witnesses) = start(Setup::default()).await;
    let mut honest = SlowMember::join(&server).await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut flooding = tokio::task::JoinSet::new();
    for number in 0..FLOODERS {
        flooding.spawn(turn(server.client().await, format!("flood-{number}"), stop.clone()));
    }
    within_time(PATIENCE, "a flood above the rate", async {
        while server.metric(RATE_LIMITED).await < (FLOODERS * 1_000) as f64 {
            honest.ping().await;
        }
    })
    .await;
    for _ in 0..5 {
        honest.ping().await;
        witnesses.are_served(&server).await;
    }
    stop.store(true, Ordering::Relaxed);
    within("the end of the flood", flooding.join_all()).await;
    // The flood ends every membership that it starts. This member receives both changes.
    within("the end of the others", async {
        while honest.members.len() > 1 {
            honest.ping().await;
        }
    })
    .await;
    assert_eq!(server.metric("carillon_slow_consumers_total").await, 0.0);
    assert_eq!(server.metric("carillon_connections_closed_total{code=\"4100\"}").await, 0.0);
    server.stop().await;
}

#[tokio::test]
async fn members_who_join_while_changes_are_paced_get_a_consistent_list() {
    let (server, _witnesses) = start(Setup::default().limit("channels_per_connection = 10000")).await;
    let mut observer = tests::Observer::join(&server, "presence-room", "observer").await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut flooding = tokio::task::JoinSet::new();
    for number in 0..4 {
        flooding.spawn(turn(server.client().await, format!("flood-{number}"), stop.clone()));
    }
    // An observer panics if an added user is already known, or if a removed user is not.
    for number in 0..5 {
        let mut late = tests::Observer::join(&server, "presence-room", &format!("late-{number}")).await;
        let name = format!("late-{number}");
        while !observer.members().contains(&name) {
            observer.until("pusher_internal:member_added").await;
        }
        late.until("pusher_internal:member_added").await;
    }
    stop.store(true, Ordering::Relaxed);
    within("the end of the flood", flooding.join_all()).await;
    while observer.members().len() > 1 {
        observer.until("pusher_internal:member_removed").await;
    }
    server.stop().await;
}

#[tokio::test]
async fn subscriptions_above_the_rate_are_refused_and_unsubscribes_take_effect() {
    let (server, mut witnesses) = start(Setup::default().limit("channels_per_connection = 100")).await;
    let mut client = server.client().await;
    client.subscribe("kept").await;
    for _ in 0..1_000 {
        client.ask("turned", None);
        client.unsubscribe("turned");
    }
    client.send_event("pusher:ping", &json!({}));
    let mut refused = 0;
    loop {
        let answer = client.next().await;
        match answer.event.as_str() {
            "pusher:pong" => break,
            // There is no confirmation if the unsubscribe came first.
            "pusher_internal:subscription_succeeded" => {}
            "pusher:subscription_error" => {
                let data: Value = serde_json::from_str(&answer.data).expect("the data is JSON");
                let status = data["status"].as_u64();
                assert_eq!((&data["type"], client.expect_error().await.0), (&"LimitReached".into(), status));
                match status {
                    Some(4301) => refused += 1,
                    // Cancelled subscriptions count until they are answered.
                    status => assert_eq!(status, Some(4100)),
                }
            }
            event => panic!("{event}"),
        }
    }
    // A burst of 200, and fifty a second for the duration of the test.
    assert!((100..=801).contains(&refused), "{refused} refused");
    assert_eq!(server.metric(RATE_LIMITED).await, f64::from(refused));
    client.unsubscribe("kept");
    client.unsubscribe("never-there");
    client.settle().await;
    server.metric_reaches("carillon_subscriptions{kind=\"public\"}", 2.0).await;
    within("a subscription that is accepted again", async {
        loop {
            client.ask("kept", None);
            if client.next().await.event == "pusher_internal:subscription_succeeded" {
                return;
            }
            client.expect_error().await;
        }
    })
    .await;
    server.publish("kept", "hello", "1").await;
    client.expect_event("kept", "hello", "1").await;
    witnesses.are_served(&server).await;
    server.stop().await;
}

#[tokio::test]
async fn a_thousand_subscriptions_and_a_sign_in_at_once_are_within_the_rate() {
    const CHANNELS: usize = 1_000;
    let server = Server::plain().await;
    // Like after a reconnect: all requests at once, each time on a new connection.
    for _ in 0..2 {
        let mut client = server.client().await;
        client.request_sign_in(&json!({ "id": "ana" }));
        for number in 0..CHANNELS {
            client.ask(&format!("private-{number}"), None);
        }
        let mut succeeded = 0;
        while succeeded < CHANNELS {
            match client.next().await.event.as_str() {
                "pusher_internal:subscription_succeeded" => succeeded += 1,
                "pusher:signin_success" => client.ask("#server-to-user-ana", None),
                event => panic!("{event}"),
            }
        }
        // A page that navigates unsubscribes from some channels and subscribes to others.
        for number in 0..50 {
            client.unsubscribe(&format!("private-{number}"));
            client.ask(&format!("private-next-{number}"), None);
        }
        for _ in 0..50 {
            client.expect("pusher_internal:subscription_succeeded").await;
        }
    }
    assert_eq!(server.metric(RATE_LIMITED).await, 0.0);
    server.stop().await;
}

#[tokio::test]
async fn floods_of_sign_ins_and_unsubscribes_delay_no_other_client() {
    let (server, mut witnesses) = start(Setup::default()).await;
    let mut client = server.client().await;
    for number in 0..5_000 {
        client.request_sign_in(&json!({ "id": format!("user-{number}") }));
        client.unsubscribe(&format!("channel-{number}"));
    }
    client.send_event("pusher:ping", &json!({}));
    let mut codes = BTreeSet::new();
    loop {
        let message = client.next().await;
        match message.event.as_str() {
            "pusher:pong" => break,
            "pusher:signin_success" => {}
            "pusher:error" => {
                let data: Value = serde_json::from_str(&message.data).expect("an error's data is an object");
                codes.insert(data["code"].as_u64());
            }
            event => panic!("{event}"),
        }
    }
    assert_eq!(codes, BTreeSet::from([Some(4009), Some(4301)]), "another user, then the rate");
    witnesses.are_served(&server).await;
    client.settle().await;
    server.stop().await;
}

#[tokio::test]
async fn continuously_changing_counts_are_sent_a_few_times_a_second() {
    const TURNS: usize = 500;
    let server = Server::start(Setup::default().app("subscription_count = true")).await;
    let mut witness = server.client().await;
    witness.subscribe("news").await;
    let mut flooder = server.client().await;
    let began = Instant::now();
    for _ in 0..TURNS {
        flooder.ask("news", None);
        // Otherwise the turn would be over before it was counted.
        while flooder.next().await.event != "pusher_internal:subscription_succeeded" {}
        flooder.unsubscribe("news");
    }
    flooder.send_event("pusher:ping", &json!({}));
    while flooder.next().await.event != "pusher:pong" {}
    // A higher count than before is the last one.
    let mut others = Vec::new();
    for _ in 0..4 {
        let client = server.client().await;
        client.ask("news", None);
        others.push(client);
    }
    let mut counts = 0;
    loop {
        let message = witness.expect("pusher_internal:subscription_count").await;
        counts += 1;
        let data: Value = serde_json::from_str(&message.data).expect("the data is JSON");
        if data["subscription_count"] == 5 {
            break;
        }
    }
    // Twenty at once and ten a second, by the server's clock, which it reads once a second.
    let seconds = began.elapsed().as_secs_f64() + 2.0;
    assert!(f64::from(counts) < 20.0 + 10.0 * seconds, "{counts} counts for {TURNS} turns in {seconds} s");
    drop((flooder, others));
    server.stop().await;
}
