//! The yardstick: one epoll loop that writes the same bytes to every socket, and nothing else.

use std::io::{self, IoSlice, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

use crate::payload;

#[derive(Args)]
pub(crate) struct Floor {
    /// Sockets to wait for before the first event.
    #[arg(long)]
    subscribers: usize,
    /// Events per second; 0 writes as fast as the sockets take them.
    #[arg(long)]
    rate: u64,
    /// Events that are written together.
    #[arg(long)]
    burst: u64,
    #[arg(long)]
    events: u64,
    /// Bytes of an event's data.
    #[arg(long)]
    data_bytes: usize,
}

const LISTENER: Token = Token(usize::MAX);

/// A socket, and what it has not taken yet.
struct Socket {
    stream: TcpStream,
    waiting: Vec<u8>,
}

impl Floor {
    /// Starts this program again as the yardstick; returns the process and its port.
    pub(crate) fn start(
        subscribers: usize,
        rate: u64,
        burst: u64,
        events: u64,
        data_bytes: usize,
    ) -> Result<(Child, u16)> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("floor")
            .args(["--subscribers", &subscribers.to_string(), "--rate", &rate.to_string()])
            .args(["--burst", &burst.to_string(), "--events", &events.to_string()])
            .args(["--data-bytes", &data_bytes.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        let stdout = child.stdout.take().context("no stdout")?;
        io::BufRead::read_line(&mut io::BufReader::new(stdout), &mut line)?;
        Ok((child, line.trim().parse()?))
    }

    pub(crate) fn run(self) -> Result<()> {
        let mut poll = Poll::new()?;
        let mut listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        println!("{}", listener.local_addr()?.port());
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        let mut sockets = Vec::with_capacity(self.subscribers);
        while sockets.len() < self.subscribers {
            match listener.accept() {
                Ok((mut stream, _)) => {
                    stream.set_nodelay(true)?;
                    poll.registry().register(&mut stream, Token(sockets.len()), Interest::WRITABLE)?;
                    sockets.push(Socket { stream, waiting: Vec::new() });
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    poll.poll(&mut Events::with_capacity(1), Some(Duration::from_secs(30)))?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        // One line says that the measurement begins.
        io::stdin().read_line(&mut String::new())?;
        self.write_events(&mut poll, &mut sockets)?;
        // The parent reads this process' CPU time before it lets go.
        io::stdin().read_line(&mut String::new())?;
        Ok(())
    }

    fn write_events(&self, poll: &mut Poll, sockets: &mut [Socket]) -> Result<()> {
        let mut ready = Events::with_capacity(1024);
        let started = Instant::now();
        let mut sequence = 0;
        while sequence < self.events {
            let frames: Vec<Vec<u8>> = (sequence..(sequence + self.burst).min(self.events))
                .map(|sequence| frame(&payload::data(sequence, self.data_bytes)))
                .collect();
            sequence += self.burst;
            let slices: Vec<IoSlice<'_>> = frames.iter().map(|frame| IoSlice::new(frame)).collect();
            let mut behind = 0;
            for socket in &mut *sockets {
                behind += usize::from(!socket.write(&slices)?);
            }
            while behind > 0 {
                poll.poll(&mut ready, Some(Duration::from_secs(10)))?;
                if ready.is_empty() {
                    bail!("a socket took nothing for 10 s");
                }
                behind = 0;
                for socket in &mut *sockets {
                    behind += usize::from(!socket.write(&[])?);
                }
            }
            if self.rate > 0 {
                let due = started + Duration::from_secs_f64(sequence as f64 / self.rate as f64);
                while let Some(wait) = due.checked_duration_since(Instant::now()).filter(|wait| !wait.is_zero()) {
                    poll.poll(&mut ready, Some(wait))?;
                }
            }
        }
        Ok(())
    }
}

impl Socket {
    /// Writes what waits and `slices`; returns whether the socket took all of it.
    fn write(&mut self, slices: &[IoSlice<'_>]) -> Result<bool> {
        if self.waiting.is_empty() {
            let written = match self.stream.write_vectored(slices) {
                Ok(written) => written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
                Err(error) => return Err(error.into()),
            };
            let mut skip = written;
            for slice in slices {
                if skip < slice.len() {
                    self.waiting.extend_from_slice(&slice[skip..]);
                }
                skip = skip.saturating_sub(slice.len());
            }
        } else {
            match self.stream.write(&self.waiting) {
                Ok(written) => drop(self.waiting.drain(..written)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(self.waiting.is_empty())
    }
}

/// The bytes that a server of the protocol would write: a header and an event.
fn frame(data: &str) -> Vec<u8> {
    let json =
        format!(r#"{{"event":"{}","channel":"{}","data":"{data}"}}"#, crate::fanout::EVENT, crate::fanout::CHANNEL);
    let mut frame = match json.len() {
        length if length < 126 => vec![0x81, u8::try_from(length).expect("short")],
        length => {
            let length = u16::try_from(length).expect("the benchmark's events fit 16 bits").to_be_bytes();
            vec![0x81, 126, length[0], length[1]]
        }
    };
    frame.extend_from_slice(json.as_bytes());
    frame
}
