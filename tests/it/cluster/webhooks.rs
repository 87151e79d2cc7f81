//! Webhooks of a cluster. Every transition is delivered under one id, even if processes crash. Source: protocol
//! reference 5.

mod chaos;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::json;
use tests::receiver::{Answer, Delivered};
use tests::{Cluster, PATIENCE, Receiver, Setup, eventually, eventually_within};

fn setup_with(receiver: &Receiver, more: &str) -> Setup {
    Setup::default().more(&receiver.endpoint(more))
}

fn list(delivered: &[Delivered], channel: &str) -> Vec<String> {
    delivered.iter().filter(|delivered| delivered.channel == channel).map(|delivered| delivered.name.clone()).collect()
}

#[tokio::test]
async fn a_transition_on_both_gateways_is_delivered_once() {
    let receiver = Receiver::start().await;
    let setup = setup_with(&receiver, "").app("subscription_count = true");
    let cluster = Cluster::start().publishers(2).setup(setup).await;
    let mut clients = Vec::new();
    for gateway in [0, 1, 0, 1] {
        let mut client = cluster.client(gateway).await;
        client.join("presence-room", "ana").await;
        client.ask("private-hall", None);
        client.ask("cache-news", None);
        clients.push(client);
    }
    clients[1].whisper("presence-room", "client-wave", &json!({ "n": 1 }));
    let is_counted = |delivered: &Delivered| {
        delivered.event["subscription_count"] == json!(4) && delivered.channel == "private-hall"
    };
    eventually("all four are counted", async || receiver.delivered().iter().any(is_counted)).await;
    eventually("the client event is delivered", async || {
        receiver.delivered().iter().any(|delivered| delivered.name == "client_event")
    })
    .await;
    let before = receiver.delivered_once();
    assert_eq!(list(&before, "presence-room"), ["member_added", "channel_occupied", "client_event"]);
    let of_cache = list(&before, "cache-news");
    assert_eq!(of_cache.iter().filter(|name| *name == "cache_miss").count(), 1, "{of_cache:?}");
    assert_eq!(of_cache.iter().filter(|name| *name == "channel_occupied").count(), 1, "{of_cache:?}");
    drop(clients);
    let is_over = |channel: &str| {
        let delivered = receiver.delivered_once();
        list(&delivered, channel).last().is_some_and(|name| name == "channel_vacated")
    };
    for channel in ["presence-room", "private-hall", "cache-news"] {
        eventually("the end is delivered", async || is_over(channel)).await;
    }
    let after = receiver.delivered_once();
    assert_eq!(list(&after, "presence-room")[3..], ["member_removed", "channel_vacated"]);
    assert_eq!(receiver.delivered().len(), after.len(), "nothing was delivered twice");
    assert!(receiver.received().iter().all(tests::receiver::Received::is_signed));
    cluster.stop().await;
}

#[tokio::test]
async fn a_return_on_another_gateway_within_the_hold_sends_no_webhook() {
    let receiver = Receiver::start().await;
    let cluster = Cluster::start().setup(setup_with(&receiver, "")).await;
    let mut client = cluster.client(0).await;
    client.join("presence-room", "ana").await;
    receiver.events(2).await;
    for gateway in [1, 0, 1] {
        drop(client);
        client = cluster.client(gateway).await;
        client.join("presence-room", "ana").await;
    }
    // All holds are over, and a later event was delivered.
    tokio::time::sleep(Duration::from_secs(4)).await;
    let mut other = cluster.client(0).await;
    other.subscribe("marker").await;
    receiver.events(3).await;
    let delivered = receiver.delivered();
    assert_eq!(delivered.len(), 3, "{delivered:?}");
    cluster.stop().await;
}

