//! The end of connections and of their subscriptions.

use std::rc::Rc;

use shared::cluster::envelope::Topic;
use shared::excerpt::{NAME_MAX, logged};
use shared::protocol::CloseCode;

use super::tasks::Entry;
use super::{Shard, user_topic};
use crate::connection::Connection;
use crate::session::subscriptions::Subscription;

/// Removes a connection from its shard when it is dropped, even if the connection's task panics.
pub(crate) struct Departure {
    pub(super) connection: Rc<Connection>,
    pub(super) shard: Rc<Shard>,
}

impl Departure {
    pub(crate) fn of(connection: &Rc<Connection>, shard: &Rc<Shard>) -> Self {
        Self { connection: connection.clone(), shard: shard.clone() }
    }
}

impl Drop for Departure {
    fn drop(&mut self) {
        self.shard.remove(&self.connection);
    }
}

impl Shard {
    /// Removes a connection whose task ends.
    fn remove(self: &Rc<Self>, connection: &Rc<Connection>) {
        self.unsubscribe_all(connection);
        let slot = connection.slot.get();
        self.connections.borrow_mut().try_remove(slot);
        self.tasks.borrow_mut().connection_ended();
        let code = connection.ended_with();
        self.node.metrics.closed(code);
        tracing::debug!(
            target: "activity",
            { socket.id = %connection.socket_id, code = code.map_or(1006, CloseCode::code) },
            "Connection closed"
        );
        self.check_drained();
    }

    /// Ends all subscriptions and the sign-in of a connection.
    pub(super) fn unsubscribe_all(self: &Rc<Self>, connection: &Rc<Connection>) {
        let subscriptions = connection.session.borrow_mut().subscriptions.take_all();
        for subscription in subscriptions {
            self.unsubscribe(connection, subscription);
        }
        self.sign_out(connection);
    }

    /// Ends a subscription that its session no longer has: in the hub at once, and in the cluster by a task. A pending
    /// subscription ends when its reply arrives.
    pub(super) fn unsubscribe(self: &Rc<Self>, connection: &Rc<Connection>, subscription: Subscription) {
        let Some(slot) = subscription.slot else { return };
        let topic = Topic::new(&connection.app.id, &subscription.channel);
        self.hub.borrow_mut().unsubscribe(&topic, slot, &self.node.metrics);
        tracing::debug!(
            target: "activity",
            { socket.id = %connection.socket_id, channel.name = %logged(topic.channel.as_str(), NAME_MAX) },
            "Unsubscribed"
        );
        self.exit(Entry { app: connection.app.clone(), topic, user_id: subscription.user_id });
    }

    fn sign_out(self: &Rc<Self>, connection: &Rc<Connection>) {
        let Some(signed_in) = connection.session.borrow_mut().sign_out() else { return };
        let Some(slot) = signed_in.slot else { return };
        for watched in &signed_in.watched {
            let (Some(slot), Some(topic)) = (watched.slot, user_topic(connection, watched.user_id.as_str())) else {
                continue;
            };
            self.hub.borrow_mut().unwatch(&topic, slot);
            self.node.relay.unwatch(&topic, self.index);
        }
        if let Some(topic) = user_topic(connection, signed_in.user.id.as_str()) {
            self.hub.borrow_mut().unsubscribe(&topic, slot, &self.node.metrics);
            self.exit(Entry { app: connection.app.clone(), topic, user_id: None });
        }
    }
}
