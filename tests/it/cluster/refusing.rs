//! A Redis that answers and must not be used: a demoted master, a replica, a node of a Redis Cluster, a full memory.
//! Also servers that answer some commands with errors or not at all.

use std::collections::BTreeSet;
use std::time::Duration;

use client::Message;
use serde_json::json;
use tests::redis::filter::{Answer, Filter, Rule};
use tests::server::{Launch, Role};
use tests::{Cluster, Observer, Proxy, Redis, Server, Setup, TestClient, eventually};

const ROOM: &str = "presence-room";
const REFUSALS: &str = "redis cannot be used";

fn occurrences(log: &str, text: &str) -> usize {
    log.matches(text).count()
}

/// Returns the status of one publish on `news`, which must arrive soon.
async fn publish(server: &Server, data: &str) -> u16 {
    let body = json!({ "name": "e", "channel": "news", "data": data });
    let reply = tokio::time::timeout(Duration::from_secs(10), server.post("/events", &body)).await;
    let reply = reply.expect("a publish is answered");
    let status = reply.status.as_u16();
    assert!(matches!(status, 200 | 503), "{status} {}", reply.body);
    status
}

async fn expect_refusing(server: &Server, reason: &str) {
    server.metric_reaches(&format!("carillon_redis_refusing{{reason=\"{reason}\"}}"), 1.0).await;
    assert_eq!(server.metric("carillon_redis_state{state=\"refusing\"}").await, 1.0);
    let (status, text) = server.readiness().await;
    assert!(status == 503 && text.contains("redis cannot be used"), "{status} {text}");
    assert_eq!(server.admin_get("/livez").await.status, 200);
}

/// Waits until a replica has all data of its master.
async fn caught_up(replica: &Redis) {
    let has_all = async || {
        let role: Vec<redis::Value> = replica.run("ROLE").await;
        role.get(3).is_some_and(|state| *state == redis::Value::BulkString(b"connected".to_vec()))
    };
    eventually("the replica is connected", has_all).await;
    let acknowledged = async || replica.run::<String>("INFO replication").await.contains("master_sync_in_progress:0");
    eventually("the replica has all data", acknowledged).await;
}

#[tokio::test]
async fn nodes_that_reconnect_to_a_demoted_master_move_to_the_new_one_without_losing_members() {
    let mut cluster = Cluster::start().proxied().await;
    let second = Redis::start().await;
    second.run::<()>(&format!("REPLICAOF 127.0.0.1 {}", cluster.redis.port)).await;
    caught_up(&second).await;
    let mut news = cluster.subscribers("news").await;
    let mut observers = Vec::new();
    for (index, user) in ["near", "far"].iter().enumerate() {
        observers.push(Observer::join(cluster.gateway(index), ROOM, user).await);
    }
    cluster.publish(ROOM, "marker", "").await;
    for observer in &mut observers {
        observer.until("marker").await;
        observer.take_changes();
    }

    // An operator does this by hand. It closes the connections.
    cluster.redis.run::<()>("CLIENT PAUSE 100 WRITE").await;
    second.run::<()>("REPLICAOF NO ONE").await;
    cluster.redis.run::<()>(&format!("REPLICAOF 127.0.0.1 {}", second.port)).await;
    let before = [cluster.gateway_proxy(0).accepted(), cluster.gateway_proxy(1).accepted()];
    for kind in ["normal", "pubsub"] {
        cluster.redis.run::<u64>(&format!("CLIENT KILL TYPE {kind}")).await;
    }
    for server in cluster.servers() {
        expect_refusing(server, "replica").await;
    }
    for (index, before) in before.into_iter().enumerate() {
        assert!(cluster.gateway_proxy(index).accepted() > before, "it reconnected to the demoted master");
    }
    let mut comes = cluster.client(0).await;
    comes.ask(ROOM, Some(&json!({ "user_id": "comes" })));
    let mut fresh = cluster.client(1).await;
    fresh.ask("fresh", None);
    // The members stay, and the nodes log the problem, as long as the address leads there.
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(publish(cluster.publisher(), "lost").await, 503);
        for server in cluster.servers() {
            expect_refusing(server, "replica").await;
        }
    }
    for client in news.iter_mut().chain([&mut comes, &mut fresh]) {
        client.settle().await;
    }

    for index in 0..2 {
        cluster.gateway_proxy(index).lead_to(second.port);
    }
    cluster.publisher_proxy(0).lead_to(second.port);
    cluster.ready().await;
    comes.expect("pusher_internal:subscription_succeeded").await;
    fresh.expect("pusher_internal:subscription_succeeded").await;
    for (channel, clients) in [("news", &mut news[..]), ("fresh", std::slice::from_mut(&mut fresh))] {
        cluster.publish(channel, "arrives", "1").await;
        for client in clients {
            client.expect_event(channel, "arrives", "1").await;
        }
    }
    cluster.users_become(ROOM, &["near", "far", "comes"]).await;
    let all_users: BTreeSet<String> = ["near", "far", "comes"].map(str::to_owned).into();
    for observer in &mut observers {
        cluster.publish(ROOM, "marker", "").await;
        observer.until("marker").await;
        assert_eq!(observer.members(), &all_users);
        let changes = observer.take_changes();
        assert_eq!(changes.len(), 1, "no member left meanwhile: {changes:?}");
    }
    for gateway in cluster.gateways() {
        for metric in ["carillon_presence_fenced_total", "carillon_presence_evictions_total"] {
            assert_eq!(gateway.metric(metric).await, 0.0, "{metric}");
        }
    }
    for log in cluster.stop().await {
        assert_eq!(occurrences(&log, REFUSALS), 1, "once:\n{log}");
        assert_eq!(occurrences(&log, "redis accepts writes again"), 1, "{log}");
    }
}

