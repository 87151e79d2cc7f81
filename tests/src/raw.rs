//! A client below the level of messages: it sends any bytes, reads only when told to, and answers nothing by itself.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::Value;
use shared::app::App;
use shared::protocol::SocketId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::{DEADLINE, PATIENCE, within, within_time};

/// Opcodes of RFC 6455.
pub const CONTINUATION: u8 = 0;
/// A text frame.
pub const TEXT: u8 = 1;
/// A binary frame.
pub const BINARY: u8 = 2;
/// A close frame.
pub const CLOSE: u8 = 8;
/// A ping.
pub const PING: u8 = 9;
/// A pong.
pub const PONG: u8 = 10;

/// The bit of a frame's first byte that ends a message.
pub const FIN: u8 = 0x80;

const MASK: [u8; 4] = [0x12, 0x34, 0x56, 0x78];

/// One TCP connection.
pub struct Raw {
    /// The connection itself.
    pub stream: TcpStream,
    buffer: Vec<u8>,
}

/// One frame from the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The opcode.
    pub opcode: u8,
    /// The payload.
    pub payload: Vec<u8>,
}

/// An answer over HTTP.
#[derive(Clone, Debug)]
pub struct HttpReply {
    /// The status.
    pub status: u16,
    /// Names in lower case, and values.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: String,
}

