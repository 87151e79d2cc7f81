//! The HTTP transports of pusher-js, request by request. [`HttpClient`] combines them like pusher-js.

mod client;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use shared::app::App;

use crate::raw::{HttpReply, Raw};
use crate::{Server, within};

pub use client::HttpClient;

/// The length of a response, in UTF-16 units, after which pusher-js sends the next request.
pub const RESPONSE_UNITS_MAX: usize = 262_144;

/// The kind of a request for messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A response without a fixed end.
    Stream,
    /// Successive short responses.
    Poll,
}

/// Both transports.
pub const TRANSPORTS: [Transport; 2] = [Transport::Stream, Transport::Poll];

/// One line of a response.
#[derive(Clone, Debug, PartialEq)]
pub enum Line {
    /// The opening line, `o`.
    Open,
    /// The messages of `a[…]`, parsed.
    Messages(Vec<Value>),
    /// A heartbeat, `h`.
    Heartbeat,
    /// The end, `c[code,"reason"]`.
    Close(u16, String),
}

/// The name of a session, and the addresses of its requests.
#[derive(Debug)]
pub struct HttpSession {
    /// The path of its requests, without the verb.
    pub path: String,
    /// Further headers of every request, for example `Origin: a\r\n`.
    pub headers: String,
    /// The app of the session.
    pub app: App,
    /// The nodes that receive the requests for messages, in turn.
    receive_at: Vec<SocketAddr>,
    /// The nodes that receive the messages, in turn.
    send_at: Vec<SocketAddr>,
    requests: AtomicUsize,
    receives: AtomicUsize,
    sends: AtomicUsize,
}

/// A response to a request for messages, while it is read.
pub struct Response {
    /// Status and headers.
    pub head: HttpReply,
    raw: Raw,
    framing: Framing,
    /// The part of the body that was received and not yet parsed.
    body: Vec<u8>,
    /// The UTF-16 units of all complete lines.
    pub units: usize,
    is_ended: bool,
}

/// The framing of the rest of a body.
enum Framing {
    Length(usize),
    /// The bytes that remain of the current chunk, with its line break.
    Chunks {
        left: usize,
        wire: Vec<u8>,
    },
}

impl Transport {
    /// Returns the last part of its path.
    pub fn verb(self) -> &'static str {
        match self {
            Self::Stream => "xhr_streaming",
            Self::Poll => "xhr",
        }
    }

    /// Returns its metric label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Stream => "xhr_streaming",
            Self::Poll => "xhr_polling",
        }
    }
}

impl Line {
    /// # Panics
    /// Panics if pusher-js would reject the line.
    fn parse(line: &str) -> Self {
        let (kind, rest) = line.split_at_checked(1).unwrap_or_else(|| panic!("not a line: {line:?}"));
        let json = || serde_json::from_str::<Value>(rest).unwrap_or_else(|error| panic!("{line:?}: {error}"));
        match (kind, rest) {
            ("o", "") => Self::Open,
            ("h", "") => Self::Heartbeat,
            ("a", _) => {
                let messages = json().as_array().expect("messages are an array").clone();
                let text = |message: &Value| message.as_str().expect("each is a string").to_owned();
                Self::Messages(messages.iter().map(|message| parse(&text(message))).collect())
            }
            ("c", _) => {
                let close = json();
                let code = close[0].as_u64().and_then(|code| code.try_into().ok()).expect("a code");
                assert_eq!(close.as_array().map(Vec::len), Some(2), "{line}");
                Self::Close(code, close[1].as_str().expect("a reason").to_owned())
            }
            _ => panic!("not a line: {line:?}"),
        }
    }
}

fn parse(message: &str) -> Value {
    serde_json::from_str(message).unwrap_or_else(|error| panic!("{message:?}: {error}"))
}

impl HttpSession {
    /// Returns a new session name for this server.
    pub fn new(server: &Server) -> Self {
        Self::over(&[server], &[server])
    }