#[tokio::test]
async fn a_subscriber_on_a_demoted_master_moves_although_its_connection_is_open() {
    let mut cluster = Cluster::start().proxied().await;
    let second = Redis::start().await;
    let mut news = cluster.subscribers("news").await;
    // From here on new connections lead to the other server. Open ones lead to the old one, which still answers.
    for index in 0..2 {
        cluster.gateway_proxy(index).lead_to(second.port);
    }
    cluster.publisher_proxy(0).lead_to(second.port);
    cluster.redis.run::<()>(&format!("REPLICAOF 127.0.0.1 {}", second.port)).await;
    // The publisher has not detected it either, but rejects events that only the demoted master would deliver.
    let moved = async || {
        let subscribed: Vec<redis::Value> = second.run("PUBSUB NUMSUB carillon:{0}:c:shop/news").await;
        publish(cluster.publisher(), "moves").await == 200 && subscribed.last() == Some(&redis::Value::Int(2))
    };
    eventually("all have reconnected", moved).await;
    cluster.ready().await;
    assert_eq!(publish(cluster.publisher(), "moved").await, 200);
    for client in &mut news {
        receive_until(client, &mut Vec::new(), |message| message.data == "moved").await;
    }
    for gateway in cluster.gateways() {
        assert!(gateway.metric("carillon_redis_reconnects_total{reason=\"moved\"}").await >= 1.0);
    }
    cluster.stop().await;
}

/// Starts nodes that reach Redis through a proxy and that were never ready.
async fn refused_from_the_start(redis: &Redis, proxy: &Proxy, reason: &str, recovery: impl AsyncFnOnce()) {
    let mut servers = Vec::new();
    for role in [Role::Gateway, Role::Publisher, Role::Up] {
        let launch = Launch::new(role).setup(&Setup::default()).args(&["--redis", &redis.url_at(proxy.port)]);
        servers.push(launch.start().await);
    }
    let mut clients: Vec<TestClient> = Vec::new();
    for server in &servers {
        expect_refusing(server, reason).await;
        if server.role != Role::Gateway {
            assert_eq!(publish(server, "lost").await, 503);
        }
        if server.role != Role::Publisher {
            let mut client = server.client().await;
            client.ask("news", None);
            client.ask(ROOM, Some(&json!({ "user_id": "ana" })));
            client.settle().await;
            clients.push(client);
        }
    }
    recovery().await;
    for server in &servers {
        server.ready().await;
    }
    for client in &mut clients {
        let mut entered = BTreeSet::new();
        for _ in 0..2 {
            entered.extend(client.expect("pusher_internal:subscription_succeeded").await.channel);
        }
        assert_eq!(entered, BTreeSet::from(["news".to_owned(), ROOM.to_owned()]));
    }
    assert_eq!(publish(&servers[1], "arrives").await, 200);
    for client in &mut clients {
        client.expect_event("news", "e", "arrives").await;
    }
    for server in servers {
        assert_eq!(server.metric("carillon_redis_state{state=\"live\"}").await, 1.0);
        let log = server.stop().await;
        assert_eq!(occurrences(&log, REFUSALS), 1, "{log}");
    }
}

#[tokio::test]
async fn a_replica_from_the_start() {
    let redis = Redis::start().await;
    redis.run::<()>("REPLICAOF 127.0.0.1 1").await;
    let proxy = Proxy::start(redis.port).await;
    refused_from_the_start(&redis, &proxy, "replica", async || redis.run("REPLICAOF NO ONE").await).await;
}

#[tokio::test]
async fn a_node_of_a_redis_cluster_from_the_start() {
    let (single, clustered) = (Redis::start().await, Redis::clustered().await);
    let proxy = Proxy::start(clustered.port).await;
    refused_from_the_start(&single, &proxy, "cluster_node", async || proxy.lead_to(single.port)).await;
}

#[tokio::test]
async fn a_full_memory_from_the_start() {
    let redis = Redis::start().await;
    redis.run::<()>("CONFIG SET maxmemory 1").await;
    let proxy = Proxy::start(redis.port).await;
    refused_from_the_start(&redis, &proxy, "out_of_memory", async || redis.run("CONFIG SET maxmemory 0").await).await;
}

#[tokio::test]
async fn too_few_replicas_from_the_start() {
    let redis = Redis::start().await;
    redis.run::<()>("CONFIG SET min-replicas-to-write 1").await;
    let proxy = Proxy::start(redis.port).await;
    let recovery = async || redis.run("CONFIG SET min-replicas-to-write 0").await;
    refused_from_the_start(&redis, &proxy, "no_replicas", recovery).await;
}

