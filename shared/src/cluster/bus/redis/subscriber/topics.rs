//! The topics of a subscriber: which are wanted, and which Redis has confirmed on the connection that is up.

use std::sync::Arc;

use hashbrown::{HashMap, HashSet};
use tokio::sync::Notify;

use crate::cluster::envelope::Topic;

/// Everything that a node subscribes to.
///
/// Without a connection only wanted topics are kept. With one, topics whose `UNSUBSCRIBE` has not been sent are kept too, and
/// the names of those that changed, each once.
#[derive(Default)]
pub(super) struct Topics {
    /// By their name in Redis.
    by_name: HashMap<String, Entry>,
    /// Names of topics whose subscription, or its end, is to be sent.
    changed: HashSet<String>,
    /// Whether there is a connection that changes can be sent on.
    is_connected: bool,
}

struct Entry {
    topic: Topic,
    is_wanted: bool,
    progress: Progress,
    /// Notified when the subscription is confirmed or given up; made when the first caller waits. Waiting callers are
    /// linked to it, so it takes the same memory for any number of them.
    settled: Option<Arc<Notify>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    NotSent,
    Sent,
    Confirmed,
}

/// The state of a subscription for one that waits for it.
pub(super) enum Subscription {
    /// Redis has confirmed it on the connection that is up.
    Confirmed,
    /// It will be confirmed or given up; this is notified then.
    Waiting(Arc<Notify>),
    /// It is not wanted any more.
    GivenUp,
}

/// Changes that go to Redis together.
#[derive(Default)]
pub(super) struct Changes {
    pub(super) subscribe: Vec<String>,
    pub(super) unsubscribe: Vec<String>,
}

impl Topics {
    /// Topics that are wanted, or were and have not been unsubscribed from yet.
    pub(super) fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Whether there is something to send.
    pub(super) fn has_changes(&self) -> bool {
        !self.changed.is_empty()
    }

    /// Whether a topic is here already.
    pub(super) fn contains(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    /// Makes a topic wanted.
    pub(super) fn subscribe(&mut self, name: &str, topic: &Topic) {
        let Self { by_name, changed, is_connected } = self;
        let entry = by_name.entry_ref(name).or_insert_with(|| Entry {
            topic: topic.clone(),
            is_wanted: true,
            progress: Progress::NotSent,
            settled: None,
        });
        entry.is_wanted = true;
        if *is_connected && entry.progress == Progress::NotSent {
            changed.get_or_insert_with(name, str::to_owned);
        }
    }

    /// Returns the state of a subscription.
    pub(super) fn subscription(&mut self, name: &str) -> Subscription {
        match self.by_name.get_mut(name) {
            Some(entry) if !entry.is_wanted => Subscription::GivenUp,
            Some(entry) if entry.progress == Progress::Confirmed => Subscription::Confirmed,
            Some(entry) => Subscription::Waiting(entry.settled.get_or_insert_default().clone()),
            None => Subscription::GivenUp,
        }
    }

    /// Makes a topic unwanted. It is removed at once if no `SUBSCRIBE` for it was sent.
    pub(super) fn unsubscribe(&mut self, name: &str) {
        let Some(entry) = self.by_name.get_mut(name) else { return };
        entry.is_wanted = false;
        entry.settle();
        if entry.progress == Progress::NotSent {
            self.by_name.remove(name);
            self.changed.remove(name);
        } else {
            self.changed.get_or_insert_with(name, str::to_owned);
        }
    }

    /// Begins with a new connection: returns everything that has to be subscribed to on it.
    pub(super) fn connected(&mut self) -> Vec<String> {
        self.disconnected();
        self.is_connected = true;
        for entry in self.by_name.values_mut() {
            entry.progress = Progress::Sent;
        }
        self.by_name.keys().cloned().collect()
    }

    /// Forgets what was sent on a connection that has ended.
    pub(super) fn disconnected(&mut self) {
        self.is_connected = false;
        self.changed = HashSet::new();
        self.by_name.retain(|_, entry| entry.is_wanted);
        for entry in self.by_name.values_mut() {
            entry.progress = Progress::NotSent;
        }
    }

    /// Takes at most so many changes to be sent.
    pub(super) fn take_changes(&mut self, most: usize) -> Changes {
        let mut changes = Changes::default();
        let names: Vec<String> = self.changed.iter().take(most).cloned().collect();
        for name in names {
            self.changed.remove(&name);
            let Some(entry) = self.by_name.get_mut(&name) else { continue };
            match (entry.is_wanted, entry.progress) {
                (true, Progress::NotSent) => {
                    entry.progress = Progress::Sent;
                    changes.subscribe.push(name);
                }
                (false, _) => {
                    self.by_name.remove(&name);
                    changes.unsubscribe.push(name);
                }
                (true, Progress::Sent | Progress::Confirmed) => {}
            }
        }
        changes
    }

    /// Notes that Redis has confirmed these.
    pub(super) fn confirmed(&mut self, names: &[String]) {
        for name in names {
            if let Some(entry) = self.by_name.get_mut(name)
                && entry.progress == Progress::Sent
            {
                entry.progress = Progress::Confirmed;
                entry.settle();
            }
        }
    }

    /// The topic with this name, if it is wanted.
    pub(super) fn wanted(&self, name: &str) -> Option<Topic> {
        self.by_name.get(name).filter(|entry| entry.is_wanted).map(|entry| entry.topic.clone())
    }
}

impl Entry {
    fn settle(&mut self) {
        if let Some(settled) = self.settled.take() {
            settled.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests;
