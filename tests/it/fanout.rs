//! Events to many sockets: in order, once, and independent of slow clients.

use shared::app::App;
use std::sync::Arc;
use std::time::Instant;

use serde_json::json;
use tests::{Raw, Server, Setup, TestClient};
use tokio::task::JoinSet;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_sockets_get_two_thousand_events_each_once_and_in_order() {
    const SOCKETS: usize = 200;
    const PUBLISHERS: usize = 4;
    const BATCHES: usize = 50;
    const BATCH: usize = 10;
    let server = Arc::new(Server::plain().await);
    let mut sockets = JoinSet::new();
    for _ in 0..SOCKETS {
        let mut client = server.client().await;
        client.subscribe("news").await;
        sockets.spawn(async move {
            let mut next = [0; PUBLISHERS];
            for _ in 0..PUBLISHERS * BATCHES * BATCH {
                let message = client.expect("tick").await;
                let (publisher, sequence) = message.data.split_once(' ').expect("two numbers");
                let publisher: usize = publisher.parse().expect("a number");
                assert_eq!(sequence.parse(), Ok(next[publisher]), "of publisher {publisher}");
                next[publisher] += 1;
            }
            client.settle().await;
        });
    }
    let mut publishers = JoinSet::new();
    for publisher in 0..PUBLISHERS {
        let server = server.clone();
        publishers.spawn(async move {
            let mut api = server.api_client();
            for batch in 0..BATCHES {
                let events = (0..BATCH).map(|index| {
                    let sequence = batch * BATCH + index;
                    json!({ "name": "tick", "channel": "news", "data": format!("{publisher} {sequence}") })
                });
                let body = json!({ "batch": events.collect::<Vec<_>>() });
                let reply = api.post("/batch_events", &body).await.expect("the server answers");
                assert_eq!(reply.status.as_u16(), 200, "{}", reply.body);
            }
        });
    }
    publishers.join_all().await;
    sockets.join_all().await;
    let server = Arc::into_inner(server).expect("all publishers have finished");
    let events = (PUBLISHERS * BATCHES * BATCH) as f64;
    assert_eq!(server.metric("carillon_events_published_total").await, events);
    assert_eq!(server.metric("carillon_slow_consumers_total").await, 0.0);
    let deliveries = events * SOCKETS as f64;
    assert!(server.metric("carillon_messages_sent_total").await >= deliveries);
    server.stop().await;
}

#[tokio::test]
async fn a_publish_reaches_every_listed_channel_once_in_order() {
    let server = Server::plain().await;
    let mut client = server.client().await;
    let channels: Vec<String> = (0..100).map(|number| format!("channel-{number}")).collect();
    for channel in &channels {
        client.subscribe(channel).await;
    }
    let mut repeated = channels.clone();
    repeated.truncate(99);
    repeated.push(channels[0].clone());
    let reply = server.post("/events", &json!({ "name": "a", "channels": repeated, "data": "1" })).await;
    assert_eq!((reply.status.as_u16(), reply.body.as_str()), (200, "{}"));
    for channel in &channels[..99] {
        client.expect_event(channel, "a", "1").await;
    }
    client.settle().await;
    server.stop().await;
}

