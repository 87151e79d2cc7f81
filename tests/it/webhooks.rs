//! Webhooks of a single process: their events, their form and their endpoints. Source: protocol reference 5.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::receiver::{Answer, Delivered, Received};
use tests::{Receiver, Server, Setup, eventually};

/// Longer than the hold, during which a return cancels an event.
const PAST_HOLD: Duration = Duration::from_secs(4);

async fn server_with(receivers: &[(&Receiver, &str)]) -> Server {
    Server::start(setup_with(receivers)).await
}

fn setup_with(receivers: &[(&Receiver, &str)]) -> Setup {
    receivers.iter().fold(Setup::default(), |setup, (receiver, more)| setup.more(&receiver.endpoint(more)))
}

fn names(delivered: &[Delivered]) -> Vec<&str> {
    delivered.iter().map(|delivered| delivered.name.as_str()).collect()
}

/// Waits for longer than the hold. An event of another channel proves that all due events were delivered.
async fn everything_due(server: &Server, receiver: &Receiver, marker: &str) {
    let before = receiver.delivered().len();
    tokio::time::sleep(PAST_HOLD).await;
    let mut client = server.client().await;
    client.subscribe(marker).await;
    eventually("the marker is delivered", async || {
        receiver.delivered().iter().any(|delivered| delivered.channel == marker)
    })
    .await;
    assert!(receiver.delivered().len() > before);
}

