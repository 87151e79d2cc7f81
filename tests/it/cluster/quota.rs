//! Connection quotas of apps. pusher-js treats 4004 as final, so a gateway sends it only if it is certain.

use std::time::{Duration, Instant};

use serde_json::json;
use tests::proxy::Mode;
use tests::{Cluster, PATIENCE, Raw, Server, Setup, eventually, within_time};
use tokio::task::JoinSet;

const TARGET: &str = "/app/shop-key?protocol=7";

/// A client, or the code of its refusal.
async fn connect(server: &Server) -> Result<Raw, u64> {
    let mut raw = server.tcp().await;
    raw.upgrade(TARGET, &[]).await;
    let message = raw.message().await;
    match message["data"]["code"].as_u64() {
        Some(code) => Err(code),
        None => {
            assert_eq!(message["event"], "pusher:connection_established", "{message}");
            Ok(raw)
        }
    }
}

/// Connects like pusher-js: retries after 4100, and never after 4004.
async fn connect_until_admitted(server: &Server) -> Raw {
    let connected = async {
        loop {
            match connect(server).await {
                Ok(raw) => return raw,
                Err(code) => assert_eq!(code, 4100, "a client within the quota is refused permanently"),
            }
        }
    };
    within_time(PATIENCE, "a connection within the quota", connected).await
}

/// Waits until a client is refused with 4004. On a busy machine the counts can be unconfirmed at first.
async fn expect_final_refusal(server: &Server) {
    let refused = async {
        loop {
            match connect(server).await.err() {
                Some(4100) => {}
                code => return code,
            }
        }
    };
    assert_eq!(within_time(PATIENCE, "a final refusal", refused).await, Some(4004));
}

async fn counted(cluster: &Cluster, expected: u64) {
    let expected = json!({ "connections": expected }).to_string();
    // Right after Redis is available again, the publisher can refuse requests.
    let all = async || {
        let reply = cluster.api_client().get("/connections", &[]).await.expect("an answer");
        reply.status.as_u16() == 200 && reply.body == expected
    };
    eventually("all are counted", all).await;
}

#[tokio::test]
async fn clients_of_a_killed_gateway_are_accepted_by_another() {
    let mut cluster = Cluster::start().setup(Setup::default().limit("connections = 10")).await;
    let mut stay = Vec::new();
    let mut lost = Vec::new();
    for _ in 0..4 {
        lost.push(connect(cluster.gateway(0)).await.expect("the quota allows it"));
        stay.push(connect(cluster.gateway(1)).await.expect("the quota allows it"));
    }
    counted(&cluster, 8).await;
    cluster.kill_gateway(0).await;
    drop(lost);
    for _ in 0..4 {
        stay.push(connect_until_admitted(cluster.gateway(1)).await);
    }
    assert_eq!(stay.len(), 8);
    cluster.stop().await;
}

#[tokio::test]
async fn clients_of_a_gateway_without_redis_are_accepted_by_another() {
    let mut cluster = Cluster::start().proxied().setup(Setup::default().limit("connections = 4")).await;
    let (mut stay, mut lost) = (Vec::new(), Vec::new());
    for _ in 0..2 {
        lost.push(connect(cluster.gateway(0)).await.expect("the quota allows it"));
        stay.push(connect(cluster.gateway(1)).await.expect("the quota allows it"));
    }
    counted(&cluster, 4).await;
    // Its last report is valid until its lease expires, and it cannot report that its clients have disconnected.
    cluster.gateway_proxy(0).set(Mode::HalfOpen).await;
    drop(lost);
    for _ in 0..2 {
        stay.push(connect_until_admitted(cluster.gateway(1)).await);
    }
    cluster.gateway_proxy(0).set(Mode::Pass).await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_client_that_moves_to_another_gateway_at_the_quota_is_accepted() {
    let cluster = Cluster::start().setup(Setup::default().limit("connections = 3")).await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(connect(cluster.gateway(0)).await.expect("the quota allows it"));
    }
    counted(&cluster, 3).await;
    for turn in 1..=20 {
        drop(clients.remove(0));
        let client = connect(cluster.gateway(turn % 2)).await;
        clients.push(client.unwrap_or_else(|code| panic!("move {turn}: refused with {code}")));
    }
    cluster.stop().await;
}

#[tokio::test]
async fn a_client_that_reconnects_to_a_single_server_at_the_quota_is_accepted() {
    let server = Server::start(Setup::default().limit("connections = 3")).await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(connect(&server).await.expect("the quota allows it"));
    }
    for turn in 1..=20 {
        let left = clients.remove(0);
        // The handshake is in progress before the old connection ends.
        let (client, ()) = tokio::join!(connect(&server), async { drop(left) });
        clients.push(client.unwrap_or_else(|code| panic!("turn {turn}: refused with {code}")));
    }
    assert_eq!(connect(&server).await.err(), Some(4004), "no client has disconnected, which is certain");
    server.stop().await;
}

