//! An application's endpoint: takes webhooks and records every request as it came.

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

/// How requests are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// With this status and a short body.
    Status(u16),
    /// Not at all: the connection stays open.
    Hang,
    /// With 200 and a body without end.
    EndlessBody,
    /// With a redirect to the same place.
    Redirect,
}

/// One request.
#[derive(Clone, Debug)]
pub struct Received {
    /// When it had come in whole.
    pub at: Instant,
    /// The path, with the query.
    pub path: String,
    /// Headers in order, names as they were sent.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: String,
    /// What it was answered with.
    pub answer: Answer,
}

/// One event that some request told of.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    /// Its id.
    pub id: String,
    /// Its kind.
    pub name: String,
    /// Its channel.
    pub channel: String,
    /// All of it.
    pub event: Value,
}

/// An endpoint on a port of its own; ends when dropped.
pub struct Receiver {
    /// Where it listens.
    pub address: SocketAddr,
    shared: Arc<Shared>,
    listening: Option<JoinHandle<()>>,
}

struct Shared {
    answer: Mutex<Answer>,
    received: Mutex<Vec<Received>>,
}

impl Receiver {
    /// Starts one that answers 200.
    ///
    /// # Panics
    /// When no port is free.
    pub async fn start() -> Self {
        let shared = Arc::new(Shared { answer: Mutex::new(Answer::Status(200)), received: Mutex::default() });
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port is free");
        let address = listener.local_addr().expect("it listens");
        let listening = Some(tokio::spawn(serve(listener, shared.clone())));
        Self { address, shared, listening }
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("http://{}/webhooks?tenant=shop", self.address)
    }

    /// The lines of an endpoint's configuration; `more`: further lines.
    pub fn endpoint(&self, more: &str) -> String {
        format!("[[apps.webhooks]]\nurl = \"{}\"\n{more}\n", self.url())
    }

    /// Answers from here on in this way.
    pub fn answer_with(&self, answer: Answer) {
        *lock(&self.shared.answer) = answer;
    }

    /// Does not listen from here on, and ends all connections.
    pub async fn go_down(&mut self) {
        if let Some(listening) = self.listening.take() {
            listening.abort();
            // It was told to end.
            let _ = listening.await;
        }
    }

    /// Listens again, at the same place.
    ///
    /// # Panics
    /// When the port is taken.
    pub async fn come_back(&mut self) {
        let listener = TcpListener::bind(self.address).await.expect("nobody took the port");
        self.listening = Some(tokio::spawn(serve(listener, self.shared.clone())));
    }

    /// Every request so far.
    pub fn received(&self) -> Vec<Received> {
        lock(&self.shared.received).clone()
    }

    /// Every event that a request with this answer told of, in the order of arrival, repeats included.
    pub fn told_with(&self, answer: Answer) -> Vec<Told> {
        let received = self.received();
        received.iter().filter(|request| request.answer == answer).flat_map(Received::events).collect()
    }

    /// Every event that was taken, in the order of arrival, repeats included.
    pub fn told(&self) -> Vec<Told> {
        self.told_with(Answer::Status(200))
    }

    /// Every event that was taken, once, in the order of first arrival.
    pub fn told_once(&self) -> Vec<Told> {
        let mut seen = std::collections::HashSet::new();
        self.told().into_iter().filter(|told| seen.insert(told.id.clone())).collect()
    }

    /// Kind and channel of what was taken, by channel, each in order.
    pub fn by_channel(&self) -> HashMap<String, Vec<String>> {
        let mut channels: HashMap<String, Vec<String>> = HashMap::new();
        for told in self.told_once() {
            channels.entry(told.channel).or_default().push(told.name);
        }
        channels
    }

    /// Waits until so many different events have been taken, and returns them.
    ///
    /// # Panics
    /// When they do not come.
    pub async fn events(&self, count: usize) -> Vec<Told> {
        self.events_within(crate::DEADLINE, count).await
    }

    /// The same, for as long as `limit`.
    ///
    /// # Panics
    /// When they do not come.
    pub async fn events_within(&self, limit: Duration, count: usize) -> Vec<Told> {
        let what = format!("{count} events at {}", self.address);
        eventually_within(limit, &what, async || self.told_once().len() >= count).await;
        self.told_once()
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
    /// The value of a header, by its name as sent.
    ///
    /// # Panics
    /// When there is none.
    pub fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map_or_else(|| panic!("no {name} in {:?}", self.headers), |(_, value)| value)
    }

    /// The events that it tells of.
    ///
    /// # Panics
    /// When the body is not what webhooks have.
    pub fn events(&self) -> Vec<Told> {
        let body: Value = serde_json::from_str(&self.body).expect("the body is JSON");
        let events = body["events"].as_array().expect("events are a list");
        let text = |event: &Value, name: &str| event[name].as_str().unwrap_or_default().to_owned();
        let told = events.iter().map(|event| Told {
            id: text(event, "id"),
            name: text(event, "name"),
            channel: text(event, "channel"),
            event: event.clone(),
        });
        told.collect()
    }

    /// Whether key and signature are the app's.
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

/// Answers the requests of one connection until it ends.
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
