//! Nodes die, and others sweep them. Leases last a twentieth of their real time.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use prometheus::Registry;
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

const DIVISOR: u32 = 20;
const PATIENCE: Duration = Duration::from_secs(20);

struct Deaf;

impl EnvelopeSink for Deaf {
    fn deliver(&self, _topic: &Topic, _envelope: Envelope) {}
}

struct Node {
    roster: Arc<RedisRoster>,
    registry: Registry,
    keeping: JoinHandle<()>,
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
        let kept = roster.clone();
        let keeping = spawn_local(async move { match kept.maintain(Arc::new(Deaf)).await {} });
        Self { roster, registry, keeping }
    }

    /// The process ends without releasing anything.
    fn die(&self) {
        self.keeping.abort();
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
        let family = families.iter().find(|family| family.name() == name).expect("it is registered");
        let counts = family.get_metric().iter().map(|metric| {
            // Histograms count their observations.
            metric.get_counter().get_value() as u64 + metric.get_histogram().get_sample_count()
        });
        counts.sum()
    }

    fn looks(&self) -> u64 {
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name() == "carillon_redis_command_seconds");
        let metrics = family.map(|family| family.get_metric().to_vec()).unwrap_or_default();
        let of_claims = metrics.iter().filter(|metric| metric.get_label()[0].value() == "claim");
        of_claims.map(|metric| metric.get_histogram().get_sample_count()).sum()
    }
}

