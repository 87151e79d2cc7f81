//! A node's copy of the member list of one presence channel.
//!
//! The first subscriber of a node reads the list from the roster. The roster's announcements keep it up to date. Later
//! subscribers receive the copy once it has reached the position that their own join returned.

use std::collections::BTreeMap;

use hashbrown::HashMap;
use shared::cluster::envelope::Position;
use shared::protocol::{Member, UserId};

use crate::limits::{EARLY_CHANGES_MAX, NOTIFICATION_BYTES};

/// The replica of one presence channel.
#[derive(Default)]
pub(super) struct Replica {
    /// The position that the list reflects; `None` before the list is read and while the replica is suspended.
    position: Option<Position>,
    /// The position that the list reflected when the replica was suspended.
    suspended: Option<Position>,
    members: BTreeMap<UserId, Member>,
    /// Whether the list has members that the roster's list lacks, and that may return.
    has_retained: bool,
    /// Changes that arrived while there was no list, in order.
    early: Vec<(Position, Change)>,
    /// The users with sockets of this node.
    own: HashMap<UserId, Own>,
    /// Users that changed since subscribers of this node were last notified. The value is the member that subscribers
    /// know, or `None` if they do not know the user.
    unsent: BTreeMap<UserId, Option<Member>>,
}

/// A user with sockets of this node.
struct Own {
    sockets: usize,
    /// The member as it joined on this node. The channel shows the member as it first joined on any node.
    member: Member,
}

/// An announced change of the member list.
#[derive(Clone, Debug)]
pub(super) enum Change {
    Added(Member),
    Removed(UserId),
}

/// The effect of a change on the replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// The list has changed, and subscribers must be notified.
    Changed,
    /// The list reflects the change already, or will when it is read.
    None,
    /// Earlier changes were missed. The replica is suspended until it is rebuilt.
    Gap,
}

impl Replica {
    /// Whether the list has been read, and the replica is not suspended.
    pub(super) fn is_built(&self) -> bool {
        self.position.is_some()
    }

    /// Whether the position of the list, or of the suspended list, is in this epoch.
    pub(super) fn is_of(&self, epoch: u64) -> bool {
        self.position.or(self.suspended).is_some_and(|own| own.epoch == epoch)
    }

    /// Whether the list has members that the roster's list lacked.
    pub(super) fn has_retained(&self) -> bool {
        self.has_retained
    }

    /// Whether subscribers of this node know the user as a member, while the roster may have lost the member.
    pub(super) fn expects(&self, user_id: &UserId) -> bool {
        (self.has_retained || self.is_suspended()) && self.members.contains_key(user_id)
    }

    /// Whether the list reflects `position`.
    pub(super) fn has_reached(&self, position: Position) -> bool {
        self.position.is_some_and(|own| own >= position)
    }

    /// Sets the list, and applies the changes that arrived before it. Returns whether these had no gap. Changes after a
    /// gap are dropped, and the list may lack them.
    #[must_use]
    pub(super) fn build(&mut self, position: Position, members: Vec<Member>) -> bool {
        self.position = Some(position);
        self.suspended = None;
        self.members = members.into_iter().map(|member| (member.user_id.clone(), member)).collect();
        let is_complete = self.apply_early();
        // Subscribers receive the whole list.
        self.unsent.clear();
        is_complete
    }

    /// Applies the changes that arrived before the list, up to a gap. Returns whether there was none.
    fn apply_early(&mut self) -> bool {
        for (position, change) in std::mem::take(&mut self.early) {
            match self.position {
                Some(own) if position <= own => {}
                Some(own) if own.is_followed_by(position) => {
                    self.change(position, change);
                }
                _ => return false,
            }
        }
        true
    }

    /// Whether members changed since subscribers were last notified.
    pub(super) fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// Returns the changes from the list that subscribers know to the current one. They do not include a user who
    /// joined and left in between.
    pub(super) fn take_unsent(&mut self) -> Vec<Change> {
        let (mut removed, mut added) = (Vec::new(), Vec::new());
        for (user_id, before) in std::mem::take(&mut self.unsent) {
            let now = self.members.get(&user_id);
            if before.as_ref().map(|member| &member.user_info) == now.map(|member| &member.user_info) {
                continue;
            }
            added.extend(now.cloned().map(Change::Added));
            removed.extend(before.map(|_| Change::Removed(user_id)));
        }
        removed.append(&mut added);
        removed
    }

    /// Estimates the bytes of the notifications of [`Replica::take_unsent`].
    pub(super) fn unsent_bytes(&self) -> usize {
        let info_bytes = |user_id| {
            let info = self.members.get(user_id).and_then(|member| member.user_info.as_ref());
            info.map_or(0, |info| info.len())
        };
        self.unsent.keys().map(|user_id| NOTIFICATION_BYTES + user_id.as_str().len() + info_bytes(user_id)).sum()
    }

