//! Sends signed events over the HTTP API: keep-alive connections, each with a thread of its own, at a steady rate or as
//! fast as the server answers.

pub(crate) mod backlog;
mod connection;
mod request;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use clap::Args;
use serde::{Deserialize, Serialize};
use shared::app::App;

use crate::clock;
use crate::latency::Latency;
use crate::pace::Pace;
use crate::plan::{Plan, Share};

use backlog::Backlog;
use request::Requests;

pub(crate) use connection::Connection;

/// How events are sent.
#[derive(Args, Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Sending {
    /// HTTP connections that share the channels; never more than there are channels, so that each keeps its order
    #[arg(long, default_value_t = 1)]
    pub(crate) connections: usize,
    /// Requests on one connection that may wait for their answers; servers that do not know pipelining need 1
    #[arg(long, default_value_t = 1)]
    pub(crate) in_flight: usize,
}

impl Default for Sending {
    fn default() -> Self {
        Self { connections: 1, in_flight: 1 }
    }
}

/// What became of a plan.
pub(crate) struct Published {
    /// Requests that were not answered with success, and what the first one was told.
    pub(crate) refused: u64,
    pub(crate) refusal: Option<String>,
    /// How late requests went out, against when they were due.
    pub(crate) lateness: Latency,
    /// From sending a request to its answer; with more than one in flight, to when the answer was looked at.
    pub(crate) answers: Latency,
}

/// A plan that is being carried out.
pub(crate) struct Publishing {
    senders: Vec<JoinHandle<Result<Published>>>,
}

impl Publishing {
    /// Begins to carry out `plan`. Connections take turns among `api`.
    pub(crate) fn start(api: &[SocketAddr], app: &App, plan: Plan, sending: Sending, backlog: &Arc<Backlog>) -> Self {
        let count = sending.connections.clamp(1, plan.channels.max(1));
        let start_ns = clock::now_ns();
        let senders = (0..count).map(|sender| {
            let share = plan.share(sender, count);
            let sender = Sender {
                address: api[sender % api.len()],
                requests: Requests::new(app.clone(), plan.data_bytes),
                in_flight: sending.in_flight.max(1),
                pace: Pace::new(start_ns, share.requests_per_second(), share.offset()),
                backlog: backlog.clone(),
                published: Published::nothing(),
            };
            thread::spawn(move || sender.send(share))
        });
        Self { senders: senders.collect() }
    }

    /// Waits until all is sent and answered.
    ///
    /// # Errors
    /// Returns an error if a connection broke.
    pub(crate) fn join(self) -> Result<Published> {
        let mut all = Published::nothing();
        for sender in self.senders {
            let published = sender.join().map_err(|_| anyhow!("a sender panicked"))??;
            all.refused += published.refused;
            all.refusal = all.refusal.or(published.refusal);
            all.lateness.add(&published.lateness);
            all.answers.add(&published.answers);
        }
        Ok(all)
    }
}

impl Published {
    pub(crate) fn nothing() -> Self {
        Self { refused: 0, refusal: None, lateness: Latency::new(), answers: Latency::new() }
    }
}

/// One connection's work.
struct Sender {
    address: SocketAddr,
    requests: Requests,
    in_flight: usize,
    pace: Pace,
    backlog: Arc<Backlog>,
    published: Published,
}

impl Sender {
    fn send(mut self, share: Share) -> Result<Published> {
        let mut connection = Connection::open(self.address)?;
        let mut waiting = VecDeque::new();
        for (index, batch) in share.batches().enumerate() {
            if waiting.len() == self.in_flight {
                self.take_answer(&mut connection, &mut waiting)?;
            }
            self.backlog.admit(batch.len());
            let due_ns = self.pace.due_ns(index as u64);
            sleep_until(due_ns);
            let now_ns = clock::now_ns();
            if self.pace.is_steady() {
                self.published.lateness.record_ns(now_ns.saturating_sub(due_ns));
            }
            let request = self.requests.request(&batch, now_ns);
            connection.send(request).with_context(|| format!("sending to {}", self.address))?;
            waiting.push_back(now_ns);
            // Its answer takes less time than the next one's turn: looked at once, its time is right.
            if self.in_flight == 1 {
                self.take_answer(&mut connection, &mut waiting)?;
            }
        }
        while !waiting.is_empty() {
            self.take_answer(&mut connection, &mut waiting)?;
        }
        Ok(self.published)
    }

    fn take_answer(&mut self, connection: &mut Connection, waiting: &mut VecDeque<u64>) -> Result<()> {
        let answer = connection.answer().with_context(|| format!("the answer of {}", self.address))?;
        let sent_ns = waiting.pop_front().context("an answer without a request")?;
        self.published.answers.record_ns(clock::now_ns().saturating_sub(sent_ns));
        if !(200..300).contains(&answer.status) {
            self.published.refused += 1;
            self.published.refusal.get_or_insert_with(|| format!("{} {}", answer.status, answer.body));
        }
        Ok(())
    }
}

/// Sleeps until a moment; returns at once when it has passed.
#[expect(clippy::disallowed_methods, reason = "a thread that does nothing else")]
pub(crate) fn sleep_until(due_ns: u64) {
    let now_ns = clock::now_ns();
    if due_ns > now_ns {
        thread::sleep(Duration::from_nanos(due_ns - now_ns));
    }
}
