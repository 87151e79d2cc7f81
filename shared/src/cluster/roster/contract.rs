//! The tests of every implementation of [`Roster`](super::Roster), one function per rule.
//!
//! An implementation passes a [`Cluster`] to [`roster_contract!`](crate::roster_contract), which defines a test for
//! each.

mod model;

use std::sync::Arc;

use super::{Joined, Occupancy, RosterError};
use crate::app::AppId;
use crate::cluster::bus::contract::{Cluster, Delivery, Node, topic};
use crate::cluster::envelope::{Body, Position, Topic};
use crate::protocol::{Member, UserId};

pub use model::{concurrent_changes_reach_every_observer_in_order, observers_follow_random_changes};

/// Defines one test for each rule of the roster. `$cluster`: an expression for a new [`Cluster`], which may await.
#[macro_export]
macro_rules! roster_contract {
    ($cluster:expr) => {
        $crate::roster_contract! { $cluster =>
            a_user_on_many_nodes_is_added_once_and_removed_once
            joining_twice_has_the_effect_of_joining_once
            leaving_twice_has_the_effect_of_leaving_once
            changes_are_announced_in_order_without_gaps
            a_channel_that_was_vacated_does_not_repeat_a_position
            a_join_returns_the_members_at_its_position
            members_are_sorted_by_id
            the_limit_counts_users_and_does_not_apply_to_members
            own_members_have_joined_on_the_node_and_not_left
            the_first_user_info_is_kept_until_the_last_leave
            occupancy_is_the_sum_over_all_nodes
            occupied_channels_are_listed_by_prefix
            channels_of_users_are_not_listed
            a_user_comes_online_once_and_goes_offline_once
            a_subscription_count_is_announced_if_requested_and_changed
            apps_are_isolated
            connections_are_the_sum_over_all_nodes
            claims_admit_no_more_than_the_quota_over_all_nodes
            observers_follow_random_changes
            concurrent_changes_reach_every_observer_in_order
        }
    };
    ($cluster:expr => $($rule:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 3)]
            async fn $rule() {
                $crate::cluster::roster::contract::$rule($cluster).await;
            }
        )*
    };
}

/// Members of other nodes are not included.
pub async fn own_members_have_joined_on_the_node_and_not_left(cluster: impl Cluster) {
    let (a, b) = (Node::start(&cluster).await, Node::start(&cluster).await);
    let topic = topic("shop", "presence-room");
    for (node, id) in [(&a, "ana"), (&a, "bo"), (&b, "bo"), (&b, "cy")] {
        try_join(node, &topic, id, NO_LIMIT).await.expect("the roster is reachable");
    }
    a.roster.leave(&topic, &"ana".into()).await.expect("the roster is reachable");
    for (node, expected) in [(&a, user_ids(&["bo"])), (&b, user_ids(&["bo", "cy"]))] {
        let mut own = node.roster.own_members(&topic).await.expect("the roster is reachable");
        own.sort();
        assert_eq!(own, expected);
    }
}

/// More users than any test has.
const NO_LIMIT: usize = 1000;

fn member(id: &str, info: Option<&str>) -> Member {
    Member { user_id: id.into(), user_info: info.map(Arc::from) }
}

fn user_ids(users: &[&str]) -> Vec<UserId> {
    users.iter().map(|id| UserId::from(*id)).collect()
}

async fn try_join(node: &Node, topic: &Topic, id: &str, members_max: usize) -> Result<Joined, RosterError> {
    node.roster.join(topic, &member(id, None), members_max, true).await
}

async fn join(node: &Node, topic: &Topic, id: &str) -> Joined {
    try_join(node, topic, id, NO_LIMIT).await.expect("the roster is reachable and has room")
}

async fn leave(node: &Node, topic: &Topic, id: &str) {
    node.roster.leave(topic, &UserId::from(id)).await.expect("the roster is reachable");
}

