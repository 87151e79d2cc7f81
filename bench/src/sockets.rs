//! WebSocket clients of the protocol, in one epoll loop.

mod socket;
mod source;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use mio::{Events, Poll, Registry, Token};
use shared::protocol::SocketId;
use shared::serve::descriptors;

use crate::clock;
use crate::latency::Latency;
use crate::progress::Progress;

use socket::{Socket, Stage, Turn};
use source::Sources;

/// Connecting fails if no socket makes progress for this time.
const IDLE_TIMEOUT_NS: u64 = 15_000_000_000;

/// The size of the read buffer, which all sockets share.
const BUFFER_BYTES: usize = 256 * 1024;

/// The receiver of messages and of closed connections.
pub(crate) trait Receiver {
    /// Called for each message on a subscribed socket, including the confirmation of its subscription.
    fn message(&mut self, socket: usize, message: &[u8], now_ns: u64);

    /// Called when the server closes a connection. `code` is the code of its close frame, if there was one.
    fn closed(&mut self, socket: usize, code: Option<u16>) {
        let _ = (socket, code);
    }
}

/// Discards everything.
impl Receiver for () {
    fn message(&mut self, _: usize, _: &[u8], _: u64) {}
}

/// Returns the first message of a socket, given its number and socket id; `None` leaves it unsubscribed.
pub(crate) type Greeting<'a> = &'a dyn Fn(usize, SocketId) -> Option<String>;

/// The servers, the number of sockets and their subscriptions.
#[derive(Clone, Copy)]
pub(crate) struct ConnectOptions<'a> {
    /// The addresses of the servers, which the sockets use in turn.
    pub(crate) ws: &'a [SocketAddr],
    /// The app's key.
    pub(crate) key: &'a str,
    pub(crate) count: usize,
    /// The number of concurrent connection attempts.
    pub(crate) in_flight: usize,
    pub(crate) greeting: Greeting<'a>,
}

/// The results of connecting.
pub(crate) struct Connected {
    /// The time from the first packet to the confirmed subscription, or to the socket id without a subscription.
    pub(crate) latency: Latency,
    pub(crate) elapsed_s: f64,
    /// The number of connections that the server refused or closed before they were ready.
    pub(crate) failed: u64,
    /// The reason of the first of them.
    pub(crate) failure: Option<String>,
}

/// Returns the maximum number of sockets of this process.
pub(crate) fn sockets_max() -> Result<usize> {
    Ok(descriptors::connections_max(descriptors::raise_limit()?, 0, false)?)
}

/// Sockets, numbered in the order of connecting.
pub(crate) struct Sockets {
    poll: Poll,
    events: Events,
    all: Vec<Socket>,
    buffer: Vec<u8>,
}

impl Sockets {
    /// Connects and subscribes all sockets, a limited number at a time.
    ///
    /// # Errors
    /// Returns an error if a connection cannot be started, or no socket makes progress. Refusals are counted in
    /// [`Connected::failed`] instead.
    pub(crate) fn connect(
        options: ConnectOptions<'_>,
        receiver: &mut impl Receiver,
        progress: &mut Progress,
    ) -> Result<(Self, Connected)> {
        let max = sockets_max()?;
        ensure!(options.count <= max, "{} sockets exceed the limit of this process, {max}", options.count);
        let mut sockets = Self {
            poll: Poll::new()?,
            events: Events::with_capacity(1024),
            all: Vec::with_capacity(options.count),
            buffer: vec![0; BUFFER_BYTES],
        };
        let started_ns = clock::now_ns();
        let mut connected = Connected { latency: Latency::new(), elapsed_s: 0.0, failed: 0, failure: None };
        let sources = Sources::new(options.count.div_ceil(options.ws.len().max(1)));
        let (mut settled, mut last_ns) = (0, started_ns);
        while settled < options.count {
            while sockets.all.len() < options.count && sockets.all.len() - settled < options.in_flight.max(1) {
                let index = sockets.all.len();
                let address = options.ws[index % options.ws.len()];
                let source = sources.of(index / options.ws.len());
                let socket =
                    Socket::open(address, source, &options, sockets.poll.registry(), Token(index), clock::now_ns())?;
                sockets.all.push(socket);
            }
            let before = settled;
            sockets.turn(Some(Duration::from_millis(200)), receiver, options.greeting, |socket, now_ns| {
                settled += 1;
                match socket.failure() {
                    None => connected.latency.record_ns(now_ns - socket.started_ns),
                    Some(failure) => {
                        connected.failed += 1;
                        connected.failure.get_or_insert_with(|| failure.to_owned());
                    }
                }
            })?;
            let now_ns = clock::now_ns();
            if settled > before {
                last_ns = now_ns;
            } else if now_ns - last_ns > IDLE_TIMEOUT_NS {
                bail!(
                    "{settled} of {} sockets are connected, and the server does not respond to the next ones",
                    options.count
                );
            }
            progress.show(now_ns, || format!("{settled} of {} sockets connected", options.count));
        }
        connected.elapsed_s = clock::seconds(clock::now_ns() - started_ns);
        Ok((sockets, connected))
    }

