//! A client below the level of messages. It sends any bytes, reads only on request, and answers nothing by itself.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::Value;
use shared::app::App;
use shared::protocol::SocketId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::{DEADLINE, PATIENCE, within, within_time};

/// The opcodes of RFC 6455.
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

/// The bit of the first byte that marks the last frame of a message.
pub const FIN: u8 = 0x80;

const MASK: [u8; 4] = [0x12, 0x34, 0x56, 0x78];

/// One TCP connection.
pub struct Raw {
    /// The TCP stream.
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

/// A response over HTTP.
#[derive(Clone, Debug)]
pub struct HttpReply {
    /// The status.
    pub status: u16,
    /// The names in lower case, with their values.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: String,
}

impl Raw {
    /// Connects.
    ///
    /// # Panics
    /// Panics if no process listens.
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = within("connecting", TcpStream::connect(address)).await.expect("the server listens");
        stream.set_nodelay(true).expect("the stream is open");
        Self { stream, buffer: Vec::new() }
    }

    /// Connects with a receive buffer of a few KiB. Unread data soon stays at the server.
    ///
    /// # Panics
    /// Panics if no process listens.
    pub async fn connect_narrow(address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(4096).expect("the system allows small buffers");
        let stream = within("connecting", socket.connect(address)).await.expect("the server listens");
        Self { stream, buffer: Vec::new() }
    }

    /// Connects, performs the upgrade and reads the `connection_established`.
    pub async fn established(address: SocketAddr, app: &App) -> Self {
        let mut raw = Self::connect(address).await;
        raw.establish(app).await;
        raw
    }

    /// Performs the upgrade and reads the `connection_established`. Returns the socket id.
    pub async fn establish(&mut self, app: &App) -> SocketId {
        let reply = self.upgrade(&format!("/app/{}?protocol=7", app.key), &[]).await;
        assert_eq!(reply.status, 101, "{}", reply.body);
        let message = self.message().await;
        assert_eq!(message["event"], "pusher:connection_established");
        let data: Value = serde_json::from_str(message["data"].as_str().expect("data")).expect("the data is JSON");
        data["socket_id"].as_str().and_then(|id| id.parse().ok()).expect("a socket id")
    }

    /// Requests a WebSocket and returns the head of the response.
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
    /// Panics if they cannot be sent in time.
    pub async fn send(&mut self, bytes: &[u8]) {
        within("sending", self.stream.write_all(bytes)).await.expect("the connection is open");
    }

    /// Sends one frame. `first` is the first byte: opcode and flags.
    pub async fn send_frame(&mut self, first: u8, payload: &[u8]) {
        self.send(&frame(first, payload)).await;
    }

    /// Sends one message.
    pub async fn send_text(&mut self, text: &str) {
        self.send_frame(FIN | TEXT, text.as_bytes()).await;
    }

