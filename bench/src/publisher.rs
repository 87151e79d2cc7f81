//! Publishes signed events over the HTTP API, with one thread per keep-alive connection. The rate is steady, or as fast
//! as the server responds.

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

/// Options of the HTTP connections.
#[derive(Args, Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Sending {
    /// HTTP connections that share the channels, at most one per channel to keep each channel's order
    #[arg(long, default_value_t = 1)]
    pub(crate) connections: usize,
    /// Concurrent requests on one connection; servers without HTTP pipelining need 1
    #[arg(long, default_value_t = 1)]
    pub(crate) in_flight: usize,
}

impl Default for Sending {
    fn default() -> Self {
        Self { connections: 1, in_flight: 1 }
    }
}

/// The responses to a plan's requests.
pub(crate) struct Published {
    /// Requests without a 2xx response.
    pub(crate) refused: u64,
    /// The status and body of the first of them.
    pub(crate) refusal: Option<String>,
    /// The delay of requests after their due times.
    pub(crate) lateness: Latency,
    /// The time from request to response. With several concurrent requests, it ends when the response is read.
    pub(crate) response_times: Latency,
}

/// A plan in progress.
pub(crate) struct Publishing {
    senders: Vec<JoinHandle<Result<Published>>>,
}

impl Publishing {
    /// Starts `plan`. The connections alternate between the addresses in `api`.
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

    /// Waits for all responses.
    ///
    /// # Errors
    /// Returns an error if a connection failed.
    pub(crate) fn join(self) -> Result<Published> {
        let mut all = Published::nothing();
        for sender in self.senders {
            let published = sender.join().map_err(|_| anyhow!("a sender panicked"))??;
            all.refused += published.refused;
            all.refusal = all.refusal.or(published.refusal);
            all.lateness.add(&published.lateness);
            all.response_times.add(&published.response_times);
        }
        Ok(all)
    }
}

impl Published {
    pub(crate) fn nothing() -> Self {
        Self { refused: 0, refusal: None, lateness: Latency::new(), response_times: Latency::new() }
    }
}

/// The sender of one connection.
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
                self.read_response(&mut connection, &mut waiting)?;
            }
            self.backlog.admit(batch.len());
            let due_ns = self.pace.due_ns(index as u64);
            sleep_until(due_ns);
            let now_ns = clock::now_ns();
            if self.pace.is_steady() {
                self.published.lateness.record_ns(now_ns.saturating_sub(due_ns));
            }
            let request = self.requests.request(&batch, now_ns);
            connection.send(request).with_context(|| format!("cannot send to {}", self.address))?;
            waiting.push_back(now_ns);
            // The response usually arrives before the next request is due. Reading it now gives an exact time.
            if self.in_flight == 1 {
                self.read_response(&mut connection, &mut waiting)?;
            }
        }
        while !waiting.is_empty() {
            self.read_response(&mut connection, &mut waiting)?;
        }
        Ok(self.published)
    }

    fn read_response(&mut self, connection: &mut Connection, waiting: &mut VecDeque<u64>) -> Result<()> {
        let response = connection.response().with_context(|| format!("cannot read a response of {}", self.address))?;
        let sent_ns = waiting.pop_front().context("received a response without a request")?;
        self.published.response_times.record_ns(clock::now_ns().saturating_sub(sent_ns));
        if !(200..300).contains(&response.status) {
            self.published.refused += 1;
            self.published.refusal.get_or_insert_with(|| format!("{} {}", response.status, response.body));
        }
        Ok(())
    }
}

/// Sleeps until `due_ns`. Returns at once if it has passed.
#[expect(clippy::disallowed_methods, reason = "the thread has no other work")]
pub(crate) fn sleep_until(due_ns: u64) {
    let now_ns = clock::now_ns();
    if due_ns > now_ns {
        thread::sleep(Duration::from_nanos(due_ns - now_ns));
    }
}
