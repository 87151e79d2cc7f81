use std::collections::HashMap;

use crate::cluster::bus::contract::{Node, cached_event, topic};
use crate::cluster::envelope::Position;
use crate::cluster::redis::server::RedisCluster;

crate::bus_contract!(RedisCluster::new().await);

const HOUR: std::time::Duration = std::time::Duration::from_secs(3600);

async fn cached_position(node: &Node) -> Position {
    node.roster.cached(&topic("one", "cache-a")).await.expect("an answer").expect("an event is cached").position
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cached_events_after_a_failover_have_later_positions_than_events_that_the_replica_missed() {
    const META: &str = "carillon:{0}:m:one/cache-a";
    let (master, replica, a) = (RedisCluster::new().await, RedisCluster::new().await, topic("one", "cache-a"));
    let node = Node::start(&master).await;
    let mut received: HashMap<String, String> = HashMap::new();
    let mut last = None;
    for number in 1..=5 {
        node.publish([cached_event(&a, &number.to_string(), HOUR)]).await;
        let position = cached_position(&node).await;
        assert!(last < Some(position));
        last = Some(position);
        if number == 2 {
            // The replica misses all later events.
            received = master.query("HGETALL", &[META]).await;
        }
    }
    for (field, value) in &received {
        replica.query::<u64>("HSET", &[META, field, value]).await;
    }
    // The master crashes and the replica is promoted.
    let node = Node::start(&replica).await;
    for number in 6..=8 {
        node.publish([cached_event(&a, &number.to_string(), HOUR)]).await;
        let position = cached_position(&node).await;
        assert!(last < Some(position), "{last:?}, then {position:?}");
        last = Some(position);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unreadable_sequence_starts_a_new_epoch() {
    const META: &str = "carillon:{0}:m:one/cache-a";
    let (cluster, a) = (RedisCluster::new().await, topic("one", "cache-a"));
    let node = Node::start(&cluster).await;
    node.publish([cached_event(&a, "first", HOUR)]).await;
    let first = cached_position(&node).await;
    for (field, value) in [("ks", "x"), ("ks", "-1"), ("ke", ""), ("ke", "99999999999999999999"), ("kr", "another")] {
        cluster.query::<u64>("HSET", &[META, field, value]).await;
        node.publish([cached_event(&a, "next", HOUR)]).await;
        let position = cached_position(&node).await;
        assert!(position.epoch > first.epoch && position.sequence == 1, "{field} = {value}: {position:?}");
    }
}