async fn occupy(node: &Node, topic: &Topic, subscriptions: u64, announce: bool) {
    node.roster.set_subscriptions(topic, subscriptions, announce).await.expect("the roster is reachable");
}

async fn occupancy(node: &Node, topic: &Topic) -> (u64, u64) {
    let all = node.roster.occupancy(std::slice::from_ref(topic)).await.expect("the roster is reachable");
    let [Occupancy { subscriptions, users }] = all[..] else { panic!("expected one result per topic, not {all:?}") };
    (subscriptions, users)
}

async fn member_ids(node: &Node, topic: &Topic) -> Vec<String> {
    ids(&node.roster.members(topic).await.expect("the roster is reachable"))
}

fn ids(members: &[Member]) -> Vec<String> {
    members.iter().map(|member| member.user_id.to_string()).collect()
}

/// Returns the changes that a node has received, as words.
async fn announced(node: &mut Node, topic: &Topic) -> Vec<String> {
    node.received_so_far(topic).await.iter().map(in_words).collect()
}

fn in_words((_, envelope): &Delivery) -> String {
    match &envelope.body {
        Body::MemberAdded(Member { user_id, user_info: None }) => format!("added {user_id}"),
        Body::MemberAdded(Member { user_id, user_info: Some(info) }) => format!("added {user_id} {info}"),
        Body::MemberRemoved(user_id) => format!("removed {user_id}"),
        Body::SubscriptionCount(count) => format!("count {count}"),
        Body::UserOnline(online) => format!("online {online}"),
        other => panic!("the roster does not publish {other:?}"),
    }
}

/// The number of nodes that have the user does not matter.
pub async fn a_user_on_many_nodes_is_added_once_and_removed_once(cluster: impl Cluster) {
    let room = topic("one", "presence-room");
    let mut observer = Node::subscribed(&cluster, &[&room]).await;
    let nodes = [Node::start(&cluster).await, Node::start(&cluster).await, Node::start(&cluster).await];
    for node in &nodes {
        join(node, &room, "1").await;
    }
    assert_eq!(announced(&mut observer, &room).await, ["added 1"]);
    for node in &nodes[..2] {
        leave(node, &room, "1").await;
    }
    assert_eq!(announced(&mut observer, &room).await, [""; 0]);
    assert_eq!(member_ids(&observer, &room).await, ["1"]);
    leave(&nodes[2], &room, "1").await;
    assert_eq!(announced(&mut observer, &room).await, ["removed 1"]);
    assert_eq!(member_ids(&observer, &room).await, [""; 0]);
}

/// The second result equals the first one. One leave ends both.
pub async fn joining_twice_has_the_effect_of_joining_once(cluster: impl Cluster) {
    let room = topic("one", "presence-room");
    let mut ana = Node::subscribed(&cluster, &[&room]).await;
    let first = join(&ana, &room, "1").await;
    assert_eq!(join(&ana, &room, "1").await, first);
    leave(&ana, &room, "1").await;
    assert_eq!(announced(&mut ana, &room).await, ["added 1", "removed 1"]);
}

/// Leaving a channel without being a member is not an error, and does not remove other members.
pub async fn leaving_twice_has_the_effect_of_leaving_once(cluster: impl Cluster) {
    let room = topic("one", "presence-room");
    let mut ana = Node::subscribed(&cluster, &[&room]).await;
    let bo = Node::start(&cluster).await;
    leave(&ana, &room, "1").await;
    join(&ana, &room, "1").await;
    join(&bo, &room, "1").await;
    leave(&ana, &room, "1").await;
    leave(&ana, &room, "1").await;
    leave(&ana, &room, "2").await;
    assert_eq!(announced(&mut ana, &room).await, ["added 1"]);
    leave(&bo, &room, "1").await;
    leave(&bo, &room, "1").await;
    assert_eq!(announced(&mut ana, &room).await, ["removed 1"]);
}

