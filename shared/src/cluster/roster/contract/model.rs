//! Random changes on three nodes, compared with a model and with the replicas of observers.

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
/// One less than the number of users, so that some joins are refused.
const MEMBERS_MAX: usize = 3;

type Members = BTreeMap<UserId, Option<Arc<str>>>;

/// The expected state: the members of each node, their infos, and the subscriptions.
#[derive(Default)]
struct Model {
    members_by_node: [BTreeSet<&'static str>; NODES],
    infos: BTreeMap<&'static str, String>,
    subscriptions: [u64; NODES],
}

/// The replica of an observer: a snapshot and all later changes.
#[derive(Default)]
struct Replica {
    /// The position of the last change that was applied; `None` before the first one.
    position: Option<Position>,
    members: Members,
}

impl Model {
    fn join(&mut self, node: usize, user: &'static str, info: &str) -> Result<(), RosterError> {
        if !self.infos.contains_key(user) && self.infos.len() >= MEMBERS_MAX {
            return Err(RosterError::Full);
        }
        self.infos.entry(user).or_insert_with(|| info.to_owned());
        self.members_by_node[node].insert(user);
        Ok(())
    }

    fn leave(&mut self, node: usize, user: &'static str) {
        self.members_by_node[node].remove(user);
        if !self.members_by_node.iter().any(|members| members.contains(user)) {
            self.infos.remove(user);
        }
    }

    fn members(&self) -> Members {
        self.infos.iter().map(|(user, info)| (UserId::from(*user), Some(Arc::from(info.as_str())))).collect()
    }
}

impl Replica {
    fn snapshot(joined: Joined) -> Self {
        let members = joined.members.expect("the list was requested");
        Self { position: Some(joined.position), members: as_map(members) }
    }

    fn apply(&mut self, received: &[Delivery]) {
        for (_, envelope) in received {
            let position = envelope.position.expect("a change of members has a position");
            // The snapshot includes this change, which may be from before the channel was vacated.
            if self.position.is_some_and(|last| position <= last) {
                continue;
            }
            self.advance(position);
            match &envelope.body {
                Body::MemberAdded(Member { user_id, user_info }) => {
                    let before = self.members.insert(user_id.clone(), user_info.clone());
                    assert_eq!(before, None, "{user_id} was added while present");
                }
                Body::MemberRemoved(user_id) => {
                    assert!(self.members.remove(user_id).is_some(), "{user_id} was removed while absent");
                }
                other => panic!("the roster does not publish {other:?} here"),
            }
        }
    }

    /// Checks that a position is the next one of its epoch, or the first one of another epoch. An epoch starts with an
    /// empty channel.
    fn advance(&mut self, position: Position) {
        match self.position {
            Some(last) if last.epoch == position.epoch => assert_eq!(position.sequence, last.sequence + 1, "a gap"),
            _ => {
                assert_eq!(position.sequence, 1, "an epoch starts with 1");
                assert!(self.members.is_empty(), "an epoch started while the channel had members");
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

/// Makes many random joins, leaves and counts. After each of them, the replicas of all observers, the roster and the
/// model have the same members.
pub async fn observers_follow_random_changes(cluster: impl Cluster) {
    for seed in 0..12 {
        // The output of a failed test shows the seed before the panic message.
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
    // A gateway has no replica before its first member joins.
    let mut replicas: [Option<Replica>; NODES] = Default::default();
    // The joins in ten changes. With few of them the channel is often vacated, with many it is full.
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
            let received = node.received_so_far(room).await;
            if let Some(replica) = replica {
                replica.apply(&received);
                assert_eq!(replica.members, expected, "step {step}");
            }
        }
        assert_eq!(members_of(&nodes[node], room).await, expected, "step {step}");
        let counts = (model.subscriptions.iter().sum(), u64::try_from(expected.len()).expect("few users"));
        assert_eq!(occupancy(&nodes[node], room).await, counts, "step {step}");
    }
}

/// Three nodes change the same users concurrently. Every observer receives the same valid sequence of changes, and its
/// replica has the roster's members at the end.
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
        nodes.push(task.await.expect("the task made its changes"));
    }
    let expected = members_of(&nodes[0], &room).await;
    for observer in &mut observers {
        let mut replica = Replica::default();
        replica.apply(&observer.received_so_far(&room).await);
        assert_eq!(replica.members, expected);
    }
}
