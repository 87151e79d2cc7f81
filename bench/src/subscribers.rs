//! Many subscribed sockets, read from one epoll loop.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use mio::{Events, Interest, Poll, Token};

use crate::payload;

/// Whether a server speaks WebSocket or, like the floor, writes frames to whoever connects.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Handshake {
    WebSocket,
    None,
}

/// Sockets that are subscribed to one channel.
pub(crate) struct Subscribers {
    poll: Poll,
    sockets: Vec<Socket>,
    buffer: Vec<u8>,
}

struct Socket {
    stream: mio::net::TcpStream,
    /// The start of a frame whose rest has not arrived.
    partial: Vec<u8>,
    /// The sequence number that is due next.
    next: u64,
}

/// What arrived.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) deliveries: u64,
    /// Sequence numbers that were skipped and have not come later.
    pub(crate) lost: u64,
    /// Sequence numbers below the one due: doubled, or out of order.
    pub(crate) repeated: u64,
    pub(crate) closed: u64,
}

impl Subscribers {
    /// Connects and subscribes, one after the other.
    pub(crate) fn connect(port: u16, count: usize, key: &str, channel: &str, handshake: Handshake) -> Result<Self> {
        let poll = Poll::new()?;
        let mut sockets = Vec::with_capacity(count);
        for index in 0..count {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            let stream = TcpStream::connect(address).with_context(|| format!("connection {index}"))?;
            stream.set_nodelay(true)?;
            let partial = match handshake {
                Handshake::WebSocket => {
                    subscribe(&stream, key, channel).with_context(|| format!("connection {index}"))?
                }
                Handshake::None => Vec::new(),
            };
            stream.set_nonblocking(true)?;
            let mut stream = mio::net::TcpStream::from_std(stream);
            poll.registry().register(&mut stream, Token(index), Interest::READABLE)?;
            sockets.push(Socket { stream, partial, next: 0 });
        }
        Ok(Self { poll, sockets, buffer: vec![0; 256 * 1024] })
    }

    /// Reads until every socket has got events up to `events`, or nothing has come for `patience`.
    pub(crate) fn receive(&mut self, events: u64, patience: Duration) -> Result<Tally> {
        let mut tally = Tally::default();
        let mut ready = Events::with_capacity(1024);
        let mut finished = self.sockets.iter().filter(|socket| socket.next >= events).count();
        let mut last = Instant::now();
        while finished < self.sockets.len() && last.elapsed() < patience {
            self.poll.poll(&mut ready, Some(Duration::from_millis(200)))?;
            for event in &ready {
                let Some(socket) = self.sockets.get_mut(event.token().0) else { continue };
                let before = socket.next;
                socket.read(&mut self.buffer, &mut tally)?;
                if socket.next != before {
                    last = Instant::now();
                    finished += usize::from(before < events && socket.next >= events);
                }
            }
        }
        tally.lost += self.sockets.iter().map(|socket| events.saturating_sub(socket.next)).sum::<u64>();
        Ok(tally)
    }
}

impl Socket {
    fn read(&mut self, buffer: &mut [u8], tally: &mut Tally) -> Result<()> {
        loop {
            match self.stream.read(buffer) {
                Ok(0) => {
                    tally.closed += 1;
                    return Ok(());
                }
                Ok(count) => {
                    if self.partial.is_empty() {
                        let read = self.frames(&buffer[..count], tally);
                        self.partial.extend_from_slice(&buffer[read..count]);
                    } else {
                        let mut all = std::mem::take(&mut self.partial);
                        all.extend_from_slice(&buffer[..count]);
                        let read = self.frames(&all, tally);
                        all.drain(..read);
                        self.partial = all;
                    }
                    if count < buffer.len() {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Takes whole frames; returns the bytes that they took.
    fn frames(&mut self, bytes: &[u8], tally: &mut Tally) -> usize {
        let mut read = 0;
        while let Some((start, end)) = frame_bounds(&bytes[read..]) {
            let Some(payload) = bytes.get(read + start..read + end) else { break };
            read += end;
            if let Some(sequence) = payload::sequence(payload) {
                tally.deliveries += 1;
                if sequence < self.next {
                    tally.repeated += 1;
                } else {
                    tally.lost += sequence - self.next;
                    self.next = sequence + 1;
                }
            }
        }
        read
    }
}

/// Where the payload of the first frame begins and ends; servers do not mask.
fn frame_bounds(bytes: &[u8]) -> Option<(usize, usize)> {
    let length = *bytes.get(1)?;
    let (start, length) = match length {
        126 => (4, usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?))),
        127 => (10, usize::try_from(u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?)).ok()?),
        short => (2, usize::from(short)),
    };
    Some((start, start + length))
}

/// Upgrades, subscribes and waits for the confirmation; returns what arrived after it.
fn subscribe(mut stream: &TcpStream, key: &str, channel: &str) -> Result<Vec<u8>> {
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(
        stream,
        "GET /app/{key}?protocol=7&client=bench&version=1 HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n\
         Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )?;
    let mut bytes = Vec::new();
    let head = read_until(stream, &mut bytes, |bytes| memchr::memmem::find(bytes, b"\r\n\r\n").map(|at| at + 4))?;
    ensure!(bytes.starts_with(b"HTTP/1.1 101"), "no upgrade: {}", String::from_utf8_lossy(&bytes));
    bytes.drain(..head);
    stream.write_all(&masked(&format!(r#"{{"event":"pusher:subscribe","data":{{"channel":"{channel}"}}}}"#)))?;
    loop {
        let end = read_until(stream, &mut bytes, |bytes| {
            frame_bounds(bytes).map(|(_, end)| end).filter(|end| *end <= bytes.len())
        })?;
        let frame: Vec<u8> = bytes.drain(..end).collect();
        if memchr::memmem::find(&frame, b"subscription_succeeded").is_some() {
            return Ok(bytes);
        }
        if memchr::memmem::find(&frame, b"pusher:error").is_some() {
            bail!("refused: {}", String::from_utf8_lossy(&frame));
        }
    }
}

fn read_until(mut stream: &TcpStream, bytes: &mut Vec<u8>, end: impl Fn(&[u8]) -> Option<usize>) -> Result<usize> {
    let mut chunk = [0; 4096];
    loop {
        if let Some(end) = end(bytes) {
            return Ok(end);
        }
        let count = stream.read(&mut chunk)?;
        ensure!(count > 0, "the server closed the connection");
        bytes.extend_from_slice(&chunk[..count]);
    }
}

/// A text frame under the mask 0, which leaves the text as it is.
fn masked(text: &str) -> Vec<u8> {
    let length = u8::try_from(text.len()).ok().filter(|length| *length < 126);
    let mut frame = match length {
        Some(length) => vec![0x81, 0x80 | length],
        None => {
            let length = u16::try_from(text.len()).expect("a subscription is short").to_be_bytes();
            vec![0x81, 0x80 | 126, length[0], length[1]]
        }
    };
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(text.as_bytes());
    frame
}
