//! Connection quotas while leases are not reliable, because Redis was unavailable or its clock jumped.

use std::sync::Arc;

use tokio::runtime::Handle;

use crate::app::{AppId, Apps};
use crate::cluster::redis::Link;
use crate::cluster::redis::metrics::Metrics;
use crate::cluster::redis::server::RedisCluster;
use crate::cluster::roster::{RedisRoster, Roster};
use crate::cluster::webhook::EventTypes;
use crate::serve::telemetry::metrics::Registry;

async fn start(cluster: &RedisCluster) -> Arc<RedisRoster> {
    let metrics = Metrics::new(&Registry::new(), true);
    let link = Link::new(&cluster.config(), Handle::current(), metrics).unwrap();
    let roster = RedisRoster::new(link, EventTypes::new(&Apps::new([]).unwrap()));
    roster.renew().await.unwrap();
    roster
}

/// Changes the leases of the nodes like a jump of Redis' clock.
async fn jump(cluster: &RedisCluster, nodes: &[&RedisRoster], milliseconds: i64) {
    for node in nodes {
        let change = (-milliseconds).to_string();
        cluster.query::<String>("ZINCRBY", &["carillon:nodes", &change, &node.node().to_string()]).await;
    }
}

#[tokio::test]
async fn after_a_jump_of_the_clock_no_more_than_the_quota_is_admitted() {
    let cluster = RedisCluster::new().await;
    let app = AppId::from("one");
    let (ana, bo) = (start(&cluster).await, start(&cluster).await);
    let admitted =
        async |node: &RedisRoster, connections| node.claim_connections(&app, connections, 5, 8).await.unwrap().admitted;
    assert_eq!(ana.report_connections(&app, 3).await, Ok(3));
    assert_eq!(bo.report_connections(&app, 4).await, Ok(7));
    jump(&cluster, &[&ana, &bo], 40_000).await;
    assert_eq!(admitted(&ana, 3).await, 1, "no node has renewed its lease yet");
    // A new node is the first one that renews its lease.
    let new = start(&cluster).await;
    assert_eq!(admitted(&new, 0).await, 0, "the others have not had the time to renew their leases");
    assert_eq!(new.connections(&app).await, Ok(8));
    // The time for renewals is over.
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
