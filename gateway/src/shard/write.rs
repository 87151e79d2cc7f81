//! Sending messages to clients and closing connections.

use std::rc::Rc;

use bytes::Bytes;
use shared::app::as_usize;
use shared::excerpt::{MESSAGE_MAX, logged};
use shared::protocol::CloseCode;

use super::Shard;
use crate::connection::Connection;
use crate::inbox::ConnectionKey;
use crate::outbox::Flushed;
use crate::reject::{Farewell, Refusal};
use crate::websocket::writer;

/// How long a client has to answer a close frame before the TCP connection is dropped.
const CLOSE_GRACE_S: u32 = 5;

/// The same during a drain. A reachable client answers within a round trip, and the others delay the shutdown.
const DRAIN_GRACE_S: u32 = 2;

impl Shard {
    /// Appends a message to the current burst.
    pub(crate) fn send(&self, connection: &Rc<Connection>, json: &str) {
        self.send_frame(connection, writer::text(json.as_bytes()));
    }

    /// Appends a frame to the current burst.
    pub(super) fn send_frame(&self, connection: &Rc<Connection>, frame: Bytes) {
        if !connection.is_open() {
            return;
        }
        let mut burst = self.burst.borrow_mut();
        let frame = burst.frame(frame);
        burst.append(connection, frame);
    }

    /// Appends frames to the current burst.
    pub(super) fn send_all(&self, connection: &Rc<Connection>, frames: Vec<Bytes>) {
        for frame in frames {
            self.send_frame(connection, frame);
        }
    }

    /// Answers a ping.
    pub(crate) fn pong(&self, connection: &Rc<Connection>, payload: &[u8]) {
        self.send_frame(connection, writer::pong(payload));
    }

    /// Reports to the client that its message was refused.
    pub(crate) fn refuse(&self, connection: &Rc<Connection>, refusal: &Refusal) {
        if let Some(reason) = refusal.auth_failure() {
            self.node.metrics.auth_failure(reason);
        }
        if let Some(scope) = refusal.limit() {
            self.node.metrics.rate_limited(scope);
        }
        tracing::debug!(
            target: "activity",
            {
                socket.id = %connection.socket_id,
                reason = %logged(&refusal.chain(), MESSAGE_MAX),
            },
            "Message refused"
        );
        for message in refusal.messages() {
            self.send(connection, &message);
        }
    }

    /// Sends an error with the reason and a close frame, and removes the connection from every channel. The
    /// connection's task ends when the client has answered, or after a grace time.
    pub(crate) fn close(self: &Rc<Self>, connection: &Rc<Connection>, farewell: &Farewell) {
        if !connection.is_open() {
            return;
        }
        if let Some(announcement) = farewell.announcement() {
            self.send(connection, &announcement);
        }
        self.send_frame(connection, writer::close(farewell.code, &farewell.message));
        connection.begin_closing(farewell.code, self.now_s() + self.close_grace_s());
        self.unsubscribe_all(connection);
    }

    /// Writes the current burst. Closes clients whose outbox exceeds its limit.
    pub(crate) fn flush(self: &Rc<Self>) {
        let limit = as_usize(self.node.server.outbox_bytes);
        loop {
            let mut slow = Vec::new();
            let size = self.burst.borrow_mut().flush(self.now_s(), |connection, flushed| match flushed {
                Flushed::All => {}
                Flushed::Broken => connection.abandon(),
                Flushed::Some => {
                    if connection.outbox.exceeds(limit) && connection.is_open() {
                        slow.push(connection.clone());
                    }
                    connection.wake();
                }
            });
            self.node.metrics.traffic.messages_sent.inc_by(size.messages as u64);
            self.node.metrics.traffic.sent_bytes.inc_by(size.bytes as u64);
            if slow.is_empty() {
                return;
            }
            for connection in slow {
                self.close_slow(&connection, "the send queue exceeds server.outbox_bytes");
            }
        }
    }

    /// Closes a client that reads too slowly. Its queued frames are dropped, except the rest of a partly written one.
    pub(super) fn close_slow(self: &Rc<Self>, connection: &Rc<Connection>, reason: &str) {
        self.note_slow(connection, reason);
        connection.outbox.retain_partly_written();
        self.close(connection, &Farewell::new(CloseCode::OverCapacity, "The client reads too slowly"));
    }

    /// Counts and logs a client that is disconnected because it reads too slowly.
    pub(super) fn note_slow(&self, connection: &Connection, reason: &str) {
        self.node.metrics.traffic.slow_consumers.inc();
        tracing::debug!(
            target: "activity",
            { socket.id = %connection.socket_id, reason },
            "Slow client disconnected"
        );
    }

    /// Closes the connections with the oldest incomplete messages until the others fit into the shard's budget.
    pub(super) fn close_excess_partials(self: &Rc<Self>) {
        while let Some(key) = self.partials.pop_excess() {
            self.close_mid_message(key, CloseCode::OverCapacity, "The server has no room for incomplete messages");
        }
    }

    /// Closes a connection in the middle of a message.
    pub(super) fn close_mid_message(self: &Rc<Self>, key: ConnectionKey, code: CloseCode, reason: &str) {
        let Some(connection) = self.connection(key) else { return };
        if connection.is_open() {
            self.node.metrics.protocol_error("incomplete");
        }
        self.close(&connection, &Farewell::new(code, reason));
        // Nothing that follows can be read. The task drops the incomplete message.
        connection.shut_down_after_close();
    }

    /// Returns how long a client has to answer a close frame.
    pub(crate) fn close_grace_s(&self) -> u32 {
        if self.draining.get() { DRAIN_GRACE_S } else { CLOSE_GRACE_S }
    }
}
