//! Random changes on three nodes, against a model and against what observers make of the announcements.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::{leave, member, occupancy, occupy};
use crate::cluster::bus::contract::{Cluster, Delivery, Node, topic};
use crate::cluster::envelope::{Body, Position, Topic};
use crate::cluster::roster::{Joined, RosterError};
use crate::protocol::{Member, UserId};

const NODES: usize = 3;
const USERS: [&str; 4] = ["1", "2", "3", "4"];
/// One less than there are users, so that some joins are refused.
const MEMBERS_MAX: usize = 3;

type Members = BTreeMap<UserId, Option<Arc<str>>>;

/// What should be: who is held where, and with which info.
#[derive(Default)]
struct Model {
    held: [BTreeSet<&'static str>; NODES],
    infos: BTreeMap<&'static str, String>,
    subscriptions: [u64; NODES],
}

/// What an observer has: a snapshot, changed by every announcement since.
#[derive(Default)]
struct Replica {
    /// Of the last change applied; none before the first.
    position: Option<Position>,
    members: Members,
}

impl Model {
    fn join(&mut self, node: usize, user: &'static str, info: &str) -> Result<(), RosterError> {
        if !self.infos.contains_key(user) && self.infos.len() >= MEMBERS_MAX {
            return Err(RosterError::Full);
        }
        self.infos.entry(user).or_insert_with(|| info.to_owned());
        self.held[node].insert(user);
        Ok(())
    }

    fn leave(&mut self, node: usize, user: &'static str) {
        self.held[node].remove(user);
        if !self.held.iter().any(|held| held.contains(user)) {
            self.infos.remove(user);
        }
    }

    fn members(&self) -> Members {
        self.infos.iter().map(|(user, info)| (UserId::from(*user), Some(Arc::from(info.as_str())))).collect()
    }
}

impl Replica {
    fn snapshot(joined: Joined) -> Self {
        let members = joined.members.expect("the list was asked for");
        Self { position: Some(joined.position), members: as_map(members) }
    }

    fn apply(&mut self, heard: &[Delivery]) {
        for (_, envelope) in heard {
            let position = envelope.position.expect("a change of members has a position");
            // What was announced before the snapshot was taken, in an earlier life of the channel perhaps.
            if self.position.is_some_and(|last| position <= last) {
                continue;
            }
            self.follow(position);
            match &envelope.body {
                Body::MemberAdded(Member { user_id, user_info }) => {
                    let before = self.members.insert(user_id.clone(), user_info.clone());
                    assert_eq!(before, None, "{user_id} was added while present");
                }
                Body::MemberRemoved(user_id) => {
                    assert!(self.members.remove(user_id).is_some(), "{user_id} was removed while absent");
                }
                other => panic!("the roster does not say {other:?} here"),
            }
        }
    }

    /// The next of the same epoch, or the first of another one, which an empty channel begins.
    fn follow(&mut self, position: Position) {
        match self.position {
            Some(last) if last.epoch == position.epoch => assert_eq!(position.sequence, last.sequence + 1, "a gap"),
            _ => {
                assert_eq!(position.sequence, 1, "an epoch begins with 1");
                assert!(self.members.is_empty(), "an epoch began while somebody was in");
            }
        }
        self.position = Some(position);
    }
}

fn as_map(members: Vec<Member>) -> Members {
    members.into_iter().map(|member| (member.user_id, member.user_info)).collect()
}

async fn members_of(node: &Node, room: &Topic) -> Members {
    as_map(node.roster.members(room).await.expect("the roster is reachable"))
}

/// After each of many random joins, leaves and counts, every observer that replays announcements from its snapshot
/// holds exactly the roster's members, and the roster holds exactly the model's.
pub async fn observers_follow_random_changes(cluster: impl Cluster) {
    for seed in 0..12 {
        // The seed names the failure: the panic message is preceded by it in the output of the test.
        println!("seed {seed}");
        follow_random_changes(&cluster, &topic("one", &format!("presence-{seed}")), StdRng::seed_from_u64(seed)).await;
    }
}

async fn follow_random_changes(cluster: &impl Cluster, room: &Topic, mut rng: StdRng) {
    let mut nodes = Vec::new();
    for _ in 0..NODES {
        nodes.push(Node::subscribed(cluster, &[room]).await);
    }
    let mut model = Model::default();
    // As in a gateway: nothing before the node's first member.
    let mut replicas: [Option<Replica>; NODES] = Default::default();
    // Of ten choices; with few joins the channel is vacated again and again, with many it is full.
    let joins = rng.random_range(2..7);
    for step in 0..100 {
        let (node, user) = (rng.random_range(0..NODES), USERS[rng.random_range(0..USERS.len())]);
        match rng.random_range(0..10) {
            choice if choice < joins => {
                let info = step.to_string();
                let with_members = replicas[node].is_none() || rng.random();
                let joined = nodes[node].roster.join(room, &member(user, Some(&info)), MEMBERS_MAX, with_members).await;
                let expected = model.join(node, user, &info);
                assert_eq!(joined.as_ref().err(), expected.as_ref().err(), "step {step}");
                if let (Ok(joined), true) = (joined, with_members) {
                    let snapshot = Replica::snapshot(joined);
                    assert_eq!(snapshot.members, model.members(), "step {step}");
                    replicas[node].get_or_insert(snapshot);
                }
            }
            choice if choice < 9 => {
                leave(&nodes[node], room, user).await;
                model.leave(node, user);
            }
            _ => {
                model.subscriptions[node] = u64::from(rng.random_ratio(1, 4)) * rng.random_range(1..3);
                occupy(&nodes[node], room, model.subscriptions[node], false).await;
            }
        }
        let expected = model.members();
        for (node, replica) in nodes.iter_mut().zip(&mut replicas) {
            let heard = node.received_so_far(room).await;
            if let Some(replica) = replica {
                replica.apply(&heard);
                assert_eq!(replica.members, expected, "step {step}");
            }
        }
        assert_eq!(members_of(&nodes[node], room).await, expected, "step {step}");
        let counts = (model.subscriptions.iter().sum(), u64::try_from(expected.len()).expect("few users"));
        assert_eq!(occupancy(&nodes[node], room).await, counts, "step {step}");
    }
}

/// Three nodes change the same users at once. Every node hears the same changes, each possible where it comes, and
/// ends up with the roster's members.
pub async fn concurrent_changes_reach_every_observer_in_order(cluster: impl Cluster) {
    let room = topic("one", "presence-room");
    let mut observers = Vec::new();
    for _ in 0..3 {
        observers.push(Node::subscribed(&cluster, &[&room]).await);
    }
    let mut changing = Vec::new();
    for seed in 0..3 {
        let (node, room) = (Node::start(&cluster).await, room.clone());
        changing.push(tokio::spawn(async move {
            let mut rng = StdRng::seed_from_u64(seed);
            for _ in 0..200 {
                let user = USERS[rng.random_range(0..USERS.len())];
                if rng.random() {
                    node.roster.join(&room, &member(user, None), USERS.len(), rng.random()).await.expect("joined");
                } else {
                    leave(&node, &room, user).await;
                }
                tokio::task::yield_now().await;
            }
            node
        }));
    }
    let mut nodes = Vec::new();
    for task in changing {
        nodes.push(task.await.expect("the changes are made"));
    }
    let expected = members_of(&nodes[0], &room).await;
    for observer in &mut observers {
        let mut replica = Replica::default();
        replica.apply(&observer.received_so_far(&room).await);
        assert_eq!(replica.members, expected);
    }
}
