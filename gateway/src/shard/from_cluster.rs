//! Messages of the inbox: broadcasts, replies of the cluster, and changes of watched users.

use std::rc::Rc;

use bytes::Bytes;
use shared::cluster::envelope::Topic;
use shared::excerpt::{NAME_MAX, logged};
use shared::protocol::{CloseCode, ServerFrame, UserId};

use super::Shard;
use super::tasks::Entry;
use crate::connection::Connection;
use crate::inbox::{Broadcast, ConnectionKey, ShardMessage};
use crate::reject::Farewell;
use crate::session::subscriptions::Ticket;

impl Shard {
    /// Handles one message of the inbox. Returns a broadcast, which may need several turns.
    pub(super) fn handle_one(self: &Rc<Self>, message: ShardMessage) -> Option<Broadcast> {
        match message {
            ShardMessage::Broadcast(broadcast) => return Some(broadcast),
            ShardMessage::Subscribed { connection, app, topic, ticket, user_id, frames } => {
                let entry = Entry { app, topic, user_id };
                self.subscribed(connection, entry, ticket, frames);
            }
            ShardMessage::Resubscribed { connection, channel, ticket, frames } => {
                let connection = self.connection(connection)?;
                if connection.session.borrow_mut().subscriptions.confirm_again(&channel, ticket) {
                    self.send_all(&connection, frames);
                }
            }
            ShardMessage::SignedIn { connection, app, topic, watched, frames } => {
                self.signed_in(connection, Entry { app, topic, user_id: None }, watched, frames);
            }
            ShardMessage::Watched { connection, users } => {
                let connection = self.connection(connection)?;
                self.notify_watcher(&connection, &users, true);
            }
            ShardMessage::UserOnline { topic, online } => {
                let user = topic.channel.user_id().map(UserId::from)?;
                let watchers = self.hub.borrow().watchers(&topic);
                for watcher in watchers {
                    self.notify_watcher(&watcher, &[(user.clone(), online)], false);
                }
            }
            ShardMessage::Terminate { topic } => {
                let connections = self.hub.borrow().subscribers(&topic);
                for connection in connections {
                    let farewell = Farewell::new(CloseCode::Unauthorized, "You got disconnected by the app.");
                    self.close(&connection, &farewell);
                }
            }
            ShardMessage::Drain(plan) => self.drain(plan),
        }
        None
    }

    fn subscribed(self: &Rc<Self>, key: ConnectionKey, entry: Entry, ticket: Ticket, frames: Vec<Bytes>) {
        let channel = &entry.topic.channel;
        let Some(connection) = self.connection(key) else { return self.exit(entry) };
        let mut session = connection.session.borrow_mut();
        let Some(subscription) = session.subscriptions.confirm(channel, ticket) else {
            drop(session);
            return self.exit(entry);
        };
        let slot = self.hub.borrow_mut().subscribe(&entry.topic, connection.clone(), &self.node.metrics);
        subscription.slot = Some(slot);
        drop(session);
        tracing::debug!(
            target: "activity",
            { socket.id = %connection.socket_id, channel.name = %logged(channel.as_str(), NAME_MAX) },
            "Subscribed"
        );
        self.send_all(&connection, frames);
    }

    fn signed_in(self: &Rc<Self>, key: ConnectionKey, entry: Entry, watched: Vec<Topic>, frames: Vec<Bytes>) {
        let is_pending = |connection: &Rc<Connection>| connection.session.borrow_mut().signed_in().is_some();
        let Some(connection) = self.connection(key).filter(is_pending) else {
            for user in &watched {
                self.node.relay.unwatch(user, self.index);
            }
            return self.exit(entry);
        };
        let topic = entry.topic;
        let mut hub = self.hub.borrow_mut();
        let slot = hub.subscribe(&topic, connection.clone(), &self.node.metrics);
        if let Some(signed_in) = connection.session.borrow_mut().signed_in() {
            signed_in.slot = Some(slot);
            // A user whose id cannot name a channel can never sign in, and needs no slot.
            for user in &mut signed_in.watched {
                let is_own = |topic: &&Topic| topic.channel.user_id() == Some(user.user_id.as_str());
                user.slot = watched.iter().find(is_own).map(|topic| hub.watch(topic, connection.clone()));
            }
        }
        drop(hub);
        tracing::debug!(
            target: "activity",
            { socket.id = %connection.socket_id, channel.name = %logged(topic.channel.as_str(), NAME_MAX) },
            "Signed in"
        );
        self.send_all(&connection, frames);
        if !watched.is_empty() {
            self.query_watched(&connection, topic, watched);
        }
    }

    /// Notifies a client of watched users who went online or offline, unless it knows already. `at_sign_in`: the users
    /// are the result of a query of the roster. Notifications since then are newer.
    fn notify_watcher(&self, connection: &Rc<Connection>, users: &[(UserId, bool)], at_sign_in: bool) {
        let (mut online, mut offline) = (Vec::new(), Vec::new());
        if let Some(signed_in) = connection.session.borrow_mut().signed_in() {
            for (user, is_online) in users {
                let Some(watched) = signed_in.watched.iter_mut().find(|watched| watched.user_id == *user) else {
                    continue;
                };
                if watched.notified == Some(*is_online) || (at_sign_in && watched.notified.is_some()) {
                    continue;
                }
                watched.notified = Some(*is_online);
                if *is_online { &mut online } else { &mut offline }.push(user.clone());
            }
        }
        if !online.is_empty() || !offline.is_empty() {
            self.send(connection, &ServerFrame::Watchlist { online: &online, offline: &offline }.encode());
        }
    }
}
