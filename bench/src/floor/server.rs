//! The floor itself, as it runs in its own process.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, IoSlice, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use anyhow::{Context, Result};
use mio::net::TcpListener;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

use super::channels::{Channels, Message, message};
use super::socket::Socket;
use crate::clock;
use crate::frame::{self, Frame};
use crate::pace::Pace;
use crate::payload::Payload;
use crate::plan::{EVENT, Plan, Planned, channel_name};
use crate::timer::Timer;

/// What the floor says when a plan is carried out.
pub(super) const DONE: &str = "done";

const LISTENER: Token = Token(usize::MAX);
const CONTROL: Token = Token(usize::MAX - 1);
const TIMER: Token = Token(usize::MAX - 2);

/// Writes after which a run at full speed looks at what else is there.
const WRITES_PER_LOOK: usize = 1_000;

/// The answer to the one key that the load generator sends.
const UPGRADED: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                        Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// Runs until standard input ends.
pub(crate) fn serve() -> Result<()> {
    let poll = Poll::new()?;
    let mut listener = TcpListener::from_std(bound()?);
    println!("{}", listener.local_addr()?.port());
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    // Without the buffer of `io::stdin`, behind which a line could be missed.
    let orders = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    rustix::io::ioctl_fionbio(&orders, true)?;
    poll.registry().register(&mut SourceFd(&orders.as_raw_fd()), CONTROL, Interest::READABLE)?;
    let timer = Timer::new(poll.registry(), TIMER)?;
    let mut floor = Server {
        poll,
        listener,
        timer,
        sockets: Vec::new(),
        channels: Channels::default(),
        touched: Vec::new(),
        orders,
        order: Vec::new(),
        running: None,
        buffer: vec![0; 64 * 1024],
    };
    let mut events = Events::with_capacity(1024);
    loop {
        // A run at full speed only looks whether there is something to do besides.
        let timeout = floor.may_write().then_some(Duration::ZERO);
        match floor.poll.poll(&mut events, timeout) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            polled => polled?,
        }
        for event in &events {
            match event.token() {
                LISTENER => floor.accept()?,
                CONTROL if !floor.take_orders()? => return Ok(()),
                CONTROL | TIMER => {}
                Token(socket) => {
                    if event.is_readable() || event.is_read_closed() {
                        floor.read(socket)?;
                    }
                    if event.is_writable() {
                        floor.flush(socket);
                    }
                }
            }
        }
        for socket in std::mem::take(&mut floor.touched) {
            floor.flush(socket);
        }
        floor.write_due()?;
    }
}

/// A connect storm must not be turned away by the queue of the listener.
fn bound() -> Result<std::net::TcpListener> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    socket.listen(4096)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

struct Server {
    poll: Poll,
    listener: TcpListener,
    timer: Timer,
    sockets: Vec<Socket>,
    channels: Channels,
    /// Sockets that something waits for since this round of the loop began.
    touched: Vec<usize>,
    orders: File,
    /// The start of an order whose rest has not arrived.
    order: Vec<u8>,
    running: Option<Running>,
    buffer: Vec<u8>,
}

/// A plan that is being carried out.
struct Running {
    plan: Plan,
    batches: Box<dyn Iterator<Item = Vec<Planned>>>,
    pace: Pace,
    /// Batches written.
    written: u64,
    /// Subscribers of the plan's channels.
    subscribers: Vec<Vec<usize>>,
    /// Sockets that have not taken everything.
    behind: HashSet<usize>,
}

