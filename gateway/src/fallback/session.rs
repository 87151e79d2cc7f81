//! One session of the HTTP transports: a task on the connection's shard that hands frames to whichever request is there
//! to take them.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use rand::Rng;
use shared::app::as_usize;
use shared::protocol::CloseCode;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use super::lines::{self, Lines};
use super::registry::Claim;
use crate::connection::{Connection, Departure};
use crate::http::opener::OpenedBy;
use crate::limits::{FALLBACK_MESSAGES_PER_TURN, STREAM_PIECE_BYTES};
use crate::reject::Farewell;
use crate::shard::Shard;
use crate::shard::drain::going_away;

/// What a client takes of one response before it asks for another, in UTF-16 units. Source: protocol reference 6.3, rule 5.
const RESPONSE_UNITS_MAX: usize = 262_144;

/// Once a response with that much has arrived, and nobody asks for another in this time, the client is none that counts.
const NEXT_RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);

/// The same for a close frame that waits behind it: shorter than the time that its client has.
const LAST_RESPONSE_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a session lives without a request for its messages: longer than a phone's way there and back.
const RESPONSE_GRACE: Duration = Duration::from_secs(5);

/// What the slowest of links takes in a second, for telling when a response has arrived. Buffers on the way take it at once.
const LINK_BYTES_PER_S: usize = 8 * 1024;

/// No response is waited for longer than that to arrive.
const ARRIVAL_MAX: Duration = Duration::from_secs(60);

/// Longest silence of a response: many proxies end those that say nothing for 30 s.
const HEARTBEAT_MAX: Duration = Duration::from_secs(25);

/// A request of the session's client.
pub(crate) enum Ask {
    /// For messages.
    Receive(Response),
    /// With messages; none are a sign of life. `bytes`: what they took on the wire.
    Send { messages: Vec<String>, bytes: usize },
    /// A node that its requests came through leaves.
    End,
}

/// What takes lines to the client.
pub(crate) enum Response {
    /// One answer, and done.
    Poll(oneshot::Sender<Bytes>),
    /// An answer that goes on.
    Stream(mpsc::Sender<Bytes>),
}

/// A session's task and what it knows.
pub(crate) struct FallbackSession {
    shard: Rc<Shard>,
    connection: Rc<Connection>,
    claim: Claim,
    /// Counts the session for the TCP connection that opened it.
    opened_by: OpenedBy,
    /// Whether the client has sent no request since it opened the session.
    is_unconfirmed: bool,
    response: Option<Response>,
    /// Lines that a request did not take after all.
    unsent: Option<Bytes>,
    /// Whether the client has been told that the session is open.
    is_announced: bool,
    /// UTF-16 units of the current response.
    units: usize,
    /// Its bytes.
    bytes: usize,
    /// When it began.
    began: Instant,
    /// Since when it has had as much as its client takes.
    full_since: Option<Instant>,
    /// While nobody asks for messages: until when that may last.
    alone_until: Option<Instant>,
    /// When the current response began, or was written to last.
    spoke: Instant,
    /// Since when a stream's client owes an answer to a heartbeat.
    asked_since: Option<Instant>,
    /// When the client is asked to reconnect; `None` for never.
    reconnect_at: Option<Instant>,
    /// Whether the close frame has been handed over.
    has_said_all: bool,
}

/// What a session waits for.
enum Event {
    Ask(Ask),
    /// Frames wait, or the connection is over.
    News,
    /// A stream has room again.
    Room,
    /// The request that messages went to is gone.
    Gone,
    /// The TCP connection that opened the session broke off, and the client has sent no other request.
    Lost,
    /// Something is due.
    Time,
}

impl FallbackSession {
    pub(crate) fn new(
        shard: Rc<Shard>,
        connection: Rc<Connection>,
        claim: Claim,
        opened_by: OpenedBy,
        response: Response,
    ) -> Self {
        let now = Instant::now();
        let reconnect = shard.node.server.fallback_reconnect;
        // Those who came together need not all return together.
        let spread = reconnect.mul_f64(rand::rng().random_range(0.0..0.05));
        Self {
            shard,
            connection,
            claim,
            opened_by,
            is_unconfirmed: true,
            response: Some(response),
            unsent: None,
            is_announced: false,
            units: 0,
            bytes: 0,
            began: now,
            full_since: None,
            alone_until: None,
            spoke: now,
            asked_since: None,
            reconnect_at: (!reconnect.is_zero()).then(|| now + reconnect + spread),
            has_said_all: false,
        }
    }