#[tokio::test]
async fn a_user_without_write_permission_from_the_start() {
    let redis = Redis::start().await;
    redis.run::<()>("ACL SETUSER default resetkeys ~other:*").await;
    let proxy = Proxy::start(redis.port).await;
    refused_from_the_start(&redis, &proxy, "write_failed", async || redis.run("ACL SETUSER default allkeys").await)
        .await;
}

async fn receive_until(client: &mut TestClient, received: &mut Vec<String>, is_last: impl Fn(&Message) -> bool) {
    loop {
        let message = client.next().await;
        if is_last(&message) {
            return;
        }
        received.push(message.data);
    }
}

/// Checks live nodes while their server answers some commands by a rule.
async fn while_answered(rules: &[(Rule, Option<&str>)]) {
    let redis = Redis::start().await;
    let filter = Filter::start(redis.port).await;
    let mut servers = Vec::new();
    for role in [Role::Gateway, Role::Publisher] {
        let server =
            Launch::new(role).setup(&Setup::default()).args(&["--redis", &redis.url_at(filter.port)]).start().await;
        server.ready().await;
        servers.push(server);
    }
    let [gateway, publisher] = &servers[..] else { unreachable!("two were started") };
    let mut client = gateway.client().await;
    client.subscribe("news").await;
    for (round, (rule, refusal)) in rules.iter().enumerate() {
        println!("{rule:?}");
        filter.set(*rule);
        let is_noticed = match refusal {
            Some(reason) => format!("carillon_redis_refusing{{reason=\"{reason}\"}}"),
            None => "carillon_redis_state{state=\"connecting\"}".to_owned(),
        };
        for server in [gateway, publisher] {
            server.metric_reaches(&is_noticed, 1.0).await;
            assert_eq!(server.readiness().await.0, if refusal.is_some() { 503 } else { 200 }, "{rule:?}");
            assert_eq!(server.admin_get("/livez").await.status, 200);
        }
        let mut waits = gateway.client().await;
        waits.ask(&format!("fresh-{round}"), None);
        let mut accepted = Vec::new();
        for attempt in 0..3 {
            let data = format!("{round}-{attempt}");
            let status = publish(publisher, &data).await;
            assert!(status == 503 || refusal.is_none(), "{rule:?}");
            accepted.extend((status == 200).then_some(data));
        }
        // The connection is unchanged. Events whose publish timed out can still arrive.
        let mut received = Vec::new();
        client.send_event("pusher:ping", &json!({}));
        receive_until(&mut client, &mut received, |message| message.event == "pusher:pong").await;
        filter.pass();
        for server in [gateway, publisher] {
            server.metric_reaches("carillon_redis_state{state=\"live\"}", 1.0).await;
            server.ready().await;
        }
        loop {
            let message = waits.next().await;
            match message.event.as_str() {
                "pusher_internal:subscription_succeeded" => break,
                "pusher:error" => waits.ask(&format!("fresh-{round}"), None),
                event => panic!("{event}"),
            }
        }
        assert_eq!(publish(publisher, &format!("{round}-end")).await, 200);
        receive_until(&mut client, &mut received, |message| message.data == format!("{round}-end")).await;
        assert!(accepted.iter().all(|data| received.contains(data)), "{rule:?}: {accepted:?} {received:?}");
    }
    for server in servers {
        server.stop().await;
    }
}

const READONLY: Answer = Answer::Error("READONLY You can't write against a read only replica.");
const MASTERDOWN: Answer =
    Answer::Error("MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.");
const OOM: Answer = Answer::Error("OOM command not allowed when used memory > 'maxmemory'.");
const LOADING: Answer = Answer::Error("LOADING Redis is loading the dataset in memory");
const NOPERM: Answer = Answer::Error("NOPERM this user has no permissions to run the 'evalsha' command");
const ERR: Answer = Answer::Error("ERR proxy: no upstream");

#[tokio::test]
async fn a_server_that_answers_writes_with_errors() {
    while_answered(&[
        ((&["EVALSHA"], READONLY), Some("replica")),
        ((&["EVALSHA", "MULTI", "SET", "ZADD", "SADD"], OOM), Some("out_of_memory")),
        ((&["EVALSHA"], MASTERDOWN), Some("replica")),
        ((&["EVALSHA"], ERR), Some("write_failed")),
        ((&["EVALSHA"], NOPERM), Some("write_failed")),
    ])
    .await;
}

#[tokio::test]
async fn a_server_that_answers_every_command_with_an_error() {
    while_answered(&[
        ((&[], READONLY), Some("replica")),
        ((&[], LOADING), None),
        ((&[], OOM), Some("out_of_memory")),
        ((&[], ERR), Some("write_failed")),
    ])
    .await;
}

#[tokio::test]
async fn a_server_that_answers_nothing() {
    while_answered(&[((&["EVALSHA"], Answer::Silence), None), ((&[], Answer::Silence), None)]).await;
}
