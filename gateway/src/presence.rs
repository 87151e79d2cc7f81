//! This node's copy of one presence channel, fed by the roster's announcements.
//!
//! The first local subscriber takes the list from the roster; later ones are answered from here, once the copy has
//! reached the position that their own join returned.

use std::collections::BTreeMap;

use hashbrown::HashMap;
use shared::envelope::Position;
use shared::protocol::{Member, UserId};

/// A presence channel as this node knows it.
#[derive(Default)]
pub(crate) struct Replica {
    /// What the list reflects; `None` until the list has been taken from the roster.
    position: Option<Position>,
    members: BTreeMap<UserId, Member>,
    /// Changes that arrived before the list, in order.
    early: Vec<(Position, Change)>,
    /// Sockets of this node by user.
    sockets: HashMap<UserId, usize>,
}

/// One announced change.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Added(Member),
    Removed(UserId),
}

impl Replica {
    /// Whether the list has been taken.
    pub(crate) fn is_built(&self) -> bool {
        self.position.is_some()
    }

    /// Whether the list reflects `position`.
    pub(crate) fn has_reached(&self, position: Position) -> bool {
        self.position.is_some_and(|own| own >= position)
    }

    /// Takes the roster's list and replays what arrived before it.
    pub(crate) fn build(&mut self, position: Position, members: Vec<Member>) {
        self.position = Some(position);
        self.members = members.into_iter().map(|member| (member.user_id.clone(), member)).collect();
        for (position, change) in std::mem::take(&mut self.early) {
            self.apply(position, change);
        }
    }

    /// Forgets what the list reflects: changes may have been missed. They are kept for the new list from here on.
    pub(crate) fn doubt(&mut self) {
        self.position = None;
    }

    /// Takes a new list in place of a doubted one; returns what local subscribers must hear of to have it too.
    pub(crate) fn rebuild(&mut self, position: Position, members: Vec<Member>) -> Vec<Change> {
        let before = std::mem::take(&mut self.members);
        self.build(position, members);
        let gone = before.keys().filter(|user_id| !self.members.contains_key(*user_id)).cloned().map(Change::Removed);
        let came = self.members.values().filter(|member| !before.contains_key(&member.user_id)).cloned();
        gone.chain(came.map(Change::Added)).collect()
    }

    /// The users that this node has sockets of, as the channel knows them.
    pub(crate) fn own_members(&self) -> Vec<Member> {
        let known = |user_id: &UserId| {
            let unknown = || Member { user_id: user_id.clone(), user_info: None };
            self.members.get(user_id).cloned().unwrap_or_else(unknown)
        };
        self.sockets.keys().map(known).collect()
    }

    /// Takes one change. Returns whether local subscribers must hear of it: not when the list reflects it already.
    pub(crate) fn apply(&mut self, position: Position, change: Change) -> bool {
        if !self.is_built() {
            self.early.push((position, change));
            return false;
        }
        if self.has_reached(position) {
            return false;
        }
        self.position = Some(position);
        match change {
            Change::Added(member) => self.members.insert(member.user_id.clone(), member).is_none(),
            Change::Removed(user_id) => self.members.remove(&user_id).is_some(),
        }
    }

    /// All members, in the order of their ids.
    pub(crate) fn members(&self) -> Vec<Member> {
        self.members.values().cloned().collect()
    }

    /// How many sockets of this node `user_id` has.
    pub(crate) fn sockets_of(&self, user_id: &UserId) -> usize {
        self.sockets.get(user_id).copied().unwrap_or(0)
    }

    /// One more socket of this user.
    pub(crate) fn add_socket(&mut self, user_id: &UserId) {
        *self.sockets.entry(user_id.clone()).or_default() += 1;
    }

    /// One socket less; returns whether it was the user's last on this node.
    pub(crate) fn remove_socket(&mut self, user_id: &UserId) -> bool {
        match self.sockets.get_mut(user_id) {
            Some(count) if *count > 1 => {
                *count -= 1;
                false
            }
            Some(_) => {
                self.sockets.remove(user_id);
                true
            }
            None => false,
        }
    }

    /// Whether this node has no socket in the channel.
    pub(crate) fn is_idle(&self) -> bool {
        self.sockets.is_empty()
    }
}

#[cfg(test)]
mod tests;
