//! Connection quotas while leases say nothing, because Redis was away or its clock jumped.

use std::sync::Arc;

use prometheus::Registry;
use tokio::runtime::Handle;

use crate::app::{AppId, Apps};
use crate::cluster::redis::Link;
use crate::cluster::redis::metrics::Metrics;
use crate::cluster::redis::server::RedisCluster;
use crate::cluster::roster::{RedisRoster, Roster};
use crate::cluster::webhook::EventTypes;

async fn start(cluster: &RedisCluster) -> Arc<RedisRoster> {
    let metrics = Metrics::new(&Registry::new(), true);
    let link = Link::new(&cluster.config(), Handle::current(), metrics).unwrap();
    let roster = RedisRoster::new(link, EventTypes::new(&Apps::new([]).unwrap()));
    roster.renew().await.unwrap();
    roster
}

/// Moves the leases of the nodes as a jump of Redis' clock would.
async fn jump(cluster: &RedisCluster, nodes: &[&RedisRoster], milliseconds: i64) {
    for node in nodes {
        let change = (-milliseconds).to_string();
        cluster.query::<String>("ZINCRBY", &["carillon:nodes", &change, &node.node().to_string()]).await;
    }
}

#[tokio::test]
async fn a_jump_of_the_clock_admits_no_more_than_the_quota() {
    let cluster = RedisCluster::new().await;
    let app = AppId::from("one");
    let (ana, bo) = (start(&cluster).await, start(&cluster).await);
    let admitted =
        async |node: &RedisRoster, connections| node.claim_connections(&app, connections, 5, 8).await.unwrap().admitted;
    assert_eq!(ana.report_connections(&app, 3).await, Ok(3));
    assert_eq!(bo.report_connections(&app, 4).await, Ok(7));
    jump(&cluster, &[&ana, &bo], 40_000).await;
    assert_eq!(admitted(&ana, 3).await, 1, "no node has renewed its lease yet");
    // The first renewal, by a node that is new.
    let new = start(&cluster).await;
    assert_eq!(admitted(&new, 0).await, 0, "the others had no time to renew theirs");
    assert_eq!(new.connections(&app).await, Ok(8));
    // The time for that is over.
    cluster.query::<u64>("DEL", &["carillon:quiet"]).await;
    bo.renew().await.unwrap();
    assert_eq!(new.connections(&app).await, Ok(4), "a node that has not renewed its lease does not count");
    assert_eq!(admitted(&new, 0).await, 4);
}

#[tokio::test]
async fn a_node_without_a_valid_lease_does_not_count_while_others_renew_theirs() {
    let cluster = RedisCluster::new().await;
    let app = AppId::from("one");
    let (ana, bo) = (start(&cluster).await, start(&cluster).await);
    ana.report_connections(&app, 3).await.unwrap();
    bo.report_connections(&app, 4).await.unwrap();
    jump(&cluster, &[&ana], 40_000).await;
    bo.renew().await.unwrap();
    assert_eq!(bo.connections(&app).await, Ok(4));
    assert_eq!(bo.claim_connections(&app, 4, 5, 8).await.unwrap().admitted, 4);
}