    /// Waits for messages, at most `timeout`, and passes them to `receiver`.
    ///
    /// # Errors
    /// Returns an error if polling fails.
    pub(crate) fn receive(&mut self, timeout: Duration, receiver: &mut impl Receiver) -> Result<()> {
        self.turn(Some(timeout), receiver, &|_, _| None, |_, _| {})
    }

    /// Sends a text message, unless the socket is closed.
    ///
    /// Returns whether all of it was written.
    pub(crate) fn send(&mut self, index: usize, text: &str) -> bool {
        self.all[index].send(text)
    }

    /// Returns the socket id that the server assigned.
    pub(crate) fn socket_id(&self, index: usize) -> Option<SocketId> {
        self.all[index].socket_id
    }

    /// Closes a socket with a close frame, as a client does when its page closes.
    pub(crate) fn close(&mut self, index: usize) {
        self.all[index].close();
    }

    /// Stops reading a socket. The server's messages queue up.
    ///
    /// # Errors
    /// Returns an error if the epoll operation fails.
    pub(crate) fn stop_reading(&mut self, index: usize) -> Result<()> {
        self.all[index].unregister(self.poll.registry())
    }

    /// Resumes reading a socket.
    ///
    /// # Errors
    /// Returns an error if the epoll operation fails.
    pub(crate) fn read_again(&mut self, index: usize) -> Result<()> {
        self.all[index].register(self.poll.registry(), Token(index))
    }

    /// Returns the number of sockets that are ready and not closed.
    pub(crate) fn open(&self) -> usize {
        self.all.iter().filter(|socket| socket.stage == Stage::Ready).count()
    }

    /// Returns the registry for further event sources of [`Self::receive`]. Their tokens start at the number of sockets.
    pub(crate) fn registry(&self) -> &Registry {
        self.poll.registry()
    }

    /// Runs one turn of the loop. Calls `settled` for each socket that became ready or failed.
    fn turn(
        &mut self,
        timeout: Option<Duration>,
        receiver: &mut impl Receiver,
        greeting: Greeting<'_>,
        mut settled: impl FnMut(&Socket, u64),
    ) -> Result<()> {
        if let Err(error) = self.poll.poll(&mut self.events, timeout)
            && error.kind() != std::io::ErrorKind::Interrupted
        {
            return Err(error.into());
        }
        let mut turn = Turn { buffer: &mut self.buffer, greeting, receiver };
        for event in &self.events {
            let index = event.token().0;
            let Some(socket) = self.all.get_mut(index) else { continue };
            let was_settled = socket.stage.is_settled();
            if event.is_writable() && socket.stage == Stage::Connecting {
                socket.upgrade();
            }
            let is_over = event.is_read_closed() || event.is_error();
            if event.is_readable() || is_over {
                socket.read(index, is_over, &mut turn);
            }
            if !was_settled && socket.stage.is_settled() {
                settled(socket, clock::now_ns());
            }
        }
        Ok(())
    }
}
