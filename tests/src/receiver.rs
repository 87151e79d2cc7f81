//! An endpoint of an application. It accepts webhooks and records every request.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;
use shared::secret::{Secret, Signature};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufStream};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use crate::eventually_within;
use crate::setup::{APP_KEY, APP_SECRET};

/// The behavior of the endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Responds with this status and a short body.
    Status(u16),
    /// Does not respond. The connection stays open.
    Hang,
    /// Responds with 200 and an endless body.
    EndlessBody,
    /// Redirects to the same URL.
    Redirect,
}

/// A recorded request.
#[derive(Clone, Debug)]
pub struct Received {
    /// The time at which it was complete.
    pub at: Instant,
    /// The path with the query.
    pub path: String,
    /// The headers in order, with their names as sent.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: String,
    /// The behavior that was used for the response.
    pub answer: Answer,
}

/// An event of a request.
#[derive(Clone, Debug, PartialEq)]
pub struct Delivered {
    /// The id.
    pub id: String,
    /// The event type.
    pub name: String,
    /// The channel.
    pub channel: String,
    /// The whole event.
    pub event: Value,
}

/// An endpoint on a port of its own. It ends when dropped.
pub struct Receiver {
    /// The address on which it listens.
    pub address: SocketAddr,
    shared: Arc<Shared>,
    listening: Option<JoinHandle<()>>,
}

struct Shared {
    answer: Mutex<Answer>,
    received: Mutex<Vec<Received>>,
}

impl Receiver {
    /// Starts an endpoint that responds with 200.
    ///
    /// # Panics
    /// Panics if no port is free.
    pub async fn start() -> Self {
        let shared = Arc::new(Shared { answer: Mutex::new(Answer::Status(200)), received: Mutex::default() });
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port is free");
        let address = listener.local_addr().expect("it listens");
        let listening = Some(tokio::spawn(serve(listener, shared.clone())));
        Self { address, shared, listening }
    }

    /// Returns its URL.
    pub fn url(&self) -> String {
        format!("http://{}/webhooks?tenant=shop", self.address)
    }

    /// Returns the lines of an endpoint's configuration. `more` has further lines.
    pub fn endpoint(&self, more: &str) -> String {
        format!("[[apps.webhooks]]\nurl = \"{}\"\n{more}\n", self.url())
    }

    /// Sets the behavior of future responses.
    pub fn answer_with(&self, answer: Answer) {
        *lock(&self.shared.answer) = answer;
    }

    /// Stops listening and closes all connections.
    pub async fn go_down(&mut self) {
        if let Some(listening) = self.listening.take() {
            listening.abort();
            // The task was aborted.
            let _ = listening.await;
        }
    }

    /// Listens again on the same port.
    ///
    /// # Panics
    /// Panics if the port is in use.
    pub async fn come_back(&mut self) {
        let listener = TcpListener::bind(self.address).await.expect("the port is still free");
        self.listening = Some(tokio::spawn(serve(listener, self.shared.clone())));
    }

    /// Returns every request so far.
    pub fn received(&self) -> Vec<Received> {
        lock(&self.shared.received).clone()
    }

    /// Returns every event of requests with this behavior, in the order of arrival, with duplicates.
    pub fn delivered_with(&self, answer: Answer) -> Vec<Delivered> {
        let received = self.received();
        received.iter().filter(|request| request.answer == answer).flat_map(Received::events).collect()
    }

    /// Returns every accepted event, in the order of arrival, with duplicates.
    pub fn delivered(&self) -> Vec<Delivered> {
        self.delivered_with(Answer::Status(200))
    }

    /// Returns every accepted event once, in the order of first arrival.
    pub fn delivered_once(&self) -> Vec<Delivered> {
        let mut seen = std::collections::HashSet::new();
        self.delivered().into_iter().filter(|delivered| seen.insert(delivered.id.clone())).collect()
    }