impl Server {
    fn accept(&mut self) -> Result<()> {
        loop {
            match self.listener.accept() {
                Ok((mut stream, _)) => {
                    stream.set_nodelay(true)?;
                    let token = Token(self.sockets.len());
                    self.poll.registry().register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
                    self.sockets.push(Socket::new(stream));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Returns whether to go on.
    fn take_orders(&mut self) -> Result<bool> {
        let mut text = [0; 4096];
        match self.orders.read(&mut text) {
            Ok(0) => return Ok(false),
            Ok(count) => self.order.extend_from_slice(&text[..count]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
            Err(error) => return Err(error.into()),
        }
        if self.order.last() != Some(&b'\n') {
            return Ok(true);
        }
        let plan: Plan = serde_json::from_slice(&std::mem::take(&mut self.order)).context("a plan")?;
        let share = plan.share(0, 1);
        let subscribers = (0..plan.channels)
            .map(|channel| {
                let number = self.channels.number(&channel_name(channel));
                self.channels.get_mut(number).subscribers.clone()
            })
            .collect();
        self.running = Some(Running {
            plan,
            batches: Box::new(share.batches()),
            pace: Pace::new(clock::now_ns(), share.requests_per_second(), 0.0),
            written: 0,
            subscribers,
            behind: HashSet::new(),
        });
        Ok(true)
    }

    fn read(&mut self, index: usize) -> Result<()> {
        loop {
            let socket = &mut self.sockets[index];
            let was_open = socket.open;
            let count = socket.read(&mut self.buffer);
            if was_open && !socket.open {
                self.leave(index);
            }
            if count == 0 {
                return Ok(());
            }
            let mut said = std::mem::take(&mut self.sockets[index].partial);
            said.extend_from_slice(&self.buffer[..count]);
            let taken = self.hear(index, &said)?;
            if taken < said.len() {
                self.sockets[index].partial = said.split_off(taken);
            }
            if count < self.buffer.len() {
                return Ok(());
            }
        }
    }

    /// Acts on what a client said; returns how many bytes of it were whole.
    fn hear(&mut self, index: usize, said: &[u8]) -> Result<usize> {
        let mut taken = 0;
        if !self.sockets[index].upgraded {
            let Some(end) = memchr::memmem::find(said, b"\r\n\r\n") else { return Ok(0) };
            taken = end + 4;
            self.sockets[index].upgraded = true;
            let hello = format!(
                r#"{{"event":"pusher:connection_established","data":"{{\"socket_id\":\"1.{index}\",\"activity_timeout\":120}}"}}"#
            );
            let mut bytes = UPGRADED.as_bytes().to_vec();
            bytes.extend(frame::from_server(frame::TEXT, hello.as_bytes()));
            self.sockets[index].write(&[IoSlice::new(&bytes)]);
        }
        while let Some(frame) = Frame::parse(&said[taken..]) {
            let Some(payload) = said.get(taken + frame.start..taken + frame.end) else { break };
            taken += frame.end;
            match frame.opcode {
                frame::TEXT => self.obey(index, serde_json::from_slice(payload)?),
                frame::CLOSE => {
                    self.sockets[index].close();
                    self.leave(index);
                }
                _ => {}
            }
        }
        Ok(taken)
    }

    fn obey(&mut self, index: usize, said: Message) {
        if said.event == "pusher:subscribe" {
            let name = said.data["channel"].as_str().unwrap_or_default();
            let number = self.channels.number(name);
            let channel = self.channels.get_mut(number);
            self.sockets[index].channel = Some(number);
            let added = channel.join(index, &said.data);
            let reply = message("pusher_internal:subscription_succeeded", name, &channel.snapshot());
            self.sockets[index].push(&reply);
            self.touched.push(index);
            if let Some(added) = added {
                self.tell_others(number, index, &message("pusher_internal:member_added", name, &added));
            }
        } else if let Some(name) = said.channel.filter(|_| said.event.starts_with("client-")) {
            let data = said.data.as_str().map_or_else(|| said.data.to_string(), str::to_owned);
            let number = self.channels.number(&name);
            self.tell_others(number, index, &message(&said.event, &name, &data));
        }
    }

    fn leave(&mut self, index: usize) {
        let Some(number) = self.sockets[index].channel.take() else { return };
        let channel = self.channels.get_mut(number);
        if let Some(removed) = channel.leave(index) {
            let text = message("pusher_internal:member_removed", &channel.name, &removed);
            self.tell_others(number, index, &text);
        }
    }

    /// Goes out at the end of this round of the loop, with whatever else there is by then.
    fn tell_others(&mut self, number: u32, except: usize, frame: &[u8]) {
        for &subscriber in &self.channels.get_mut(number).subscribers {
            if subscriber != except {
                self.sockets[subscriber].push(frame);
                self.touched.push(subscriber);
            }
        }
    }

    fn flush(&mut self, index: usize) {
        if self.sockets[index].flush()
            && let Some(running) = &mut self.running
        {
            running.behind.remove(&index);
        }
    }

    /// Whether a plan at full speed could go on now.
    fn may_write(&self) -> bool {
        self.running.as_ref().is_some_and(|running| !running.pace.is_steady() && running.behind.is_empty())
    }

    fn write_due(&mut self) -> Result<()> {
        let Some(running) = &mut self.running else { return Ok(()) };
        // At full speed nothing more is written while a socket is behind; a rate waits for nobody.
        let mut writes = 0;
        while writes < WRITES_PER_LOOK && (running.pace.is_steady() || running.behind.is_empty()) {
            let due_ns = running.pace.due_ns(running.written);
            if due_ns > clock::now_ns() {
                return Ok(self.timer.set(due_ns)?);
            }
            let Some(batch) = running.batches.next() else {
                if running.behind.is_empty() {
                    self.running = None;
                    println!("{DONE}");
                    io::stdout().flush()?;
                }
                return Ok(());
            };
            running.written += 1;
            writes += running.write(&batch, &mut self.sockets);
        }
        if running.pace.is_steady() {
            self.timer.set(clock::now_ns())?;
        }
        Ok(())
    }
}

impl Running {
    /// Writes a batch: what goes to one channel goes to each of its sockets at once. Returns how many writes it took.
    fn write(&mut self, batch: &[Planned], sockets: &mut [Socket]) -> usize {
        let now_ns = clock::now_ns();
        let mut writes = 0;
        for events in batch.chunk_by(|one, next| one.channel == next.channel) {
            let channel = events[0].channel;
            let frames: Vec<Vec<u8>> =
                events.iter().map(|event| encode(*event, now_ns, self.plan.data_bytes)).collect();
            let slices: Vec<IoSlice<'_>> = frames.iter().map(|frame| IoSlice::new(frame)).collect();
            for &subscriber in &self.subscribers[channel] {
                let was_behind = sockets[subscriber].is_behind();
                if !sockets[subscriber].write(&slices) && !was_behind {
                    self.behind.insert(subscriber);
                }
            }
            writes += self.subscribers[channel].len();
        }
        writes
    }
}

fn encode(event: Planned, now_ns: u64, data_bytes: usize) -> Vec<u8> {
    let mut text = format!(r#"{{"event":"{EVENT}","channel":"{}","data":""#, channel_name(event.channel));
    Payload { channel: event.channel as u64, sequence: event.sequence, sent_ns: now_ns }.write(data_bytes, &mut text);
    text.push_str("\"}");
    frame::from_server(frame::TEXT, text.as_bytes())
}
