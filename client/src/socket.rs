//! Reads and writes the text messages of a WebSocket.
//!
//! All functions are cancel safe: a frame stays in the read buffer until it is complete, and output stays in a buffer
//! until it is written. The reader of fastwebsockets is not cancel safe.

use std::io;

use bytes::{Buf, BytesMut};
use fastwebsockets::{Frame, OpCode, Payload};
use http_body_util::Empty;
use hyper::header::{
    CONNECTION, DATE, HOST, ORIGIN, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::connection::{connect, text_of};
use crate::error::ClientError;
use crate::options::Options;
use crate::tls::Stream;
use crate::url::ServerUrl;

/// An open WebSocket.
#[derive(Debug)]
pub(super) struct Socket {
    stream: Stream,
    incoming: BytesMut,
    outgoing: BytesMut,
    /// The fragments of an incomplete message.
    fragments: Option<Vec<u8>>,
    message_bytes_max: usize,
    /// The `Date` header of the handshake response.
    pub(super) date: Option<String>,
}

/// A message or the end of the connection.
pub(super) enum Received {
    Text(String),
    Close { code: Option<u16>, reason: String },
}

impl Socket {
    /// Connects and opens the WebSocket of the app with this key. Also returns the subprotocol that the server chose.
    pub(super) async fn open(
        url: &ServerUrl,
        key: &str,
        options: &Options,
    ) -> Result<(Self, Option<String>), ClientError> {
        let stream = connect(url, &options.trust).await?;
        let (mut requests, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        // Ends with the upgrade, or with another response.
        tokio::spawn(connection.with_upgrades());
        let mut response = requests.send_request(request(url, key, options)?).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            let status = response.status();
            let text = text_of(response).await?.trim_end().to_owned();
            return Err(ClientError::NotUpgraded { status, text });
        }
        let header =
            |name| response.headers().get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        let (subprotocol, date) = (header(SEC_WEBSOCKET_PROTOCOL), header(DATE));
        let upgraded = hyper::upgrade::on(&mut response).await?;
        let parts = upgraded
            .downcast::<TokioIo<Stream>>()
            .map_err(|_| ClientError::Protocol("the upgraded connection is not the one opened".into()))?;
        let socket = Self {
            stream: parts.io.into_inner(),
            incoming: BytesMut::from(parts.read_buf),
            outgoing: BytesMut::new(),
            fragments: None,
            message_bytes_max: options.message_bytes_max,
            date,
        };
        Ok((socket, subprotocol))
    }

    /// Returns the next text message, and answers pings. The end of the connection without a close frame is a close
    /// without a code.
    ///
    /// # Cancel safety
    /// Safe.
    pub(super) async fn receive(&mut self) -> Result<Received, ClientError> {
        loop {
            while let Some((fin, opcode, payload)) = self.take_frame()? {
                match opcode {
                    OpCode::Ping => self.queue(Frame::pong(Payload::Owned(payload))),
                    OpCode::Pong => {}
                    OpCode::Close => {
                        self.queue(Frame::close_raw(Payload::Owned(payload.clone())));
                        // The server may have closed the connection already. The close frame was received.
                        let _ = self.flush().await;
                        return Ok(close_of(&payload));
                    }
                    OpCode::Text | OpCode::Binary | OpCode::Continuation => {
                        if let Some(text) = self.assemble(fin, opcode, payload)? {
                            return Ok(Received::Text(text));
                        }
                    }
                }
            }
            self.flush().await?;
            match self.stream.read_buf(&mut self.incoming).await {
                Ok(0) => return Ok(Received::Close { code: None, reason: "without a close frame".into() }),
                Ok(_) => {}
                // The end of TLS without a close notification.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Ok(Received::Close { code: None, reason: "without a close frame".into() });
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Queues a text message. [`Socket::flush`] or the next [`Socket::receive`] sends it.
    pub(super) fn queue_text(&mut self, text: &str) {
        self.queue(Frame::text(Payload::Borrowed(text.as_bytes())));
    }

    /// Queues a close frame with code 1000.
    pub(super) fn queue_close(&mut self) {
        self.queue(Frame::close(1000, b""));
    }

    /// Sends everything that is queued.
    ///
    /// # Cancel safety
    /// Safe: unsent bytes stay queued.
    pub(super) async fn flush(&mut self) -> io::Result<()> {
        while self.outgoing.has_remaining() {
            self.stream.write_buf(&mut self.outgoing).await?;
        }
        // TLS can have buffered data that the socket did not accept.
        self.stream.flush().await
    }

    fn queue(&mut self, mut frame: Frame<'_>) {
        let mut bytes = Vec::new();
        frame.mask();
        self.outgoing.extend_from_slice(frame.write(&mut bytes));
    }

    /// Removes one complete frame from the buffer. Returns whether it ends its message, its opcode and its payload.
    fn take_frame(&mut self) -> Result<Option<(bool, OpCode, Vec<u8>)>, ClientError> {
        let Some((head_length, length)) = self.lengths()? else { return Ok(None) };
        if self.incoming.len() - head_length < length {
            self.incoming.reserve(head_length + length - self.incoming.len());
            return Ok(None);
        }
        let first = self.incoming[0];
        let opcode = OpCode::try_from(first & 0b1111).map_err(|error| ClientError::Protocol(error.to_string()))?;
        self.incoming.advance(head_length);
        Ok(Some((first & 0x80 != 0, opcode, self.incoming.split_to(length).into())))
    }

    /// Returns the lengths of the next frame's header and payload, if the header is complete.
    fn lengths(&self) -> Result<Option<(usize, usize)>, ClientError> {
        let [first, second, rest @ ..] = &self.incoming[..] else { return Ok(None) };
        if first & 0b0111_0000 != 0 {
            return Err(ClientError::Protocol("a frame has reserved bits set".into()));
        }
        if second & 0x80 != 0 {
            return Err(ClientError::Protocol("a frame from the server is masked".into()));
        }
        let (head_length, length) = match second & 0x7f {
            126 => match rest.first_chunk() {
                Some(bytes) => (4, u64::from(u16::from_be_bytes(*bytes))),
                None => return Ok(None),
            },
            127 => match rest.first_chunk() {
                Some(bytes) => (10, u64::from_be_bytes(*bytes)),
                None => return Ok(None),
            },
            length => (2, u64::from(length)),
        };
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length > self.message_bytes_max {
            return Err(self.too_big(length));
        }
        Ok(Some((head_length, length)))
    }

    /// Adds a data frame to its message. Returns the text if the message is complete.
    fn assemble(&mut self, fin: bool, opcode: OpCode, payload: Vec<u8>) -> Result<Option<String>, ClientError> {
        let message = match (self.fragments.take(), opcode) {
            (None, OpCode::Continuation) => {
                return Err(ClientError::Protocol("a continuation frame without a message".into()));
            }
            (None, _) => payload,
            (Some(mut message), OpCode::Continuation) => {
                message.extend_from_slice(&payload);
                message
            }
            (Some(_), _) => return Err(ClientError::Protocol("a message inside another message".into())),
        };
        if message.len() > self.message_bytes_max {
            return Err(self.too_big(message.len()));
        }
        if !fin {
            self.fragments = Some(message);
            return Ok(None);
        }
        let text = String::from_utf8(message);
        text.map(Some).map_err(|_| ClientError::Protocol("a message is not UTF-8".into()))
    }

    fn too_big(&self, length: usize) -> ClientError {
        let max = self.message_bytes_max;
        ClientError::Protocol(format!("a message of {length} bytes is larger than {max}"))
    }
}

/// The characters that are escaped in the path for the app key.
const KEY_ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

fn request(url: &ServerUrl, key: &str, options: &Options) -> Result<Request<Empty<bytes::Bytes>>, ClientError> {
    let version = env!("CARGO_PKG_VERSION");
    let protocol = options.protocol.as_ref().map(|protocol| format!("protocol={protocol}&")).unwrap_or_default();
    let key = utf8_percent_encode(key, KEY_ESCAPED);
    let path = format!("{}/app/{key}?{protocol}client=carillon&version={version}", url.prefix());
    let mut request = Request::get(path)
        .header(HOST, url.authority())
        .header(UPGRADE, "websocket")
        .header(CONNECTION, "Upgrade")
        .header(SEC_WEBSOCKET_KEY, fastwebsockets::handshake::generate_key())
        .header(SEC_WEBSOCKET_VERSION, "13");
    if let Some(origin) = &options.origin {
        request = request.header(ORIGIN, origin);
    }
    if let Some(subprotocol) = &options.subprotocol {
        request = request.header(SEC_WEBSOCKET_PROTOCOL, subprotocol);
    }
    Ok(request.body(Empty::new())?)
}

fn close_of(payload: &[u8]) -> Received {
    match payload.split_first_chunk() {
        Some((code, reason)) => Received::Close {
            code: Some(u16::from_be_bytes(*code)),
            reason: String::from_utf8_lossy(reason).into_owned(),
        },
        None => Received::Close { code: None, reason: String::new() },
    }
}
