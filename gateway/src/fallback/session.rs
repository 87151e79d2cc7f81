//! The task of a fallback session: writes the frames of a connection to the requests of its client.

mod deadlines;

use std::collections::VecDeque;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use rand::Rng;
use shared::app::as_usize;
use shared::protocol::CloseCode;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep_until};

use super::ask::{Ask, LineSink};
use super::lines::{self, Lines};
use super::registry::Claim;
use crate::capacity::Admission;
use crate::connection::{Connection, Wire};
use crate::http::opener::OpenedBy;
use crate::limits::{FALLBACK_MESSAGES_PER_TURN, STREAM_PIECE_BYTES};
use crate::reject::Farewell;
use crate::shard::Shard;
use crate::shard::departure::Departure;

/// The UTF-16 units of a response after which the client sends the next request. Source: protocol reference 6.3, rule
/// 5.
const RESPONSE_UNITS_MAX: usize = 262_144;

/// How long a session lives without a request for messages. It is longer than a round trip of a mobile network.
const REQUEST_GRACE: Duration = Duration::from_secs(5);

/// The throughput of the slowest supported link, in bytes per second. The time until a response has arrived follows
/// from it, because buffers on the way accept the response at once.
const LINK_BYTES_PER_S: usize = 8 * 1024;

/// The longest time that a response is assumed to be in transit.
const ARRIVAL_MAX: Duration = Duration::from_secs(60);

/// Opens a session on a shard. `sink`: the response to the request that opened it.
pub(super) fn open(
    shard: &Rc<Shard>,
    client: IpAddr,
    admission: Admission,
    claim: Claim,
    opened_by: OpenedBy,
    sink: LineSink,
) {
    let connection = shard.establish(Wire::Requests(Box::default()), client, admission);
    let session = FallbackSession::new(shard.clone(), connection.clone(), claim, opened_by, sink);
    tokio::task::spawn_local(async move {
        if let Wire::Requests(changed) = &connection.wire {
            session.run(changed).await;
        }
    });
}

/// A fallback session and its state.
struct FallbackSession {
    shard: Rc<Shard>,
    connection: Rc<Connection>,
    claim: Claim,
    /// Counts the session for the TCP connection that opened it.
    opened_by: OpenedBy,
    /// Whether the client has sent no request since the one that opened the session.
    is_unconfirmed: bool,
    /// The current response.
    sink: Option<LineSink>,
    /// Lines that could not be written to a response.
    unsent: Option<Bytes>,
    /// Whether the client has received the line that opens the session.
    is_announced: bool,
    /// The UTF-16 units of the current response.
    units: usize,
    /// The bytes of the current response.
    bytes: usize,
    /// When the current response began.
    began: Instant,
    /// When the current response reached [`RESPONSE_UNITS_MAX`].
    full_since: Option<Instant>,
    /// While there is no request for messages: when the session ends.
    detached_until: Option<Instant>,
    /// When the current response began or was last written to.
    written_at: Instant,
    /// When a heartbeat was sent that the client of a stream has not answered.
    heartbeat_at: Option<Instant>,
    /// When the client is asked to reconnect; `None` for never.
    reconnect_at: Option<Instant>,
    /// Whether the close frame has been written.
    has_written_close: bool,
}

/// An event that a session waits for.
enum Event {
    Ask(Ask),
    /// The outbox or the state of the connection changed.
    Changed,
    /// A stream accepts more lines.
    Writable,
    /// The client of the current response disconnected.
    Detached,
    /// The TCP connection that opened the session failed, and the client has sent no other request.
    Lost,
    /// A deadline passed.
    Deadline,
}

impl FallbackSession {
    fn new(shard: Rc<Shard>, connection: Rc<Connection>, claim: Claim, opened_by: OpenedBy, sink: LineSink) -> Self {
        let now = Instant::now();
        let reconnect = shard.node.server.fallback_reconnect;
        // Spreads the reconnects of clients that connected at the same time.
        let spread = reconnect.mul_f64(rand::rng().random_range(0.0..0.05));
        Self {
            shard,
            connection,
            claim,
            opened_by,
            is_unconfirmed: true,
            sink: Some(sink),
            unsent: None,
            is_announced: false,
            units: 0,
            bytes: 0,
            began: now,
            full_since: None,
            detached_until: None,
            written_at: now,
            heartbeat_at: None,
            reconnect_at: (!reconnect.is_zero()).then(|| now + reconnect + spread),
            has_written_close: false,
        }
    }

