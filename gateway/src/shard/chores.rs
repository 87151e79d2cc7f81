//! What a shard does on behalf of a connection that takes the cluster's answer.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use shared::app::App;
use shared::bus::Message;
use shared::envelope::Topic;
use shared::protocol::{ChannelName, Member, UserId};
use tokio::sync::mpsc;

use super::inbox::{ConnectionKey, ShardMessage};
use super::{Shard, user_topic};
use crate::connection::Connection;
use crate::limits::PUBLISH_BATCH;
use crate::node::Node;
use crate::reject::{Refusal, SignInError, SubscribeError};
use crate::relay::membership::EnterError;
use crate::session::subscriptions::Ticket;
use crate::websocket::writer;

/// One socket's place in a channel, as the cluster counts it.
pub(super) struct Entry {
    pub(super) app: Arc<App>,
    pub(super) topic: Topic,
    /// As whom, in presence channels.
    pub(super) user_id: Option<UserId>,
}

/// Work in flight that must not be cut off when the node leaves; it ends when dropped, however that comes about.
pub(crate) struct Chore {
    shard: Rc<Shard>,
}

impl Chore {
    pub(crate) fn begin(shard: &Rc<Shard>) -> Self {
        shard.chores.set(shard.chores.get() + 1);
        Self { shard: shard.clone() }
    }
}

impl Drop for Chore {
    fn drop(&mut self) {
        self.shard.chores.set(self.shard.chores.get() - 1);
        self.shard.settle();
    }
}

impl Shard {
    /// Runs work that must be done before the node may end.
    pub(crate) fn chore(self: &Rc<Self>, work: impl Future<Output = ()> + 'static) {
        let chore = Chore::begin(self);
        tokio::task::spawn_local(async move {
            let _chore = chore;
            work.await;
        });
    }

    /// Enters a channel; the answer comes through the inbox.
    pub(super) fn enter(
        self: &Rc<Self>,
        connection: &Connection,
        channel: ChannelName,
        member: Option<Member>,
        ticket: Ticket,
    ) {
        let key = self.key(connection);
        let app = connection.app.clone();
        let topic = Topic::new(&app.id, &channel);
        let user_id = member.as_ref().map(|member| member.user_id.clone());
        let entry = Entry { app: app.clone(), topic: topic.clone(), user_id };
        let shard = self.clone();
        self.chore(async move {
            let gone = shard.until_gone(key);
            let entered = shard.node.relay.enter(&topic, &app, shard.index, member.as_ref(), gone, move |frames| {
                ShardMessage::Subscribed {
                    connection: key,
                    app: entry.app,
                    topic: entry.topic,
                    ticket,
                    user_id: entry.user_id,
                    frames,
                }
            });
            if let Err(error) = entered.await {
                shard.enter_failed(key, &channel, ticket, error);
            }
        });
    }

    /// Resolves soon after the connection is gone.
    async fn until_gone(&self, key: ConnectionKey) {
        const LOOK: Duration = Duration::from_secs(1);
        while self.connection(key).is_some() {
            tokio::time::sleep(LOOK).await;
        }
    }

    fn enter_failed(self: &Rc<Self>, key: ConnectionKey, channel: &ChannelName, ticket: Ticket, error: EnterError) {
        let Some(connection) = self.connection(key) else { return };
        if connection.session.borrow_mut().subscriptions.refused(channel, ticket).is_none() {
            return;
        }
        let reason = match error {
            EnterError::Full => SubscribeError::PresenceFull { max: connection.app.limits.presence_members },
            EnterError::Unavailable | EnterError::Damaged => SubscribeError::Unavailable,
        };
        self.refuse(&connection, &Refusal::Subscription { channel: channel.to_string(), reason });
        self.flush();
    }

    /// Leaves a channel on behalf of a connection that the hub does not have in it any more, or never had.
    pub(super) fn exit(self: &Rc<Self>, entry: Entry) {
        let shard = self.clone();
        self.chore(async move {
            shard.node.relay.exit(&entry.topic, &entry.app, shard.index, entry.user_id.as_ref()).await;
        });
    }