    /// Returns a new session name. Requests for messages, and requests with messages, go to these servers in turn.
    pub fn over(receive_at: &[&Server], send_at: &[&Server]) -> Self {
        let server = receive_at.first().expect("a server");
        let (number, id) = (rand::random_range(0..1000), rand::random_range(0x1000_0000_u32..=u32::MAX));
        let prefix = &server.prefix;
        let addresses = |servers: &[&Server]| servers.iter().map(|server| server.public).collect();
        Self {
            path: format!("{prefix}/pusher/app/{}/{number}/{id:08x}", server.app.key),
            headers: String::new(),
            app: server.app.clone(),
            receive_at: addresses(receive_at),
            send_at: addresses(send_at),
            requests: AtomicUsize::new(1),
            receives: AtomicUsize::new(0),
            sends: AtomicUsize::new(0),
        }
    }

    /// Returns the same session at other servers.
    pub fn at(&self, server: &Server) -> Self {
        let path = self.path.clone();
        Self { path, headers: self.headers.clone(), ..Self::new(server) }
    }

    /// Returns the name as it is written in paths.
    pub fn name(&self) -> &str {
        self.path.split_once("/pusher/app/").expect("it is below this").1
    }

    /// Returns the head of a request without the empty line at its end.
    pub fn head(&self, method: &str, verb: &str) -> String {
        let n = self.requests.fetch_add(1, Ordering::Relaxed);
        // Requests with messages have no protocol parameters.
        let protocol = if verb == "xhr_send" { "" } else { "protocol=7&client=js&version=8.6.0&" };
        let (path, headers) = (&self.path, &self.headers);
        format!(
            "{method} {path}/{verb}?{protocol}t=1&n={n} HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n{headers}"
        )
    }

    /// Returns the bytes of a request for messages.
    pub fn request(&self, transport: Transport) -> String {
        self.head("POST", transport.verb()) + "Content-Length: 0\r\n\r\n"
    }

    /// Requests messages and reads the head of the response, which must be 200.
    pub async fn receive(&self, transport: Transport) -> Response {
        let mut raw = Raw::connect(next(&self.receive_at, &self.receives)).await;
        raw.send(self.request(transport).as_bytes()).await;
        Response::of(raw).await
    }

    /// Opens the session with a stream. Reads `o` and the message with the socket id.
    pub async fn open_stream(&self) -> (Response, Value) {
        let mut stream = self.receive(Transport::Stream).await;
        assert_eq!(stream.line().await, Some(Line::Open));
        let established = stream.message().await;
        assert_eq!(established["event"], "pusher:connection_established");
        (stream, established)
    }

    /// Opens the session with a poll.
    pub async fn open_poll(&self) -> Value {
        let lines = self.poll().await;
        assert!(matches!(lines[..], [Line::Open, Line::Messages(_)]), "{lines:?}");
        let message = messages(&lines).remove(0);
        assert_eq!(message["event"], "pusher:connection_established");
        message
    }

    /// Opens the session with either transport. A stream stays open.
    pub async fn open(&self, transport: Transport) -> (Option<Response>, Value) {
        match transport {
            Transport::Stream => {
                let (stream, established) = self.open_stream().await;
                (Some(stream), established)
            }
            Transport::Poll => (None, self.open_poll().await),
        }
    }

    /// Returns all lines of one poll.
    pub async fn poll(&self) -> Vec<Line> {
        self.receive(Transport::Poll).await.rest().await
    }

    /// Sends these texts.
    pub async fn send(&self, messages: &[impl AsRef<str>]) -> HttpReply {
        let body = Value::from(messages.iter().map(|message| message.as_ref().into()).collect::<Vec<Value>>());
        self.send_body(body.to_string().as_bytes()).await
    }

    /// Sends an empty list of messages, which counts as activity.
    pub async fn ping(&self) {
        assert_eq!(self.send_body(b"[]").await.status, 204);
    }

