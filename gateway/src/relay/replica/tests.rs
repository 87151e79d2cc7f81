use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn at(epoch: u64, sequence: u64) -> Position {
    Position { epoch, sequence }
}

fn member(id: &str) -> Member {
    Member { user_id: id.into(), user_info: Some(format!(r#"{{"name":"{id}"}}"#).into()) }
}

fn added(id: &str) -> Change {
    Change::Added(member(id))
}

fn removed(id: &str) -> Change {
    Change::Removed(id.into())
}

/// Returns a replica with this list at this position.
fn built(position: Position, ids: &[&str]) -> Replica {
    let mut replica = Replica::default();
    assert!(replica.build(position, ids.iter().map(|id| member(id)).collect()));
    replica
}

#[track_caller]
fn check_members(replica: &Replica, expected: &[&str]) {
    let members = replica.members();
    let ids: Vec<&str> = members.iter().map(|member| member.user_id.as_str()).collect();
    assert_eq!(ids, expected);
}

/// `is_change`: whether subscribers must be notified of the change.
#[track_caller]
fn check(replica: &mut Replica, position: Position, change: Change, is_change: bool, members: &[&str]) {
    let expected = if is_change { Effect::Changed } else { Effect::None };
    assert_eq!(replica.apply(position, change.clone()), expected, "{position:?} {change:?}");
    check_members(replica, members);
}

#[test]
fn a_new_replica_is_empty_and_reflects_nothing() {
    let replica = Replica::default();
    assert!(!replica.is_built() && replica.is_idle());
    assert!(!replica.has_reached(at(1, 0)));
    check_members(&replica, &[]);
}

#[test]
fn members_are_sorted_by_id() {
    check_members(&built(at(1, 3), &["b", "a", "10", "9"]), &["10", "9", "a", "b"]);
}

#[test]
fn changes_after_the_list_are_applied_and_sent() {
    let mut replica = built(at(1, 1), &["a"]);
    check(&mut replica, at(1, 2), added("b"), true, &["a", "b"]);
    check(&mut replica, at(1, 3), removed("a"), true, &["b"]);
    check(&mut replica, at(1, 4), added("a"), true, &["a", "b"]);
}

#[test]
fn changes_that_the_list_reflects_are_dropped() {
    let mut replica = built(at(1, 5), &["a"]);
    check(&mut replica, at(1, 4), removed("a"), false, &["a"]);
    check(&mut replica, at(1, 5), added("b"), false, &["a"]);
    check(&mut replica, at(1, 6), added("b"), true, &["a", "b"]);
    check(&mut replica, at(1, 6), removed("a"), false, &["a", "b"]);
}

#[test]
fn changes_before_the_list_wait_for_it_and_are_not_sent() {
    let mut replica = Replica::default();
    check(&mut replica, at(1, 4), removed("z"), false, &[]);
    check(&mut replica, at(1, 5), added("a"), false, &[]);
    check(&mut replica, at(1, 6), added("b"), false, &[]);
    check(&mut replica, at(1, 7), removed("c"), false, &[]);
    assert!(!replica.is_built());
    assert!(replica.build(at(1, 5), vec![member("a"), member("c")]));
    assert!(replica.is_built());
    check_members(&replica, &["a", "b"]);
    assert!(replica.has_reached(at(1, 7)) && !replica.has_reached(at(1, 8)));
    check(&mut replica, at(1, 7), added("c"), false, &["a", "b"]);
}

#[test]
fn a_change_without_effect_is_not_sent() {
    let mut replica = built(at(1, 1), &["a"]);
    check(&mut replica, at(1, 2), added("a"), false, &["a"]);
    check(&mut replica, at(1, 3), removed("b"), false, &["a"]);
    assert!(replica.has_reached(at(1, 3)), "its position counts");
}

#[test]
fn positions_up_to_the_last_change_are_reached() {
    let mut replica = built(at(7, 2), &[]);
    assert!(replica.has_reached(at(7, 1)) && replica.has_reached(at(7, 2)) && !replica.has_reached(at(7, 3)));
    replica.apply(at(7, 3), added("a"));
    assert!(replica.has_reached(at(7, 3)) && !replica.has_reached(at(7, 4)));
    assert!(replica.has_reached(at(6, 100)) && replica.has_reached(at(0, 0)), "an earlier epoch");
    assert!(!replica.has_reached(at(8, 0)), "a later epoch");
}

#[test]
fn a_gap_or_a_later_epoch_suspends_the_replica() {
    for later in [at(1, 52), at(2, 1)] {
        let mut replica = built(at(1, 50), &["a"]);
        assert_eq!(replica.apply(later, added("b")), Effect::Gap);
        assert!(!replica.is_built() && !replica.has_reached(at(1, 1)));
        let next = Position { sequence: later.sequence + 1, ..later };
        assert_eq!(replica.apply(next, added("c")), Effect::None, "it waits for the list");
        let (changes, is_complete) = replica.rebuild(later, vec![member("a"), member("b"), member("d")], false);
        assert_eq!((changes.len(), is_complete), (3, true), "{changes:?}");
        check_members(&replica, &["a", "b", "c", "d"]);
        assert!(replica.has_reached(next));
    }
}

#[test]
fn changes_after_a_gap_behind_the_new_list_are_dropped() {
    for far in [at(u64::MAX, u64::MAX), at(1, 9), at(2, 1)] {
        let mut replica = built(at(1, 5), &["a"]);
        assert_eq!(replica.apply(far, added("ghost")), Effect::Gap);
        let (changes, is_complete) = replica.rebuild(at(1, 6), vec![member("a"), member("b")], false);
        assert_eq!((format!("{changes:?}"), is_complete), (format!("{:?}", [added("b")]), false));
        check_members(&replica, &["a", "b"]);
        check(&mut replica, at(1, 7), removed("a"), true, &["b"]);
    }
}

#[test]
fn members_that_may_return_are_retained() {
    let mut replica = built(at(1, 5), &["a", "b"]);
    replica.suspend();
    assert!(replica.is_suspended() && replica.is_of(1) && !replica.is_of(2));
    let (changes, _) = replica.rebuild(at(2, 1), vec![member("c")], true);
    assert_eq!(format!("{changes:?}"), format!("{:?}", [added("c")]));
    check_members(&replica, &["a", "b", "c"]);
    check(&mut replica, at(2, 2), added("a"), false, &["a", "b", "c"]);
    replica.suspend();
    let (changes, _) = replica.rebuild(at(2, 2), vec![member("a"), member("c")], false);
    assert_eq!(format!("{changes:?}"), format!("{:?}", [removed("b")]));
}

#[test]
fn a_member_with_other_info_leaves_and_joins() {
    let mut replica = built(at(1, 5), &["a"]);
    replica.suspend();
    let other = Member { user_id: "a".into(), user_info: None };
    let (changes, _) = replica.rebuild(at(1, 7), vec![other.clone()], true);
    assert_eq!(format!("{changes:?}"), format!("{:?}", [removed("a"), Change::Added(other)]));
}

#[test]
fn a_suspended_replica_resumes_without_a_new_list() {
    let mut replica = built(at(1, 5), &["a"]);
    replica.suspend();
    replica.suspend();
    for (position, change) in [(at(1, 5), removed("a")), (at(1, 6), added("b")), (at(1, 7), added("a"))] {
        assert_eq!(replica.apply(position, change), Effect::None);
    }
    let changes = replica.resume();
    assert_eq!(format!("{changes:?}"), format!("{:?}", [added("b")]));
    check_members(&replica, &["a", "b"]);
    check(&mut replica, at(1, 8), removed("a"), true, &["b"]);
    assert!(Replica::default().resume().is_empty(), "a replica without a list is not resumed");
    assert!(!Replica::default().is_built());
}

#[test]
fn changes_of_an_earlier_epoch_are_dropped() {
    let mut replica = Replica::default();
    replica.apply(at(1, 8), removed("b"));
    replica.apply(at(1, 9), removed("a"));
    assert!(replica.build(at(2, 1), vec![member("a")]));
    check_members(&replica, &["a"]);
    check(&mut replica, at(1, 10), removed("a"), false, &["a"]);

    let mut replica = Replica::default();
    replica.apply(at(1, 9), removed("a"));
    replica.apply(at(2, 1), added("a"));
    replica.apply(at(2, 2), added("b"));
    assert!(replica.build(at(2, 1), vec![member("a")]));
    check_members(&replica, &["a", "b"]);
    assert!(replica.has_reached(at(2, 2)) && !replica.has_reached(at(2, 3)));
}

#[test]
fn the_last_socket_of_a_user_is_recognized() {
    let (mut replica, ana, bo) = (Replica::default(), UserId::from("ana"), UserId::from("bo"));
    replica.add_socket(&member("ana"));
    replica.add_socket(&member("ana"));
    replica.add_socket(&member("bo"));
    assert_eq!((replica.sockets_of(&ana), replica.sockets_of(&bo)), (2, 1));
    assert!(!replica.remove_socket(&ana));
    assert!(replica.remove_socket(&ana));
    assert!(!replica.remove_socket(&ana), "it was removed before");
    assert_eq!(replica.sockets_of(&ana), 0);
    assert!(!replica.is_idle());
    assert!(replica.remove_socket(&bo));
    assert!(replica.is_idle());
}

#[test]
fn sockets_do_not_change_the_member_list() {
    let mut replica = built(at(1, 1), &["elsewhere"]);
    assert!(replica.is_idle());
    replica.add_socket(&member("here"));
    check_members(&replica, &["elsewhere"]);
    assert!(replica.remove_socket(&"here".into()));
}

/// All changes of a channel. At each step a user joins or leaves. The epoch ends when the last member leaves.
#[derive(Clone, Debug)]
struct History {
    steps: Vec<(Position, Change)>,
    /// The members after each step, and before the first.
    members: Vec<BTreeSet<String>>,
}

impl History {
    fn of(users: &[u8]) -> Self {
        let mut history = Self { steps: Vec::new(), members: vec![BTreeSet::new()] };
        let mut position = at(1, 0);
        for user in users {
            let id = user.to_string();
            let mut members = history.members.last().cloned().unwrap_or_default();
            if members.is_empty() {
                position = at(position.epoch + 1, 0);
            }
            position.sequence += 1;
            let change = if members.insert(id.clone()) { added(&id) } else { removed(&id) };
            if matches!(change, Change::Removed(_)) {
                members.remove(&id);
            }
            history.steps.push((position, change));
            history.members.push(members);
        }
        history
    }

    fn list(&self, steps: usize) -> Vec<Member> {
        self.members[steps].iter().map(|id| member(id)).collect()
    }
}

proptest! {
    /// A node subscribes after `subscribed` steps, and reads the list after `listed` steps, while the channel has
    /// members. The list arrives when the node has received the steps before `arrived`, which may be fewer or more. The
    /// epoch of the list does not end, because a member is on this node.
    #[test]
    fn the_replica_is_correct_however_list_and_changes_overlap(
        users in prop::collection::vec(0_u8..4, 1..40),
        listed in any::<prop::sample::Index>(),
        subscribed in any::<prop::sample::Index>(),
        arrived in any::<prop::sample::Index>(),
        repeats in prop::collection::vec(any::<prop::sample::Index>(), 0..10),
    ) {
        let history = History::of(&users);
        let occupied: Vec<usize> = (1..=users.len()).filter(|steps| !history.members[*steps].is_empty()).collect();
        let listed = occupied[listed.index(occupied.len())];
        let epoch = history.steps[listed - 1].0.epoch;
        let end = history.steps.iter().rposition(|(position, _)| position.epoch == epoch).map_or(0, |last| last + 1);
        let subscribed = subscribed.index(listed + 1);
        let arrived = subscribed + arrived.index(end - subscribed + 1);

        let mut replica = Replica::default();
        for (position, change) in &history.steps[subscribed..arrived] {
            prop_assert_eq!(replica.apply(*position, change.clone()), Effect::None);
        }
        assert!(replica.build(history.steps[listed - 1].0, history.list(listed)));
        prop_assert_eq!(replica.members(), history.list(listed.max(arrived)));

        for (index, (position, change)) in history.steps.iter().enumerate().take(end).skip(arrived) {
            let expected = if index >= listed { Effect::Changed } else { Effect::None };
            prop_assert_eq!(replica.apply(*position, change.clone()), expected, "step {}", index);
            prop_assert_eq!(replica.members(), history.list(listed.max(index + 1)));
            prop_assert!(replica.has_reached(*position));
            for repeat in &repeats {
                let (position, change) = &history.steps[repeat.index(index + 1)];
                prop_assert_eq!(replica.apply(*position, change.clone()), Effect::None, "{:?} again", position);
            }
        }
    }

    #[test]
    fn sockets_are_counted_per_user(steps in prop::collection::vec((0_usize..3, any::<bool>()), 0..60)) {
        let ids: [UserId; 3] = ["a".into(), "b".into(), "c".into()];
        let (mut replica, mut counts) = (Replica::default(), [0_usize; 3]);
        for (user, joins) in steps {
            if joins {
                replica.add_socket(&member(ids[user].as_str()));
                counts[user] += 1;
            } else {
                prop_assert_eq!(replica.remove_socket(&ids[user]), counts[user] == 1);
                counts[user] = counts[user].saturating_sub(1);
            }
            prop_assert_eq!([0, 1, 2].map(|user| replica.sockets_of(&ids[user])), counts);
            prop_assert_eq!(replica.is_idle(), counts == [0; 3]);
        }
    }
}

#[test]
fn a_rebuilt_replica_returns_the_differences() {
    let member = |id: &str| Member { user_id: UserId::from(id), user_info: None };
    let at = |sequence: u64| Position { epoch: 1, sequence };
    let mut replica = Replica::default();
    assert!(replica.build(at(3), vec![member("ana"), member("bo")]));
    replica.add_socket(&member("ana"));
    replica.suspend();
    assert!(!replica.is_built() && !replica.has_reached(at(1)), "a suspended list is not sent");
    assert_eq!(replica.apply(at(6), Change::Added(member("eve"))), Effect::None, "a change waits for the new list");
    let (changes, is_complete) = replica.rebuild(at(5), vec![member("ana"), member("cy")], false);
    assert!(is_complete);
    assert_eq!(
        format!("{changes:?}"),
        r#"[Removed("bo"), Added(Member { user_id: "cy", user_info: None }), Added(Member { user_id: "eve", user_info: None })]"#
    );
    assert!(replica.has_reached(at(6)));
    assert_eq!(replica.own_members(), [member("ana")]);
}

#[test]
fn an_equal_list_has_no_differences() {
    let member = Member { user_id: UserId::from("ana"), user_info: Some("{}".into()) };
    let mut replica = Replica::default();
    assert!(replica.build(Position { epoch: 1, sequence: 1 }, vec![member.clone()]));
    replica.suspend();
    assert_eq!(replica.rebuild(Position { epoch: 2, sequence: 7 }, vec![member], false).0.len(), 0);
}

#[test]
fn unsent_changes_lead_from_the_known_list_to_the_current_one() {
    let mut replica = built(at(1, 1), &["a", "b", "c"]);
    assert!(!replica.has_unsent() && replica.unsent_bytes() == 0);
    let other = Member { user_info: Some("1".into()), ..member("c") };
    let changes = [
        added("came"),
        removed("came"),
        removed("a"),
        added("a"),
        removed("b"),
        removed("c"),
        Change::Added(other.clone()),
        added("new"),
    ];
    for (sequence, change) in (2..).zip(changes) {
        assert_eq!(replica.apply(at(1, sequence), change), Effect::Changed);
    }
    assert!(replica.has_unsent() && replica.unsent_bytes() > 0);
    let expected = [removed("b"), removed("c"), Change::Added(other), added("new")];
    assert_eq!(format!("{:?}", replica.take_unsent()), format!("{expected:?}"));
    assert!(!replica.has_unsent() && replica.take_unsent().is_empty());
}

#[test]
fn unsent_changes_before_a_new_list_are_part_of_the_differences() {
    let mut replica = built(at(1, 1), &["a"]);
    replica.apply(at(1, 2), added("b"));
    replica.apply(at(1, 3), removed("a"));
    replica.suspend();
    let (changes, is_complete) = replica.rebuild(at(1, 9), vec![member("a"), member("c")], false);
    assert!(is_complete);
    // Subscribers know "a" only.
    assert_eq!(format!("{changes:?}"), format!("{:?}", [added("c")]));
    assert!(!replica.has_unsent());
}

proptest! {
    #[test]
    fn subscribers_that_are_notified_sometimes_have_the_current_list(
        steps in prop::collection::vec((0_usize..5, any::<bool>(), any::<bool>()), 0..60),
    ) {
        let mut replica = built(at(1, 0), &["0", "1"]);
        let mut known: BTreeSet<String> = ["0".into(), "1".into()].into();
        for (sequence, (user, joins, notify)) in (1..).zip(steps) {
            let id = user.to_string();
            replica.apply(at(1, sequence), if joins { added(&id) } else { removed(&id) });
            if !notify {
                continue;
            }
            for change in replica.take_unsent() {
                match change {
                    Change::Added(member) => prop_assert!(known.insert(member.user_id.to_string())),
                    Change::Removed(user_id) => prop_assert!(known.remove(user_id.as_str())),
                }
            }
            let members: BTreeSet<String> =
                replica.members().iter().map(|member| member.user_id.to_string()).collect();
            prop_assert_eq!(&known, &members);
        }
    }
}
