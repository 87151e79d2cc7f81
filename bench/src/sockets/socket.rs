//! One WebSocket client, from connecting to the last frame.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context, Result};
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use shared::protocol::SocketId;
use socket2::{Domain, Protocol, Type};

use super::{ConnectOptions, Greeting, Receiver};
use crate::clock;
use crate::frame::{self, Frame};

/// The maximum length of a ping message, which is shorter than any event.
const PING_MESSAGE_MAX: usize = 48;

/// The state of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The TCP handshake is in progress.
    Connecting,
    /// The WebSocket handshake is in progress.
    Upgrading,
    /// The socket waits for `connection_established` with its socket id.
    Greeting,
    /// The socket waits for the confirmation of its subscription.
    Subscribing,
    /// The socket is connected and subscribed.
    Ready,
    /// The server refused or closed the connection.
    Failed,
    /// This side closed the connection.
    Closed,
}

/// A client's connection.
pub(crate) struct Socket {
    stream: TcpStream,
    pub(crate) stage: Stage,
    /// The received part of an incomplete frame.
    partial: Vec<u8>,
    pub(crate) socket_id: Option<SocketId>,
    pub(crate) started_ns: u64,
    /// The handshake request until it is sent, later the reason of a failure.
    text: Option<Box<str>>,
}

/// The shared state of one turn of reading.
pub(crate) struct Turn<'a, R> {
    pub(crate) buffer: &'a mut [u8],
    pub(crate) greeting: Greeting<'a>,
    pub(crate) receiver: &'a mut R,
}

impl Stage {
    pub(crate) fn is_settled(self) -> bool {
        matches!(self, Self::Ready | Self::Failed | Self::Closed)
    }

    fn is_over(self) -> bool {
        matches!(self, Self::Failed | Self::Closed)
    }
}

