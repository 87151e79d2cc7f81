//! Messages from clients: parsing, the session's action for each, and the publishing of client events.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use shared::cluster::bus::Message;
use shared::cluster::envelope::{Body, Envelope, Topic, unix_us};
use shared::cluster::webhook::Occurrence;
use shared::excerpt::{NAME_MAX, logged};
use shared::protocol::{ChannelName, ClientFrame};
use tokio::sync::mpsc;

use super::Shard;
use super::tracked::TrackedTask;
use crate::connection::Connection;
use crate::inbox::ShardMessage;
use crate::limits::PUBLISH_BATCH;
use crate::node::Node;
use crate::reject::{ClientEventError, Refusal};
use crate::session::Action;

impl Shard {
    /// Handles one text message from a client.
    pub(crate) fn on_message(self: &Rc<Self>, connection: &Rc<Connection>, text: &str) {
        let frame = match ClientFrame::parse(text) {
            Ok(frame) => frame,
            Err(error) => {
                self.node.metrics.protocol_error(error.cause_label());
                return self.refuse(connection, &Refusal::Message(error));
            }
        };
        self.node.metrics.traffic.messages_received.of(&frame).inc();
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
                body: Body::Event { frame: json.into(), except: Some(connection.socket_id), cached: false },
            },
            cache_for: None,
            webhook,
        };
        if self.publishes.try_send((message, TrackedTask::begin(self))).is_err() {
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
}

/// Publishes the client events of a shard, in the order in which they were received.
pub(super) async fn publish_client_events(node: Arc<Node>, mut queue: mpsc::Receiver<(Message, TrackedTask)>) {
    let mut batch = Vec::with_capacity(PUBLISH_BATCH);
    while queue.recv_many(&mut batch, PUBLISH_BATCH).await > 0 {
        let count = batch.len() as u64;
        let (messages, _tracked): (Vec<Message>, Vec<TrackedTask>) = batch.drain(..).unzip();
        if let Err(error) = node.relay.bus().publish(messages).await {
            node.metrics.traffic.client_events_dropped.inc_by(count);
            tracing::warn!(%error, count, "cannot publish client events; dropping them");
        }
    }
}
