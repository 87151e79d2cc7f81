//! The HTTP transports of pusher-js, request by request. [`HttpClient`] puts them together as pusher-js does.

mod client;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use shared::app::App;

use crate::raw::{HttpReply, Raw};
use crate::{Server, within};

pub use client::HttpClient;

/// What pusher-js takes of one response before it asks for another, in UTF-16 units.
pub const RESPONSE_UNITS_MAX: usize = 262_144;

/// What a request for messages is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A response that goes on.
    Stream,
    /// One response after the other.
    Poll,
}

/// Both.
pub const TRANSPORTS: [Transport; 2] = [Transport::Stream, Transport::Poll];

/// One line of a response.
#[derive(Clone, Debug, PartialEq)]
pub enum Line {
    /// `o`
    Open,
    /// `a[…]`, each message parsed.
    Messages(Vec<Value>),
    /// `h`
    Heartbeat,
    /// `c[code,"reason"]`
    Close(u16, String),
}

/// The name of a session, and where its requests go.
#[derive(Debug)]
pub struct HttpSession {
    /// The path of its requests, up to the verb.
    pub path: String,
    /// What every request ends with before its empty line, as `Origin: a\r\n`.
    pub headers: String,
    /// The app of its clients.
    pub app: App,
    /// Nodes that take turns with requests for messages.
    receive_at: Vec<SocketAddr>,
    /// Nodes that take turns with messages.
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
    /// What was read of the body and not taken yet.
    body: Vec<u8>,
    /// UTF-16 units of all whole lines so far.
    pub units: usize,
    is_ended: bool,
}

/// What is left of a body.
enum Framing {
    Length(usize),
    /// `left`: bytes of the current chunk, with the line break behind it.
    Chunks {
        left: usize,
        wire: Vec<u8>,
    },
}

impl Transport {
    /// The last part of its path.
    pub fn verb(self) -> &'static str {
        match self {
            Self::Stream => "xhr_streaming",
            Self::Poll => "xhr",
        }
    }

    /// Its metric label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Stream => "xhr_streaming",
            Self::Poll => "xhr_polling",
        }
    }
}

impl Line {
    /// # Panics
    /// When it is none that pusher-js reads.
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
    /// A new name for a session with this server.
    pub fn new(server: &Server) -> Self {
        Self::over(&[server], &[server])
    }

    /// A new name for a session whose requests for messages, and with messages, go to these servers in turn.
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

    /// The same session at other servers.
    pub fn at(&self, server: &Server) -> Self {
        let path = self.path.clone();
        Self { path, headers: self.headers.clone(), ..Self::new(server) }
    }

    /// The name, as it stands in paths.
    pub fn name(&self) -> &str {
        self.path.split_once("/pusher/app/").expect("it is below this").1
    }

    /// The head of a request, but for the empty line at its end.
    pub fn head(&self, method: &str, verb: &str) -> String {
        let n = self.requests.fetch_add(1, Ordering::Relaxed);
        // Messages come without the parameters of the protocol.
        let protocol = if verb == "xhr_send" { "" } else { "protocol=7&client=js&version=8.6.0&" };
        let (path, headers) = (&self.path, &self.headers);
        format!(
            "{method} {path}/{verb}?{protocol}t=1&n={n} HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n{headers}"
        )
    }

    /// The bytes of a request for messages.
    pub fn request(&self, transport: Transport) -> String {
        self.head("POST", transport.verb()) + "Content-Length: 0\r\n\r\n"
    }

    /// Asks for messages and takes the answer's head, which must be 200.
    pub async fn receive(&self, transport: Transport) -> Response {
        let mut raw = Raw::connect(next(&self.receive_at, &self.receives)).await;
        raw.send(self.request(transport).as_bytes()).await;
        Response::of(raw).await
    }

    /// Opens the session with a stream; takes `o` and the message that names the socket.
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

    /// Opens the session in one of both ways; a stream stays.
    pub async fn open(&self, transport: Transport) -> (Option<Response>, Value) {
        match transport {
            Transport::Stream => {
                let (stream, established) = self.open_stream().await;
                (Some(stream), established)
            }
            Transport::Poll => (None, self.open_poll().await),
        }
    }