async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !condition().await {
        assert!(began.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Waits until a node that died is swept and every living one has looked at all leases twice more.
async fn swept(cluster: &RedisCluster, living: &[Node]) {
    let is_swept = async || {
        let nodes: usize = cluster.query("ZCARD", &["carillon:nodes"]).await;
        let dead: usize = cluster.query("ZCARD", &["carillon:dead"]).await;
        (nodes, dead) == (living.len(), 0)
    };
    eventually("nothing is left to sweep", is_swept).await;
    for node in living {
        let before = node.looks();
        eventually("two more looks", async || node.looks() >= before + 2).await;
    }
}

fn sum(nodes: &[Node], name: &str) -> u64 {
    nodes.iter().map(|node| node.count(name)).sum()
}

const EVICTIONS: &str = "carillon_presence_evictions_total";
const DAMAGED: &str = "carillon_presence_damaged_entries_total";
const FENCED: &str = "carillon_presence_fenced_total";

#[tokio::test]
async fn a_dead_node_is_swept_once_though_five_others_look() {
    LocalSet::new()
        .run_until(async {
            let cluster = RedisCluster::new().await;
            let living: Vec<Node> = (0..5).map(|_| Node::start(&cluster)).collect();
            for round in 0..3 {
                let victim = Node::start(&cluster);
                for number in 0..50 {
                    victim.join(&format!("presence-{number}"), "gone").await;
                }
                victim.die();
                swept(&cluster, &living).await;
                assert_eq!(sum(&living, EVICTIONS), round + 1);
                assert_eq!(sum(&living, "carillon_presence_evicted_members_total"), 50 * (round + 1));
            }
            assert_eq!(sum(&living, FENCED), 0);
        })
        .await;
}

/// A key of each kind holds a list, in the place of what a dead node had in it.
#[tokio::test]
async fn damaged_keys_are_set_aside_and_the_rest_of_a_dead_node_is_swept() {
    LocalSet::new()
        .run_until(async {
            let cluster = RedisCluster::new().await;
            let living = [Node::start(&cluster), Node::start(&cluster)];
            let victim = Node::start(&cluster);
            for kind in ["pm", "pr", "m", "oc", "none"] {
                let channel = format!("presence-{kind}");
                victim.join(&channel, "gone").await;
                living[0].join(&channel, "here").await;
            }
            victim.roster.report_connections(&"one".into(), 1).await.unwrap();
            let damaged = ["pm", "pr", "m", "oc"].map(|kind| format!("carillon:{{0}}:{kind}:one/presence-{kind}"));
            for key in damaged.iter().map(String::as_str).chain(["carillon:conn:one"]) {
                cluster.query::<u64>("DEL", &[key]).await;
                cluster.query::<u64>("RPUSH", &[key, "spoiled"]).await;
            }
            victim.die();
            swept(&cluster, &living).await;
            assert_eq!(sum(&living, EVICTIONS), 1, "the sweep is complete, and is not repeated");
            assert_eq!(sum(&living, DAMAGED), 5);
            // Of a channel with a damaged count the members are right, and the other way round.
            for channel in ["presence-oc", "presence-none"] {
                assert_eq!(living[0].members(channel).await, BTreeSet::from(["here".to_owned()]), "{channel}");
            }
            for kind in ["pm", "pr", "m", "none"] {
                let key = format!("carillon:{{0}}:oc:one/presence-{kind}");
                assert_eq!(cluster.query::<usize>("HLEN", &[&key]).await, 1, "{kind}");
            }
            for key in &damaged {
                assert_eq!(cluster.query::<usize>("LLEN", &[key]).await, 1, "{key} is left alone");
            }
        })
        .await;
}

/// Without them the node is swept all the same: only its webhooks, or what only the index knew, is lost.
#[tokio::test]
async fn a_damaged_queue_or_index_keeps_no_node_unswept() {
    LocalSet::new()
        .run_until(async {
            let cluster = RedisCluster::new().await;
            let living = [Node::start(&cluster)];
            for (round, key) in (1..).zip(["carillon:{0}:wq:one", "carillon:{0}:wh", "carillon:idx:"]) {
                let victim = Node::start(&cluster);
                victim.join("presence-room", "gone").await;
                living[0].join("presence-room", "here").await;
                let key = if key.ends_with(':') { format!("{key}{}", victim.roster.node()) } else { key.to_owned() };
                cluster.query::<u64>("DEL", &[&key]).await;
                cluster.query::<u64>("RPUSH", &[&key, "spoiled"]).await;
                victim.die();
                swept(&cluster, &living).await;
                assert_eq!((sum(&living, EVICTIONS), sum(&living, DAMAGED)), (round, round), "{key}");
                let has_index = !key.contains(":idx:");
                assert_eq!(!living[0].members("presence-room").await.contains("gone"), has_index, "{key}");
                cluster.query::<u64>("DEL", &[&key]).await;
            }
        })
        .await;
}

#[tokio::test]
async fn a_count_that_is_no_number_stops_no_sweep() {
    LocalSet::new()
        .run_until(async {
            let cluster = RedisCluster::new().await;
            let living = [Node::start(&cluster)];
            let victim = Node::start(&cluster);
            victim.join("presence-room", "gone").await;
            let (counts, meta) = ("carillon:{0}:oc:one/presence-room", "carillon:{0}:m:one/presence-room");
            cluster.query::<u64>("HSET", &[counts, "somebody", "many"]).await;
            cluster.query::<u64>("HSET", &[meta, "s", "many", "n", "many"]).await;
            victim.die();
            swept(&cluster, &living).await;
            assert_eq!(living[0].members("presence-room").await, BTreeSet::new());
            living[0].join("presence-room", "here").await;
        })
        .await;
}

#[tokio::test]
async fn a_full_redis_lets_through_what_keeps_and_frees() {
    LocalSet::new()
        .run_until(async {
            let cluster = RedisCluster::new().await;
            let living = [Node::start(&cluster), Node::start(&cluster)];
            let victim = Node::start(&cluster);
            for node in [&living[0], &living[1], &victim] {
                node.join("presence-room", &node.roster.node().to_string()).await;
            }
            cluster.query::<String>("CONFIG", &["SET", "maxmemory", "1"]).await;
            victim.die();
            // A whole silence passes in it, with heartbeats, claims, a sweep and the touch of every channel.
            swept(&cluster, &living).await;
            let room = topic("one", "presence-room");
            for node in &living {
                node.roster.renew().await.unwrap();
                let member = Member { user_id: node.roster.node().to_string().as_str().into(), user_info: None };
                node.roster.rejoin(&room, &member, false).await.unwrap();
                node.roster.resend_subscriptions(&room, 1, false).await.unwrap();
            }
            let ids = living.iter().map(|node| node.roster.node().to_string()).collect();
            assert_eq!(living[0].members("presence-room").await, ids);
            let newcomer = Member { user_id: "newcomer".into(), user_info: None };
            assert!(living[0].roster.join(&room, &newcomer, 100, false).await.is_err(), "it is full");
            for node in &living {
                node.roster.leave(&room, &node.roster.node().to_string().as_str().into()).await.unwrap();
                node.roster.set_subscriptions(&room, 0, false).await.unwrap();
                node.die();
                node.roster.release().await;
            }
            assert_eq!(sum(&living, FENCED), 0);
            for key in ["carillon:nodes", "carillon:dead"] {
                assert_eq!(cluster.query::<usize>("ZCARD", &[key]).await, 0, "{key}");
            }
        })
        .await;
}
