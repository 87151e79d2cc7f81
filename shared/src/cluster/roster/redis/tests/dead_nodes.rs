//! Nodes crash, and others sweep them. All times of leases are a twentieth of the real ones.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::runtime::Handle;
use tokio::task::{JoinHandle, LocalSet, spawn_local};

use crate::app::{App, Apps};
use crate::cluster::bus::EnvelopeSink;
use crate::cluster::bus::contract::topic;
use crate::cluster::envelope::{Envelope, Topic};
use crate::cluster::redis::Link;
use crate::cluster::redis::metrics::Metrics;
use crate::cluster::redis::server::RedisCluster;
use crate::cluster::roster::redis::Times;
use crate::cluster::roster::{RedisRoster, Roster};
use crate::cluster::webhook::EventTypes;
use crate::protocol::Member;
use crate::serve::telemetry::metrics::Registry;

const DIVISOR: u32 = 20;
const PATIENCE: Duration = Duration::from_secs(20);

struct Discard;

impl EnvelopeSink for Discard {
    fn deliver(&self, _topic: &Topic, _envelope: Envelope) {}
}

struct Node {
    roster: Arc<RedisRoster>,
    registry: Registry,
    maintenance: JoinHandle<()>,
}

impl Node {
    fn start(cluster: &RedisCluster) -> Self {
        let app: App = serde_json::from_value(json!({
            "id": "one", "key": "k", "secret": "s", "webhooks": [{ "url": "http://example.org/" }]
        }))
        .unwrap();
        let registry = Registry::new();
        let metrics = Metrics::new(&registry, true);
        let link = Link::new(&cluster.config(), Handle::current(), metrics).unwrap();
        let event_types = EventTypes::new(&Apps::new([app]).unwrap());
        let roster = RedisRoster::with_times(link, event_types, Times::divided(DIVISOR));
        let maintained = roster.clone();
        let maintenance = spawn_local(async move { match maintained.maintain(Arc::new(Discard)).await {} });
        Self { roster, registry, maintenance }
    }

    /// Stops the node like a crash, which releases nothing.
    fn crash(&self) {
        self.maintenance.abort();
    }

    async fn join(&self, channel: &str, user: &str) {
        let (topic, member) = (topic("one", channel), Member { user_id: user.into(), user_info: None });
        self.roster.join(&topic, &member, 100, false).await.unwrap();
        self.roster.set_subscriptions(&topic, 1, false).await.unwrap();
    }

    async fn members(&self, channel: &str) -> BTreeSet<String> {
        let members = self.roster.members(&topic("one", channel)).await.unwrap();
        members.iter().map(|member| member.user_id.as_str().to_owned()).collect()
    }

    fn count(&self, name: &str) -> u64 {
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name() == name).expect("the metric is registered");
        let counts = family.get_metric().iter().map(|metric| {
            // A histogram counts its observations.
            metric.get_counter().get_value() as u64 + metric.get_histogram().get_sample_count()
        });
        counts.sum()
    }

    fn lease_checks(&self) -> u64 {
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name() == "carillon_redis_command_seconds");
        let metrics = family.map(|family| family.get_metric().to_vec()).unwrap_or_default();
        let checks = metrics.iter().filter(|metric| metric.get_label()[0].value() == "claim");
        checks.map(|metric| metric.get_histogram().get_sample_count()).sum()
    }
}