    /// All lines of one poll.
    pub async fn poll(&self) -> Vec<Line> {
        self.receive(Transport::Poll).await.rest().await
    }

    /// Sends these texts.
    pub async fn send(&self, messages: &[impl AsRef<str>]) -> HttpReply {
        let body = Value::from(messages.iter().map(|message| message.as_ref().into()).collect::<Vec<Value>>());
        self.send_body(body.to_string().as_bytes()).await
    }

    /// Sends nothing, which is a sign of life and asks for one.
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

    /// Sends one event, which must be taken.
    pub async fn send_event(&self, event: &str, data: &Value) {
        self.send_json(&json!({ "event": event, "data": data })).await;
    }

    /// Sends one message, which must be taken.
    pub async fn send_json(&self, message: &Value) {
        let reply = self.send(&[message.to_string()]).await;
        assert_eq!((reply.status, reply.body.as_str()), (204, ""), "{message}");
    }

    /// Asks for a public channel.
    pub async fn ask(&self, channel: &str) {
        self.send_event("pusher:subscribe", &json!({ "channel": channel, "auth": "" })).await;
    }
}

fn next(addresses: &[SocketAddr], turns: &AtomicUsize) -> SocketAddr {
    addresses[turns.fetch_add(1, Ordering::Relaxed) % addresses.len()]
}

/// All messages of these lines.
pub fn messages(lines: &[Line]) -> Vec<Value> {
    let messages =
        lines.iter().filter_map(|line| if let Line::Messages(messages) = line { Some(messages) } else { None });
    messages.flatten().cloned().collect()
}

/// The codes of a refusal or an end: an announcement, then `c` with the same code.
///
/// # Panics
/// When the lines are others.
#[track_caller]
pub fn close_code(lines: &[Line]) -> u16 {
    let [Line::Messages(announced), Line::Close(code, reason)] = lines else { panic!("not an end: {lines:?}") };
    let [error] = &announced[..] else { panic!("not one announcement: {lines:?}") };
    assert_eq!((&error["event"], &error["data"]["code"]), (&"pusher:error".into(), &(*code).into()), "{lines:?}");
    assert!(!reason.is_empty());
    *code
}

impl Response {
    /// Takes the head of what comes on a connection, which must be 200 and what the transports need.
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

    /// The next line; `None` where the body ends as it should.
    ///
    /// # Panics
    /// When it ends within a line, or is cut off.
    pub async fn line(&mut self) -> Option<Line> {
        loop {
            if let Some(line) = self.take_line() {
                return Some(line);
            }
            if !self.read_more().await {
                assert!(self.is_ended, "the response was cut off");
                assert!(self.body.is_empty(), "the response ended within a line");
                return None;
            }
        }
    }

    /// The next line, if the response is not over or cut off.
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

    /// The next line, which must be one message.
    pub async fn message(&mut self) -> Value {
        match self.line().await {
            Some(Line::Messages(mut messages)) if messages.len() == 1 => messages.remove(0),
            other => panic!("expected a message, not {other:?}"),
        }
    }

    /// The next message, which must be this event.
    pub async fn expect(&mut self, event: &str) -> Value {
        let message = self.message().await;
        assert_eq!(message["event"], event, "{message}");
        message
    }

    /// All that is left.
    pub async fn rest(mut self) -> Vec<Line> {
        let mut lines = Vec::new();
        while let Some(line) = self.line().await {
            lines.push(line);
        }
        lines
    }

    /// The connection of a response that is over, for the next.
    pub fn into_raw(self) -> Raw {
        assert!(self.is_ended, "the response goes on");
        self.raw
    }

    /// Whether the response was ended by the server as it should be.
    pub fn is_ended(&self) -> bool {
        self.is_ended
    }

    /// Whether pusher-js has had enough of it: it looks when it has taken all whole lines that came.
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

    /// `false` where there is no more.
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

/// Moves a piece of a chunk from the wire to the body; returns whether the body is over, `None` when more must come.
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

/// Waits until a session's response is cut off or over; what comes before is returned.
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