#[tokio::test]
async fn connections_above_the_quota_are_refused_with_4100_while_redis_is_unavailable() {
    let mut cluster = Cluster::start().setup(Setup::default().limit("connections = 2")).await;
    let first = connect(cluster.gateway(0)).await.expect("the quota allows it");
    counted(&cluster, 1).await;
    cluster.redis.kill().await;
    // By its own counts this node allows one more client. It does not know the others.
    let second = connect(cluster.gateway(0)).await;
    assert!(second.is_ok(), "{:?}", second.err());
    assert_eq!(connect(cluster.gateway(0)).await.err(), Some(4100));
    cluster.redis.start_again().await;
    cluster.ready().await;
    counted(&cluster, 2).await;
    expect_final_refusal(cluster.gateway(1)).await;
    drop((first, second));
    cluster.stop().await;
}

#[tokio::test]
async fn outdated_counts_in_redis_do_not_use_up_the_quota() {
    let cluster = Cluster::start().setup(Setup::default().limit("connections = 2")).await;
    drop(connect(cluster.gateway(0)).await.expect("the quota allows it"));
    drop(connect(cluster.gateway(1)).await.expect("the quota allows it"));
    counted(&cluster, 0).await;
    // The counts are like those of a lagging replica. The nodes are disconnected and do not restart.
    for node in cluster.redis.run::<Vec<String>>("ZRANGE carillon:nodes 0 -1").await {
        cluster.redis.run::<u64>(&format!("HSET carillon:conn:shop {node} 1")).await;
    }
    cluster.redis.run::<u64>("CLIENT KILL TYPE pubsub").await;
    counted(&cluster, 0).await;
    let clients = (connect_until_admitted(cluster.gateway(0)).await, connect_until_admitted(cluster.gateway(1)).await);
    drop(clients);
    cluster.stop().await;
}

#[tokio::test]
async fn handshakes_of_one_app_share_quota_claims() {
    const CLIENTS: usize = 400;
    let mut cluster = Cluster::start().gateways(1).proxied().setup(Setup::default().limit("connections = 1000")).await;
    let first = connect(cluster.gateway(0)).await.expect("the quota allows it");
    let command = "carillon_redis_command_seconds_count{command=\"connect\"}";
    let before = cluster.gateway(0).metric(command).await;
    cluster.gateway_proxy(0).set(Mode::Delay(Duration::from_millis(5))).await;
    let mut handshakes = JoinSet::new();
    let address = cluster.gateway(0).public;
    let began = Instant::now();
    for _ in 0..CLIENTS {
        handshakes.spawn(async move {
            let mut raw = Raw::connect(address).await;
            raw.upgrade(TARGET, &[]).await;
            assert_eq!(raw.message().await["event"], "pusher:connection_established");
            raw
        });
    }
    let clients = handshakes.join_all().await;
    let took = began.elapsed();
    assert!(took < Duration::from_secs(5), "sequential claims would take longer: {took:?}");
    let claims = cluster.gateway(0).metric(command).await - before;
    assert!(claims < CLIENTS as f64 / 4.0, "{claims} reports for {CLIENTS} handshakes");
    counted(&cluster, CLIENTS as u64 + 1).await;
    println!("{CLIENTS} handshakes: {took:?}, {claims} reports");
    drop((first, clients));
    cluster.stop().await;
}

#[tokio::test]
async fn simultaneous_connections_are_admitted_up_to_the_exact_quota() {
    const QUOTA: usize = 30;
    let cluster = Cluster::start().setup(Setup::default().limit(&format!("connections = {QUOTA}"))).await;
    let mut handshakes = JoinSet::new();
    for number in 0..2 * QUOTA {
        let address = cluster.gateway(number % 2).public;
        handshakes.spawn(async move {
            let mut raw = Raw::connect(address).await;
            raw.upgrade(TARGET, &[]).await;
            (raw.message().await["data"]["code"].as_u64(), raw)
        });
    }
    let outcomes = handshakes.join_all().await;
    let admitted = outcomes.iter().filter(|(code, _)| code.is_none()).count();
    assert_eq!(admitted, QUOTA);
    assert!(outcomes.iter().all(|(code, _)| matches!(code, None | Some(4004 | 4100))), "no other refusal");
    counted(&cluster, QUOTA as u64).await;
    drop(outcomes);
    cluster.stop().await;
}

#[tokio::test]
async fn one_process_counts_connections_exactly() {
    let server = Server::start(Setup::default().server("shards = 2")).await;
    let count = async || server.get("/connections").await["connections"].as_u64();
    let mut clients = Vec::new();
    for number in 1..=20 {
        clients.push(server.raw().await);
        assert_eq!(count().await, Some(number), "connected");
    }
    for number in (0..20).rev() {
        let mut client = clients.pop().expect("one is left");
        client.send_frame(tests::raw::FIN | tests::raw::CLOSE, &1000u16.to_be_bytes()).await;
        assert_eq!(client.close().await, 1000);
        assert_eq!(count().await, Some(number), "closed");
    }
    server.stop().await;
}