    /// Sends any body.
    pub async fn send_body(&self, body: &[u8]) -> HttpReply {
        let mut request = self.head("POST", "xhr_send").into_bytes();
        request.extend(format!("Content-Length: {}\r\nConnection: close\r\n\r\n", body.len()).bytes());
        request.extend(body);
        let mut raw = Raw::connect(next(&self.send_at, &self.sends)).await;
        raw.exchange(&request).await
    }

    /// Sends one event, which must be accepted.
    pub async fn send_event(&self, event: &str, data: &Value) {
        self.send_json(&json!({ "event": event, "data": data })).await;
    }

    /// Sends one message, which must be accepted.
    pub async fn send_json(&self, message: &Value) {
        let reply = self.send(&[message.to_string()]).await;
        assert_eq!((reply.status, reply.body.as_str()), (204, ""), "{message}");
    }

    /// Requests a subscription to a public channel.
    pub async fn ask(&self, channel: &str) {
        self.send_event("pusher:subscribe", &json!({ "channel": channel, "auth": "" })).await;
    }
}

fn next(addresses: &[SocketAddr], turns: &AtomicUsize) -> SocketAddr {
    addresses[turns.fetch_add(1, Ordering::Relaxed) % addresses.len()]
}

/// Returns all messages of these lines.
pub fn messages(lines: &[Line]) -> Vec<Value> {
    let messages =
        lines.iter().filter_map(|line| if let Line::Messages(messages) = line { Some(messages) } else { None });
    messages.flatten().cloned().collect()
}

/// Returns the code of a refusal or an end: a `pusher:error`, then `c` with the same code.
///
/// # Panics
/// Panics if the lines are different.
#[track_caller]
pub fn close_code(lines: &[Line]) -> u16 {
    let [Line::Messages(announced), Line::Close(code, reason)] = lines else { panic!("not an end: {lines:?}") };
    let [error] = &announced[..] else { panic!("not one announcement: {lines:?}") };
    assert_eq!((&error["event"], &error["data"]["code"]), (&"pusher:error".into(), &(*code).into()), "{lines:?}");
    assert!(!reason.is_empty());
    *code
}

impl Response {
    /// Reads the head of a response, which must be 200 and have the headers that the transports need.
    pub async fn of(mut raw: Raw) -> Self {
        let head = raw.take_head().await;
        assert_eq!(head.status, 200, "{head:?}");
        for (name, value) in [
            ("content-type", "application/javascript; charset=UTF-8"),
            ("cache-control", "no-store, no-transform"),
            ("x-accel-buffering", "no"),
            ("access-control-allow-origin", "*"),
        ] {
            assert_eq!(head.header(name), Some(value), "{name}");
        }
        assert_eq!(head.header("content-encoding"), None);
        let framing = match head.header("content-length") {
            Some(length) => Framing::Length(length.parse().expect("a length")),
            None => {
                assert_eq!(head.header("transfer-encoding"), Some("chunked"));
                Framing::Chunks { left: 0, wire: Vec::new() }
            }
        };
        Self { head, raw, framing, body: Vec::new(), units: 0, is_ended: false }
    }

    /// Reads the next line. Returns `None` at a valid end of the body.
    ///
    /// # Panics
    /// Panics if the body ends within a line, or is truncated.
    pub async fn line(&mut self) -> Option<Line> {
        loop {
            if let Some(line) = self.take_line() {
                return Some(line);
            }
            if !self.read_more().await {
                assert!(self.is_ended, "the response was truncated");
                assert!(self.body.is_empty(), "the response ended within a line");
                return None;
            }
        }
    }

    /// Reads the next line, unless the response has ended.
    pub async fn line_if_any(&mut self) -> Option<Line> {
        loop {
            if let Some(line) = self.take_line() {
                return Some(line);
            }
            if !self.read_more().await {
                return None;
            }
        }
    }