impl Raw {
    /// Connects.
    ///
    /// # Panics
    /// When nobody listens.
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = within("connecting", TcpStream::connect(address)).await.expect("the server listens");
        stream.set_nodelay(true).expect("the stream is open");
        Self { stream, buffer: Vec::new() }
    }

    /// Connects with a receive buffer of a few KiB: what is not read soon stays with the server.
    ///
    /// # Panics
    /// When nobody listens.
    pub async fn connect_narrow(address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(4096).expect("the system takes small buffers");
        let stream = within("connecting", socket.connect(address)).await.expect("the server listens");
        Self { stream, buffer: Vec::new() }
    }

    /// Connects, upgrades and takes the `connection_established`.
    pub async fn established(address: SocketAddr, app: &App) -> Self {
        let mut raw = Self::connect(address).await;
        raw.establish(app).await;
        raw
    }

    /// Upgrades and takes the `connection_established`; returns the socket id.
    pub async fn establish(&mut self, app: &App) -> SocketId {
        let reply = self.upgrade(&format!("/app/{}?protocol=7", app.key), &[]).await;
        assert_eq!(reply.status, 101, "{}", reply.body);
        let message = self.message().await;
        assert_eq!(message["event"], "pusher:connection_established");
        let data: Value = serde_json::from_str(message["data"].as_str().expect("data")).expect("the data is JSON");
        data["socket_id"].as_str().and_then(|id| id.parse().ok()).expect("a socket id")
    }

    /// Asks for a WebSocket; returns the answer's head.
    pub async fn upgrade(&mut self, target: &str, headers: &[(&str, &str)]) -> HttpReply {
        let mut request = handshake(target);
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str("\r\n");
        self.send(request.as_bytes()).await;
        self.take_head().await
    }

    /// Sends bytes.
    ///
    /// # Panics
    /// When they cannot be sent in time.
    pub async fn send(&mut self, bytes: &[u8]) {
        within("sending", self.stream.write_all(bytes)).await.expect("the connection is open");
    }

    /// Sends one whole frame. `first`: opcode and flags.
    pub async fn send_frame(&mut self, first: u8, payload: &[u8]) {
        self.send(&frame(first, payload)).await;
    }

    /// Sends one message.
    pub async fn send_text(&mut self, text: &str) {
        self.send_frame(FIN | TEXT, text.as_bytes()).await;
    }

    /// Subscribes to a public channel and waits for the answer.
    pub async fn subscribe(&mut self, channel: &str) {
        self.send_text(&format!(r#"{{"event":"pusher:subscribe","data":{{"channel":"{channel}","auth":""}}}}"#)).await;
        assert_eq!(self.message().await["event"], "pusher_internal:subscription_succeeded");
    }

    /// The next frame; `None` when the connection ended between two frames.
    ///
    /// # Panics
    /// When it is not one that a server may send, or the connection ends within it.
    pub async fn frame(&mut self) -> Option<Frame> {
        self.frame_within(DEADLINE).await
    }

    async fn frame_within(&mut self, limit: Duration) -> Option<Frame> {
        loop {
            if let Some(frame) = self.take_frame() {
                return Some(frame);
            }
            if !self.fill_within(limit).await {
                assert!(self.buffer.is_empty(), "the connection ended within a frame");
                return None;
            }
        }
    }

    /// The next frame, which must be a message.
    ///
    /// # Panics
    /// When it is another frame.
    pub async fn message(&mut self) -> Value {
        let frame = self.frame().await.expect("a message, not the end");
        assert_eq!(frame.opcode, TEXT, "{:?}", String::from_utf8_lossy(&frame.payload));
        serde_json::from_slice(&frame.payload).expect("messages are JSON")
    }

    /// The next frame, which must be a close frame: its code.
    ///
    /// # Panics
    /// When it is another frame.
    pub async fn close(&mut self) -> u16 {
        let frame = self.frame().await.expect("a close frame, not the end");
        assert_eq!(frame.opcode, CLOSE, "{:?}", String::from_utf8_lossy(&frame.payload));
        let (code, reason) = frame.payload.split_first_chunk().expect("a close frame of the server has a code");
        assert!(reason.len() <= 123 && std::str::from_utf8(reason).is_ok(), "{reason:?}");
        u16::from_be_bytes(*code)
    }

    /// Waits for the end: a close frame with `code`, announced by a `pusher:error` where the code is the protocol's own,
    /// then the end of the stream.
    ///
    /// # Panics
    /// When anything else arrives.
    pub async fn expect_close(&mut self, code: u16) {
        if code >= 4000 {
            let error = self.message().await;
            assert_eq!((&error["event"], &error["data"]["code"]), (&"pusher:error".into(), &code.into()), "{error}");
        }
        assert_eq!(self.close().await, code);
        // The client's answer; the server may have ended its side already.
        let _ = self.stream.write_all(&frame(FIN | CLOSE, &code.to_be_bytes())).await;
        assert_eq!(self.frame().await, None, "nothing follows a close frame");
    }

    /// Waits for the close frame, which other messages may precede, answers it, and waits for the end of TCP. Returns the
    /// code, and when both came.
    ///
    /// # Panics
    /// When either does not come in time.
    pub async fn closed(&mut self) -> (u16, Instant, Instant) {
        let code = loop {
            let frame = self.frame_within(PATIENCE).await.expect("a close frame, not the end");
            if let (CLOSE, Some(code)) = (frame.opcode, frame.payload.first_chunk()) {
                break u16::from_be_bytes(*code);
            }
        };
        let closed = Instant::now();
        let _ = self.stream.write_all(&frame(FIN | CLOSE, &code.to_be_bytes())).await;
        assert_eq!(self.frame().await, None, "nothing follows a close frame");
        (code, closed, Instant::now())
    }

    /// Waits for a ping, leaves it unanswered, and waits for the end with `code`.
    ///
    /// # Panics
    /// When anything else arrives.
    pub async fn expect_ping_and_close(&mut self, code: u16) {
        assert_eq!(self.frame().await.expect("a ping, not the end").opcode, PING);
        self.expect_close(code).await;
    }

    /// Reads and drops everything until the end; a reset is an end too.
    pub async fn drain(&mut self) {
        within("the end of the connection", async {
            let mut chunk = vec![0; 64 * 1024];
            while let Ok(1..) = self.stream.read(&mut chunk).await {}
        })
        .await;
    }

    /// What has come, or what comes next, which may take as long as a peer may be silent; nothing at the end. A reset is an
    /// end too.
    pub async fn some(&mut self) -> Vec<u8> {
        if self.buffer.is_empty() {
            self.fill_within(PATIENCE).await;
        }
        std::mem::take(&mut self.buffer)
    }

    /// Everything until the end; a reset is an end too.
    pub async fn until_end(&mut self) -> Vec<u8> {
        self.until_end_within(DEADLINE).await
    }

    /// The same from a peer that may be silent for so long.
    pub async fn until_end_within(&mut self, limit: Duration) -> Vec<u8> {
        while self.fill_within(limit).await {}
        std::mem::take(&mut self.buffer)
    }

    /// Sends a HEAD request; its answer has no body.
    pub async fn request_head(&mut self, path: &str) -> HttpReply {
        self.send(format!("HEAD {path} HTTP/1.1\r\nHost: test\r\n\r\n").as_bytes()).await;
        self.take_head().await
    }

    /// Sends a request and reads the whole answer.
    pub async fn exchange(&mut self, request: &[u8]) -> HttpReply {
        // A server that refuses early may not take everything.
        let _ = within("sending", self.stream.write_all(request)).await;
        self.http_reply().await
    }

    /// One answer over HTTP; a body without a length goes to the end.
    pub async fn http_reply(&mut self) -> HttpReply {
        let mut reply = self.take_head().await;
        let length = reply.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(usize::MAX);
        while self.buffer.len() < length && self.fill().await {}
        let body: Vec<u8> = self.buffer.drain(..length.min(self.buffer.len())).collect();
        reply.body = String::from_utf8(body).expect("bodies are UTF-8");
        reply
    }

    /// The head of an answer, which may take as long as a peer may be silent; what follows it stays.
    pub async fn take_head(&mut self) -> HttpReply {
        let end = loop {
            if let Some(start) = self.buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break start + 4;
            }
            assert!(self.fill_within(PATIENCE).await, "the connection ended within a head: {:?}", self.text());
        };
        let head: Vec<u8> = self.buffer.drain(..end).collect();
        let head = String::from_utf8(head).expect("heads are UTF-8");
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|code| code.parse().ok());
        let headers = lines.filter_map(|line| line.split_once(':'));
        HttpReply {
            status: status.unwrap_or_else(|| panic!("not an answer: {head:?}")),
            headers: headers.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())).collect(),
            body: String::new(),
        }
    }

    /// Reads more; `false` at the end. A reset after everything was read counts as an end.
    async fn fill(&mut self) -> bool {
        self.fill_within(DEADLINE).await
    }

    async fn fill_within(&mut self, limit: Duration) -> bool {
        // On the heap, or every future that reads were that large.
        let mut chunk = vec![0; 16 * 1024];
        match within_time(limit, "more bytes", self.stream.read(&mut chunk)).await {
            Ok(count) => {
                self.buffer.extend_from_slice(&chunk[..count]);
                count > 0
            }
            Err(_) => false,
        }
    }

    fn take_frame(&mut self) -> Option<Frame> {
        let [first, second, rest @ ..] = &self.buffer[..] else { return None };
        assert_eq!((first & 0b0111_0000, second & 0x80), (0, 0), "servers set no reserved bit and no mask");
        assert_eq!(first & FIN, FIN, "this server does not fragment");
        let (head, length) = match second {
            126 => (4, u64::from(u16::from_be_bytes(*rest.first_chunk()?))),
            127 => (10, u64::from_be_bytes(*rest.first_chunk()?)),
            length => (2, u64::from(*length)),
        };
        let length = usize::try_from(length).expect("a length that fits");
        if self.buffer.len() < head + length {
            return None;
        }
        let opcode = first & 0b1111;
        let payload = self.buffer[head..head + length].to_vec();
        self.buffer.drain(..head + length);
        Some(Frame { opcode, payload })
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.buffer).into_owned()
    }
}