/// Sequences start with 1 and increase by 1 per published change. A call that changes nothing does not increase them.
pub async fn changes_are_announced_in_order_without_gaps(cluster: impl Cluster) {
    let room = topic("one", "presence-room");
    let mut observer = Node::subscribed(&cluster, &[&room]).await;
    let (ana, bo) = (Node::start(&cluster).await, Node::start(&cluster).await);
    occupy(&ana, &room, 1, false).await;
    let joined = join(&ana, &room, "1").await;
    assert_eq!(join(&bo, &room, "1").await.position, joined.position);
    join(&bo, &room, "2").await;
    leave(&ana, &room, "1").await;
    leave(&bo, &room, "1").await;
    let back = join(&ana, &room, "1").await;
    let received = observer.received_so_far(&room).await;
    let words: Vec<_> = received.iter().map(in_words).collect();
    assert_eq!(words, ["added 1", "added 2", "removed 1", "added 1"]);
    let positions: Vec<_> = received.iter().map(|(_, envelope)| envelope.position).collect();
    let expected: Vec<_> = (1..=4).map(|sequence| Some(Position { sequence, ..joined.position })).collect();
    assert_eq!(positions, expected);
    assert_eq!((joined.position.sequence, Some(back.position)), (1, expected[3]));
}

/// An observer with a replica must detect that the channel was vacated, or the sequence must continue.
pub async fn a_channel_that_was_vacated_does_not_repeat_a_position(cluster: impl Cluster) {
    let room = topic("one", "presence-room");
    let ana = Node::start(&cluster).await;
    let mut seen: Vec<Position> = Vec::new();
    for _ in 0..3 {
        occupy(&ana, &room, 1, false).await;
        let position = join(&ana, &room, "1").await.position;
        assert!(!seen.contains(&position), "{position:?} came after {seen:?}");
        seen.push(position);
        leave(&ana, &room, "1").await;
        occupy(&ana, &room, 0, false).await;
    }
}