    /// Subscribes to a public channel and waits for the confirmation.
    pub async fn subscribe(&mut self, channel: &str) {
        self.send_text(&format!(r#"{{"event":"pusher:subscribe","data":{{"channel":"{channel}","auth":""}}}}"#)).await;
        assert_eq!(self.message().await["event"], "pusher_internal:subscription_succeeded");
    }

    /// Reads the next frame. Returns `None` if the connection ended between two frames.
    ///
    /// # Panics
    /// Panics if a server must not send the frame, or if the connection ends within it.
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

    /// Reads the next frame, which must be a message.
    ///
    /// # Panics
    /// Panics if it is another frame.
    pub async fn message(&mut self) -> Value {
        let frame = self.frame().await.expect("a message, not the end");
        assert_eq!(frame.opcode, TEXT, "{:?}", String::from_utf8_lossy(&frame.payload));
        serde_json::from_slice(&frame.payload).expect("messages are JSON")
    }

    /// Reads the next frame, which must be a close frame. Returns its code.
    ///
    /// # Panics
    /// Panics if it is another frame.
    pub async fn close(&mut self) -> u16 {
        let frame = self.frame().await.expect("a close frame, not the end");
        assert_eq!(frame.opcode, CLOSE, "{:?}", String::from_utf8_lossy(&frame.payload));
        let (code, reason) = frame.payload.split_first_chunk().expect("a close frame of the server has a code");
        assert!(reason.len() <= 123 && std::str::from_utf8(reason).is_ok(), "{reason:?}");
        u16::from_be_bytes(*code)
    }

    /// Waits for the end of the stream, after a close frame with `code`. A `pusher:error` must precede a code of the protocol.
    ///
    /// # Panics
    /// Panics if anything else arrives.
    pub async fn expect_close(&mut self, code: u16) {
        if code >= 4000 {
            let error = self.message().await;
            assert_eq!((&error["event"], &error["data"]["code"]), (&"pusher:error".into(), &code.into()), "{error}");
        }
        assert_eq!(self.close().await, code);
        // Answers the close frame. The server may have closed its side already.
        let _ = self.stream.write_all(&frame(FIN | CLOSE, &code.to_be_bytes())).await;
        assert_eq!(self.frame().await, None, "no frame follows a close frame");
    }

    /// Reads messages up to the close frame, answers it, and waits for the TCP close. Returns the
    /// code and the times of both.
    ///
    /// # Panics
    /// Panics if either does not arrive in time.
    pub async fn closed(&mut self) -> (u16, Instant, Instant) {
        let code = loop {
            let frame = self.frame_within(PATIENCE).await.expect("a close frame, not the end");
            if let (CLOSE, Some(code)) = (frame.opcode, frame.payload.first_chunk()) {
                break u16::from_be_bytes(*code);
            }
        };
        let closed = Instant::now();
        let _ = self.stream.write_all(&frame(FIN | CLOSE, &code.to_be_bytes())).await;
        assert_eq!(self.frame().await, None, "no frame follows a close frame");
        (code, closed, Instant::now())
    }

    /// Waits for a ping, does not answer it, and waits for the end with `code`.
    ///
    /// # Panics
    /// Panics if anything else arrives.
    pub async fn expect_ping_and_close(&mut self, code: u16) {
        assert_eq!(self.frame().await.expect("a ping, not the end").opcode, PING);
        self.expect_close(code).await;
    }

    /// Reads and drops everything until the end. A reset counts as an end.
    pub async fn drain(&mut self) {
        within("the end of the connection", async {
            let mut chunk = vec![0; 64 * 1024];
            while let Ok(1..) = self.stream.read(&mut chunk).await {}
        })
        .await;
    }

    /// Reads the available bytes, or waits for the next ones up to [`PATIENCE`]. Returns nothing at the end. A reset counts as
    /// an end.
    pub async fn some(&mut self) -> Vec<u8> {
        if self.buffer.is_empty() {
            self.fill_within(PATIENCE).await;
        }
        std::mem::take(&mut self.buffer)
    }

    /// Reads everything until the end. A reset counts as an end.
    pub async fn until_end(&mut self) -> Vec<u8> {
        self.until_end_within(DEADLINE).await
    }

    /// Reads everything until the end, from a peer that can be silent for this duration.
    pub async fn until_end_within(&mut self, limit: Duration) -> Vec<u8> {
        while self.fill_within(limit).await {}
        std::mem::take(&mut self.buffer)
    }

    /// Sends a HEAD request. Its response has no body.
    pub async fn request_head(&mut self, path: &str) -> HttpReply {
        self.send(format!("HEAD {path} HTTP/1.1\r\nHost: test\r\n\r\n").as_bytes()).await;
        self.take_head().await
    }

    /// Sends a request and reads the complete response.
    pub async fn exchange(&mut self, request: &[u8]) -> HttpReply {
        // A server that refuses early may not read the whole request.
        let _ = within("sending", self.stream.write_all(request)).await;
        self.http_reply().await
    }

    /// Reads one HTTP response. A body without a length extends to the end of the stream.
    pub async fn http_reply(&mut self) -> HttpReply {
        let mut reply = self.take_head().await;
        let length = reply.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(usize::MAX);
        while self.buffer.len() < length && self.fill().await {}
        let body: Vec<u8> = self.buffer.drain(..length.min(self.buffer.len())).collect();
        reply.body = String::from_utf8(body).expect("bodies are UTF-8");
        reply
    }

    /// Reads the head of a response, waiting up to [`PATIENCE`]. Later bytes stay in the buffer.
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

    /// Reads more bytes. Returns `false` at the end. A reset after all bytes were read counts as an end.
    async fn fill(&mut self) -> bool {
        self.fill_within(DEADLINE).await
    }

    async fn fill_within(&mut self, limit: Duration) -> bool {
        // The buffer is on the heap, because every future that reads would contain it otherwise.
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
    /// Returns a header by its lower-case name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str())
    }
}

/// Returns the head of a handshake without its last empty line.
pub fn handshake(target: &str) -> String {
    format!(
        "GET {target} HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    )
}

/// Returns a masked frame. `first` is the first byte: opcode and flags.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = frame_head(first, payload.len() as u64);
    bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// Returns the head of a masked frame that announces this length.
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

/// Returns the time until a peer closes a connection. `drip` is sent every second, if there is one.
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