#[tokio::test]
async fn the_crash_of_a_gateway_sends_its_webhooks_once_within_30_seconds() {
    let receiver = Receiver::start().await;
    let mut cluster = Cluster::start().setup(setup_with(&receiver, "")).await;
    let mut client = cluster.client(0).await;
    for number in 0..50 {
        client.subscribe(&format!("room-{number}")).await;
    }
    client.join("presence-a", "ana").await;
    client.join("presence-both", "ana").await;
    let mut other = cluster.client(1).await;
    other.join("presence-both", "ana").await;
    other.join("presence-both-2", "bo").await;
    let occupied = 50 + 2 * 3;
    receiver.events(occupied).await;
    let killed = Instant::now();
    cluster.kill_gateway(0).await;
    let ended = 50 + 2;
    receiver.events_within(PATIENCE, occupied + ended).await;
    let took = killed.elapsed();
    assert!(took < Duration::from_secs(30), "delivered after {took:?}");
    let delivered = receiver.delivered();
    assert_eq!(delivered.len(), occupied + ended, "once each: {delivered:?}");
    assert_eq!(
        list(&delivered, "presence-a"),
        ["member_added", "channel_occupied", "member_removed", "channel_vacated"]
    );
    assert_eq!(list(&delivered, "presence-both"), ["member_added", "channel_occupied"]);
    cluster.stop().await;
}