    /// Enters the user's channel and begins to hear of the watched users; the answer comes through the inbox.
    pub(super) fn enter_user(
        self: &Rc<Self>,
        connection: &Connection,
        channel: &ChannelName,
        user_data: String,
        too_long: Option<Refusal>,
    ) {
        let key = self.key(connection);
        let app = connection.app.clone();
        let topic = Topic::new(&app.id, channel);
        let watchlist: Vec<Topic> = connection
            .session
            .borrow_mut()
            .signed_in()
            .map(|signed_in| {
                let watched = signed_in.watched.iter();
                watched.filter_map(|watched| user_topic(connection, watched.user_id.as_str())).collect()
            })
            .unwrap_or_default();
        let shard = self.clone();
        self.chore(async move {
            let relay = &shard.node.relay;
            let mut watched = Vec::new();
            let mut result = Ok(());
            for user in watchlist {
                result = relay.watch(&user, shard.index).await;
                if result.is_err() {
                    break;
                }
                watched.push(user);
            }
            if result.is_ok() {
                let mut frames = vec![signed_in_frame(&user_data)];
                if let Some(refusal) = too_long {
                    frames.extend(refusal.messages().iter().map(|json| writer::text(json.as_bytes())));
                }
                let (entry, watched_of_answer) =
                    (Entry { app: app.clone(), topic: topic.clone(), user_id: None }, watched.clone());
                result = relay
                    .enter(&topic, &app, shard.index, None, shard.until_gone(key), move |_| ShardMessage::SignedIn {
                        connection: key,
                        app: entry.app,
                        topic: entry.topic,
                        watched: watched_of_answer,
                        frames,
                    })
                    .await;
            }
            if result.is_err() {
                for user in &watched {
                    relay.unwatch(user, shard.index);
                }
                shard.enter_user_failed(key);
            }
        });
    }

    fn enter_user_failed(self: &Rc<Self>, key: ConnectionKey) {
        let Some(connection) = self.connection(key) else { return };
        if connection.session.borrow_mut().sign_out().is_some() {
            self.refuse(&connection, &Refusal::SignIn(SignInError::Unavailable));
            self.flush();
        }
    }

    /// Asks who of the watched users is online; the answer comes through the inbox.
    pub(super) fn ask_watched(self: &Rc<Self>, connection: ConnectionKey, watched: Vec<Topic>) {
        let shard = self.clone();
        self.chore(async move {
            let relay = &shard.node.relay;
            match relay.roster().occupancy(&watched).await {
                Ok(occupancies) => {
                    let users = watched.iter().zip(occupancies).filter_map(|(topic, occupancy)| {
                        let user = UserId::from(topic.channel.user_id()?);
                        Some((user, occupancy.subscriptions > 0))
                    });
                    relay.tell_shard(shard.index, ShardMessage::Watched { connection, users: users.collect() });
                }
                // The client hears of changes all the same; only the state at the sign-in stays untold.
                Err(error) => tracing::warn!(%error, "cannot tell who of a watchlist is online"),
            }
        });
    }
}

/// Publishes the client events of a shard, in the order in which they came.
pub(super) async fn publish_client_events(node: Arc<Node>, mut queue: mpsc::Receiver<(Message, Chore)>) {
    let mut batch = Vec::with_capacity(PUBLISH_BATCH);
    while queue.recv_many(&mut batch, PUBLISH_BATCH).await > 0 {
        let count = batch.len() as u64;
        let (messages, _chores): (Vec<Message>, Vec<Chore>) = batch.drain(..).unzip();
        if let Err(error) = node.relay.bus().publish(messages).await {
            node.metrics.client_events_dropped.inc_by(count);
            tracing::warn!(%error, count, "client events dropped");
        }
    }
}

fn signed_in_frame(user_data: &str) -> bytes::Bytes {
    writer::text(shared::protocol::ServerFrame::SignedIn { user_data }.encode().as_bytes())
}
