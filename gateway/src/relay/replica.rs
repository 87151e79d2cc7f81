//! This node's copy of one presence channel, fed by the roster's announcements.
//!
//! The first local subscriber takes the list from the roster; later ones are answered from here, once the copy has
//! reached the position that their own join returned.

use std::collections::BTreeMap;

use hashbrown::HashMap;
use shared::cluster::envelope::Position;
use shared::protocol::{Member, UserId};

use crate::limits::{EARLY_CHANGES_MAX, NOTIFICATION_BYTES};

/// A presence channel as this node knows it.
#[derive(Default)]
pub(crate) struct Replica {
    /// What the list reflects; `None` until the list has been taken from the roster.
    position: Option<Position>,
    /// What the list reflected before it was doubted.
    doubted: Option<Position>,
    members: BTreeMap<UserId, Member>,
    /// Whether some of them are not in the roster's list, but may come back.
    is_keeping: bool,
    /// Changes that arrived before the list, in order.
    early: Vec<(Position, Change)>,
    /// This node's users.
    own: HashMap<UserId, Own>,
    /// Users that changed since local subscribers were last notified, each as they know it; `None` if they do not.
    news: BTreeMap<UserId, Option<Member>>,
}

/// A user that this node has sockets of.
struct Own {
    sockets: usize,
    /// As the user joined here; the channel shows what the first joiner anywhere brought.
    member: Member,
}

/// One announced change.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Added(Member),
    Removed(UserId),
}

/// What a change did to the copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Local subscribers must hear of it.
    News,
    /// The list reflects it already, or will.
    None,
    /// Changes before it were missed: the copy is doubted from here on, until it is rebuilt.
    Gap,
}

impl Replica {
    /// Whether the list has been taken.
    pub(crate) fn is_built(&self) -> bool {
        self.position.is_some()
    }

    /// Whether the list is, or was when it was doubted, of this epoch.
    pub(crate) fn is_of(&self, epoch: u64) -> bool {
        self.position.or(self.doubted).is_some_and(|own| own.epoch == epoch)
    }

    /// Whether some members are kept that the roster's list lacked.
    pub(crate) fn is_keeping(&self) -> bool {
        self.is_keeping
    }

    /// Whether the user is a member as far as local subscribers know, while the roster may have lost it.
    pub(crate) fn expects(&self, user_id: &UserId) -> bool {
        (self.is_keeping || self.is_doubted()) && self.members.contains_key(user_id)
    }

    /// Whether the list reflects `position`.
    pub(crate) fn has_reached(&self, position: Position) -> bool {
        self.position.is_some_and(|own| own >= position)
    }

    /// Takes the roster's list and replays what arrived before it; returns whether that was without gaps. If not, what
    /// came after the gap is dropped, and the list may lack it.
    #[must_use]
    pub(crate) fn build(&mut self, position: Position, members: Vec<Member>) -> bool {
        self.position = Some(position);
        self.doubted = None;
        self.members = members.into_iter().map(|member| (member.user_id.clone(), member)).collect();
        let is_whole = self.replay();
        // Local subscribers get the list as a whole.
        self.news.clear();
        is_whole
    }

    /// Takes what arrived early, as long as it follows; returns whether all of it followed.
    fn replay(&mut self) -> bool {
        for (position, change) in std::mem::take(&mut self.early) {
            match self.position {
                Some(own) if position <= own => {}
                Some(own) if own.is_followed_by(position) => {
                    self.take(position, change);
                }
                _ => return false,
            }
        }
        true
    }

    /// Whether members changed since local subscribers were last notified.
    pub(crate) fn has_news(&self) -> bool {
        !self.news.is_empty()
    }

