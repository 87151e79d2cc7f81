//! What a shard makes of messages from its clients and of the cluster's answers.

use std::rc::Rc;
use std::time::Instant;

use bytes::Bytes;
use shared::cluster::bus::Message;
use shared::cluster::envelope::{Body, Envelope, Topic, unix_us};
use shared::cluster::webhook::Occurrence;
use shared::excerpt::{NAME_MAX, logged};
use shared::protocol::{ChannelName, ClientFrame, CloseCode, ServerFrame, UserId};

use super::Shard;
use super::tasks::Entry;
use super::tracked::Chore;
use crate::connection::Connection;
use crate::inbox::{Broadcast, ConnectionKey, ShardMessage};
use crate::reject::{ClientEventError, Farewell, Refusal};
use crate::session::Action;
use crate::session::subscriptions::Ticket;

impl Shard {
    /// Takes one text message from a client.
    pub(crate) fn on_message(self: &Rc<Self>, connection: &Rc<Connection>, text: &str) {
        let frame = match ClientFrame::parse(text) {
            Ok(frame) => frame,
            Err(error) => {
                self.node.metrics.protocol_error(error.cause_label());
                return self.refuse(connection, &Refusal::Message(error));
            }
        };
        self.node.metrics.messages_received.of(&frame).inc();
        let result = connection.session.borrow_mut().on_frame(frame, Instant::now());
        match result {
            Ok(action) => self.perform(connection, action),
            Err(refusal) => self.refuse(connection, &refusal),
        }
    }

    fn perform(self: &Rc<Self>, connection: &Rc<Connection>, action: Action) {
        match action {
            Action::Nothing => {}
            Action::Send(json) => self.send(connection, &json),
            Action::Subscribe { channel, member, ticket } => self.enter(connection, &channel, member, ticket),
            Action::Resubscribe { channel, ticket } => {
                let topic = Topic::new(&connection.app.id, &channel);
                let key = self.key(connection);
                self.node.relay.reply_again(&topic, self.index, move |frames| ShardMessage::Resubscribed {
                    connection: key,
                    channel,
                    ticket,
                    frames,
                });
            }
            Action::Unsubscribe(subscription) => self.unsubscribe(connection, subscription),
            Action::SignIn { user_channel, user_data, too_long } => {
                self.enter_user(connection, &user_channel, user_data, too_long);
            }
            Action::Publish { channel, name, json, webhook } => {
                self.publish(connection, &channel, &name, json, webhook);
            }
        }
    }

    fn publish(
        self: &Rc<Self>,
        connection: &Rc<Connection>,
        channel: &ChannelName,
        name: &str,
        json: String,
        webhook: Option<Occurrence>,
    ) {
        let message = Message {
            topic: Topic::new(&connection.app.id, channel),
            envelope: Envelope {
                published_at_us: unix_us(),
                position: None,
                body: Body::Event { frame: json.into(), except: Some(connection.socket_id), kept: false },
            },
            keep: None,
            webhook,
        };
        if self.publishes.try_send((message, Chore::begin(self))).is_err() {
            return self.refuse(connection, &Refusal::ClientEvent(ClientEventError::Busy));
        }
        tracing::debug!(
            target: "activity",
            {
                socket.id = %connection.socket_id,
                event.name = %logged(name, NAME_MAX),
                channel.name = %logged(channel.as_str(), NAME_MAX),
            },
            "Client event"
        );
    }

    /// Handles one message of the inbox. Returns a broadcast, which may take several turns.
    pub(super) fn handle_one(self: &Rc<Self>, message: ShardMessage) -> Option<Broadcast> {
        match message {
            ShardMessage::Broadcast(broadcast) => return Some(broadcast),
            ShardMessage::Subscribed { connection, app, topic, ticket, user_id, frames } => {
                let entry = Entry { app, topic, user_id };
                self.subscribed(connection, entry, ticket, frames);
            }
            ShardMessage::Resubscribed { connection, channel, ticket, frames } => {
                let connection = self.connection(connection)?;
                if connection.session.borrow_mut().subscriptions.answered_again(&channel, ticket) {
                    self.send_all(&connection, frames);
                }
            }
            ShardMessage::SignedIn { connection, app, topic, watched, frames } => {
                self.signed_in(connection, Entry { app, topic, user_id: None }, watched, frames);
            }
            ShardMessage::Watched { connection, users } => {
                let connection = self.connection(connection)?;
                self.tell_watcher(&connection, &users, true);
            }
            ShardMessage::UserOnline { topic, online } => {
                let user = topic.channel.user_id().map(UserId::from)?;
                let watchers = self.hub.borrow().watchers(&topic);
                for watcher in watchers {
                    self.tell_watcher(&watcher, &[(user.clone(), online)], false);
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
        let Some(subscription) = session.subscriptions.answered(channel, ticket) else {
            drop(session);
            return self.exit(entry);
        };
        let place = self.hub.borrow_mut().subscribe(&entry.topic, connection.clone(), &self.node.metrics);
        subscription.place = Some(place);
        drop(session);
        tracing::debug!(
            target: "activity",
            { socket.id = %connection.socket_id, channel.name = %logged(channel.as_str(), NAME_MAX) },
            "Subscribed"
        );
        self.send_all(&connection, frames);
    }

    fn signed_in(self: &Rc<Self>, key: ConnectionKey, entry: Entry, watched: Vec<Topic>, frames: Vec<Bytes>) {
        let stands = |connection: &Rc<Connection>| connection.session.borrow_mut().signed_in().is_some();
        let Some(connection) = self.connection(key).filter(stands) else {
            for user in &watched {
                self.node.relay.unwatch(user, self.index);
            }
            return self.exit(entry);
        };
        let topic = entry.topic;
        let mut hub = self.hub.borrow_mut();
        let place = hub.subscribe(&topic, connection.clone(), &self.node.metrics);
        if let Some(signed_in) = connection.session.borrow_mut().signed_in() {
            signed_in.place = Some(place);
            // Ids that name no channel can never sign in; they get no place and are not heard of.
            for user in &mut signed_in.watched {
                let heard = |topic: &&Topic| topic.channel.user_id() == Some(user.user_id.as_str());
                user.place = watched.iter().find(heard).map(|topic| hub.watch(topic, connection.clone()));
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
            self.ask_watched(&connection, topic, watched);
        }
    }

    /// Tells a client which watched users came or went, leaving out what it knows. `at_sign_in`: the users are what the
    /// roster answered, and what was heard since is newer.
    fn tell_watcher(&self, connection: &Rc<Connection>, users: &[(UserId, bool)], at_sign_in: bool) {
        let (mut online, mut offline) = (Vec::new(), Vec::new());
        if let Some(signed_in) = connection.session.borrow_mut().signed_in() {
            for (user, is_online) in users {
                let Some(watched) = signed_in.watched.iter_mut().find(|watched| watched.user_id == *user) else {
                    continue;
                };
                if watched.told == Some(*is_online) || (at_sign_in && watched.told.is_some()) {
                    continue;
                }
                watched.told = Some(*is_online);
                if *is_online { &mut online } else { &mut offline }.push(user.clone());
            }
        }
        if !online.is_empty() || !offline.is_empty() {
            self.send(connection, &ServerFrame::Watchlist { online: &online, offline: &offline }.encode());
        }
    }

    fn send_all(&self, connection: &Rc<Connection>, frames: Vec<Bytes>) {
        for frame in frames {
            self.send_frame(connection, frame);
        }
    }
}
