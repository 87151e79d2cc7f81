//! The topics of a subscriber, and which of them Redis has confirmed on the current connection.

use std::sync::Arc;

use hashbrown::{HashMap, HashSet};
use tokio::sync::Notify;

use crate::cluster::envelope::Topic;

/// The topics of a subscriber.
///
/// Without a connection, only subscribed topics are stored. With a connection, topics remain until their `UNSUBSCRIBE`
/// is sent, and the names of changed topics are stored once each.
#[derive(Default)]
pub(super) struct Topics {
    /// The topics by their name in Redis.
    by_name: HashMap<String, Entry>,
    /// The names of topics with a `SUBSCRIBE` or `UNSUBSCRIBE` to send.
    changed: HashSet<String>,
    /// Whether there is a connection to send changes on.
    is_connected: bool,
}

struct Entry {
    topic: Topic,
    is_subscribed: bool,
    progress: Progress,
    /// Notified when the subscription is confirmed or canceled. Created for the first waiting caller. Its size does not
    /// depend on the number of callers.
    settled: Option<Arc<Notify>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    NotSent,
    Sent,
    Confirmed,
}

/// The state of a subscription for a waiting caller.
pub(super) enum Subscription {
    /// Redis has confirmed it on the current connection.
    Confirmed,
    /// It is pending. The notification fires when it is confirmed or canceled.
    Waiting(Arc<Notify>),
    /// It was canceled by an unsubscribe.
    Canceled,
}

/// A batch of changes to send to Redis.
#[derive(Default)]
pub(super) struct Changes {
    pub(super) subscribe: Vec<String>,
    pub(super) unsubscribe: Vec<String>,
}

impl Topics {
    /// Returns the number of topics, including those with an `UNSUBSCRIBE` to send.
    pub(super) fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Whether there are changes to send.
    pub(super) fn has_changes(&self) -> bool {
        !self.changed.is_empty()
    }

    /// Whether a topic is stored.
    pub(super) fn contains(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    /// Subscribes to a topic.
    pub(super) fn subscribe(&mut self, name: &str, topic: &Topic) {
        let Self { by_name, changed, is_connected } = self;
        let entry = by_name.entry_ref(name).or_insert_with(|| Entry {
            topic: topic.clone(),
            is_subscribed: true,
            progress: Progress::NotSent,
            settled: None,
        });
        entry.is_subscribed = true;
        if *is_connected && entry.progress == Progress::NotSent {
            changed.get_or_insert_with(name, str::to_owned);
        }
    }

    /// Returns the state of a subscription.
    pub(super) fn subscription(&mut self, name: &str) -> Subscription {
        match self.by_name.get_mut(name) {
            Some(entry) if !entry.is_subscribed => Subscription::Canceled,
            Some(entry) if entry.progress == Progress::Confirmed => Subscription::Confirmed,
            Some(entry) => Subscription::Waiting(entry.settled.get_or_insert_default().clone()),
            None => Subscription::Canceled,
        }
    }

    /// Unsubscribes from a topic. Removes it at once if no `SUBSCRIBE` for it was sent.
    pub(super) fn unsubscribe(&mut self, name: &str) {
        let Some(entry) = self.by_name.get_mut(name) else { return };
        entry.is_subscribed = false;
        entry.settle();
        if entry.progress == Progress::NotSent {
            self.by_name.remove(name);
            self.changed.remove(name);
        } else {
            self.changed.get_or_insert_with(name, str::to_owned);
        }
    }

    /// Marks all topics as sent on a new connection, and returns their names to subscribe to.
    pub(super) fn connected(&mut self) -> Vec<String> {
        self.disconnected();
        self.is_connected = true;
        for entry in self.by_name.values_mut() {
            entry.progress = Progress::Sent;
        }
        self.by_name.keys().cloned().collect()
    }

    /// Resets the progress of all topics because the connection has ended.
    pub(super) fn disconnected(&mut self) {
        self.is_connected = false;
        self.changed = HashSet::new();
        self.by_name.retain(|_, entry| entry.is_subscribed);
        for entry in self.by_name.values_mut() {
            entry.progress = Progress::NotSent;
        }
    }

    /// Removes and returns up to `changes_max` changes to send.
    pub(super) fn take_changes(&mut self, changes_max: usize) -> Changes {
        let mut changes = Changes::default();
        let names: Vec<String> = self.changed.iter().take(changes_max).cloned().collect();
        for name in names {
            self.changed.remove(&name);
            let Some(entry) = self.by_name.get_mut(&name) else { continue };
            match (entry.is_subscribed, entry.progress) {
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

    /// Marks topics as confirmed by Redis.
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

    /// Returns the topic with this name if the node is subscribed to it.
    pub(super) fn subscribed(&self, name: &str) -> Option<Topic> {
        self.by_name.get(name).filter(|entry| entry.is_subscribed).map(|entry| entry.topic.clone())
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