#[tokio::test]
async fn another_publisher_delivers_the_webhooks_of_a_crashed_one() {
    let receiver = Receiver::start().await;
    receiver.answer_with(Answer::Hang);
    let setup = setup_with(&receiver, "").more("[webhooks]\ntimeout = \"60s\"");
    let mut cluster = Cluster::start().publishers(2).setup(setup).await;
    let mut client = cluster.client(0).await;
    for number in 0..5 {
        client.subscribe(&format!("room-{number}")).await;
    }
    eventually("all are under way", async || receiver.received().len() == 5).await;
    // The publisher that leads has the lease. Both are killed, so neither can finish.
    cluster.kill_publisher(0).await;
    cluster.kill_publisher(1).await;
    client.subscribe("room-without-publisher").await;
    receiver.answer_with(Answer::Status(200));
    cluster.start_publisher(1).await;
    receiver.events_within(PATIENCE, 6).await;
    let hung: BTreeSet<String> =
        receiver.delivered_with(Answer::Hang).into_iter().map(|delivered| delivered.id).collect();
    let delivered: BTreeSet<String> = receiver.delivered().into_iter().map(|delivered| delivered.id).collect();
    assert!(hung.is_subset(&delivered), "the same ids: {hung:?}, {delivered:?}");
    assert_eq!(delivered.len(), 6);
    cluster.start_publisher(0).await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_stopped_publisher_releases_its_queues_at_once() {
    let receiver = Receiver::start().await;
    let mut cluster = Cluster::start().publishers(2).setup(setup_with(&receiver, "")).await;
    let mut client = cluster.client(0).await;
    client.subscribe("room-0").await;
    receiver.events(1).await;
    for (number, publisher) in [(1, 0), (2, 1)] {
        cluster.stop_publisher(publisher).await;
        client.subscribe(&format!("room-{number}")).await;
        receiver.events(number + 1).await;
        cluster.start_publisher(publisher).await;
    }
    assert_eq!(receiver.delivered().len(), 3);
    cluster.stop().await;
}

#[tokio::test]
async fn an_endpoint_that_was_down_receives_all_webhooks_in_order() {
    let mut receiver = Receiver::start().await;
    let setup = setup_with(&receiver, "").limit("client_events_per_second = 0");
    let cluster = Cluster::start().setup(setup).await;
    let mut client = cluster.client(0).await;
    client.subscribe("private-chat").await;
    receiver.events(1).await;
    let before = cluster.publisher().resident_bytes();
    receiver.go_down().await;
    for number in 0..200 {
        client.subscribe(&format!("room-{number}")).await;
    }
    // 20 MB wait in Redis. The publisher reads only a bounded part at once.
    let text = "x".repeat(10_000);
    for number in 0..2000 {
        client.whisper("private-chat", "client-text", &json!(format!("{number} {text}")));
        if number % 50 == 0 {
            client.settle().await;
        }
    }
    client.settle().await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    client.unsubscribe("room-0");
    let grown = cluster.publisher().resident_bytes().saturating_sub(before);
    assert!(grown < 24 * 1024 * 1024, "{grown} bytes more");
    receiver.come_back().await;
    // Two attempts can be a minute apart at this point.
    receiver.events_within(2 * PATIENCE, 2202).await;
    let delivered = receiver.delivered_once();
    assert_eq!(list(&delivered, "room-0"), ["channel_occupied", "channel_vacated"]);
    let numbers: Vec<usize> = delivered
        .iter()
        .filter(|delivered| delivered.name == "client_event")
        .map(|delivered| {
            delivered.event["data"].as_str().and_then(|data| data.split(' ').next()?.parse().ok()).expect("a number")
        })
        .collect();
    assert_eq!(numbers, (0..2000).collect::<Vec<_>>(), "in order");
    eventually("nothing is left in Redis", async || {
        let left: usize = cluster.redis.run("XLEN carillon:{0}:wq:shop").await;
        left <= 1
    })
    .await;
    cluster.stop().await;
}

#[tokio::test]
async fn an_outage_of_redis_loses_no_webhook() {
    let receiver = Receiver::start().await;
    let cluster = Cluster::start().setup(setup_with(&receiver, "")).await;
    let mut client = cluster.client(0).await;
    client.subscribe("room-0").await;
    receiver.events(1).await;
    cluster.redis.pause();
    client.ask("room-1", None);
    tokio::time::sleep(Duration::from_secs(3)).await;
    cluster.redis.resume();
    client.expect("pusher_internal:subscription_succeeded").await;
    receiver.events(2).await;
    drop(client);
    receiver.events(4).await;
    let delivered = receiver.delivered_once();
    for channel in ["room-0", "room-1"] {
        assert_eq!(list(&delivered, channel), ["channel_occupied", "channel_vacated"]);
    }
    cluster.stop().await;
}

#[tokio::test]
async fn webhooks_are_not_repeated_after_redis_loses_its_data() {
    let receiver = Receiver::start().await;
    let mut cluster = Cluster::start().setup(setup_with(&receiver, "")).await;
    let mut client = cluster.client(0).await;
    client.join("presence-room", "ana").await;
    receiver.events(2).await;
    cluster.redis.kill().await;
    cluster.redis.start_again().await;
    eventually_within(PATIENCE, "the gateway has asserted what it holds", async || {
        cluster.redis.run::<usize>("HLEN carillon:{0}:oc:shop/presence-room").await == 1
    })
    .await;
    cluster.ready().await;
    let mut other = cluster.client(0).await;
    other.subscribe("marker").await;
    receiver.events_within(PATIENCE, 3).await;
    assert_eq!(list(&receiver.delivered(), "presence-room"), ["member_added", "channel_occupied"]);
    drop(client);
    receiver.events(5).await;
    assert_eq!(list(&receiver.delivered(), "presence-room")[2..], ["member_removed", "channel_vacated"]);
    cluster.stop().await;
}

#[tokio::test]
async fn dead_letters_are_listed_sent_again_and_purged() {
    let (bad, good) = (Receiver::start().await, Receiver::start().await);
    bad.answer_with(Answer::Status(410));
    let setup = setup_with(&bad, "").more(&good.endpoint("")).more("[webhooks]\ngive_up_after = \"2s\"");
    let cluster = Cluster::start().setup(setup.clone()).await;
    // The dead letter of a removed endpoint, before all others.
    let mut letter = vec!["XADD", "carillon:{0}:wd:shop", "*", "k", "O", "c", "room-z", "id", "old-id"];
    letter.extend(["to", "gone:80-12345678", "tries", "1", "why", "no"]);
    let _: redis::Value = cluster.redis.query(&letter).await;
    let mut client = cluster.client(0).await;
    for channel in ["room-a", "room-b", "room-c"] {
        client.subscribe(channel).await;
    }
    good.events(3).await;
    let ids: BTreeSet<String> = good.delivered().into_iter().map(|delivered| delivered.id).collect();
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("carillon.toml"), setup.toml()).expect("the file can be written");
    let url = cluster.redis.url();
    let run = async |words: &[&str]| {
        let args = [&["webhooks"], words, &["--config", "carillon.toml", "--redis", &url]].concat();
        tests::command::run(folder.path(), &args, &[]).await
    };
    let webhooks = async |words: &[&str]| {
        let finished = run(words).await;
        assert_eq!(finished.code, 0, "{finished:?}");
        finished.stdout
    };
    let refused = async |words: &[&str], code: i32, expected: &str| {
        let finished = run(words).await;
        assert_eq!(finished.code, code, "{finished:?}");
        assert!(finished.stderr.contains(expected), "{finished:?}");
        finished.stdout
    };
    eventually("three are given up", async || webhooks(&["list"]).await.lines().count() == 4).await;
    let listed = webhooks(&["list"]).await;
    for id in &ids {
        let line = listed.lines().find(|line| line.contains(id.as_str())).expect("each is listed");
        assert!(
            line.contains("channel_occupied room-") && line.ends_with(" the endpoint responded with 410 Gone"),
            "{line}"
        );
        assert!(line.contains("shop 127.0.0.1:"), "{line}");
    }
    let [first, second, third] = &ids.iter().map(String::as_str).collect::<Vec<_>>()[..] else { panic!("three ids") };
    // A selection is required to delete dead letters. Unknown ids are reported.
    for words in
        [&["purge"][..], &["purge", "--app-id", "shop"], &["purge", "--endpoint", "x"], &["purge", "--all", first]]
    {
        assert_eq!(refused(words, 2, "--all").await, "", "{words:?}");
    }
    for command in [&["list"][..], &["replay"], &["purge", "--all"]] {
        let with = |more: &[&'static str]| [command, more].concat();
        assert_eq!(refused(&with(&["--app-id", "unknown"]), 1, "no app unknown is configured").await, "");
        assert_eq!(refused(&with(&["--endpoint", "nowhere"]), 1, "unknown endpoint nowhere").await, "");
        assert_eq!(refused(&with(&["--to", "nowhere"]), 1, "unknown endpoint nowhere").await, "");
    }
    for command in ["list", "replay", "purge"] {
        refused(&[command, "no-such-id"], 1, "no undelivered webhook has the id no-such-id").await;
    }
    let of = |receiver: &Receiver| {
        let webhook = serde_json::json!({ "url": receiver.url() });
        let endpoint: shared::app::Endpoint = serde_json::from_value(webhook).expect("an endpoint");
        shared::app::Endpoint::labelled(&[endpoint])[0].0.to_string()
    };
    let (to_bad, to_good) = (of(&bad), of(&good));
    for flag in ["--to", "--endpoint"] {
        assert_eq!(webhooks(&["list", flag, &to_bad]).await.lines().count(), 3);
        assert_eq!(webhooks(&["list", flag, &to_good]).await, "");
        assert_eq!(webhooks(&["purge", "--all", flag, &to_good]).await, "deleted: 0\n");
    }
    bad.answer_with(Answer::Status(200));
    // The other letters are replayed although one id is unknown.
    assert_eq!(refused(&["replay", first, "no-such-id"], 1, "no-such-id").await, "queued again: 1\n");
    let delivered = bad.events(1).await;
    assert_eq!(delivered[0].id, *first, "the same id");
    assert_eq!(webhooks(&["list"]).await.lines().count(), 3);
    // The unknown endpoint does not stop the others.
    let printed = refused(&["replay", "old-id", second], 1, "shop no longer has the endpoint gone:80-12345678").await;
    assert_eq!(printed, "queued again: 1\n");
    bad.events(2).await;
    assert_eq!(webhooks(&["replay", "old-id", "--to", &to_bad]).await, "queued again: 1\n");
    bad.events(3).await;
    let deleted = webhooks(&["purge", third]).await;
    assert!(deleted.contains(third) && deleted.ends_with("\ndeleted: 1\n"), "{deleted}");
    assert_eq!(webhooks(&["purge", "--all"]).await, "deleted: 0\n");
    assert_eq!(webhooks(&["list"]).await, "");
    client.subscribe("marker").await;
    bad.events(4).await;
    good.events(4).await;
    assert_eq!(good.delivered().len(), 4, "a replay goes to one endpoint only");
    cluster.stop().await;
}

#[tokio::test]
async fn invalid_queue_entries_are_skipped() {
    let receiver = Receiver::start().await;
    let cluster = Cluster::start().setup(setup_with(&receiver, "")).await;
    for words in [
        ["XADD", "carillon:{0}:wq:shop", "*", "k", "O"].as_slice(),
        &["XADD", "carillon:{0}:wq:shop", "*", "k", "Z", "c", "room"],
        &["XADD", "carillon:{0}:wq:shop", "*", "k", "E", "c", "room", "e", "x", "d", "\u{0}", "s", "not an id"],
        &["ZADD", "carillon:{0}:wh", "1", "V\nshop"],
        &["ZADD", "carillon:{0}:wh", "1", "V\nnobody\nroom\n"],
        &["SADD", "carillon:{0}:wn", "shop", "unknown"],
    ] {
        let _: redis::Value = cluster.redis.query(words).await;
    }
    let _: redis::Value =
        cluster.redis.query(&[b"XADD".as_slice(), b"carillon:{0}:wq:shop", b"*", b"k", b"\xff"]).await;
    let mut client = cluster.client(0).await;
    client.subscribe("room").await;
    receiver.events(1).await;
    assert_eq!(list(&receiver.delivered(), "room"), ["channel_occupied"]);
    cluster.stop().await;
}

#[tokio::test]
async fn holds_that_expired_without_a_publisher_are_delivered() {
    let receiver = Receiver::start().await;
    let mut cluster = Cluster::start().setup(setup_with(&receiver, "")).await;
    let mut client = cluster.client(0).await;
    client.join("presence-room", "ana").await;
    receiver.events(2).await;
    cluster.kill_publisher(0).await;
    client.unsubscribe("presence-room");
    tokio::time::sleep(Duration::from_secs(4)).await;
    client.join("presence-room", "ana").await;
    cluster.start_publisher(0).await;
    receiver.events_within(PATIENCE, 6).await;
    let delivered = list(&receiver.delivered_once(), "presence-room");
    assert_eq!(delivered[2..], ["member_removed", "channel_vacated", "member_added", "channel_occupied"]);
    cluster.stop().await;
}

#[tokio::test]
async fn a_publisher_paused_for_longer_than_its_lease_causes_no_duplicates() {
    let receiver = Receiver::start().await;
    let cluster = Cluster::start().publishers(2).setup(setup_with(&receiver, "")).await;
    let mut client = cluster.client(0).await;
    client.subscribe("room-0").await;
    receiver.events(1).await;
    for (number, publisher) in [(1, 0), (3, 1)] {
        cluster.publisher_at(publisher).signal(rustix::process::Signal::STOP);
        client.subscribe(&format!("room-{number}")).await;
        receiver.events_within(PATIENCE, number + 1).await;
        cluster.publisher_at(publisher).signal(rustix::process::Signal::CONT);
        client.subscribe(&format!("room-{}", number + 1)).await;
        receiver.events_within(PATIENCE, number + 2).await;
    }
    assert_eq!(receiver.delivered_once().len(), 5);
    cluster.stop().await;
}

#[tokio::test]
async fn concurrent_requests_to_an_endpoint_are_limited_over_all_partitions() {
    let receiver = Receiver::start().await;
    receiver.answer_with(Answer::Hang);
    let setup = setup_with(&receiver, "concurrency = 3").redis("partitions = 8").more("[webhooks]\ntimeout = \"60s\"");
    let cluster = Cluster::start().setup(setup).await;
    let mut client = cluster.client(0).await;
    for number in 0..40 {
        client.subscribe(&format!("room-{number}")).await;
    }
    eventually("three are under way", async || receiver.received().len() >= 3).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(receiver.received().len(), 3);
    cluster.stop().await;
}

#[tokio::test]
async fn dead_letters_that_cannot_be_stored_do_not_stop_deliveries() {
    let receiver = Receiver::start().await;
    receiver.answer_with(Answer::Status(500));
    let setup = setup_with(&receiver, "").more("[webhooks]\ngive_up_after = \"1s\"");
    let cluster = Cluster::start().setup(setup).await;
    let _: redis::Value = cluster.redis.run("SET carillon:{0}:wd:shop nonsense").await;
    let mut client = cluster.client(0).await;
    client.subscribe("room").await;
    eventually("the error is in the log", async || {
        cluster.publisher().log().contains("cannot record the outcome of a webhook delivery")
    })
    .await;
    receiver.answer_with(Answer::Status(200));
    client.subscribe("later").await;
    receiver.events(1).await;
    cluster.stop().await;
}