impl Socket {
    /// Starts to connect. The socket becomes writable when the connection is established or has failed.
    pub(crate) fn open(
        address: SocketAddr,
        source: Option<Ipv4Addr>,
        options: &ConnectOptions<'_>,
        registry: &Registry,
        token: Token,
        now_ns: u64,
    ) -> Result<Self> {
        let socket = socket2::Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))
            .context("cannot create a socket")?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        if let Some(source) = source {
            socket.bind(&SocketAddr::from((source, 0)).into()).with_context(|| format!("no free port on {source}"))?;
        }
        match socket.connect(&address.into()) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {}
            Err(error) => return Err(error).with_context(|| format!("cannot connect to {address}")),
        }
        let request = format!(
            "GET /app/{}?protocol=7&client=bench&version=1.0 HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\n\
             Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            options.key
        );
        let mut socket = Self {
            stream: TcpStream::from_std(socket.into()),
            stage: Stage::Connecting,
            partial: Vec::new(),
            socket_id: None,
            started_ns: now_ns,
            text: Some(request.into()),
        };
        socket.register(registry, token)?;
        Ok(socket)
    }

    pub(crate) fn register(&mut self, registry: &Registry, token: Token) -> Result<()> {
        Ok(registry.register(&mut self.stream, token, Interest::READABLE | Interest::WRITABLE)?)
    }

    pub(crate) fn unregister(&mut self, registry: &Registry) -> Result<()> {
        Ok(registry.deregister(&mut self.stream)?)
    }

    /// Returns the reason of a failure, if the socket has failed.
    pub(crate) fn failure(&self) -> Option<&str> {
        if self.stage == Stage::Failed { Some(self.text.as_deref().unwrap_or("closed")) } else { None }
    }

    /// Sends the WebSocket handshake after the connection is established.
    pub(crate) fn upgrade(&mut self) {
        match self.stream.take_error() {
            Ok(None) => {}
            Ok(Some(error)) | Err(error) => return self.fail(error.to_string()),
        }
        let request = self.text.take().unwrap_or_default();
        self.stage = Stage::Upgrading;
        self.write(request.as_bytes());
    }

    /// Sends a text frame. Returns whether all of it was written.
    pub(crate) fn send(&mut self, text: &str) -> bool {
        !self.stage.is_over() && self.write(&frame::from_client(frame::TEXT, text.as_bytes()))
    }

    /// Sends a close frame and closes the connection.
    pub(crate) fn close(&mut self) {
        if !self.stage.is_over() {
            self.write(&frame::from_client(frame::CLOSE, &1000_u16.to_be_bytes()));
            self.stage = Stage::Closed;
            // The server may have closed the connection already.
            let _ = self.stream.shutdown(std::net::Shutdown::Both);
        }
    }

    /// Reads and handles all available bytes.
    ///
    /// With `until_closed`, the peer has closed its side, and no further readiness event follows.
    pub(crate) fn read<R: Receiver>(&mut self, index: usize, until_closed: bool, turn: &mut Turn<'_, R>) {
        let mut buffer = std::mem::take(&mut turn.buffer);
        while !self.stage.is_over() && self.stage != Stage::Connecting {
            match self.stream.read(buffer) {
                Ok(0) => self.ended(index, None, "the server closed the connection", turn.receiver),
                Ok(count) => {
                    self.on_read(index, &buffer[..count], turn);
                    // The next bytes cause a new readiness event.
                    if count < buffer.len() && !until_closed {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => self.ended(index, None, &error.to_string(), turn.receiver),
            }
        }
        std::mem::swap(&mut turn.buffer, &mut buffer);
    }

    fn on_read<R: Receiver>(&mut self, index: usize, bytes: &[u8], turn: &mut Turn<'_, R>) {
        if self.partial.is_empty() {
            let taken = self.on_bytes(index, bytes, turn);
            self.partial.extend_from_slice(&bytes[taken..]);
        } else {
            let mut all = std::mem::take(&mut self.partial);
            all.extend_from_slice(bytes);
            let taken = self.on_bytes(index, &all, turn);
            if taken < all.len() {
                all.drain(..taken);
                self.partial = all;
            }
        }
    }

    /// Handles the response to the handshake and all complete frames. Returns the number of bytes handled.
    fn on_bytes<R: Receiver>(&mut self, index: usize, bytes: &[u8], turn: &mut Turn<'_, R>) -> usize {
        let mut taken = 0;
        if self.stage == Stage::Upgrading {
            let Some(end) = memchr::memmem::find(bytes, b"\r\n\r\n") else { return 0 };
            taken = end + 4;
            if !bytes.starts_with(b"HTTP/1.1 101") {
                let status = String::from_utf8_lossy(bytes.split(|byte| *byte == b'\r').next().unwrap_or_default());
                self.ended(index, None, &status, turn.receiver);
                return bytes.len();
            }
            self.stage = Stage::Greeting;
        }
        let now_ns = clock::now_ns();
        while let Some(frame) = Frame::parse(&bytes[taken..]) {
            let Some(payload) = bytes.get(taken + frame.start..taken + frame.end) else { break };
            taken += frame.end;
            match frame.opcode {
                frame::PING => drop(self.write(&frame::from_client(frame::PONG, payload))),
                frame::PONG => {}
                frame::CLOSE => {
                    self.write(&frame::from_client(frame::CLOSE, payload.get(..2).unwrap_or_default()));
                    let reason = self.text.take().unwrap_or_else(|| "the server closed the connection".into());
                    self.ended(index, frame::close_code(payload), &reason, turn.receiver);
                    return bytes.len();
                }
                _ => self.message(index, payload, now_ns, turn),
            }
        }
        taken
    }

    fn message<R: Receiver>(&mut self, index: usize, message: &[u8], now_ns: u64, turn: &mut Turn<'_, R>) {
        if message.len() <= PING_MESSAGE_MAX && has(message, b"\"pusher:ping\"") {
            self.send(r#"{"event":"pusher:pong","data":{}}"#);
            return;
        }
        if self.stage == Stage::Ready {
            return turn.receiver.message(index, message, now_ns);
        }
        if has(message, b"\"pusher:error\"") || has(message, b":subscription_error\"") {
            // A close frame may follow. A refused subscription leaves the socket open.
            self.text = Some(String::from_utf8_lossy(message).into());
            if self.stage == Stage::Subscribing {
                self.ended(index, None, &String::from_utf8_lossy(message), turn.receiver);
            }
        } else if self.stage == Stage::Greeting {
            self.socket_id = socket_id(message);
            let greeting = self.socket_id.and_then(|socket_id| (turn.greeting)(index, socket_id));
            self.stage = if greeting.is_some() { Stage::Subscribing } else { Stage::Ready };
            if let Some(greeting) = greeting {
                self.send(&greeting);
            }
        } else if has(message, b":subscription_succeeded\"") {
            self.stage = Stage::Ready;
            turn.receiver.message(index, message, now_ns);
        }
    }

    fn ended(&mut self, index: usize, code: Option<u16>, why: &str, receiver: &mut impl Receiver) {
        let was_ready = self.stage == Stage::Ready;
        let why = match (&self.text, was_ready) {
            (Some(reason), false) => reason.to_string(),
            _ => why.to_owned(),
        };
        self.fail(why);
        if was_ready {
            receiver.closed(index, code);
        }
    }

    fn fail(&mut self, why: String) {
        self.stage = Stage::Failed;
        self.text = Some(why.into());
        self.partial = Vec::new();
        // The server may have closed the connection already.
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
    }

    /// Writes bytes that fit into an empty socket buffer.
    fn write(&mut self, bytes: &[u8]) -> bool {
        matches!(self.stream.write(bytes), Ok(written) if written == bytes.len())
    }
}

fn has(message: &[u8], part: &[u8]) -> bool {
    memchr::memmem::find(message, part).is_some()
}

/// Returns the socket id of a `pusher:connection_established`, whose data is JSON in a JSON string.
fn socket_id(message: &[u8]) -> Option<SocketId> {
    let after = memchr::memmem::find(message, b"socket_id")? + b"socket_id".len();
    let digits = message[after..].iter().position(u8::is_ascii_digit)? + after;
    let end = message[digits..].iter().position(|byte| !byte.is_ascii_digit() && *byte != b'.')? + digits;
    std::str::from_utf8(&message[digits..end]).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_id_is_found_in_a_string_and_in_an_object() {
        for message in [
            r#"{"event":"pusher:connection_established","data":"{\"socket_id\":\"12.34\",\"activity_timeout\":120}"}"#,
            r#"{"event":"pusher:connection_established","data":{"activity_timeout":30,"socket_id":"12.34"}}"#,
        ] {
            assert_eq!(socket_id(message.as_bytes()).map(|id| id.to_string()).as_deref(), Some("12.34"));
        }
        assert_eq!(socket_id(b"{}"), None);
    }
}