    /// Records a changed user for the next notification, unless an earlier change is recorded.
    fn record(&mut self, user_id: &UserId, before: Option<Member>) {
        self.unsent.entry(user_id.clone()).or_insert(before);
    }

    /// Suspends the replica, because changes may have been missed. Changes are queued until the list is rebuilt.
    pub(super) fn suspend(&mut self) {
        if let Some(position) = self.position.take() {
            self.suspended = Some(position);
        }
    }

    /// Whether there is a list that may have missed changes. Subscribers of this node know it.
    pub(super) fn is_suspended(&self) -> bool {
        self.suspended.is_some()
    }

    /// Resumes a suspended replica with its old list, because no new one is available. Applies the queued changes.
    /// Returns the changes that subscribers must be notified of.
    pub(super) fn resume(&mut self) -> Vec<Change> {
        let Some(suspended) = self.suspended.take() else { return Vec::new() };
        self.position = Some(suspended);
        self.apply_early();
        self.take_unsent()
    }

    /// Replaces a suspended list by a new one. Returns the changes that subscribers must be notified of, and whether
    /// there was no gap, like [`Replica::build`].
    ///
    /// `retain`: whether members that the new list lacks remain in this replica, because they may return.
    pub(super) fn rebuild(&mut self, position: Position, members: Vec<Member>, retain: bool) -> (Vec<Change>, bool) {
        let before = std::mem::take(&mut self.members);
        let unsent = std::mem::take(&mut self.unsent);
        let is_complete = self.build(position, members);
        self.unsent = unsent;
        self.has_retained = retain && before.keys().any(|user_id| !self.members.contains_key(user_id));
        if retain {
            for (user_id, member) in &before {
                self.members.entry(user_id.clone()).or_insert_with(|| member.clone());
            }
        }
        let joined: Vec<UserId> =
            self.members.keys().filter(|user_id| !before.contains_key(*user_id)).cloned().collect();
        for user_id in &joined {
            self.record(user_id, None);
        }
        for (user_id, member) in before {
            if self.members.get(&user_id).is_none_or(|now| now.user_info != member.user_info) {
                self.record(&user_id, Some(member));
            }
        }
        (self.take_unsent(), is_complete)
    }

    /// Returns the users with sockets of this node, as the channel shows them.
    pub(super) fn own_members(&self) -> Vec<Member> {
        self.own.values().map(|own| self.members.get(&own.member.user_id).unwrap_or(&own.member).clone()).collect()
    }

    /// Applies one change.
    pub(super) fn apply(&mut self, position: Position, change: Change) -> Effect {
        let Some(own) = self.position else {
            if self.early.len() >= EARLY_CHANGES_MAX {
                self.early.clear();
            }
            self.early.push((position, change));
            return Effect::None;
        };
        if position <= own {
            return Effect::None;
        }
        if !own.is_followed_by(position) {
            self.suspend();
            self.early.push((position, change));
            return Effect::Gap;
        }
        if self.change(position, change) { Effect::Changed } else { Effect::None }
    }

    /// Changes the list. Returns whether the change had an effect.
    fn change(&mut self, position: Position, change: Change) -> bool {
        self.position = Some(position);
        match change {
            Change::Added(member) => {
                let user_id = member.user_id.clone();
                let is_new = self.members.insert(user_id.clone(), member).is_none();
                if is_new {
                    self.record(&user_id, None);
                }
                is_new
            }
            Change::Removed(user_id) => match self.members.remove(&user_id) {
                Some(before) => {
                    self.record(&user_id, Some(before));
                    true
                }
                None => false,
            },
        }
    }

    /// Returns all members, in the order of their ids.
    pub(super) fn members(&self) -> Vec<Member> {
        self.members.values().cloned().collect()
    }

    /// Returns the number of sockets of this node that `user_id` has.
    pub(super) fn sockets_of(&self, user_id: &UserId) -> usize {
        self.own.get(user_id).map_or(0, |own| own.sockets)
    }

    /// Counts one more socket of a user.
    pub(super) fn add_socket(&mut self, member: &Member) {
        let new = || Own { sockets: 0, member: member.clone() };
        self.own.entry(member.user_id.clone()).or_insert_with(new).sockets += 1;
    }

    /// Counts one socket of a user fewer. Returns whether it was the user's last on this node.
    pub(super) fn remove_socket(&mut self, user_id: &UserId) -> bool {
        match self.own.get_mut(user_id) {
            Some(own) if own.sockets > 1 => {
                own.sockets -= 1;
                false
            }
            Some(_) => {
                self.own.remove(user_id);
                true
            }
            None => false,
        }
    }

    /// Whether this node has no subscription of the channel.
    pub(super) fn is_idle(&self) -> bool {
        self.own.is_empty()
    }
}

#[cfg(test)]
mod tests;
