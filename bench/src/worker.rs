//! Worker processes, which have the sockets beyond the limit of one process.
//!
//! A worker receives its [`Work`] as one line. It replies when its sockets are subscribed. After a second line, which
//! marks the end of publishing, it replies with its results. It exits when its input ends.

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
use crate::sockets::{self, ConnectOptions, Connected, Sockets};
use crate::subscription;
use crate::tally::Tally;

/// After this time without an event, missing events count as lost.
const IDLE_TIMEOUT_NS: u64 = 5_000_000_000;

/// Sockets that subscribe to some channels in turn.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Work {
    pub(crate) ws: Vec<SocketAddr>,
    pub(crate) key: String,
    /// The number of the first socket of this part.
    pub(crate) first: usize,
    pub(crate) count: usize,
    pub(crate) channels: usize,
    /// The number of events that each socket must receive.
    pub(crate) events: u64,
    pub(crate) in_flight: usize,
}

/// Running workers.
pub(crate) struct Workers {
    all: Vec<Worker>,
    /// The connection times of all their sockets.
    pub(crate) connecting: Latency,
}

/// The results of all workers.
#[derive(Default)]
pub(crate) struct Arrived {
    pub(crate) tally: Tally,
    pub(crate) latency: Option<Latency>,
    pub(crate) last_ns: u64,
    pub(crate) closed: usize,
}

struct Worker {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
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
    /// Returns the part for this process and the parts for workers.
    pub(crate) fn split(self) -> Result<(Self, Vec<Self>)> {
        let mut parts = self.parts(sockets::sockets_max()?).into_iter();
        let own = parts.next().context("the number of sockets is 0")?;
        Ok((own, parts.collect()))
    }

    /// Divides the work into parts of at most `max` sockets.
    fn parts(self, max: usize) -> Vec<Self> {
        let part = |first: usize| Self { first, count: max.min(self.first + self.count - first), ..self.clone() };
        (self.first..self.first + self.count).step_by(max.max(1)).map(part).collect()
    }

    /// Connects the sockets.
    ///
    /// # Errors
    /// Returns an error if a connection is refused.
    pub(crate) fn connect(&self, receipts: &mut Receipts, progress: &mut Progress) -> Result<(Sockets, Connected)> {
        let mut ws = self.ws.clone();
        let turn = self.first % ws.len().max(1);
        ws.rotate_left(turn);
        let options = ConnectOptions {
            ws: &ws,
            key: &self.key,
            count: self.count,
            in_flight: self.in_flight,
            greeting: &|index, _| Some(subscription::public(&channel_name((self.first + index) % self.channels))),
        };
        let (sockets, connected) = Sockets::connect(options, receipts, progress)?;
        ensure!(connected.failed == 0, "{} sockets were refused: {:?}", connected.failed, connected.failure);
        Ok((sockets, connected))
    }

    /// Returns the receiver for the expected events.
    pub(crate) fn receipts(&self) -> Receipts {
        Receipts::new(self.count, |_| self.events, |socket| (self.first + socket) % self.channels)
    }
}

impl Workers {
    /// Starts a worker for each part, one at a time.
    pub(crate) fn start(parts: &[Work]) -> Result<Self> {
        let mut workers = Self { all: Vec::new(), connecting: Latency::new() };
        for part in parts {
            let mut worker = Worker::start()?;
            worker.send_line(&serde_json::to_string(part)?)?;
            let ready: Ready = worker.reply()?;
            ensure!(ready.failure.is_none(), "a worker failed: {:?}", ready.failure);
            workers.connecting.add_counts(&ready.connecting);
            workers.all.push(worker);
        }
        Ok(workers)
    }

    pub(crate) fn pids(&self) -> Vec<u32> {
        self.all.iter().map(|worker| worker.child.id()).collect()
    }

    /// Reports the end of publishing to the workers and returns their results.
    pub(crate) fn finish(mut self) -> Result<Arrived> {
        for worker in &mut self.all {
            worker.send_line("finish")?;
        }
        let mut arrived = Arrived::default();
        for worker in &mut self.all {
            let done: Done = worker.reply()?;
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
            .context("cannot start a worker")?;
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().context("a worker has no standard output")?);
        Ok(Self { child, input, output })
    }

    fn send_line(&mut self, line: &str) -> Result<()> {
        let input = self.input.as_mut().context("the worker has exited")?;
        Ok(input.write_all(format!("{line}\n").as_bytes())?)
    }

    fn reply<T: DeserializeOwned>(&mut self) -> Result<T> {
        let mut line = String::new();
        ensure!(self.output.read_line(&mut line)? > 0, "a worker has exited");
        Ok(serde_json::from_str(&line)?)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.input = None;
        // A blocked worker must not block this process.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs this process as a worker.
pub(crate) fn serve() -> Result<()> {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    let work: Work = serde_json::from_str(&line)?;
    let mut progress = Progress::silent();
    let mut receipts = work.receipts();
    let mut sockets = match work.connect(&mut receipts, &mut progress) {
        Ok((sockets, connected)) => {
            print(&Ready { failure: None, connecting: connected.latency.counts() })?;
            sockets
        }
        Err(error) => return print(&Ready { failure: Some(format!("{error:#}")), connecting: Vec::new() }),
    };
    let finish = Arc::new(AtomicBool::new(false));
    let finish_received = finish.clone();
    thread::spawn(move || {
        // A line and the end of input both mark the end of publishing.
        let _ = std::io::stdin().read_line(&mut String::new());
        finish_received.store(true, Ordering::Relaxed);
    });
    receipts.last_ns = clock::now_ns();
    loop {
        sockets.receive(Duration::from_millis(50), &mut receipts)?;
        let quiet_ns = clock::now_ns().saturating_sub(receipts.last_ns);
        if finish.load(Ordering::Relaxed) && (receipts.is_complete() || quiet_ns > IDLE_TIMEOUT_NS) {
            break;
        }
    }
    let complete_ns = receipts.last_ns;
    receipts.drain(&mut sockets)?;
    print(&Done {
        tally: receipts.final_tally(),
        latency: receipts.latency.counts(),
        last_ns: complete_ns,
        closed: receipts.closed.len(),
    })
}

fn print(value: &impl Serialize) -> Result<()> {
    println!("{}", serde_json::to_string(value)?);
    Ok(std::io::stdout().flush()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_socket_is_in_one_part() {
        let work =
            Work { ws: Vec::new(), key: String::new(), first: 0, count: 50, channels: 1, events: 1, in_flight: 1 };
        let parts: Vec<_> = work.parts(20).iter().map(|part| (part.first, part.count)).collect();
        assert_eq!(parts, [(0, 20), (20, 20), (40, 10)]);
    }
}