async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !condition().await {
        assert!(began.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Waits until all dead nodes are swept and every running node has checked the leases twice more.
async fn await_sweep(cluster: &RedisCluster, running: &[Node]) {
    let is_swept = async || {
        let nodes: usize = cluster.query("ZCARD", &["carillon:nodes"]).await;
        let dead: usize = cluster.query("ZCARD", &["carillon:dead"]).await;
        (nodes, dead) == (running.len(), 0)
    };
    eventually("all dead nodes are swept", is_swept).await;
    for node in running {
        let before = node.lease_checks();
        eventually("two more checks of the leases", async || node.lease_checks() >= before + 2).await;
    }
}

fn sum(nodes: &[Node], name: &str) -> u64 {
    nodes.iter().map(|node| node.count(name)).sum()
}

const EVICTIONS: &str = "carillon_presence_evictions_total";
const DAMAGED: &str = "carillon_presence_damaged_entries_total";
const FENCED: &str = "carillon_presence_fenced_total";

#[tokio::test]
async fn a_dead_node_is_swept_once_although_five_nodes_check_its_lease() {
    LocalSet::new()
        .run_until(async {
            let cluster = RedisCluster::new().await;
            let running: Vec<Node> = (0..5).map(|_| Node::start(&cluster)).collect();
            for round in 0..3 {
                let crashed = Node::start(&cluster);
                for number in 0..50 {
                    crashed.join(&format!("presence-{number}"), "gone").await;
                }
                crashed.crash();
                await_sweep(&cluster, &running).await;
                assert_eq!(sum(&running, EVICTIONS), round + 1);
                assert_eq!(sum(&running, "carillon_presence_evicted_members_total"), 50 * (round + 1));
            }
            assert_eq!(sum(&running, FENCED), 0);
        })
        .await;
}

/// Each kind of key that the dead node had is replaced with a list.
#[tokio::test]
async fn a_sweep_skips_keys_of_the_wrong_type_and_removes_the_rest() {
    LocalSet::new()
        .run_until(async {
            let cluster = RedisCluster::new().await;
            let running = [Node::start(&cluster), Node::start(&cluster)];
            let crashed = Node::start(&cluster);
            for kind in ["pm", "pr", "m", "oc", "none"] {
                let channel = format!("presence-{kind}");
                crashed.join(&channel, "gone").await;
                running[0].join(&channel, "here").await;
            }
            crashed.roster.report_connections(&"one".into(), 1).await.unwrap();
            let damaged = ["pm", "pr", "m", "oc"].map(|kind| format!("carillon:{{0}}:{kind}:one/presence-{kind}"));
            for key in damaged.iter().map(String::as_str).chain(["carillon:conn:one"]) {
                cluster.query::<u64>("DEL", &[key]).await;
                cluster.query::<u64>("RPUSH", &[key, "damaged"]).await;
            }
            crashed.crash();
            await_sweep(&cluster, &running).await;
            assert_eq!(sum(&running, EVICTIONS), 1, "the sweep is complete and is not repeated");
            assert_eq!(sum(&running, DAMAGED), 5);
            // A damaged count does not affect the members, and a damaged key of members does not affect the count.
            for channel in ["presence-oc", "presence-none"] {
                assert_eq!(running[0].members(channel).await, BTreeSet::from(["here".to_owned()]), "{channel}");
            }
            for kind in ["pm", "pr", "m", "none"] {
                let key = format!("carillon:{{0}}:oc:one/presence-{kind}");
                assert_eq!(cluster.query::<usize>("HLEN", &[&key]).await, 1, "{kind}");
            }
            for key in &damaged {
                assert_eq!(cluster.query::<usize>("LLEN", &[key]).await, 1, "{key} is unchanged");
            }
        })
        .await;
}

/// The node is swept. Only its webhooks are lost, or the entries of its index.
#[tokio::test]
async fn a_node_is_swept_although_its_queue_or_its_index_is_damaged() {
    LocalSet::new()
        .run_until(async {
            let cluster = RedisCluster::new().await;
            let running = [Node::start(&cluster)];
            for (round, key) in (1..).zip(["carillon:{0}:wq:one", "carillon:{0}:wh", "carillon:idx:"]) {
                let crashed = Node::start(&cluster);
                crashed.join("presence-room", "gone").await;
                running[0].join("presence-room", "here").await;
                let key = if key.ends_with(':') { format!("{key}{}", crashed.roster.node()) } else { key.to_owned() };
                cluster.query::<u64>("DEL", &[&key]).await;
                cluster.query::<u64>("RPUSH", &[&key, "damaged"]).await;
                crashed.crash();
                await_sweep(&cluster, &running).await;
                assert_eq!((sum(&running, EVICTIONS), sum(&running, DAMAGED)), (round, round), "{key}");
                let has_index = !key.contains(":idx:");
                assert_eq!(!running[0].members("presence-room").await.contains("gone"), has_index, "{key}");
                cluster.query::<u64>("DEL", &[&key]).await;
            }
        })
        .await;
}

#[tokio::test]
async fn a_sweep_ignores_a_count_that_is_not_a_number() {
    LocalSet::new()
        .run_until(async {
            let cluster = RedisCluster::new().await;
            let running = [Node::start(&cluster)];
            let crashed = Node::start(&cluster);
            crashed.join("presence-room", "gone").await;
            let (counts, meta) = ("carillon:{0}:oc:one/presence-room", "carillon:{0}:m:one/presence-room");
            cluster.query::<u64>("HSET", &[counts, "other", "many"]).await;
            cluster.query::<u64>("HSET", &[meta, "s", "many", "n", "many"]).await;
            crashed.crash();
            await_sweep(&cluster, &running).await;
            assert_eq!(running[0].members("presence-room").await, BTreeSet::new());
            running[0].join("presence-room", "here").await;
        })
        .await;
}

#[tokio::test]
async fn a_redis_without_memory_accepts_scripts_that_keep_or_free_state() {
    LocalSet::new()
        .run_until(async {
            let cluster = RedisCluster::new().await;
            let running = [Node::start(&cluster), Node::start(&cluster)];
            let crashed = Node::start(&cluster);
            for node in [&running[0], &running[1], &crashed] {
                node.join("presence-room", &node.roster.node().to_string()).await;
            }
            cluster.query::<String>("CONFIG", &["SET", "maxmemory", "1"]).await;
            crashed.crash();
            // During the sweep the nodes send heartbeats, check leases and renew the time to live of every channel.
            await_sweep(&cluster, &running).await;
            let room = topic("one", "presence-room");
            for node in &running {
                node.roster.renew().await.unwrap();
                let member = Member { user_id: node.roster.node().to_string().as_str().into(), user_info: None };
                node.roster.rejoin(&room, &member, false).await.unwrap();
                node.roster.resend_subscriptions(&room, 1, false).await.unwrap();
            }
            let ids = running.iter().map(|node| node.roster.node().to_string()).collect();
            assert_eq!(running[0].members("presence-room").await, ids);
            let newcomer = Member { user_id: "newcomer".into(), user_info: None };
            assert!(running[0].roster.join(&room, &newcomer, 100, false).await.is_err(), "Redis has no memory");
            for node in &running {
                node.roster.leave(&room, &node.roster.node().to_string().as_str().into()).await.unwrap();
                node.roster.set_subscriptions(&room, 0, false).await.unwrap();
                node.crash();
                node.roster.release().await;
            }
            assert_eq!(sum(&running, FENCED), 0);
            for key in ["carillon:nodes", "carillon:dead"] {
                assert_eq!(cluster.query::<usize>("ZCARD", &[key]).await, 0, "{key}");
            }
        })
        .await;
}