impl HttpReply {
    /// A header by its lower-case name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str())
    }
}

/// The head of a handshake without its last empty line.
pub fn handshake(target: &str) -> String {
    format!(
        "GET {target} HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    )
}

/// A masked frame. `first`: opcode and flags.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = frame_head(first, payload.len() as u64);
    bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// The head of a masked frame that claims this length.
pub fn frame_head(first: u8, length: u64) -> Vec<u8> {
    let mut bytes = vec![first];
    match length {
        0..126 => bytes.push(0x80 | u8::try_from(length).expect("below 126")),
        126..=0xffff => {
            bytes.push(0x80 | 126);
            bytes.extend(u16::try_from(length).expect("two bytes").to_be_bytes());
        }
        _ => {
            bytes.push(0x80 | 127);
            bytes.extend(length.to_be_bytes());
        }
    }
    bytes.extend(MASK);
    bytes
}

/// How long a peer took to end a connection on which `drip` is sent once a second, if anything.
pub async fn time_to_end(mut raw: Raw, drip: Option<&[u8]>) -> Duration {
    let started = tokio::time::Instant::now();
    let mut second = tokio::time::interval(Duration::from_secs(1));
    let mut chunk = [0; 1024];
    let mut drops = drip.unwrap_or_default().iter();
    within("the end of a connection that dawdles", async {
        loop {
            tokio::select! {
                read = raw.stream.read(&mut chunk) => if !matches!(read, Ok(1..)) { return started.elapsed() },
                _ = second.tick() => if let Some(drop) = drops.next() {
                    let _ = raw.stream.write_all(&[*drop]).await;
                },
            }
        }
    })
    .await
}
