//! Many sockets of the protocol, connected and read from one epoll loop.

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

/// No socket getting any further for this long ends the connecting.
const PATIENCE_NS: u64 = 15_000_000_000;

/// Read at once; shared by all sockets.
const BUFFER_BYTES: usize = 256 * 1024;

/// Gets what arrives.
pub(crate) trait Receiver {
    /// A message on a socket that is subscribed, the confirmation of the subscription included.
    fn message(&mut self, socket: usize, message: &[u8], now_ns: u64);

    /// The server ended a connection. `code`: from its close frame, if there was one.
    fn closed(&mut self, socket: usize, code: Option<u16>) {
        let _ = (socket, code);
    }
}

/// Hears nothing.
impl Receiver for () {
    fn message(&mut self, _: usize, _: &[u8], _: u64) {}
}

/// What a socket says once the server has told it its name; `None` leaves it unsubscribed.
pub(crate) type Greeting<'a> = &'a dyn Fn(usize, SocketId) -> Option<String>;

/// How sockets are to be connected.
#[derive(Clone, Copy)]
pub(crate) struct Connecting<'a> {
    /// Servers, which take turns.
    pub(crate) ws: &'a [SocketAddr],
    /// The app's key.
    pub(crate) key: &'a str,
    pub(crate) count: usize,
    /// Connections that may be under way at once.
    pub(crate) in_flight: usize,
    pub(crate) greeting: Greeting<'a>,
}

/// How the connecting went.
pub(crate) struct Connected {
    /// From the first packet to the confirmed subscription, or to the socket's name without one.
    pub(crate) latency: Latency,
    pub(crate) elapsed_s: f64,
    /// Connections that the server refused or ended before they were ready.
    pub(crate) failed: u64,
    /// What the first of them was told.
    pub(crate) failure: Option<String>,
}

/// How many sockets this process may have.
pub(crate) fn most() -> Result<usize> {
    Ok(descriptors::connections_max(descriptors::raise_limit()?, 0, false)?)
}

/// Sockets by number, in the order of connecting.
pub(crate) struct Sockets {
    poll: Poll,
    events: Events,
    all: Vec<Socket>,
    buffer: Vec<u8>,
}

impl Sockets {
    /// Connects all, a bounded number at a time, and subscribes them.
    ///
    /// # Errors
    /// Returns an error if a connection cannot be begun, or nothing moves any more. A server that refuses is no error here: see
    /// [`Connected::failed`].
    pub(crate) fn connect(
        wanted: Connecting<'_>,
        receiver: &mut impl Receiver,
        progress: &mut Progress,
    ) -> Result<(Self, Connected)> {
        let most = most()?;
        ensure!(wanted.count <= most, "{} sockets are too many: this process may have {most}", wanted.count);
        let mut sockets = Self {
            poll: Poll::new()?,
            events: Events::with_capacity(1024),
            all: Vec::with_capacity(wanted.count),
            buffer: vec![0; BUFFER_BYTES],
        };
        let started_ns = clock::now_ns();
        let mut connected = Connected { latency: Latency::new(), elapsed_s: 0.0, failed: 0, failure: None };
        let sources = Sources::new(wanted.count.div_ceil(wanted.ws.len().max(1)));
        let (mut settled, mut last_ns) = (0, started_ns);
        while settled < wanted.count {
            while sockets.all.len() < wanted.count && sockets.all.len() - settled < wanted.in_flight.max(1) {
                let index = sockets.all.len();
                let address = wanted.ws[index % wanted.ws.len()];
                let source = sources.of(index / wanted.ws.len());
                let socket =
                    Socket::open(address, source, &wanted, sockets.poll.registry(), Token(index), clock::now_ns())?;
                sockets.all.push(socket);
            }
            let before = settled;
            sockets.turn(Some(Duration::from_millis(200)), receiver, wanted.greeting, |socket, now_ns| {
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
            } else if now_ns - last_ns > PATIENCE_NS {
                bail!("{} of {} sockets are connected, and the next ones do not answer", settled, wanted.count);
            }
            progress.show(now_ns, || format!("{settled} of {} sockets connected", wanted.count));
        }
        connected.elapsed_s = clock::seconds(clock::now_ns() - started_ns);
        Ok((sockets, connected))
    }

    /// Waits for something to arrive, at most `timeout`, and hands it to `receiver`.
    ///
    /// # Errors
    /// Returns an error if the system refuses to wait.
    pub(crate) fn receive(&mut self, timeout: Duration, receiver: &mut impl Receiver) -> Result<()> {
        self.turn(Some(timeout), receiver, &|_, _| None, |_, _| {})
    }

    /// Sends a text. A socket that is gone, or takes nothing any more, does not get it.
    ///
    /// Returns whether all of it was taken.
    pub(crate) fn send(&mut self, index: usize, text: &str) -> bool {
        self.all[index].send(text)
    }

    /// The name that the server gave a socket.
    pub(crate) fn socket_id(&self, index: usize) -> Option<SocketId> {
        self.all[index].socket_id
    }

    /// Leaves, as a client that goes away does.
    pub(crate) fn close(&mut self, index: usize) {
        self.all[index].leave();
    }

    /// Stops reading a socket: what the server sends piles up.
    ///
    /// # Errors
    /// Returns an error if the system refuses.
    pub(crate) fn stop_reading(&mut self, index: usize) -> Result<()> {
        self.all[index].unregister(self.poll.registry())
    }

    /// Reads a socket again, from where it was left.
    ///
    /// # Errors
    /// Returns an error if the system refuses.
    pub(crate) fn read_again(&mut self, index: usize) -> Result<()> {
        self.all[index].register(self.poll.registry(), Token(index))
    }

    /// Sockets that are ready and not closed.
    pub(crate) fn open(&self) -> usize {
        self.all.iter().filter(|socket| socket.stage == Stage::Ready).count()
    }

    /// For what else should wake [`Self::receive`], under tokens from the number of sockets on.
    pub(crate) fn registry(&self) -> &Registry {
        self.poll.registry()
    }

    /// One round of the loop. `settled` is called for each socket that became ready or failed in it.
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
