//! One connection: what its shard needs to write to it, and for a WebSocket the task that reads it.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::ops::ControlFlow;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use shared::app::{App, as_usize};
use shared::protocol::{CloseCode, SocketId};
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::sync::Notify;

use crate::capacity::Admission;
use crate::carrier::Carrier;
use crate::limits::{CLOSING_BYTES_MAX, READS_PER_TURN};
use crate::outbox::{Flushed, Outbox};
use crate::reject::Farewell;
use crate::session::Session;
use crate::shard::Shard;
use crate::shard::partials::PartialCharge;
use crate::websocket::{Incoming, Reader};

/// One client. Lives on one shard for life.
pub(crate) struct Connection {
    pub(crate) socket_id: SocketId,
    pub(crate) app: Arc<App>,
    pub(crate) wire: Wire,
    pub(crate) outbox: Outbox,
    pub(crate) session: RefCell<Session>,
    /// The connection's place among all of its app and of the node.
    admission: Admission,
    /// The slot in the shard's list.
    pub(crate) slot: Cell<usize>,
    /// The shard's clock when the connection began.
    pub(crate) since_s: u32,
    /// The shard's clock when the client was last heard.
    pub(crate) heard_s: Cell<u32>,
    /// The shard's clock when the client was pinged, while nothing has been heard since.
    pub(crate) pinged_s: Cell<Option<u32>>,
    stage: Cell<Stage>,
    /// What the connection ended with, for the metrics; `None` when the peer just went away.
    ended_with: Cell<Option<CloseCode>>,
    /// Whether the sending side is to be shut down once everything is written.
    says_no_more: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

/// What carries a connection's frames.
pub(crate) enum Wire {
    /// Frames are written to the socket of a WebSocket.
    Socket(TcpStream),
    /// Frames wait in the outbox for requests of pusher-js' HTTP transports, whose task is told of them.
    Requests(Box<Notify>),
}

/// How far a connection's life has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Messages go both ways.
    Open,
    /// The close frame is under way; ends when the peer answers, or at this time of the shard's clock.
    ///
    /// `bytes`: read from the peer since.
    Closing { until_s: u32, bytes: usize },
    /// The task must end.
    Over,
}

/// What a turn of a connection's task ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// There may be more to read at once.
    Again,
    /// The task must end.
    Over,
}

impl Connection {
    pub(crate) fn new(wire: Wire, socket_id: SocketId, admission: Admission, now_s: u32) -> Self {
        let app = admission.app.clone();
        Self {
            socket_id,
            session: RefCell::new(Session::new(socket_id, app.clone())),
            app,
            admission,
            wire,
            outbox: Outbox::default(),
            slot: Cell::new(usize::MAX),
            since_s: now_s,
            heard_s: Cell::new(now_s),
            pinged_s: Cell::new(None),
            stage: Cell::new(Stage::Open),
            ended_with: Cell::new(None),
            says_no_more: Cell::new(false),
            waker: RefCell::new(None),
        }
    }

    /// Whether messages still go to the client.
    pub(crate) fn is_open(&self) -> bool {
        self.stage.get() == Stage::Open
    }

    /// What the connection ended with.
    pub(crate) fn ended_with(&self) -> Option<CloseCode> {
        self.ended_with.get()
    }

    /// Ends the connection without another word: the peer is gone.
    pub(crate) fn abandon(&self) {
        self.stage.set(Stage::Over);
        self.wake();
    }

    /// From here on only the close frame, which the caller sends, and its answer matter.
    ///
    /// `until_s`: when the peer has had its time to answer, by the shard's clock.
    pub(crate) fn begin_closing(&self, code: CloseCode, until_s: u32) {
        self.stage.set(Stage::Closing { until_s, bytes: 0 });
        self.ended_with.set(Some(code));
        self.admission.release_quota();
    }

    /// Ends the sending side as soon as the close frame is written.
    pub(crate) fn shut_down_after_close(&self) {
        self.says_no_more.set(true);
        self.wake();
    }

    /// Whether the peer had its time to answer the close frame.
    pub(crate) fn is_past_grace(&self, now_s: u32) -> bool {
        matches!(self.stage.get(), Stage::Closing { until_s, .. } if now_s >= until_s)
    }

    /// Makes the task look at its socket and its stage.
    pub(crate) fn wake(&self) {
        if let Wire::Requests(news) = &self.wire {
            return news.notify_one();
        }
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    /// Whether the task must end.
    pub(crate) fn is_over(&self) -> bool {
        self.stage.get() == Stage::Over
    }

    /// Something came from the client.
    pub(crate) fn hear(&self, now_s: u32) {
        self.heard_s.set(now_s);
        self.pinged_s.set(None);
    }

    /// Reads a WebSocket until it is over. `carrier`: what it is carried by; `early`: bytes that came with the handshake.
    pub(crate) async fn run(self: Rc<Self>, shard: Rc<Shard>, carrier: Carrier, mut early: Vec<u8>) {
        // Everything that is named here is memory of each socket.
        let end = Departure { connection: self, shard };
        let Departure { connection, shard } = &end;
        let Wire::Socket(stream) = &connection.wire else { return };
        let mut reader = Reader::new();
        if !early.is_empty() {
            connection.take(shard, &mut reader, &mut early);
        }
        drop(early);
        while poll_fn(|context| connection.poll(stream, shard, &mut reader, context)).await == Turn::Again {
            // Only after the shard's other tasks, its inbox and new readiness have had their turn.
            tokio::task::yield_now().await;
        }
        // One that was told to go has been counted by its reason.
        if carrier.has_stalled() && connection.ended_with().is_none() {
            shard.note_slow(connection, "it takes nothing, and was cut off");
        }
    }

    fn poll(
        self: &Rc<Self>,
        stream: &TcpStream,
        shard: &Rc<Shard>,
        reader: &mut Reader<PartialCharge>,
        context: &mut Context<'_>,
    ) -> Poll<Turn> {
        if !self.waker.borrow().as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
            *self.waker.borrow_mut() = Some(context.waker().clone());
        }
        if !self.is_open()
            && reader.unfinished().is_some_and(|(_, charge)| charge.as_ref().is_some_and(PartialCharge::is_given_up))
        {
            reader.forget();
        }
        let read = self.poll_read(stream, shard, reader, context);
        self.poll_write(stream, shard, context);
        if self.stage.get() == Stage::Over { Poll::Ready(Turn::Over) } else { read }
    }

