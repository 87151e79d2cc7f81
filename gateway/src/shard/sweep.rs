//! The timeouts of connections. One sweep per second checks all of them, and no connection needs a timer.

use std::rc::Rc;
use std::time::Duration;

use shared::protocol::CloseCode;

use super::Shard;
use crate::connection::{Connection, Wire};
use crate::limits::PARTIAL_TIMEOUT_S;
use crate::reject::Farewell;
use crate::websocket::writer;

/// How long a connection may exist without a sign-in or a signed channel, in apps that require authorized connections.
const AUTHORIZATION_S: u32 = 30;

impl Shard {
    /// Pings silent clients, closes unresponsive and slow ones, and drops those that do not answer a close frame.
    pub(super) async fn sweep(self: &Rc<Self>) {
        let now_s = self.now_s();
        self.node.heartbeat(self.index);
        let all: Vec<Rc<Connection>> =
            self.connections.borrow().iter().map(|(_, connection)| connection.clone()).collect();
        let mut outbox_bytes = 0;
        for connection in &all {
            outbox_bytes += i64::try_from(connection.outbox.bytes()).unwrap_or(i64::MAX);
            if connection.is_open() {
                self.sweep_open(connection, now_s);
            } else if connection.is_past_grace(now_s) {
                connection.abandon();
            }
            if self.burst.borrow().is_large() {
                self.end_turn(&mut Vec::new()).await;
            }
        }
        self.drop_stale_tasks();
        while let Some(key) = self.partials.pop_overdue(now_s) {
            let text = format!("A message was not complete within {PARTIAL_TIMEOUT_S} s");
            self.close_mid_message(key, CloseCode::PolicyViolation, &text);
        }
        self.flush();
        self.node.metrics.traffic.outbox_bytes.add(outbox_bytes - self.outbox_bytes.replace(outbox_bytes));
    }

    fn sweep_open(self: &Rc<Self>, connection: &Rc<Connection>, now_s: u32) {
        let server = &self.node.server;
        if let Wire::Socket(_) = connection.wire
            && let Some(since_s) = connection.outbox.stalled_since_s()
            && now_s - since_s >= seconds(server.outbox_timeout)
        {
            return self.close_slow(connection, "no data could be written within the timeout");
        }
        if connection.outbox.bytes() > 0 {
            // Reading is paused while output is queued, and the client may have sent messages.
            connection.touch(now_s);
        }
        if connection.app.authorized_connections
            && now_s - connection.since_s >= AUTHORIZATION_S
            && !connection.session.borrow().is_authorized()
        {
            let text = "Connection not authorized within timeout.";
            return self.close(connection, &Farewell::new(CloseCode::Unauthorized, text));
        }
        if let Wire::Requests(_) = connection.wire {
            // Fallback sessions check liveness in their own task.
            return;
        }
        let margin_s = ping_margin_s(server.pong_timeout);
        match connection.pinged_s.get() {
            Some(pinged_s) if now_s - pinged_s >= seconds(server.pong_timeout) - margin_s => {
                self.node.metrics.traffic.ping_timeouts.inc();
                let text = "Pong reply not received in time";
                self.close(connection, &Farewell::new(CloseCode::PongTimeout, text));
            }
            None if now_s - connection.received_s.get() >= seconds(server.activity_timeout) + margin_s => {
                connection.pinged_s.set(Some(now_s));
                self.send_frame(connection, writer::ping());
            }
            _ => {}
        }
    }
}

/// Returns how much later than the client the server pings, in seconds.
///
/// A client pings when it has received nothing for `activity_timeout`. Its ping has a third of `pong_timeout` to
/// arrive. Otherwise the server would ping every idle client in the same second. The wait for the pong is shorter by
/// this time, and a dead connection is closed after `activity_timeout` and `pong_timeout` together.
fn ping_margin_s(pong_timeout: Duration) -> u32 {
    seconds(pong_timeout) / 3
}

fn seconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX)
}