#[tokio::test]
async fn every_event_type_is_delivered_with_exact_headers_and_bytes() {
    let receiver = Receiver::start().await;
    let setup = setup_with(&[(&receiver, "headers = { X-Tenant = \"shop-7\", authorization = \"Bearer abc\" }")]);
    let server = Server::start(setup.app("subscription_count = true")).await;
    let mut ana = server.client().await;
    ana.subscribe("private-room").await;
    ana.expect("pusher_internal:subscription_count").await;
    ana.whisper("private-room", "client-typing", &json!({ "at": 1 }));
    ana.whisper("private-room", "client-typing", &json!("text \"quoted\" \u{e9}"));
    let mut bo = server.client().await;
    bo.join("presence-room", "bo").await;
    bo.whisper("presence-room", "client-wave", &json!({}));
    bo.ask("cache-news", None);
    for event in ["pusher_internal:subscription_succeeded", "pusher:cache_miss"] {
        bo.expect(event).await;
    }
    receiver.events(10).await;
    let (ana_id, bo_id) = (ana.socket_id.to_string(), bo.socket_id.to_string());
    drop((ana, bo));
    let delivered = receiver.events(14).await;
    let without_id = |delivered: &Delivered| {
        let mut event = delivered.event.clone();
        let id = event.as_object_mut().and_then(|event| event.remove("id"));
        assert!(id.is_some_and(|id| id.as_str().is_some_and(|id| !id.is_empty())), "{delivered:?}");
        event
    };
    let of = |channel: &str| -> Vec<Value> {
        delivered.iter().filter(|delivered| delivered.channel == channel).map(without_id).collect()
    };
    let typing = |data: &str| {
        json!({
            "name": "client_event", "channel": "private-room", "event": "client-typing", "data": data,
            "socket_id": ana_id
        })
    };
    assert_eq!(
        of("private-room"),
        [
            json!({ "name": "channel_occupied", "channel": "private-room" }),
            json!({ "name": "subscription_count", "channel": "private-room", "subscription_count": 1 }),
            typing(r#"{"at":1}"#),
            typing("text \"quoted\" \u{e9}"),
            json!({ "name": "channel_vacated", "channel": "private-room" }),
        ]
    );
    assert_eq!(
        of("presence-room"),
        [
            json!({ "name": "member_added", "channel": "presence-room", "user_id": "bo" }),
            json!({ "name": "channel_occupied", "channel": "presence-room" }),
            json!({
                "name": "client_event", "channel": "presence-room", "event": "client-wave", "data": "{}",
                "socket_id": bo_id, "user_id": "bo"
            }),
            json!({ "name": "member_removed", "channel": "presence-room", "user_id": "bo" }),
            json!({ "name": "channel_vacated", "channel": "presence-room" }),
        ]
    );
    assert_eq!(
        of("cache-news"),
        [
            json!({ "name": "channel_occupied", "channel": "cache-news" }),
            json!({ "name": "subscription_count", "channel": "cache-news", "subscription_count": 1 }),
            json!({ "name": "cache_miss", "channel": "cache-news" }),
            json!({ "name": "channel_vacated", "channel": "cache-news" }),
        ]
    );
    let ids: BTreeSet<&str> = delivered.iter().map(|delivered| delivered.id.as_str()).collect();
    assert_eq!(ids.len(), delivered.len(), "every event has an id");
    for request in receiver.received() {
        assert_eq!(request.path, "/webhooks?tenant=shop");
        assert_eq!(request.header("Content-Type"), "application/json");
        assert_eq!(request.header("X-Tenant"), "shop-7");
        assert_eq!(request.header("Authorization"), "Bearer abc");
        assert!(request.is_signed(), "{request:?}");
        let [event] = &request.events()[..] else { panic!("one event per request: {request:?}") };
        assert_eq!(request.header("X-Carillon-Event-Id"), event.id);
    }
    server.stop().await;
}

#[tokio::test]
async fn a_return_within_the_hold_sends_no_webhook_and_a_later_one_does() {
    let receiver = Receiver::start().await;
    let server = server_with(&[(&receiver, "")]).await;
    let mut client = server.client().await;
    client.join("presence-room", "ana").await;
    receiver.events(2).await;
    for _ in 0..3 {
        drop(client);
        client = server.client().await;
        client.join("presence-room", "ana").await;
    }
    everything_due(&server, &receiver, "marker-1").await;
    let of_room = || -> Vec<String> { receiver.by_channel().remove("presence-room").unwrap_or_default() };
    assert_eq!(of_room(), ["member_added", "channel_occupied"]);
    client.unsubscribe("presence-room");
    everything_due(&server, &receiver, "marker-2").await;
    client.join("presence-room", "ana").await;
    eventually("the return is delivered", async || of_room().len() == 6).await;
    assert_eq!(of_room()[2..], ["member_removed", "channel_vacated", "member_added", "channel_occupied"]);
    server.stop().await;
}

#[tokio::test]
async fn each_endpoint_receives_its_configured_event_types() {
    let (occupied, rooms, suffixed, pattern, all) = (
        Receiver::start().await,
        Receiver::start().await,
        Receiver::start().await,
        Receiver::start().await,
        Receiver::start().await,
    );
    let server = server_with(&[
        (&occupied, "event_types = [\"channel_occupied\"]"),
        (&rooms, "filter = { channel_name_starts_with = \"room-\" }"),
        (&suffixed, "filter = { channel_prefix = \"room-\", channel_suffix = \"-7\" }"),
        (&pattern, "filter = { channel_pattern = \"^[a-z]+-[0-9]$\" }"),
        (&all, ""),
    ])
    .await;
    let mut client = server.client().await;
    for channel in ["room-7", "hall-7", "room-12"] {
        client.subscribe(channel).await;
    }
    client.unsubscribe("room-7");
    all.events(4).await;
    client.subscribe("room-last-7").await;
    let channels = |receiver: &Receiver| -> Vec<String> {
        let mut delivered: Vec<String> =
            receiver.delivered().iter().map(|delivered| format!("{} {}", delivered.name, delivered.channel)).collect();
        delivered.sort();
        delivered
    };
    suffixed.events(3).await;
    all.events(5).await;
    rooms.events(4).await;
    occupied.events(4).await;
    pattern.events(3).await;
    assert_eq!(channels(&occupied).len(), 4, "{:?}", channels(&occupied));
    let expected = [
        "channel_occupied room-12",
        "channel_occupied room-7",
        "channel_occupied room-last-7",
        "channel_vacated room-7",
    ];
    assert_eq!(channels(&rooms), expected);
    assert_eq!(
        channels(&suffixed),
        ["channel_occupied room-7", "channel_occupied room-last-7", "channel_vacated room-7"]
    );
    assert_eq!(channels(&pattern), ["channel_occupied hall-7", "channel_occupied room-7", "channel_vacated room-7"]);
    server.stop().await;
}

#[tokio::test]
async fn batches_deliver_several_events_in_order() {
    let receiver = Receiver::start().await;
    receiver.answer_with(Answer::Status(503));
    let server = server_with(&[(&receiver, "batch = true\nevent_types = [\"channel_occupied\"]")]).await;
    let mut client = server.client().await;
    client.subscribe("first").await;
    eventually("a first request", async || !receiver.received().is_empty()).await;
    for number in 0..150 {
        client.subscribe(&format!("room-{number}")).await;
    }
    receiver.answer_with(Answer::Status(204));
    eventually("all are delivered", async || receiver.delivered_with(Answer::Status(204)).len() >= 151).await;
    let delivered = receiver.delivered_with(Answer::Status(204));
    let channels: Vec<&str> = delivered.iter().map(|delivered| delivered.channel.as_str()).collect();
    let expected: Vec<String> =
        std::iter::once("first".to_owned()).chain((0..150).map(|number| format!("room-{number}"))).collect();
    assert_eq!(channels, expected);
    let taken: Vec<Received> =
        receiver.received().into_iter().filter(|request| request.answer == Answer::Status(204)).collect();
    assert!(taken.len() <= 4, "{} requests", taken.len());
    let largest = taken.iter().max_by_key(|request| request.events().len()).expect("there are some");
    assert_eq!(largest.events().len(), 100);
    assert!(largest.is_signed());
    assert!(largest.headers.iter().all(|(name, _)| name != "X-Carillon-Event-Id"));
    server.stop().await;
}

#[tokio::test]
async fn a_retry_keeps_its_id_and_has_a_new_time_and_signature() {
    let receiver = Receiver::start().await;
    receiver.answer_with(Answer::Status(500));
    let server = server_with(&[(&receiver, "")]).await;
    let mut client = server.client().await;
    client.subscribe("room").await;
    eventually("a second attempt", async || receiver.received().len() >= 2).await;
    receiver.answer_with(Answer::Status(200));
    receiver.events(1).await;
    let requests = receiver.received();
    let times: BTreeSet<u64> = requests.iter().map(time_ms).collect();
    assert_eq!(times.len(), requests.len(), "every attempt has a different time");
    let ids: BTreeSet<String> = requests.iter().flat_map(Received::events).map(|delivered| delivered.id).collect();
    assert_eq!(ids.len(), 1);
    assert!(requests.iter().all(Received::is_signed));
    let pause = requests[1].at - requests[0].at;
    assert!(pause >= Duration::from_millis(450), "the first pause was {pause:?}");
    server.stop().await;
}

fn time_ms(request: &Received) -> u64 {
    let body: Value = serde_json::from_str(&request.body).expect("the body is JSON");
    body["time_ms"].as_u64().expect("a time")
}

#[tokio::test]
async fn a_failing_endpoint_delays_no_other_and_its_events_become_dead_letters() {
    let kinds =
        [("500", Answer::Status(500)), ("410", Answer::Status(410)), ("302", Answer::Redirect), ("hang", Answer::Hang)];
    let good = Receiver::start().await;
    let mut bad = Vec::new();
    for (_, answer) in kinds {
        let receiver = Receiver::start().await;
        receiver.answer_with(answer);
        bad.push(receiver);
    }
    let mut down = Receiver::start().await;
    down.go_down().await;
    let mut receivers: Vec<(&Receiver, &str)> = bad.iter().map(|receiver| (receiver, "")).collect();
    receivers.extend([(&down, ""), (&good, "")]);
    let setup = setup_with(&receivers).more("[webhooks]\ngive_up_after = \"4s\"\ntimeout = \"1s\"");
    let server = Server::start(setup).await;
    let mut client = server.client().await;
    for number in 0..20 {
        let began = Instant::now();
        client.subscribe(&format!("room-{number}")).await;
        good.events(number + 1).await;
        assert!(began.elapsed() < Duration::from_secs(5), "the good endpoint waited for {:?}", began.elapsed());
    }
    eventually("all bad deliveries are dead letters", async || {
        server.metric("carillon_webhooks_dead_total").await >= 100.0
    })
    .await;
    for ((kind, _), receiver) in kinds.iter().zip(&bad) {
        let requests = receiver.received().len();
        assert!(requests >= 25, "{kind}: every event was retried, but only {requests} requests arrived");
        assert!(receiver.received().iter().all(|request| request.path == "/webhooks?tenant=shop"), "{kind}");
    }
    assert_eq!(good.delivered().len(), 20);
    assert!(server.metric("carillon_webhooks_retried_total").await >= 100.0);
    assert_eq!(server.metric("carillon_webhooks_sent_total").await, 20.0);
    eventually("the queues are empty", async || server.metric("carillon_webhooks_queued").await == 0.0).await;
    let log = server.stop().await;
    assert!(log.contains("gave up delivering a webhook"), "{log}");
    assert!(!log.contains("tenant=shop"), "a query can contain secrets: {log}");
}

#[tokio::test]
async fn an_endless_response_is_aborted() {
    let receiver = Receiver::start().await;
    receiver.answer_with(Answer::EndlessBody);
    let server = server_with(&[(&receiver, "event_types = [\"channel_occupied\"]")]).await;
    let mut client = server.client().await;
    client.subscribe("first").await;
    eventually("the first is delivered", async || receiver.received().len() == 1).await;
    let before = server.resident_bytes();
    for number in 0..200 {
        client.subscribe(&format!("room-{number}")).await;
    }
    eventually("all are delivered", async || receiver.received().len() == 201).await;
    eventually("the queues are empty", async || server.metric("carillon_webhooks_queued").await == 0.0).await;
    let grown = server.resident_bytes().saturating_sub(before);
    assert!(grown < 32 * 1024 * 1024, "{grown} bytes more");
    assert_eq!(server.metric("carillon_webhooks_retried_total").await, 0.0, "2xx is success whatever the body is");
    server.stop().await;
}

#[tokio::test]
async fn a_server_delivers_pending_webhooks_before_it_exits() {
    let receiver = Receiver::start().await;
    let server = server_with(&[(&receiver, "")]).await;
    let mut client = server.client().await;
    client.join("presence-room", "ana").await;
    receiver.events(2).await;
    server.stop().await;
    let delivered_names = receiver.delivered_once();
    assert_eq!(names(&delivered_names), ["member_added", "channel_occupied", "member_removed", "channel_vacated"]);
}

#[tokio::test]
async fn an_endpoint_with_a_forbidden_address_is_a_configuration_error() {
    let folder = tempfile::tempdir().expect("a folder");
    for (lines, words) in [
        ("url = \"http://169.254.169.254/latest\"", vec!["apps.0.webhooks.0.url", "link-local"]),
        ("url = \"http://[fd00:ec2::254]/\"", vec!["apps.0.webhooks.0.url", "link-local"]),
        ("url = \"http://[::ffff:169.254.1.1]/\"", vec!["apps.0.webhooks.0.url", "link-local"]),
        ("url = \"ftp://example.org/\"", vec!["apps.0.webhooks.0.url", "expected http:// or https://"]),
        ("url = \"http://example.org/\"\nconcurrency = 0", vec!["apps.0.webhooks.0.concurrency", "expected between 1"]),
        (
            "url = \"http://example.org/\"\nheaders = { X-Pusher-Key = \"x\" }",
            vec!["apps.0.webhooks.0.headers", "X-Pusher-Key"],
        ),
        ("url = \"http://example.org/\"\nheaders = { \"a b\" = \"x\" }", vec!["apps.0.webhooks.0.headers", "a b"]),
        ("url = \"http://example.org/\"\nfilter = { channel_pattern = \"(\" }", vec!["channel_pattern"]),
        ("url = \"http://example.org/\"\nlambda_function = \"x\"", vec!["lambda_function", "expected"]),
        ("url = \"http://example.org/\"\nevent_types = [\"channel_ocupied\"]", vec!["event_types", "channel_occupied"]),
        (
            "url = \"http://10.0.0.1/\"\n[webhooks]\nrefuse_private_networks = true",
            vec!["apps.0.webhooks.0.url", "private network"],
        ),
        ("url = \"http://example.org/\"\n[webhooks]\ntimeout = \"0s\"", vec!["webhooks.timeout", "expected between"]),
    ] {
        let text = Setup::default().more(&format!("[[apps.webhooks]]\n{lines}\n")).toml();
        std::fs::write(folder.path().join("carillon.toml"), text).expect("the file can be written");
        let finished = tests::command::run(folder.path(), &["check-config", "--config", "carillon.toml"], &[]).await;
        assert_eq!(finished.code, 2, "{lines}: {finished:?}");
        for word in words {
            assert!(finished.stderr.contains(word), "{lines}: no {word:?} in {}", finished.stderr);
        }
    }
}

#[tokio::test]
async fn names_that_resolve_to_private_networks_are_refused() {
    let receiver = Receiver::start().await;
    let url = format!("http://localhost:{}/", receiver.address.port());
    let endpoint = format!("[[apps.webhooks]]\nurl = \"{url}\"\n");
    let open = Server::start(Setup::default().more(&endpoint)).await;
    open.client().await.subscribe("room").await;
    receiver.events(1).await;
    open.stop().await;
    let requests = receiver.received().len();
    let webhooks = "[webhooks]\nrefuse_private_networks = true\ngive_up_after = \"0s\"";
    let closed = Server::start(Setup::default().more(&endpoint).more(webhooks)).await;
    closed.client().await.subscribe("room").await;
    eventually("the delivery is a dead letter", async || closed.metric("carillon_webhooks_dead_total").await >= 1.0)
        .await;
    assert_eq!(receiver.received().len(), requests);
    let log = closed.stop().await;
    assert!(log.contains("private network"), "{log}");
}

#[tokio::test]
async fn secrets_of_endpoints_are_not_printed() {
    let folder = tempfile::tempdir().expect("a folder");
    let endpoint = "[[apps.webhooks]]\nurl = \"https://user:pass-1@example.org/hooks?token=pass-2\"\n\
                    headers = { Authorization = \"pass-3\" }";
    std::fs::write(folder.path().join("carillon.toml"), Setup::default().more(endpoint).toml()).expect("a file");
    let finished = tests::command::run(folder.path(), &["print-config", "--config", "carillon.toml"], &[]).await;
    assert_eq!(finished.code, 0, "{finished:?}");
    assert!(finished.stdout.contains("https://example.org/hooks?***"), "{}", finished.stdout);
    assert!(!finished.stdout.contains("pass-"), "{}", finished.stdout);
}