#[tokio::test]
async fn the_text_of_the_publisher_arrives_unchanged() {
    let server = Server::plain().await;
    let mut client = server.client().await;
    client.subscribe("news").await;
    let controls: String = (1u8..32).map(char::from).collect();
    let largest = "é".repeat(5_120);
    for text in ["", "null", "{\"a\": [1,  2]}", "\"quoted\" \\ \u{2028} \u{0}", "😀", "</script>", &controls, &largest]
    {
        server.publish("news", "App\\Events\\Shipped:1/2", text).await;
        client.expect_event("news", "App\\Events\\Shipped:1/2", text).await;
    }
    let reply = server.post("/events", &json!({ "name": "a", "channel": "news", "data": { "b": [1, null] } })).await;
    assert_eq!(reply.status.as_u16(), 200);
    client.expect_event("news", "a", r#"{"b":[1,null]}"#).await;
    server.stop().await;
}

#[tokio::test]
async fn the_excluded_socket_receives_the_event_on_no_channel() {
    let server = Server::plain().await;
    let (mut sender, mut other) = (server.client().await, server.client().await);
    for client in [&mut sender, &mut other] {
        client.subscribe("news").await;
        client.subscribe("private-room").await;
    }
    let body = json!({
        "name": "a", "channels": ["news", "private-room"], "data": "1", "socket_id": sender.socket_id.to_string(),
    });
    assert_eq!(server.post("/events", &body).await.status.as_u16(), 200);
    let batch = json!({ "batch": [
        { "name": "b", "channel": "news", "data": "1", "socket_id": sender.socket_id.to_string() },
        { "name": "c", "channel": "news", "data": "1" },
    ]});
    assert_eq!(server.post("/batch_events", &batch).await.status.as_u16(), 200);
    sender.expect_event("news", "c", "1").await;
    for (channel, event) in [("news", "a"), ("private-room", "a"), ("news", "b"), ("news", "c")] {
        other.expect_event(channel, event, "1").await;
    }
    sender.settle().await;
    server.stop().await;
}

#[tokio::test]
async fn apps_do_not_receive_events_of_each_other() {
    let second = "[[apps]]\nid = \"other\"\nkey = \"other-key\"\nsecret = \"other-secret\"";
    let server = Server::start(Setup::default().more(second)).await;
    let other = App::with_defaults("other", "other-key", "other-secret");
    let mut client = server.client().await;
    let mut outsider = TestClient::connect(&server.url, &other, &client::Options::default()).await;
    client.subscribe("private-room").await;
    outsider.subscribe("private-room").await;
    server.publish("private-room", "a", "1").await;
    client.expect_event("private-room", "a", "1").await;
    outsider.whisper("private-room", "client-a", &json!(1));
    outsider.settle().await;
    client.settle().await;
    let mut api = client::ApiClient::new(server.url.clone(), other);
    let reply = api.get("/channels/private-room", &[("info", "subscription_count")]).await.expect("an answer");
    assert_eq!(reply.body, r#"{"occupied":true,"subscription_count":1}"#);
    server.stop().await;
}

#[tokio::test]
async fn a_slow_reader_is_closed_with_4100_and_other_clients_receive_all_events() {
    const OTHERS: usize = 20;
    const EVENTS_MAX: usize = 5_000;
    let setup = Setup::default().server("outbox_bytes = \"64KiB\"").limit("presence_members = 25");
    let server = Server::start(setup).await;
    let mut slow = Raw::connect_narrow(server.public).await;
    slow.establish(&server.app).await;
    slow.subscribe("news").await;
    let mut others = Vec::new();
    for _ in 0..OTHERS {
        let mut client = server.client().await;
        client.subscribe("news").await;
        others.push(client);
    }
    let padding = "x".repeat(10_000);
    let mut api = server.api_client();
    let mut published = 0;
    while server.metric("carillon_slow_consumers_total").await == 0.0 {
        assert!(published < EVENTS_MAX, "the slow reader was never closed");
        for _ in 0..10 {
            let data = format!("{published} {padding}");
            let reply = api.trigger(&["news"], "tick", &data, None).await.expect("the server answers");
            assert_eq!(reply.status.as_u16(), 200);
            for client in &mut others {
                client.expect_event("news", "tick", &data).await;
            }
            published += 1;
        }
    }
    // The client reads again. It receives whole events in order, then the reason, then the end.
    let mut read = 0;
    loop {
        let message = slow.message().await;
        if message["event"] == "pusher:error" {
            assert_eq!(message["data"]["code"], 4100);
            break;
        }
        assert_eq!(message["event"], "tick");
        let data = message["data"].as_str().expect("a text");
        assert!(data.starts_with(&format!("{read} ")), "event {read} is the next");
        read += 1;
    }
    assert!(read < published, "some events were dropped");
    assert_eq!(slow.close().await, 4100);
    drop(slow);
    server.metric_reaches("carillon_connections_closed_total{code=\"4100\"}", 1.0).await;
    assert_eq!(server.metric("carillon_slow_consumers_total").await, 1.0);
    assert_eq!(server.metric("carillon_connections").await, OTHERS as f64);
    server.metric_reaches("carillon_outbox_bytes", 0.0).await;
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_reads_nothing_for_the_timeout_is_closed_even_with_a_small_queue() {
    let setup = Setup::default()
        .server("outbox_timeout = \"1s\"")
        .limit("event_bytes = \"512KiB\"")
        .limit("message_bytes = \"1MiB\"");
    let server = Server::start(setup).await;
    let mut slow = Raw::connect_narrow(server.public).await;
    slow.establish(&server.app).await;
    slow.subscribe("news").await;
    // Publishes until messages are queued, because the size of the kernel's buffers is unknown.
    let data = "x".repeat(400 * 1024);
    tests::eventually("a webhook is queued", async || {
        if server.metric("carillon_outbox_bytes").await == 0.0
            && server.metric("carillon_slow_consumers_total").await == 0.0
        {
            server.publish("news", "tick", &data).await;
        }
        server.metric("carillon_slow_consumers_total").await == 1.0
    })
    .await;
    slow.drain().await;
    server.metric_reaches("carillon_connections", 0.0).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_clients_are_answered_while_a_shard_has_many_events_to_send() {
    const SUBSCRIBERS: usize = 100;
    const EVENTS: usize = 40_000;
    // On a busy machine the readers can be late. The queue limit is therefore higher than the default.
    let setup = Setup::default().server("shards = 1").server("outbox_bytes = \"16MiB\"").limit("batch = 40000");
    let server = Server::start(setup).await;
    let mut other = server.client().await;
    let mut readers = JoinSet::new();
    for _ in 0..SUBSCRIBERS {
        let mut raw = server.raw().await;
        raw.subscribe("news").await;
        readers.spawn(async move {
            let mut bytes = 0;
            while bytes < EVENTS * 40 {
                let some = raw.some().await;
                assert!(!some.is_empty(), "the connection ended after {bytes} bytes");
                bytes += some.len();
            }
            raw
        });
    }
    let sent = "carillon_messages_sent_total";
    let before = server.metric(sent).await;
    let events = (0..EVENTS).map(|_| json!({ "name": "tick", "channel": "news", "data": "1" }));
    let body = json!({ "batch": events.collect::<Vec<_>>() });
    let publish = async { server.post("/batch_events", &body).await };
    let total = before + (SUBSCRIBERS * EVENTS) as f64;
    let mut answered = 0;
    let mut greeted = Vec::new();
    let pings = async {
        tests::eventually("the fan-out has started", async || server.metric(sent).await > before).await;
        loop {
            other.settle().await;
            let now = server.metric(sent).await;
            if now >= total {
                return;
            }
            answered += 1;
            greeted.push(server.client().await);
            assert_eq!(server.admin_get("/livez").await.status, 200);
        }
    };
    let (reply, ()) = tokio::join!(publish, pings);
    assert_eq!(reply.status.as_u16(), 200, "{}", reply.body);
    // Four million deliveries take at least sixty turns of the shard. The machine can be busy with other tests.
    assert!(answered >= 3, "{answered} pings were answered before the last event was sent");
    // A new client does not wait for the events of other clients either.
    assert!(greeted.len() >= 3, "{} clients were greeted before the last event was sent", greeted.len());
    readers.join_all().await;
    server.stop().await;
}

#[tokio::test]
async fn an_event_for_more_subscribers_than_one_turn_serves_reaches_each_once() {
    const SUBSCRIBERS: usize = 5_000;
    const EVENTS: usize = 80;
    let server = Server::start(Setup::default().server("shards = 1").limit("batch = 80")).await;
    let mut subscribers = Vec::with_capacity(SUBSCRIBERS);
    for _ in 0..SUBSCRIBERS {
        let mut raw = server.raw().await;
        raw.subscribe("news").await;
        subscribers.push(raw);
    }
    server.publish("news", "first", "1").await;
    server.publish("news", "second", "1").await;
    for raw in &mut subscribers {
        assert_eq!(raw.message().await["event"], "first");
        assert_eq!(raw.message().await["event"], "second");
    }
    assert_eq!(server.metric("carillon_fanout_subscribers_count").await, 2.0);
    assert_eq!(server.metric("carillon_fanout_subscribers_sum").await, 2.0 * SUBSCRIBERS as f64);

    // The shard takes them from its inbox at once. While it sends them, clients connect and its timers fire.
    let (sent, ticks) = ("carillon_messages_sent_total", "carillon_event_loop_lag_seconds_count");
    let events = (0..EVENTS).map(|_| json!({ "name": "tick", "channel": "news", "data": "1" }));
    let body = json!({ "batch": events.collect::<Vec<_>>() });
    let (before, began) = (server.metrics().await, Instant::now());
    assert_eq!(server.post("/batch_events", &body).await.status.as_u16(), 200);
    let mut others = Vec::new();
    let after = loop {
        let metrics = server.metrics().await;
        // Each of the other clients was sent a greeting and a pong.
        let events = metrics.value(sent) - before.value(sent) - 2.0 * others.len() as f64;
        if events >= (SUBSCRIBERS * EVENTS) as f64 {
            break metrics;
        }
        let mut other = server.client().await;
        other.settle().await;
        others.push(other);
    };
    assert!(others.len() >= 4, "{} clients connected before the last event was sent", others.len());
    // The timer of the node fires at most once a second. The shard's timer has therefore fired too.
    let (fired, seconds) = (after.value(ticks) - before.value(ticks), began.elapsed().as_secs_f64());
    assert!(fired > seconds + 1.0, "the timers of node and shard fired {fired} times in {seconds} s");
    drop(subscribers);
    server.stop().await;
}