    /// Runs until the connection is over. `news`: told whenever that, or the outbox, changed.
    pub(crate) async fn run(mut self, news: &Notify) {
        let _end = Departure::of(&self.connection, &self.shard);
        loop {
            self.hand_over();
            if self.connection.is_over() {
                break;
            }
            match self.next_event(news).await {
                Event::Ask(Ask::Receive(response)) => self.attach(response),
                Event::Ask(Ask::Send { messages, bytes }) => self.take(&messages, bytes).await,
                Event::Ask(Ask::End) => self.end(&going_away()),
                Event::News | Event::Room => {}
                Event::Gone => self.detach(),
                // Its client cannot know that the session is open.
                Event::Lost => self.connection.abandon(),
                Event::Time => self.on_time(),
            }
        }
        self.keep_last_lines();
    }

    async fn next_event(&mut self, news: &Notify) -> Event {
        let due = self.due();
        let time = async {
            match due {
                Some(due) => sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        let waits = self.connection.outbox.bytes() > 0 || self.unsent.is_some();
        let request = async {
            match &mut self.response {
                None => std::future::pending().await,
                Some(Response::Poll(poll)) => {
                    poll.closed().await;
                    Event::Gone
                }
                // Also when nothing waits: heartbeats are due from when the last piece is on its way.
                Some(Response::Stream(stream)) if (waits || stream.capacity() == 0) && self.full_since.is_none() => {
                    match stream.reserve().await {
                        Ok(_) => Event::Room,
                        Err(_) => Event::Gone,
                    }
                }
                Some(Response::Stream(stream)) => {
                    stream.closed().await;
                    Event::Gone
                }
            }
        };
        tokio::select! {
            ask = self.claim.asks.recv() => ask.map_or(Event::News, Event::Ask),
            () = news.notified() => Event::News,
            event = request => event,
            () = self.opened_by.lost(), if self.is_unconfirmed => Event::Lost,
            () = time => Event::Time,
        }
    }

    /// Gives the current request what waits, as far as it takes it.
    fn hand_over(&mut self) {
        while self.full_since.is_none() {
            let room = match &self.response {
                None => return,
                Some(Response::Poll(_)) => RESPONSE_UNITS_MAX,
                Some(Response::Stream(stream)) if stream.capacity() == 0 => return,
                Some(Response::Stream(_)) => STREAM_PIECE_BYTES,
            };
            let Some((piece, units)) = self.next_piece(room) else { return };
            self.give(piece, units);
        }
    }

    /// Takes lines out of the outbox: `room` bytes of them, or one message more.
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
            let Some(frame) = self.connection.outbox.take(now_s) else { break };
            if lines.frame(&frame) {
                self.has_said_all = true;
                break;
            }
        }
        (!lines.is_empty()).then(|| lines.finish())
    }

    fn give(&mut self, piece: Bytes, units: usize) {
        let bytes = piece.len();
        let refused = match self.response.take() {
            None => Some(piece),
            Some(Response::Poll(poll)) => poll.send(piece).err(),
            Some(Response::Stream(stream)) => match stream.try_send(piece) {
                Ok(()) => {
                    self.units += units;
                    self.bytes += bytes;
                    self.spoke = Instant::now();
                    self.full_since = (self.units > RESPONSE_UNITS_MAX).then(Instant::now);
                    self.response = Some(Response::Stream(stream));
                    None
                }
                Err(mpsc::error::TrySendError::Full(piece) | mpsc::error::TrySendError::Closed(piece)) => Some(piece),
            },
        };
        let is_taken = refused.is_none();
        self.unsent = refused;
        if self.has_said_all && is_taken {
            self.connection.abandon();
        } else if self.response.is_none() {
            self.detach();
            if is_taken {
                // The client reads the answer first.
                self.alone_until = self.alone_until.map(|until| until + arrival(bytes));
            }
        }
    }

    /// A request for messages: from here on they go to it, and the one before it ends.
    fn attach(&mut self, response: Response) {
        self.is_unconfirmed = false;
        self.connection.hear(self.shard.now_s());
        self.response = Some(response);
        self.units = 0;
        self.bytes = 0;
        self.full_since = None;
        self.alone_until = None;
        self.asked_since = None;
        self.began = Instant::now();
        self.spoke = self.began;
    }

    fn detach(&mut self) {
        self.response = None;
        self.full_since = None;
        self.asked_since = None;
        self.alone_until = Some(Instant::now() + RESPONSE_GRACE);
    }

    /// A message is larger than messages may be.
    fn refuse_size(&self) {
        self.shard.node.metrics.protocol_error("too_large");
        self.end(&Farewell::new(CloseCode::MessageTooBig, "the message is too large"));
    }