    /// Returns the changes that turn the list that local subscribers know into the current one. A user who came and left
    /// in between is in none of them.
    pub(crate) fn take_news(&mut self) -> Vec<Change> {
        let (mut removed, mut added) = (Vec::new(), Vec::new());
        for (user_id, before) in std::mem::take(&mut self.news) {
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

    /// About how many bytes the notifications of [`Replica::take_news`] take.
    pub(crate) fn news_bytes(&self) -> usize {
        let info_bytes = |user_id| {
            let info = self.members.get(user_id).and_then(|member| member.user_info.as_ref());
            info.map_or(0, |info| info.len())
        };
        self.news.keys().map(|user_id| NOTIFICATION_BYTES + user_id.as_str().len() + info_bytes(user_id)).sum()
    }

    fn note(&mut self, user_id: &UserId, before: Option<Member>) {
        self.news.entry(user_id.clone()).or_insert(before);
    }

    /// Forgets what the list reflects: changes may have been missed. They are kept for the new list from here on.
    pub(crate) fn doubt(&mut self) {
        if let Some(position) = self.position.take() {
            self.doubted = Some(position);
        }
    }

    /// Whether there is a list that may have missed changes: local subscribers have it, and go on from it.
    pub(crate) fn is_doubted(&self) -> bool {
        self.doubted.is_some()
    }

    /// Goes on with a doubted list, since no new one can be had now, and takes the changes that were kept; returns those
    /// that local subscribers must hear of.
    pub(crate) fn trust(&mut self) -> Vec<Change> {
        let Some(doubted) = self.doubted.take() else { return Vec::new() };
        self.position = Some(doubted);
        self.replay();
        self.take_news()
    }

    /// Takes a new list in place of a doubted one; returns what local subscribers must hear of to have it too, and
    /// whether there was no gap, as [`Replica::build`] does.
    ///
    /// `keeping`: whether members that the new list lacks stay in this copy, since they may be about to come back.
    pub(crate) fn rebuild(&mut self, position: Position, members: Vec<Member>, keeping: bool) -> (Vec<Change>, bool) {
        let before = std::mem::take(&mut self.members);
        let news = std::mem::take(&mut self.news);
        let is_whole = self.build(position, members);
        self.news = news;
        self.is_keeping = keeping && before.keys().any(|user_id| !self.members.contains_key(user_id));
        if keeping {
            for (user_id, member) in &before {
                self.members.entry(user_id.clone()).or_insert_with(|| member.clone());
            }
        }
        let came: Vec<UserId> = self.members.keys().filter(|user_id| !before.contains_key(*user_id)).cloned().collect();
        for user_id in &came {
            self.note(user_id, None);
        }
        for (user_id, member) in before {
            if self.members.get(&user_id).is_none_or(|now| now.user_info != member.user_info) {
                self.note(&user_id, Some(member));
            }
        }
        (self.take_news(), is_whole)
    }

    /// The users that this node has sockets of, as the channel knows them.
    pub(crate) fn own_members(&self) -> Vec<Member> {
        self.own.values().map(|own| self.members.get(&own.member.user_id).unwrap_or(&own.member).clone()).collect()
    }

    /// Takes one change.
    pub(crate) fn apply(&mut self, position: Position, change: Change) -> Effect {
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
            self.doubt();
            self.early.push((position, change));
            return Effect::Gap;
        }
        if self.take(position, change) { Effect::News } else { Effect::None }
    }

    /// Makes a change; returns whether it changed anything.
    fn take(&mut self, position: Position, change: Change) -> bool {
        self.position = Some(position);
        match change {
            Change::Added(member) => {
                let user_id = member.user_id.clone();
                let is_news = self.members.insert(user_id.clone(), member).is_none();
                if is_news {
                    self.note(&user_id, None);
                }
                is_news
            }
            Change::Removed(user_id) => match self.members.remove(&user_id) {
                Some(before) => {
                    self.note(&user_id, Some(before));
                    true
                }
                None => false,
            },
        }
    }

    /// All members, in the order of their ids.
    pub(crate) fn members(&self) -> Vec<Member> {
        self.members.values().cloned().collect()
    }

    /// How many sockets of this node `user_id` has.
    pub(crate) fn sockets_of(&self, user_id: &UserId) -> usize {
        self.own.get(user_id).map_or(0, |own| own.sockets)
    }

    /// One more socket of this user.
    pub(crate) fn add_socket(&mut self, member: &Member) {
        let fresh = || Own { sockets: 0, member: member.clone() };
        self.own.entry(member.user_id.clone()).or_insert_with(fresh).sockets += 1;
    }

    /// One socket less; returns whether it was the user's last on this node.
    pub(crate) fn remove_socket(&mut self, user_id: &UserId) -> bool {
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

    /// Whether this node has no socket in the channel.
    pub(crate) fn is_idle(&self) -> bool {
        self.own.is_empty()
    }
}

#[cfg(test)]
mod tests;
