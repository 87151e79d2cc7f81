//! The task that reads a WebSocket's TCP connection and writes the frames queued for the client.

use std::future::poll_fn;
use std::io;
use std::ops::ControlFlow;
use std::rc::Rc;
use std::task::{Context, Poll};

use shared::app::as_usize;
use shared::protocol::CloseCode;
use socket2::SockRef;
use tokio::net::TcpStream;

use super::Shard;
use super::departure::Departure;
use super::partials::PartialCharge;
use crate::carrier::Carrier;
use crate::connection::{Connection, Stage, Wire};
use crate::limits::READS_PER_TURN;
use crate::outbox::Flushed;
use crate::reject::Farewell;
use crate::websocket::{Incoming, Reader};

/// A socket with its connection and its shard.
#[derive(Clone, Copy)]
struct Socket<'a> {
    stream: &'a TcpStream,
    connection: &'a Rc<Connection>,
    shard: &'a Rc<Shard>,
}

/// The result of one turn of the task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// There may be more to read.
    Again,
    /// The task must end.
    Over,
}

/// Reads a WebSocket until it ends. `early`: bytes that arrived with the handshake.
pub(super) async fn run(connection: Rc<Connection>, shard: Rc<Shard>, carrier: Carrier, mut early: Vec<u8>) {
    // Every variable here uses memory for each socket.
    let departure = Departure { connection, shard };
    let Wire::Socket(stream) = &departure.connection.wire else { return };
    let socket = Socket { stream, connection: &departure.connection, shard: &departure.shard };
    let mut reader = Reader::new();
    if !early.is_empty() {
        socket.on_bytes(&mut reader, &mut early);
    }
    drop(early);
    while poll_fn(|context| socket.poll(&mut reader, context)).await == Turn::Again {
        // The shard's other tasks, its inbox and new readiness have their turn first.
        tokio::task::yield_now().await;
    }
    // A connection with a close code is already counted by its reason.
    if carrier.has_stalled() && socket.connection.ended_with().is_none() {
        socket.shard.note_slow(socket.connection, "no data could be written within the timeout");
    }
}

impl Socket<'_> {
    fn poll(self, reader: &mut Reader<PartialCharge>, context: &mut Context<'_>) -> Poll<Turn> {
        let connection = self.connection;
        connection.set_waker(context.waker());
        if !connection.is_open()
            && reader.unfinished().is_some_and(|(_, charge)| charge.as_ref().is_some_and(PartialCharge::is_evicted))
        {
            reader.forget();
        }
        let read = self.poll_read(reader, context);
        self.poll_write(context);
        if connection.is_over() { Poll::Ready(Turn::Over) } else { read }
    }

    /// Reads what the client has sent. If the result is pending, the task is woken when there is more to read.
    fn poll_read(self, reader: &mut Reader<PartialCharge>, context: &mut Context<'_>) -> Poll<Turn> {
        let connection = self.connection;
        for _ in 0..READS_PER_TURN {
            if connection.is_over() {
                return Poll::Ready(Turn::Over);
            }
            if connection.is_open() && connection.outbox.bytes() > 0 {
                // Back-pressure: reading is paused while output is queued. Otherwise two-byte pongs, each queued as a
                // frame of its own, would cost the node forty times what the client sends.
                self.poll_write(context);
                if connection.outbox.bytes() > 0 {
                    return Poll::Pending;
                }
            }
            match self.stream.poll_read_ready(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(_)) => return self.end(),
                Poll::Ready(Ok(())) => {}
            }
            let mut buffer = self.shard.borrow_read_buffer();
            match self.stream.try_read(&mut buffer) {
                Ok(0) => return self.end(),
                Ok(count) => self.on_bytes(reader, &mut buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return self.end(),
            }
        }
        Poll::Ready(Turn::Again)
    }

    fn end(self) -> Poll<Turn> {
        self.connection.end();
        Poll::Ready(Turn::Over)
    }

    fn poll_write(self, context: &mut Context<'_>) {
        let connection = self.connection;
        while !connection.is_over() {
            match connection.outbox.flush(self.stream, self.shard.now_s()) {
                Flushed::All => return self.shut_down_if_requested(),
                Flushed::Broken => connection.end(),
                Flushed::Some => match self.stream.poll_write_ready(context) {
                    Poll::Pending => return,
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(_)) => connection.end(),
                },
            }
        }
    }

    /// Handles bytes from the client.
    fn on_bytes(self, reader: &mut Reader<PartialCharge>, bytes: &mut [u8]) {
        let Self { connection, shard, .. } = self;
        connection.touch(shard.now_s());
        connection.count_closing_bytes(bytes.len());
        shard.node.metrics.traffic.received_bytes.inc_by(bytes.len() as u64);
        let message_bytes_max = as_usize(connection.app.limits.message_bytes);
        let result = reader.read(bytes, message_bytes_max, |incoming| {
            match (connection.stage(), incoming) {
                (Stage::Over, _) => return ControlFlow::Break(()),
                (Stage::Closing { .. }, Incoming::Close) => connection.end(),
                // Messages after the server's close frame are ignored.
                (Stage::Closing { .. }, _) => {}
                (Stage::Open, Incoming::Text(text)) => shard.on_message(connection, text),
                (Stage::Open, Incoming::Ping(payload)) => shard.pong(connection, payload),
                (Stage::Open, Incoming::Pong) => {}
                (Stage::Open, Incoming::Close) => {
                    shard.close(connection, &Farewell::new(CloseCode::Normal, ""));
                    connection.set_shutdown();
                }
            }
            ControlFlow::Continue(())
        });
        if let Err(error) = result
            && connection.is_open()
        {
            shard.node.metrics.protocol_error(error.cause_label());
            shard.close(connection, &Farewell::new(error.close_code(), error.to_string()));
            // Nothing after an invalid frame can be read, including the client's close frame.
            connection.set_shutdown();
        }
        if let Some((bytes, charge)) = reader.unfinished() {
            shard.partials.charge(charge, shard.key(connection), bytes, shard.now_s());
            shard.close_excess_partials();
        }
        shard.flush();
    }

    /// Shuts down the sending side after the close frame. The client then has the grace time to close the connection.
    /// Closing it at once could send a reset, which can overtake the close frame.
    fn shut_down_if_requested(self) {
        if self.connection.take_shutdown() {
            // The client may have closed the connection already.
            let _ = SockRef::from(self.stream).shutdown(std::net::Shutdown::Write);
        }
    }
}
