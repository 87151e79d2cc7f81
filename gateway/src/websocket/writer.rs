//! From messages to bytes: a header put before a message once, however many clients get it.

use bytes::Bytes;
use fastwebsockets::{Frame, OpCode, Payload};
use shared::protocol::CloseCode;

/// Longest header that a server sends: it never masks.
const HEADER_BYTES_MAX: usize = 10;

/// Longest reason of a close frame: 125 bytes of a control frame, less the code.
const REASON_BYTES_MAX: usize = 123;

/// A whole text frame around `message`.
pub fn text(message: &[u8]) -> Bytes {
    frame(OpCode::Text, message)
}

/// A pong that answers a ping of these bytes.
pub fn pong(payload: &[u8]) -> Bytes {
    frame(OpCode::Pong, payload)
}

/// A ping.
pub fn ping() -> Bytes {
    frame(OpCode::Ping, b"")
}

/// A close frame; a reason that is too long is cut at a character.
pub fn close(code: CloseCode, reason: &str) -> Bytes {
    let mut payload = code.code().to_be_bytes().to_vec();
    payload.extend_from_slice(&reason.as_bytes()[..reason.floor_char_boundary(REASON_BYTES_MAX)]);
    frame(OpCode::Close, &payload)
}

fn frame(opcode: OpCode, payload: &[u8]) -> Bytes {
    let mut header = [0; HEADER_BYTES_MAX];
    let header_bytes = Frame::new(true, opcode, None, Payload::Borrowed(payload)).fmt_head(&mut header);
    let mut bytes = Vec::with_capacity(header_bytes + payload.len());
    bytes.extend_from_slice(&header[..header_bytes]);
    bytes.extend_from_slice(payload);
    bytes.into()
}

#[cfg(test)]
mod tests;