    /// Takes messages from the client. Now and then all others on the shard have their turn.
    async fn take(&mut self, messages: &[String], bytes: usize) {
        self.is_unconfirmed = false;
        let (shard, connection) = (&self.shard, &self.connection);
        connection.hear(shard.now_s());
        shard.node.metrics.received_bytes.inc_by(bytes as u64);
        if messages.is_empty() && self.asked_since.is_none() {
            // It asks whether anyone is there.
            shard.pong(connection, b"");
        }
        self.asked_since = None;
        let message_bytes_max = as_usize(connection.app.limits.message_bytes);
        for some in messages.chunks(FALLBACK_MESSAGES_PER_TURN) {
            for message in some {
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

    /// When something is due next.
    fn due(&self) -> Option<Instant> {
        let server = &self.shard.node.server;
        let heartbeat = self.receives().then(|| self.spoke + self.heartbeat());
        let answer = self.asked_since.filter(|_| self.connection.is_open()).map(|asked| asked + server.pong_timeout);
        let reconnect = self.reconnect_at.filter(|_| self.connection.is_open());
        [heartbeat, answer, self.alone_until, reconnect, self.next_response_by()].into_iter().flatten().min()
    }

    fn on_time(&mut self) {
        let now = Instant::now();
        let server = &self.shard.node.server;
        let is_past = |since: Option<Instant>, limit: Duration| since.is_some_and(|since| since + limit <= now);
        if self.alone_until.is_some_and(|until| until <= now) {
            // What the client left of a close that it did not come for is kept by `keep_last_lines`.
            return self.connection.abandon();
        }
        if self.next_response_by().is_some_and(|by| by <= now) {
            self.full_since = None;
            self.units = 0;
            self.bytes = 0;
            self.began = now;
            // What waits goes first.
            return;
        }
        if !self.connection.is_open() {
            return;
        }
        if is_past(self.asked_since, server.pong_timeout) {
            self.asked_since = None;
            self.shard.node.metrics.ping_timeouts.inc();
            self.end(&Farewell::new(CloseCode::PongTimeout, "Pong reply not received in time"));
        } else if self.reconnect_at.is_some_and(|reconnect| reconnect <= now) {
            self.end(&Farewell::new(CloseCode::Reconnect, "Reconnect to see whether WebSockets work again"));
        } else if self.receives() && self.spoke + self.heartbeat() <= now {
            if matches!(self.response, Some(Response::Stream(_))) {
                self.asked_since.get_or_insert(now);
            }
            self.spoke = now;
            self.give(Bytes::from_static(lines::HEARTBEAT.as_bytes()), lines::HEARTBEAT.len());
        }
    }

    fn end(&self, farewell: &Farewell) {
        self.shard.close(&self.connection, farewell);
        self.shard.flush();
    }

    /// Whether someone is there who must be kept from thinking that nobody is here.
    fn receives(&self) -> bool {
        let has_room = match &self.response {
            None => false,
            Some(Response::Poll(_)) => true,
            Some(Response::Stream(stream)) => stream.capacity() > 0,
        };
        has_room && self.full_since.is_none() && self.connection.is_open()
    }

    /// Below the client's own activity timeout, so that it has no reason to ask.
    fn heartbeat(&self) -> Duration {
        HEARTBEAT_MAX.min(self.shard.node.server.activity_timeout / 3 * 2)
    }

    /// Until when the client of a response that is full may ask for another. A close frame does not wait that long.
    fn next_response_by(&self) -> Option<Instant> {
        let full = self.full_since?;
        if !self.connection.is_open() {
            return Some(full + LAST_RESPONSE_TIMEOUT);
        }
        Some(full.max(self.began + arrival(self.bytes)) + NEXT_RESPONSE_TIMEOUT)
    }

    /// Keeps the end that the client should have heard of, for when it comes after all; nothing of what waited before it.
    fn keep_last_lines(&mut self) {
        if self.unsent.is_none() && self.has_said_all || self.connection.ended_with().is_none() {
            return;
        }
        let mut text = String::new();
        if let Some(unsent) = self.unsent.take().filter(|_| self.has_said_all) {
            let unsent = String::from_utf8_lossy(&unsent).into_owned();
            let begin = unsent.trim_end().rmatch_indices('\n').nth(1).map_or(0, |(at, _)| at + 1);
            text.push_str(&unsent[begin..]);
        }
        let mut last: VecDeque<Bytes> = VecDeque::new();
        while let Some(frame) = self.connection.outbox.take(self.shard.now_s()) {
            // The announcement, and the close frame.
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
        self.claim.bury(text.into());
    }
}

/// How long a response may be on its way.
fn arrival(bytes: usize) -> Duration {
    ARRIVAL_MAX.min(Duration::from_secs((bytes / LINK_BYTES_PER_S) as u64))
}