/// The members include the new one. They are omitted if they were not requested.
pub async fn a_join_returns_the_members_at_its_position(cluster: impl Cluster) {
    let room = topic("one", "presence-room");
    let (ana, bo) = (Node::start(&cluster).await, Node::start(&cluster).await);
    let first = ana.roster.join(&room, &member("1", Some(r#"{"name":"A"}"#)), NO_LIMIT, true).await.expect("joined");
    assert_eq!(first.members, Some(vec![member("1", Some(r#"{"name":"A"}"#))]));
    let second = bo.roster.join(&room, &member("2", None), NO_LIMIT, true).await.expect("joined");
    assert_eq!(second.members, Some(vec![member("1", Some(r#"{"name":"A"}"#)), member("2", None)]));
    assert_eq!(second.position, Position { sequence: first.position.sequence + 1, ..first.position });
    let third = ana.roster.join(&room, &member("3", None), NO_LIMIT, false).await.expect("joined");
    assert_eq!((third.position.sequence, third.members), (3, None));
}

/// The order of the joins does not matter. Ids may be any text.
pub async fn members_are_sorted_by_id(cluster: impl Cluster) {
    let room = topic("one", "presence-room");
    let (ana, bo) = (Node::start(&cluster).await, Node::start(&cluster).await);
    let mut odd = ["b", "10", "9", "é", " ", "a\"b", "a:b/c", "\0", "{}", "ÿ\u{10ffff}"];
    for id in odd {
        join(&ana, &room, id).await;
    }
    let joined = join(&bo, &room, "b").await;
    odd.sort_unstable();
    assert_eq!(ids(&joined.members.expect("the list was requested")), odd);
    assert_eq!(member_ids(&bo, &room).await, odd);
}

/// A refused join changes nothing. A leave allows another join.
pub async fn the_limit_counts_users_and_does_not_apply_to_members(cluster: impl Cluster) {
    let room = topic("one", "presence-room");
    let mut ana = Node::subscribed(&cluster, &[&room]).await;
    let bo = Node::start(&cluster).await;
    assert_eq!(try_join(&ana, &room, "0", 0).await, Err(RosterError::Full));
    assert!(try_join(&ana, &room, "1", 2).await.is_ok());
    assert!(try_join(&bo, &room, "1", 2).await.is_ok());
    assert!(try_join(&bo, &room, "2", 2).await.is_ok());
    assert_eq!(try_join(&ana, &room, "3", 2).await, Err(RosterError::Full));
    assert_eq!(try_join(&bo, &room, "3", 2).await, Err(RosterError::Full));
    assert!(try_join(&ana, &room, "2", 2).await.is_ok());
    assert!(try_join(&ana, &room, "1", 1).await.is_ok());
    leave(&ana, &room, "1").await;
    assert_eq!(try_join(&ana, &room, "3", 2).await, Err(RosterError::Full));
    leave(&bo, &room, "1").await;
    assert!(try_join(&ana, &room, "3", 2).await.is_ok());
    assert_eq!(announced(&mut ana, &room).await, ["added 1", "added 2", "removed 1", "added 3"]);
}

/// A later join of the same user does not change the published user info.
pub async fn the_first_user_info_is_kept_until_the_last_leave(cluster: impl Cluster) {
    let room = topic("one", "presence-room");
    let mut ana = Node::subscribed(&cluster, &[&room]).await;
    let bo = Node::start(&cluster).await;
    let (first, second) = (member("1", Some(r#"{ "v":1 }"#)), member("1", Some("2")));
    ana.roster.join(&room, &first, NO_LIMIT, false).await.expect("joined");
    let joined = bo.roster.join(&room, &second, NO_LIMIT, true).await.expect("joined");
    assert_eq!(joined.members, Some(vec![first.clone()]));
    leave(&ana, &room, "1").await;
    assert_eq!(ana.roster.members(&room).await, Ok(vec![first]));
    leave(&bo, &room, "1").await;
    bo.roster.join(&room, &second, NO_LIMIT, false).await.expect("joined");
    assert_eq!(ana.roster.members(&room).await, Ok(vec![second]));
    assert_eq!(announced(&mut ana, &room).await, [r#"added 1 { "v":1 }"#, "removed 1", "added 1 2"]);
}

/// A node's latest count replaces its earlier one. Users are counted once.
pub async fn occupancy_is_the_sum_over_all_nodes(cluster: impl Cluster) {
    let (room, other) = (topic("one", "presence-room"), topic("one", "other"));
    let (ana, bo) = (Node::start(&cluster).await, Node::start(&cluster).await);
    assert_eq!(occupancy(&ana, &room).await, (0, 0));
    occupy(&ana, &room, 2, false).await;
    occupy(&bo, &room, 3, false).await;
    occupy(&bo, &room, 3, false).await;
    join(&ana, &room, "1").await;
    join(&bo, &room, "1").await;
    join(&bo, &room, "2").await;
    for node in [&ana, &bo] {
        assert_eq!(occupancy(node, &room).await, (5, 2));
    }
    occupy(&ana, &room, 1, false).await;
    occupy(&ana, &other, 7, false).await;
    let topics = [other.clone(), topic("one", "empty"), room.clone()];
    let all = ana.roster.occupancy(&topics).await.expect("the roster is reachable");
    let counts: Vec<_> = all.iter().map(|occupancy| (occupancy.subscriptions, occupancy.users)).collect();
    assert_eq!(counts, [(7, 0), (0, 0), (4, 2)]);
    occupy(&ana, &room, 0, false).await;
    occupy(&bo, &room, 0, false).await;
    occupy(&bo, &room, 0, false).await;
    assert_eq!(occupancy(&bo, &room).await.0, 0);
    assert_eq!(ana.roster.occupancy(&[]).await, Ok(vec![]));
}

async fn listed(node: &Node, app: &str, prefix: &str) -> Vec<String> {
    let app = AppId::from(app);
    let channels = node.roster.channels(&app, prefix).await.expect("the roster is reachable");
    let words = |(name, occupancy): &(_, Occupancy)| format!("{name} {} {}", occupancy.subscriptions, occupancy.users);
    channels.iter().map(words).collect()
}

/// The list is sorted by name. A prefix has no wildcards.
pub async fn occupied_channels_are_listed_by_prefix(cluster: impl Cluster) {
    let (ana, bo) = (Node::start(&cluster).await, Node::start(&cluster).await);
    assert_eq!(listed(&ana, "one", "").await, [""; 0]);
    for (node, name) in [(&ana, "presence-b"), (&bo, "presence-a"), (&ana, "news"), (&bo, "news"), (&bo, "presence_c")]
    {
        occupy(node, &topic("one", name), 2, false).await;
    }
    join(&ana, &topic("one", "presence-a"), "1").await;
    assert_eq!(listed(&ana, "one", "").await, ["news 4 0", "presence-a 2 1", "presence-b 2 0", "presence_c 2 0"]);
    assert_eq!(listed(&bo, "one", "presence-").await, ["presence-a 2 1", "presence-b 2 0"]);
    assert_eq!(listed(&bo, "one", "news").await, ["news 4 0"]);
    assert_eq!(listed(&bo, "one", "ews").await, [""; 0]);
    assert_eq!(listed(&bo, "one", "presence*").await, [""; 0]);
    occupy(&ana, &topic("one", "news"), 0, false).await;
    assert_eq!(listed(&ana, "one", "n").await, ["news 2 0"]);
    occupy(&bo, &topic("one", "news"), 0, false).await;
    assert_eq!(listed(&ana, "one", "n").await, [""; 0]);
}

/// Their subscriptions are counted.
pub async fn channels_of_users_are_not_listed(cluster: impl Cluster) {
    let user = topic("one", "#server-to-user-1");
    let ana = Node::start(&cluster).await;
    occupy(&ana, &user, 1, false).await;
    assert_eq!(listed(&ana, "one", "").await, [""; 0]);
    assert_eq!(listed(&ana, "one", "#server").await, [""; 0]);
    assert_eq!(occupancy(&ana, &user).await, (1, 0));
}

/// The number of nodes and connections of the user does not matter, nor does the request for counts.
pub async fn a_user_comes_online_once_and_goes_offline_once(cluster: impl Cluster) {
    let user = topic("one", "#server-to-user-1");
    let mut observer = Node::subscribed(&cluster, &[&user]).await;
    let (ana, bo) = (Node::start(&cluster).await, Node::start(&cluster).await);
    occupy(&ana, &user, 0, false).await;
    assert_eq!(announced(&mut observer, &user).await, [""; 0]);
    for (node, subscriptions, announce) in [(&ana, 1, false), (&bo, 1, true), (&ana, 2, true), (&ana, 0, false)] {
        occupy(node, &user, subscriptions, announce).await;
    }
    assert_eq!(announced(&mut observer, &user).await, ["online true"]);
    occupy(&bo, &user, 0, false).await;
    occupy(&bo, &user, 0, false).await;
    assert_eq!(announced(&mut observer, &user).await, ["online false"]);
    occupy(&bo, &user, 1, false).await;
    assert_eq!(announced(&mut observer, &user).await, ["online true"]);
}

/// The count is that of all nodes.
pub async fn a_subscription_count_is_announced_if_requested_and_changed(cluster: impl Cluster) {
    let news = topic("one", "news");
    let mut observer = Node::subscribed(&cluster, &[&news]).await;
    let (ana, bo) = (Node::start(&cluster).await, Node::start(&cluster).await);
    for (node, subscriptions) in [(&ana, 0), (&ana, 2), (&ana, 2), (&bo, 3), (&ana, 0), (&ana, 0)] {
        occupy(node, &news, subscriptions, true).await;
    }
    assert_eq!(announced(&mut observer, &news).await, ["count 2", "count 5", "count 3"]);
    occupy(&ana, &news, 9, false).await;
    occupy(&ana, &news, 9, true).await;
    occupy(&ana, &news, 0, false).await;
    assert_eq!(announced(&mut observer, &news).await, [""; 0]);
    occupy(&bo, &news, 0, true).await;
    assert_eq!(announced(&mut observer, &news).await, ["count 0"]);
}

/// The state of one app is not visible to another app.
pub async fn apps_are_isolated(cluster: impl Cluster) {
    let (one, two) = (topic("one", "presence-room"), topic("two", "presence-room"));
    let mut observer = Node::subscribed(&cluster, &[&one]).await;
    let ana = Node::start(&cluster).await;
    occupy(&ana, &two, 3, true).await;
    join(&ana, &two, "1").await;
    ana.roster.report_connections(&AppId::from("two"), 5).await.expect("the roster is reachable");
    assert_eq!(occupancy(&ana, &one).await, (0, 0));
    assert_eq!(member_ids(&ana, &one).await, [""; 0]);
    assert_eq!(listed(&ana, "one", "").await, [""; 0]);
    assert_eq!(ana.roster.connections(&AppId::from("one")).await, Ok(0));
    assert_eq!(ids(&join(&ana, &one, "2").await.members.expect("the list was requested")), ["2"]);
    leave(&ana, &one, "1").await;
    assert_eq!(member_ids(&ana, &two).await, ["1"]);
    assert_eq!(announced(&mut observer, &one).await, ["added 2"]);
}

/// Neither the number of nodes nor their reports between the claims matter.
pub async fn claims_admit_no_more_than_the_quota_over_all_nodes(cluster: impl Cluster) {
    let app = AppId::from("one");
    let (ana, bo) = (Node::start(&cluster).await, Node::start(&cluster).await);
    let claim = async |node: &Node, connections, requested| {
        let claimed =
            node.roster.claim_connections(&app, connections, requested, 5).await.expect("the roster is reachable");
        assert!(claimed.oldest_report_at_ms <= claimed.answered_at_ms, "{claimed:?}");
        claimed.admitted
    };
    assert_eq!(claim(&ana, 0, 3).await, 3);
    assert_eq!(claim(&bo, 0, 3).await, 2, "the rest of the quota");
    assert_eq!(ana.roster.connections(&app).await, Ok(5), "admitted connections count immediately");
    assert_eq!((claim(&ana, 3, 1).await, claim(&bo, 2, 1).await), (0, 0));
    assert_eq!(ana.roster.report_connections(&app, 2).await, Ok(4));
    assert_eq!(claim(&bo, 2, 2).await, 1, "a connection that ended on another node is available");
    assert_eq!(claim(&bo, 2, 1).await, 1, "a connection that ended on the same node is available");
    assert_eq!(claim(&ana, 9, 1).await, 0, "the node has more connections than the quota");
}

/// A node's latest number replaces its earlier one.
pub async fn connections_are_the_sum_over_all_nodes(cluster: impl Cluster) {
    let app = AppId::from("one");
    let (ana, bo) = (Node::start(&cluster).await, Node::start(&cluster).await);
    assert_eq!(ana.roster.connections(&app).await, Ok(0));
    for (node, connections, total) in [(&ana, 3, 3), (&bo, 4, 7), (&ana, 1, 5), (&ana, 1, 5), (&bo, 0, 1), (&ana, 0, 0)]
    {
        assert_eq!(node.roster.report_connections(&app, connections).await, Ok(total));
        assert_eq!((ana.roster.connections(&app).await, bo.roster.connections(&app).await), (Ok(total), Ok(total)));
    }
}