    /// Runs until the connection ends. `changed`: notified when the outbox or the state of the connection changed.
    async fn run(mut self, changed: &Notify) {
        let _departure = Departure::of(&self.connection, &self.shard);
        loop {
            self.write_queued();
            if self.connection.is_over() {
                break;
            }
            match self.next_event(changed).await {
                Event::Ask(Ask::Receive(sink)) => self.attach(sink),
                Event::Ask(Ask::Send { messages, bytes }) => self.on_messages(&messages, bytes).await,
                Event::Ask(Ask::End) => self.close(&Farewell::going_away()),
                Event::Changed | Event::Writable => {}
                Event::Detached => self.detach(),
                // The client may not know that the session is open.
                Event::Lost => self.connection.abandon(),
                Event::Deadline => self.on_deadline(),
            }
        }
        self.keep_last_lines();
    }

    async fn next_event(&mut self, changed: &Notify) -> Event {
        let next_deadline = self.next_deadline();
        let deadline = async {
            match next_deadline {
                Some(deadline) => sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        let is_queued = self.connection.outbox.bytes() > 0 || self.unsent.is_some();
        let response = async {
            match &mut self.sink {
                None => std::future::pending().await,
                Some(LineSink::Poll(poll)) => {
                    poll.closed().await;
                    Event::Detached
                }
                // Also if nothing is queued: the heartbeat interval begins when the last piece has left the channel.
                Some(LineSink::Stream(stream))
                    if (is_queued || stream.capacity() == 0) && self.full_since.is_none() =>
                {
                    match stream.reserve().await {
                        Ok(_) => Event::Writable,
                        Err(_) => Event::Detached,
                    }
                }
                Some(LineSink::Stream(stream)) => {
                    stream.closed().await;
                    Event::Detached
                }
            }
        };
        tokio::select! {
            ask = self.claim.asks.recv() => ask.map_or(Event::Changed, Event::Ask),
            () = changed.notified() => Event::Changed,
            event = response => event,
            () = self.opened_by.lost(), if self.is_unconfirmed => Event::Lost,
            () = deadline => Event::Deadline,
        }
    }

    /// Writes queued frames to the current response, as many as it accepts.
    fn write_queued(&mut self) {
        while self.full_since.is_none() {
            let room = match &self.sink {
                None => return,
                Some(LineSink::Poll(_)) => RESPONSE_UNITS_MAX,
                Some(LineSink::Stream(stream)) if stream.capacity() == 0 => return,
                Some(LineSink::Stream(_)) => STREAM_PIECE_BYTES,
            };
            let Some((piece, units)) = self.next_piece(room) else { return };
            self.write(piece, units);
        }
    }

    /// Takes frames from the outbox until their lines have at least `room` bytes. Returns the lines and their UTF-16
    /// units.
    fn next_piece(&mut self, room: usize) -> Option<(Bytes, usize)> {
        if let Some(unsent) = self.unsent.take() {
            let units = String::from_utf8_lossy(&unsent).encode_utf16().count();
            return Some((unsent, units));
        }
        let mut lines = Lines::default();
        if !std::mem::replace(&mut self.is_announced, true) {
            lines.line(lines::OPEN);
        }
        let now_s = self.shard.now_s();
        while lines.bytes() < room && self.units + lines.units() <= RESPONSE_UNITS_MAX {
            let Some(frame) = self.connection.outbox.pop(now_s) else { break };
            if lines.frame(&frame) {
                self.has_written_close = true;
                break;
            }
        }
        (!lines.is_empty()).then(|| lines.finish())
    }

    fn write(&mut self, piece: Bytes, units: usize) {
        let bytes = piece.len();
        let refused = match self.sink.take() {
            None => Some(piece),
            Some(LineSink::Poll(poll)) => poll.send(piece).err(),
            Some(LineSink::Stream(stream)) => match stream.try_send(piece) {
                Ok(()) => {
                    self.units += units;
                    self.bytes += bytes;
                    self.written_at = Instant::now();
                    self.full_since = (self.units > RESPONSE_UNITS_MAX).then(Instant::now);
                    self.sink = Some(LineSink::Stream(stream));
                    None
                }
                Err(mpsc::error::TrySendError::Full(piece) | mpsc::error::TrySendError::Closed(piece)) => Some(piece),
            },
        };
        let is_written = refused.is_none();
        self.unsent = refused;
        if self.has_written_close && is_written {
            self.connection.abandon();
        } else if self.sink.is_none() {
            self.detach();
            if is_written {
                // The client reads the response before it sends the next request.
                self.detached_until = self.detached_until.map(|until| until + arrival(bytes));
            }
        }
    }

    /// Makes a request for messages the current one. The previous one ends.
    fn attach(&mut self, sink: LineSink) {
        self.is_unconfirmed = false;
        self.connection.touch(self.shard.now_s());
        self.sink = Some(sink);
        self.units = 0;
        self.bytes = 0;
        self.full_since = None;
        self.detached_until = None;
        self.heartbeat_at = None;
        self.began = Instant::now();
        self.written_at = self.began;
    }

    fn detach(&mut self) {
        self.sink = None;
        self.full_since = None;
        self.heartbeat_at = None;
        self.detached_until = Some(Instant::now() + REQUEST_GRACE);
    }

    /// Closes the session because a message exceeds the size limit.
    fn refuse_size(&self) {
        self.shard.node.metrics.protocol_error("too_large");
        self.close(&Farewell::new(CloseCode::MessageTooBig, "the message is too large"));
    }

    /// Handles messages from the client. Yields to other tasks of the shard between groups of messages.
    async fn on_messages(&mut self, messages: &[String], bytes: usize) {
        self.is_unconfirmed = false;
        let (shard, connection) = (&self.shard, &self.connection);
        connection.touch(shard.now_s());
        shard.node.metrics.traffic.received_bytes.inc_by(bytes as u64);
        if messages.is_empty() && self.heartbeat_at.is_none() {
            // The client checks whether the connection is alive.
            shard.pong(connection, b"");
        }
        self.heartbeat_at = None;
        let message_bytes_max = as_usize(connection.app.limits.message_bytes);
        for group in messages.chunks(FALLBACK_MESSAGES_PER_TURN) {
            for message in group {
                if !connection.is_open() {
                    break;
                }
                if message.len() > message_bytes_max {
                    self.refuse_size();
                    break;
                }
                shard.on_message(connection, message);
            }
            shard.flush();
            if messages.len() > FALLBACK_MESSAGES_PER_TURN {
                tokio::task::yield_now().await;
            }
        }
        shard.flush();
    }

    fn close(&self, farewell: &Farewell) {
        self.shard.close(&self.connection, farewell);
        self.shard.flush();
    }

    /// Keeps the close message for the next request of the client, if it has not been written. Other queued frames are
    /// dropped.
    fn keep_last_lines(&mut self) {
        if self.unsent.is_none() && self.has_written_close || self.connection.ended_with().is_none() {
            return;
        }
        let mut text = String::new();
        if let Some(unsent) = self.unsent.take().filter(|_| self.has_written_close) {
            let unsent = String::from_utf8_lossy(&unsent).into_owned();
            let begin = unsent.trim_end().rmatch_indices('\n').nth(1).map_or(0, |(at, _)| at + 1);
            text.push_str(&unsent[begin..]);
        }
        let mut last: VecDeque<Bytes> = VecDeque::new();
        while let Some(frame) = self.connection.outbox.pop(self.shard.now_s()) {
            // The last two frames are the announcement and the close frame.
            if last.len() == 2 {
                last.pop_front();
            }
            last.push_back(frame);
        }
        let mut lines = Lines::default();
        for frame in &last {
            lines.frame(frame);
        }
        text.push_str(&String::from_utf8_lossy(&lines.finish().0));
        self.claim.keep_last_lines(text.into());
    }
}

/// Returns how long a response of this size may be in transit.
fn arrival(bytes: usize) -> Duration {
    ARRIVAL_MAX.min(Duration::from_secs((bytes / LINK_BYTES_PER_S) as u64))
}