    /// Pending: the task is woken when there is more to read.
    fn poll_read(
        self: &Rc<Self>,
        stream: &TcpStream,
        shard: &Rc<Shard>,
        reader: &mut Reader<PartialCharge>,
        context: &mut Context<'_>,
    ) -> Poll<Turn> {
        for _ in 0..READS_PER_TURN {
            if self.stage.get() == Stage::Over {
                return Poll::Ready(Turn::Over);
            }
            if self.is_open() && self.outbox.bytes() > 0 {
                // Whoever does not take answers is not asked for more questions: else two bytes of pong, kept apart
                // from the next two, would cost the node forty times what the outbox counts.
                self.poll_write(stream, shard, context);
                if self.outbox.bytes() > 0 {
                    return Poll::Pending;
                }
            }
            match stream.poll_read_ready(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(_)) => return self.over(),
                Poll::Ready(Ok(())) => {}
            }
            let mut buffer = shard.borrow_read_buffer();
            match stream.try_read(&mut buffer) {
                Ok(0) => return self.over(),
                Ok(count) => self.take(shard, reader, &mut buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return self.over(),
            }
        }
        Poll::Ready(Turn::Again)
    }

    fn over(&self) -> Poll<Turn> {
        self.stage.set(Stage::Over);
        Poll::Ready(Turn::Over)
    }

    fn poll_write(&self, stream: &TcpStream, shard: &Shard, context: &mut Context<'_>) {
        while self.stage.get() != Stage::Over {
            match self.outbox.flush(stream, shard.now_s()) {
                Flushed::All => return self.shut_down_if_asked(stream),
                Flushed::Broken => self.stage.set(Stage::Over),
                Flushed::Some => match stream.poll_write_ready(context) {
                    Poll::Pending => return,
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(_)) => self.stage.set(Stage::Over),
                },
            }
        }
    }

    /// Takes bytes from the client.
    fn take(self: &Rc<Self>, shard: &Rc<Shard>, reader: &mut Reader<PartialCharge>, bytes: &mut [u8]) {
        self.hear(shard.now_s());
        if let Stage::Closing { until_s, bytes: before } = self.stage.get() {
            let bytes = before + bytes.len();
            self.stage.set(if bytes > CLOSING_BYTES_MAX { Stage::Over } else { Stage::Closing { until_s, bytes } });
        }
        shard.node.metrics.received_bytes.inc_by(bytes.len() as u64);
        let message_bytes_max = as_usize(self.app.limits.message_bytes);
        let result = reader.read(bytes, message_bytes_max, |incoming| {
            match (self.stage.get(), incoming) {
                (Stage::Over, _) => return ControlFlow::Break(()),
                (Stage::Closing { .. }, Incoming::Close) => self.stage.set(Stage::Over),
                // A client that is told to go is not listened to.
                (Stage::Closing { .. }, _) => {}
                (Stage::Open, Incoming::Text(text)) => shard.on_message(self, text),
                (Stage::Open, Incoming::Ping(payload)) => shard.pong(self, payload),
                (Stage::Open, Incoming::Pong) => {}
                (Stage::Open, Incoming::Close) => {
                    shard.close(self, &Farewell::new(CloseCode::Normal, ""));
                    self.says_no_more.set(true);
                }
            }
            ControlFlow::Continue(())
        });
        if let Err(error) = result
            && self.is_open()
        {
            shard.node.metrics.protocol_error(error.cause_label());
            shard.close(self, &Farewell::new(error.close_code(), error.to_string()));
            // What follows a broken frame cannot be read, an answer to the close frame least of all.
            self.says_no_more.set(true);
        }
        if let Some((bytes, charge)) = reader.unfinished() {
            shard.partials.charge(charge, shard.key(self), bytes, shard.now_s());
            shard.give_up_excess_partials();
        }
        shard.flush();
    }

    /// The close frame was the last word: the peer hears the end of the stream and has the grace time to end its own.
    /// Closing at once could turn into a reset, which overtakes the close frame.
    fn shut_down_if_asked(&self, stream: &TcpStream) {
        if self.says_no_more.take() {
            // A peer that is gone already needs no goodbye.
            let _ = SockRef::from(stream).shutdown(std::net::Shutdown::Write);
        }
    }
}

/// Takes a connection out of everything it is in, also when its task panics.
pub(crate) struct Departure {
    connection: Rc<Connection>,
    shard: Rc<Shard>,
}

impl Departure {
    pub(crate) fn of(connection: &Rc<Connection>, shard: &Rc<Shard>) -> Self {
        Self { connection: connection.clone(), shard: shard.clone() }
    }
}

impl Drop for Departure {
    fn drop(&mut self) {
        self.shard.depart(&self.connection);
    }
}
