//! Clients of the HTTP polling transport (`xhr_polling`), in one epoll loop.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use memchr::memmem::{self, Finder};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use crate::clock;
use crate::latency::Latency;
use crate::progress::Progress;
use crate::sockets::{Receiver, sockets_max};

/// Opening sessions fails if none makes progress for this time.
const IDLE_TIMEOUT_NS: u64 = 15_000_000_000;

/// The size of the read buffer, which all clients share.
const BUFFER_BYTES: usize = 64 * 1024;

/// Numbered clients with one connection each.
pub(crate) struct Polls {
    poll: Poll,
    events: Events,
    all: Vec<Client>,
    buffer: Vec<u8>,
}

struct Client {
    stream: TcpStream,
    stage: Stage,
    /// The path of the session, without the request's kind.
    path: String,
    /// The number of requests sent.
    number: u64,
    /// The subscription, sent after `connection_established`.
    greeting: String,
    /// Bytes that are not written yet.
    out: Vec<u8>,
    /// The received part of an incomplete response.
    input: Vec<u8>,
    started_ns: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The first poll is in progress.
    Opening,
    /// The request with the subscription is in progress.
    Subscribing,
    /// A poll waits for the confirmation.
    Confirming,
    /// A poll waits for events.
    Ready,
    /// The server closed the session.
    Closed,
}

impl Polls {
    /// Opens `count` sessions on `address`, at most `in_flight` at a time, and subscribes them with `greeting`.
    ///
    /// # Errors
    /// Returns an error if the server refuses a session, or no session makes progress.
    pub(crate) fn open(
        address: SocketAddr,
        key: &str,
        count: usize,
        in_flight: usize,
        greeting: &str,
        progress: &mut Progress,
    ) -> Result<(Self, Latency)> {
        let max = sockets_max()?;
        ensure!(count <= max, "{count} clients exceed the limit of this process, {max} sockets");
        let mut polls = Self {
            poll: Poll::new()?,
            events: Events::with_capacity(1024),
            all: Vec::with_capacity(count),
            buffer: vec![0; BUFFER_BYTES],
        };
        let body = serde_json::to_string(&[greeting])?;
        let mut latency = Latency::new();
        let (mut settled, mut last_ns) = (0, clock::now_ns());
        while settled < count {
            while polls.all.len() < count && polls.all.len() - settled < in_flight.max(1) {
                let index = polls.all.len();
                polls.open_session(address, format!("/pusher/app/{key}/{}/b{index:07}", index % 1000), body.clone())?;
            }
            let before = settled;
            polls.turn(Duration::from_millis(200), &mut (), |client, now_ns| {
                settled += 1;
                latency.record_ns(now_ns - client.started_ns);
            })?;
            ensure!(polls.open_count() == polls.all.len(), "the server refused or closed a session");
            let now_ns = clock::now_ns();
            if settled > before {
                last_ns = now_ns;
            } else if now_ns - last_ns > IDLE_TIMEOUT_NS {
                bail!("{settled} of {count} sessions are open, and the server does not respond to the next ones");
            }
            progress.show(now_ns, || format!("{settled} of {count} sessions open"));
        }
        Ok((polls, latency))
    }

    /// Waits for responses, at most `timeout`, and passes their messages to `receiver`.
    ///
    /// # Errors
    /// Returns an error if polling fails, or a response is invalid.
    pub(crate) fn receive(&mut self, timeout: Duration, receiver: &mut impl Receiver) -> Result<()> {
        self.turn(timeout, receiver, |_, _| {})
    }

    fn open_count(&self) -> usize {
        self.all.iter().filter(|client| client.stage != Stage::Closed).count()
    }

    fn open_session(&mut self, address: SocketAddr, path: String, greeting: String) -> Result<()> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        let token = Token(self.all.len());
        self.poll.registry().register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        let mut client = Client {
            stream,
            stage: Stage::Opening,
            path,
            number: 0,
            greeting,
            out: Vec::new(),
            input: Vec::new(),
            started_ns: clock::now_ns(),
        };
        client.send_request("xhr", "");
        self.all.push(client);
        Ok(())
    }

    fn turn(
        &mut self,
        timeout: Duration,
        receiver: &mut impl Receiver,
        mut settled: impl FnMut(&Client, u64),
    ) -> Result<()> {
        if let Err(error) = self.poll.poll(&mut self.events, Some(timeout))
            && error.kind() != io::ErrorKind::Interrupted
        {
            return Err(error.into());
        }
        for event in &self.events {
            let index = event.token().0;
            let Some(client) = self.all.get_mut(index) else { continue };
            let before = client.stage;
            client.flush();
            if client.read(index, &mut self.buffer, receiver)? && client.stage != Stage::Closed {
                client.stage = Stage::Closed;
                receiver.closed(index, None);
            }
            if before != client.stage && client.stage == Stage::Ready {
                settled(client, clock::now_ns());
            }
        }
        Ok(())
    }
}