    /// Returns the types of the accepted events by channel, each in order.
    pub fn by_channel(&self) -> HashMap<String, Vec<String>> {
        let mut channels: HashMap<String, Vec<String>> = HashMap::new();
        for delivered in self.delivered_once() {
            channels.entry(delivered.channel).or_default().push(delivered.name);
        }
        channels
    }

    /// Waits until this number of different events was accepted, and returns them.
    ///
    /// # Panics
    /// Panics if they do not arrive.
    pub async fn events(&self, count: usize) -> Vec<Delivered> {
        self.events_within(crate::DEADLINE, count).await
    }

    /// Waits like [`Receiver::events`], up to `limit`.
    ///
    /// # Panics
    /// Panics if they do not arrive.
    pub async fn events_within(&self, limit: Duration, count: usize) -> Vec<Delivered> {
        let what = format!("{count} events at {}", self.address);
        eventually_within(limit, &what, async || self.delivered_once().len() >= count).await;
        self.delivered_once()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        if let Some(listening) = &self.listening {
            listening.abort();
        }
    }
}

impl Received {
    /// Returns the value of a header, by its name as sent.
    ///
    /// # Panics
    /// Panics if there is none.
    pub fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map_or_else(|| panic!("no {name} in {:?}", self.headers), |(_, value)| value)
    }

    /// Returns the events of the request.
    ///
    /// # Panics
    /// Panics if the body is not that of a webhook.
    pub fn events(&self) -> Vec<Delivered> {
        let body: Value = serde_json::from_str(&self.body).expect("the body is JSON");
        let events = body["events"].as_array().expect("events are a list");
        let text = |event: &Value, name: &str| event[name].as_str().unwrap_or_default().to_owned();
        let delivered = events.iter().map(|event| Delivered {
            id: text(event, "id"),
            name: text(event, "name"),
            channel: text(event, "channel"),
            event: event.clone(),
        });
        delivered.collect()
    }

    /// Whether key and signature belong to the app.
    pub fn is_signed(&self) -> bool {
        let signature = Signature::from_hex(self.header("X-Pusher-Signature")).expect("a signature is hex digits");
        let secret = Secret::new(APP_SECRET);
        self.header("X-Pusher-Key") == APP_KEY && secret.verifies(&[self.body.as_bytes()], &signature)
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { return };
                connections.spawn(converse(stream, shared.clone()));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Responds to the requests of one connection until it ends.
async fn converse(stream: TcpStream, shared: Arc<Shared>) {
    let mut stream = BufStream::new(stream);
    while let Some((path, headers, body)) = read_request(&mut stream).await {
        let answer = *lock(&shared.answer);
        lock(&shared.received).push(Received { at: Instant::now(), path, headers, body, answer });
        if respond(&mut stream, answer).await.is_err() {
            return;
        }
    }
}

async fn respond(stream: &mut BufStream<TcpStream>, answer: Answer) -> std::io::Result<()> {
    match answer {
        Answer::Status(status) => {
            stream.write_all(format!("HTTP/1.1 {status} Whatever\r\nContent-Length: 2\r\n\r\nok").as_bytes()).await?;
        }
        Answer::Redirect => {
            let head = "HTTP/1.1 307 Temporary Redirect\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n";
            stream.write_all(head.as_bytes()).await?;
        }
        Answer::Hang => std::future::pending().await,
        Answer::EndlessBody => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await?;
            loop {
                stream.write_all(format!("2000\r\n{}\r\n", "x".repeat(0x2000)).as_bytes()).await?;
            }
        }
    }
    stream.flush().await
}

async fn read_request(stream: &mut BufStream<TcpStream>) -> Option<(String, Vec<(String, String)>, String)> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).ok()?;
    let mut lines = head.lines();
    let path = lines.next()?.split(' ').nth(1)?.to_owned();
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let length = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-length"))?.1.parse().ok()?;
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some((path, headers, String::from_utf8(body).ok()?))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
