//! The floor's process: an epoll loop that accepts sockets and writes the events of plans.

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

use super::channels::{Channels, Message, message_frame};
use super::socket::Socket;
use crate::clock;
use crate::frame::{self, Frame};
use crate::pace::Pace;
use crate::payload::Payload;
use crate::plan::{EVENT, Plan, Planned, channel_name};
use crate::timer::Timer;

/// The line that the floor prints at the end of a plan.
pub(super) const DONE: &str = "done";

const LISTENER: Token = Token(usize::MAX);
const CONTROL: Token = Token(usize::MAX - 1);
const TIMER: Token = Token(usize::MAX - 2);

/// The number of writes at full speed between two polls.
const WRITES_PER_POLL: usize = 1_000;

/// The response to the load generator's handshake, which always has the same key.
const UPGRADED: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                        Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// Runs until standard input ends.
pub(crate) fn serve() -> Result<()> {
    let poll = Poll::new()?;
    let mut listener = TcpListener::from_std(bound()?);
    println!("{}", listener.local_addr()?.port());
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    // `io::stdin` is buffered: epoll would not report a line that is already in its buffer.
    let input = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    rustix::io::ioctl_fionbio(&input, true)?;
    poll.registry().register(&mut SourceFd(&input.as_raw_fd()), CONTROL, Interest::READABLE)?;
    let timer = Timer::new(poll.registry(), TIMER)?;
    let mut floor = Server {
        poll,
        listener,
        timer,
        sockets: Vec::new(),
        channels: Channels::default(),
        touched: Vec::new(),
        input,
        line: Vec::new(),
        running: None,
        buffer: vec![0; 64 * 1024],
    };
    let mut events = Events::with_capacity(1024);
    loop {
        // A run at full speed polls without waiting.
        let timeout = floor.may_write().then_some(Duration::ZERO);
        match floor.poll.poll(&mut events, timeout) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            polled => polled?,
        }
        for event in &events {
            match event.token() {
                LISTENER => floor.accept()?,
                CONTROL if !floor.read_plan()? => return Ok(()),
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

/// Opens the listener with a backlog that is large enough for a connect storm.
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
    /// Sockets with bytes that were queued in this round of the loop.
    touched: Vec<usize>,
    input: File,
    /// The received part of an incomplete line.
    line: Vec<u8>,
    running: Option<Running>,
    buffer: Vec<u8>,
}

/// A plan in progress.
struct Running {
    plan: Plan,
    batches: Box<dyn Iterator<Item = Vec<Planned>>>,
    pace: Pace,
    /// The number of batches written.
    written: u64,
    /// The subscribers of each channel of the plan.
    subscribers: Vec<Vec<usize>>,
    /// Sockets with unwritten bytes.
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

    /// Reads a plan from standard input and starts it. Returns `false` when the input has ended.
    fn read_plan(&mut self) -> Result<bool> {
        let mut text = [0; 4096];
        match self.input.read(&mut text) {
            Ok(0) => return Ok(false),
            Ok(count) => self.line.extend_from_slice(&text[..count]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
            Err(error) => return Err(error.into()),
        }
        if self.line.last() != Some(&b'\n') {
            return Ok(true);
        }
        let plan: Plan = serde_json::from_slice(&std::mem::take(&mut self.line)).context("invalid plan")?;
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
                self.unsubscribe(index);
            }
            if count == 0 {
                return Ok(());
            }
            let mut bytes = std::mem::take(&mut self.sockets[index].partial);
            bytes.extend_from_slice(&self.buffer[..count]);
            let taken = self.on_bytes(index, &bytes)?;
            if taken < bytes.len() {
                self.sockets[index].partial = bytes.split_off(taken);
            }
            if count < self.buffer.len() {
                return Ok(());
            }
        }
    }

    /// Handles bytes from a client. Returns the number of bytes handled; an incomplete frame remains.
    fn on_bytes(&mut self, index: usize, bytes: &[u8]) -> Result<usize> {
        let mut taken = 0;
        if !self.sockets[index].upgraded {
            let Some(end) = memchr::memmem::find(bytes, b"\r\n\r\n") else { return Ok(0) };
            taken = end + 4;
            self.sockets[index].upgraded = true;
            let hello = format!(
                r#"{{"event":"pusher:connection_established","data":"{{\"socket_id\":\"1.{index}\",\"activity_timeout\":120}}"}}"#
            );
            let mut bytes = UPGRADED.as_bytes().to_vec();
            bytes.extend(frame::from_server(frame::TEXT, hello.as_bytes()));
            self.sockets[index].write(&[IoSlice::new(&bytes)]);
        }
        while let Some(frame) = Frame::parse(&bytes[taken..]) {
            let Some(payload) = bytes.get(taken + frame.start..taken + frame.end) else { break };
            taken += frame.end;
            match frame.opcode {
                frame::TEXT => self.on_message(index, serde_json::from_slice(payload)?),
                frame::CLOSE => {
                    self.sockets[index].close();
                    self.unsubscribe(index);
                }
                _ => {}
            }
        }
        Ok(taken)
    }

    fn on_message(&mut self, index: usize, message: Message) {
        if message.event == "pusher:subscribe" {
            let name = message.data["channel"].as_str().unwrap_or_default();
            let number = self.channels.number(name);
            let channel = self.channels.get_mut(number);
            self.sockets[index].channel = Some(number);
            let added = channel.subscribe(index, &message.data);
            let reply = message_frame("pusher_internal:subscription_succeeded", name, &channel.snapshot());
            self.sockets[index].push(&reply);
            self.touched.push(index);
            if let Some(added) = added {
                self.send_to_others(number, index, &message_frame("pusher_internal:member_added", name, &added));
            }
        } else if let Some(name) = message.channel.filter(|_| message.event.starts_with("client-")) {
            let data = message.data.as_str().map_or_else(|| message.data.to_string(), str::to_owned);
            let number = self.channels.number(&name);
            self.send_to_others(number, index, &message_frame(&message.event, &name, &data));
        }
    }

    fn unsubscribe(&mut self, index: usize) {
        let Some(number) = self.sockets[index].channel.take() else { return };
        let channel = self.channels.get_mut(number);
        if let Some(removed) = channel.unsubscribe(index) {
            let text = message_frame("pusher_internal:member_removed", &channel.name, &removed);
            self.send_to_others(number, index, &text);
        }
    }

    /// Queues a frame for all subscribers but `except`. It is written at the end of this round of the loop.
    fn send_to_others(&mut self, number: u32, except: usize, frame: &[u8]) {
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

    /// Returns whether a plan at full speed can write now.
    fn may_write(&self) -> bool {
        self.running.as_ref().is_some_and(|running| !running.pace.is_steady() && running.behind.is_empty())
    }

    fn write_due(&mut self) -> Result<()> {
        let Some(running) = &mut self.running else { return Ok(()) };
        // At full speed, the floor pauses while a socket is behind. At a steady rate, it never pauses.
        let mut writes = 0;
        while writes < WRITES_PER_POLL && (running.pace.is_steady() || running.behind.is_empty()) {
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
    /// Writes a batch. Consecutive events of one channel are one write per subscriber. Returns the number of writes.
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
