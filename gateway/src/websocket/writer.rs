//! Encodes frames. A frame is encoded once for all of its receivers.

use bytes::Bytes;
use fastwebsockets::{Frame, OpCode, Payload};
use shared::protocol::CloseCode;

/// The size of the longest header of a server. A server never masks its frames.
const HEADER_BYTES_MAX: usize = 10;

/// The maximum size of a close reason: the 125 bytes of a control frame less the code.
const REASON_BYTES_MAX: usize = 123;

/// Returns a text frame with `message`.
pub fn text(message: &[u8]) -> Bytes {
    frame(OpCode::Text, message)
}

/// Returns a pong with the payload of the ping.
pub fn pong(payload: &[u8]) -> Bytes {
    frame(OpCode::Pong, payload)
}

/// Returns a ping.
pub fn ping() -> Bytes {
    frame(OpCode::Ping, b"")
}

/// Returns a close frame. A reason that is too long is truncated at a character boundary.
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
