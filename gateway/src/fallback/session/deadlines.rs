//! The deadlines of a fallback session: heartbeats, their answers, the next request and the reconnect.

use std::time::Duration;

use bytes::Bytes;
use shared::protocol::CloseCode;
use tokio::time::Instant;

use super::super::ask::LineSink;
use super::super::lines;
use super::{FallbackSession, arrival};
use crate::reject::Farewell;

/// How long to wait for the next request after a full response. A client that takes longer does not enforce the limit.
const NEXT_REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// The same if a close frame waits. It is shorter than the time that the client has to answer the close frame.
const LAST_REQUEST_TIMEOUT: Duration = Duration::from_secs(1);

/// The longest pause between two writes of a response. Many proxies end a response after 30 s without data.
const HEARTBEAT_MAX: Duration = Duration::from_secs(25);

impl FallbackSession {
    /// Returns the earliest deadline.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let server = &self.shard.node.server;
        let heartbeat = self.needs_heartbeat().then(|| self.written_at + self.heartbeat_interval());
        let pong = self.heartbeat_at.filter(|_| self.connection.is_open()).map(|sent| sent + server.pong_timeout);
        let reconnect = self.reconnect_at.filter(|_| self.connection.is_open());
        [heartbeat, pong, self.detached_until, reconnect, self.next_request_by()].into_iter().flatten().min()
    }

    /// Handles the deadlines that have passed.
    pub(super) fn on_deadline(&mut self) {
        let now = Instant::now();
        let server = &self.shard.node.server;
        let is_past = |since: Option<Instant>, limit: Duration| since.is_some_and(|since| since + limit <= now);
        if self.detached_until.is_some_and(|until| until <= now) {
            // `keep_last_lines` keeps a close message that the client has not received.
            return self.connection.abandon();
        }
        if self.next_request_by().is_some_and(|by| by <= now) {
            self.full_since = None;
            self.units = 0;
            self.bytes = 0;
            self.began = now;
            // Queued frames are written first.
            return;
        }
        if !self.connection.is_open() {
            return;
        }
        if is_past(self.heartbeat_at, server.pong_timeout) {
            self.heartbeat_at = None;
            self.shard.node.metrics.traffic.ping_timeouts.inc();
            self.close(&Farewell::new(CloseCode::PongTimeout, "Pong reply not received in time"));
        } else if self.reconnect_at.is_some_and(|reconnect| reconnect <= now) {
            self.close(&Farewell::new(CloseCode::Reconnect, "Reconnect to check whether WebSockets work again"));
        } else if self.needs_heartbeat() && self.written_at + self.heartbeat_interval() <= now {
            if matches!(self.sink, Some(LineSink::Stream(_))) {
                self.heartbeat_at.get_or_insert(now);
            }
            self.written_at = now;
            self.write(Bytes::from_static(lines::HEARTBEAT.as_bytes()), lines::HEARTBEAT.len());
        }
    }

    /// Whether a client waits for messages and therefore needs heartbeats.
    fn needs_heartbeat(&self) -> bool {
        let is_writable = match &self.sink {
            None => false,
            Some(LineSink::Poll(_)) => true,
            Some(LineSink::Stream(stream)) => stream.capacity() > 0,
        };
        is_writable && self.full_since.is_none() && self.connection.is_open()
    }

    /// Returns the heartbeat interval. It is below the activity timeout of the client, so that the client does not
    /// ping.
    fn heartbeat_interval(&self) -> Duration {
        HEARTBEAT_MAX.min(self.shard.node.server.activity_timeout / 3 * 2)
    }

    /// Returns when the wait for the next request after a full response ends. The wait is shorter if a close frame
    /// waits.
    fn next_request_by(&self) -> Option<Instant> {
        let full = self.full_since?;
        if !self.connection.is_open() {
            return Some(full + LAST_REQUEST_TIMEOUT);
        }
        Some(full.max(self.began + arrival(self.bytes)) + NEXT_REQUEST_TIMEOUT)
    }
}