impl Client {
    fn send_request(&mut self, verb: &str, body: &str) {
        self.number += 1;
        let (path, number, length) = (&self.path, self.number, body.len());
        let query = if verb == "xhr" { "protocol=7&client=js&version=8.6.0&" } else { "" };
        self.out.extend_from_slice(
            format!(
                "POST {path}/{verb}?{query}t={number}&n={number} HTTP/1.1\r\nHost: bench\r\nContent-Type: \
                 application/json\r\nContent-Length: {length}\r\n\r\n{body}"
            )
            .as_bytes(),
        );
        self.flush();
    }

    /// Writes queued bytes. The rest is written when the socket is writable. Errors are detected by [`Self::read`].
    fn flush(&mut self) {
        while !self.out.is_empty() {
            match self.stream.write(&self.out) {
                Ok(written) => drop(self.out.drain(..written)),
                Err(_) => return,
            }
        }
    }

    /// Handles all complete responses. Returns whether the server has closed the connection.
    fn read(&mut self, index: usize, buffer: &mut [u8], receiver: &mut impl Receiver) -> Result<bool> {
        loop {
            match self.stream.read(buffer) {
                Ok(0) => return Ok(true),
                Ok(count) => self.input.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::NotConnected => return Ok(false),
                Err(_) => return Ok(true),
            }
            while let Some((length, body)) = complete_response(&self.input)? {
                let response: Vec<u8> = self.input.drain(..length).collect();
                self.on_response(index, &response[body..], receiver)?;
            }
        }
    }

    fn on_response(&mut self, index: usize, body: &[u8], receiver: &mut impl Receiver) -> Result<()> {
        let has = |text: &str| memmem::find(body, text.as_bytes()).is_some();
        if body.starts_with(b"c[") || has("\nc[") {
            bail!("the server closed a session: {}", String::from_utf8_lossy(body));
        }
        match self.stage {
            Stage::Opening => {
                ensure!(has("connection_established"), "unexpected first response: {}", String::from_utf8_lossy(body));
                self.stage = Stage::Subscribing;
                let greeting = std::mem::take(&mut self.greeting);
                self.send_request("xhr_send", &greeting);
                return Ok(());
            }
            Stage::Subscribing => self.stage = Stage::Confirming,
            Stage::Confirming if has("subscription_succeeded") => self.stage = Stage::Ready,
            Stage::Confirming | Stage::Closed => {}
            Stage::Ready => {
                let now_ns = clock::now_ns();
                // Quotes inside a message are escaped, and therefore never match the separator.
                let mut rest = body;
                let between = Finder::new(b"\",\"");
                while let Some(end) = between.find(rest) {
                    receiver.message(index, &rest[..end], now_ns);
                    rest = &rest[end + 3..];
                }
                receiver.message(index, rest, now_ns);
            }
        }
        self.send_request("xhr", "");
        Ok(())
    }
}

/// Returns the length of the first response in `input` and the offset of its body; `None` if it is incomplete.
fn complete_response(input: &[u8]) -> Result<Option<(usize, usize)>> {
    let Some(head) = memmem::find(input, b"\r\n\r\n") else { return Ok(None) };
    let body = head + 4;
    let text = std::str::from_utf8(&input[..head]).context("the head of a response is not UTF-8")?;
    let status = text.split(' ').nth(1).unwrap_or_default();
    ensure!(status == "200" || status == "204", "unexpected response: {text}");
    let length = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    ensure!(length.is_some() || status == "204", "a response has no content length: {text}");
    let end = body + length.unwrap_or(0);
    Ok((input.len() >= end).then_some((end, body)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_is_handled_when_it_is_complete() {
        let response = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\na[]HTTP/1.1 204 No Content\r\n\r\n";
        assert_eq!(complete_response(&response[..20]).unwrap(), None);
        assert_eq!(complete_response(&response[..40]).unwrap(), None);
        let (end, body) = complete_response(response).unwrap().unwrap();
        assert_eq!(&response[body..end], b"a[]");
        assert_eq!(complete_response(&response[end..]).unwrap(), Some((response.len() - end, response.len() - end)));
        assert!(complete_response(b"HTTP/1.1 404 Not Found\r\n\r\n").is_err());
        assert!(complete_response(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
    }
}
