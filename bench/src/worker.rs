//! More sockets than one process may have: further processes of this program hold the rest, and tell what arrived there.
//!
//! A worker is told its work in one line, answers when its sockets are subscribed, and again with what arrived, after it
//! was told that no more is sent. It ends with its input.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::clock;
use crate::latency::{Counts, Latency};
use crate::plan::channel_name;
use crate::progress::Progress;
use crate::receipts::Receipts;
use crate::sockets::{self, Connected, Connecting, Sockets};
use crate::subscription;
use crate::tally::Tally;

/// What was sent arrives within this time after the last of it, or is lost.
const PATIENCE_NS: u64 = 5_000_000_000;

/// Sockets that take turns among some channels.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Work {
    pub(crate) ws: Vec<SocketAddr>,
    pub(crate) key: String,
    /// The number of the first socket among all.
    pub(crate) first: usize,
    pub(crate) count: usize,
    pub(crate) channels: usize,
    /// Events that each socket is to get.
    pub(crate) events: u64,
    pub(crate) in_flight: usize,
}

/// Running workers.
pub(crate) struct Workers {
    all: Vec<Worker>,
    /// How long connecting took, of all their sockets.
    pub(crate) connecting: Latency,
}

/// What arrived at workers.
#[derive(Default)]
pub(crate) struct Arrived {
    pub(crate) tally: Tally,
    pub(crate) latency: Option<Latency>,
    pub(crate) last_ns: u64,
    pub(crate) closed: usize,
}

struct Worker {
    child: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

#[derive(Serialize, Deserialize)]
struct Ready {
    failure: Option<String>,
    connecting: Counts,
}

#[derive(Serialize, Deserialize)]
struct Done {
    tally: Tally,
    latency: Counts,
    last_ns: u64,
    closed: usize,
}

impl Work {
    /// Keeps as many sockets as this process may have; the rest is for workers.
    pub(crate) fn split(self) -> Result<(Self, Vec<Self>)> {
        let mut parts = self.parts(sockets::most()?).into_iter();
        let own = parts.next().context("no sockets are wanted")?;
        Ok((own, parts.collect()))
    }

    /// Parts of at most so many sockets.
    fn parts(self, most: usize) -> Vec<Self> {
        let part = |first: usize| Self { first, count: most.min(self.first + self.count - first), ..self.clone() };
        (self.first..self.first + self.count).step_by(most.max(1)).map(part).collect()
    }

    /// Connects the sockets.
    ///
    /// # Errors
    /// Returns an error if one is refused.
    pub(crate) fn connect(&self, receipts: &mut Receipts, progress: &mut Progress) -> Result<(Sockets, Connected)> {
        let mut ws = self.ws.clone();
        let turn = self.first % ws.len().max(1);
        ws.rotate_left(turn);
        let wanted = Connecting {
            ws: &ws,
            key: &self.key,
            count: self.count,
            in_flight: self.in_flight,
            greeting: &|index, _| Some(subscription::public(&channel_name((self.first + index) % self.channels))),
        };
        let (sockets, connected) = Sockets::connect(wanted, receipts, progress)?;
        ensure!(connected.failed == 0, "{} sockets were refused: {:?}", connected.failed, connected.failure);
        Ok((sockets, connected))
    }

    /// What is to arrive.
    pub(crate) fn receipts(&self) -> Receipts {
        Receipts::new(self.count, |_| self.events, |socket| (self.first + socket) % self.channels)
    }
}

impl Workers {
    /// Starts a worker for each part, one after the other.
    pub(crate) fn start(parts: &[Work]) -> Result<Self> {
        let mut workers = Self { all: Vec::new(), connecting: Latency::new() };
        for part in parts {
            let mut worker = Worker::start()?;
            worker.order(&serde_json::to_string(part)?)?;
            let ready: Ready = worker.answer()?;
            ensure!(ready.failure.is_none(), "a worker failed: {:?}", ready.failure);
            workers.connecting.add_counts(&ready.connecting);
            workers.all.push(worker);
        }
        Ok(workers)
    }

    pub(crate) fn pids(&self) -> Vec<u32> {
        self.all.iter().map(|worker| worker.child.id()).collect()
    }

    /// Tells them that no more is sent; returns what arrived.
    pub(crate) fn finish(mut self) -> Result<Arrived> {
        for worker in &mut self.all {
            worker.order("finish")?;
        }
        let mut arrived = Arrived::default();
        for worker in &mut self.all {
            let done: Done = worker.answer()?;
            arrived.tally += done.tally;
            arrived.latency.get_or_insert_with(Latency::new).add_counts(&done.latency);
            arrived.last_ns = arrived.last_ns.max(done.last_ns);
            arrived.closed += done.closed;
        }
        Ok(arrived)
    }
}

impl Worker {
    fn start() -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("worker")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting a worker")?;
        let orders = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().context("a worker has no output")?);
        Ok(Self { child, orders, answers })
    }

    fn order(&mut self, line: &str) -> Result<()> {
        let orders = self.orders.as_mut().context("the worker has ended")?;
        Ok(orders.write_all(format!("{line}\n").as_bytes())?)
    }

    fn answer<T: DeserializeOwned>(&mut self) -> Result<T> {
        let mut line = String::new();
        ensure!(self.answers.read_line(&mut line)? > 0, "a worker has ended");
        Ok(serde_json::from_str(&line)?)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.orders = None;
        // It ends by itself, or is of no use any more.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs as a worker.
pub(crate) fn serve() -> Result<()> {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    let work: Work = serde_json::from_str(&line)?;
    let mut progress = Progress::silent();
    let mut receipts = work.receipts();
    let mut sockets = match work.connect(&mut receipts, &mut progress) {
        Ok((sockets, connected)) => {
            say(&Ready { failure: None, connecting: connected.latency.counts() })?;
            sockets
        }
        Err(error) => return say(&Ready { failure: Some(format!("{error:#}")), connecting: Vec::new() }),
    };
    let finish = Arc::new(AtomicBool::new(false));
    let told = finish.clone();
    thread::spawn(move || {
        // Whatever comes, even the end, means that no more is sent.
        let _ = std::io::stdin().read_line(&mut String::new());
        told.store(true, Ordering::Relaxed);
    });
    receipts.last_ns = clock::now_ns();
    loop {
        sockets.receive(Duration::from_millis(50), &mut receipts)?;
        let quiet_ns = clock::now_ns().saturating_sub(receipts.last_ns);
        if finish.load(Ordering::Relaxed) && (receipts.is_complete() || quiet_ns > PATIENCE_NS) {
            break;
        }
    }
    let complete_ns = receipts.last_ns;
    receipts.drain(&mut sockets)?;
    say(&Done {
        tally: receipts.final_tally(),
        latency: receipts.latency.counts(),
        last_ns: complete_ns,
        closed: receipts.closed.len(),
    })
}

fn say(answer: &impl Serialize) -> Result<()> {
    println!("{}", serde_json::to_string(answer)?);
    Ok(std::io::stdout().flush()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_hold_every_socket_once() {
        let work =
            Work { ws: Vec::new(), key: String::new(), first: 0, count: 50, channels: 1, events: 1, in_flight: 1 };
        let parts: Vec<_> = work.parts(20).iter().map(|part| (part.first, part.count)).collect();
        assert_eq!(parts, [(0, 20), (20, 20), (40, 10)]);
    }
}