    /// Reads the next line, which must be one message.
    pub async fn message(&mut self) -> Value {
        match self.line().await {
            Some(Line::Messages(mut messages)) if messages.len() == 1 => messages.remove(0),
            other => panic!("expected a message, not {other:?}"),
        }
    }

    /// Reads the next message, which must be this event.
    pub async fn expect(&mut self, event: &str) -> Value {
        let message = self.message().await;
        assert_eq!(message["event"], event, "{message}");
        message
    }

    /// Reads all remaining lines.
    pub async fn rest(mut self) -> Vec<Line> {
        let mut lines = Vec::new();
        while let Some(line) = self.line().await {
            lines.push(line);
        }
        lines
    }

    /// Returns the connection of a finished response for the next request.
    pub fn into_raw(self) -> Raw {
        assert!(self.is_ended, "the response has not ended");
        self.raw
    }

    /// Whether the server has ended the response correctly.
    pub fn is_ended(&self) -> bool {
        self.is_ended
    }

    /// Whether pusher-js would send the next request. It checks this after it has read all complete lines.
    pub fn is_full(&self) -> bool {
        self.body.is_empty() && self.units > RESPONSE_UNITS_MAX
    }

    fn take_line(&mut self) -> Option<Line> {
        let end = self.body.iter().position(|byte| *byte == b'\n')?;
        let line: Vec<u8> = self.body.drain(..=end).collect();
        let line = std::str::from_utf8(&line).expect("lines are UTF-8");
        self.units += line.encode_utf16().count();
        Some(Line::parse(&line[..line.len() - 1]))
    }

    /// Returns `false` at the end of the body.
    async fn read_more(&mut self) -> bool {
        if self.is_ended {
            return false;
        }
        match &mut self.framing {
            Framing::Length(0) => self.is_ended = true,
            Framing::Length(left) => {
                let bytes = self.raw.some().await;
                if bytes.is_empty() {
                    return false;
                }
                *left = left.checked_sub(bytes.len()).expect("nothing follows");
                self.body.extend(bytes);
            }
            Framing::Chunks { left, wire } => {
                if let Some(is_last) = take_chunk(wire, left, &mut self.body) {
                    self.is_ended = is_last;
                    return true;
                }
                let bytes = self.raw.some().await;
                if bytes.is_empty() {
                    return false;
                }
                wire.extend(bytes);
            }
        }
        true
    }
}

/// Moves a part of a chunk from the wire to the body. Returns whether the body has ended, or `None` if bytes are missing.
fn take_chunk(wire: &mut Vec<u8>, left: &mut usize, body: &mut Vec<u8>) -> Option<bool> {
    if *left == 0 {
        let end = wire.windows(2).position(|bytes| bytes == b"\r\n")?;
        let length = std::str::from_utf8(&wire[..end]).ok().and_then(|length| usize::from_str_radix(length, 16).ok());
        let length = length.expect("a chunk begins with its length");
        if wire.len() < end + 4 {
            return None;
        }
        wire.drain(..end + 2);
        if length == 0 {
            assert_eq!(wire, b"\r\n", "nothing follows the last chunk");
            return Some(true);
        }
        *left = length + 2;
    }
    let data = left.saturating_sub(2).min(wire.len());
    body.extend(wire.drain(..data));
    *left -= data;
    if *left == 2 {
        if wire.len() < 2 {
            return if data > 0 { Some(false) } else { None };
        }
        wire.drain(..2);
        *left = 0;
    } else if data == 0 {
        return None;
    }
    Some(false)
}

/// Waits until the response of a session ends. Returns the lines before the end.
pub async fn until_over(mut response: Response) -> Vec<Line> {
    let mut lines = Vec::new();
    within("the end of a response", async {
        while let Some(line) = response.line_if_any().await {
            lines.push(line);
        }
    })
    .await;
    lines
}
