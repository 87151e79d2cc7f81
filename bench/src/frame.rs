//! A minimal codec for WebSocket frames. Servers send unmasked frames; the client masks with zero, which does not change
//! the payload.

/// The opcode of a text frame, in the low four bits of the first byte.
pub(crate) const TEXT: u8 = 1;
/// The opcode of a close frame. Its payload may start with a close code.
pub(crate) const CLOSE: u8 = 8;
/// The opcode of a ping. The receiver returns a pong with the same payload.
pub(crate) const PING: u8 = 9;
/// The opcode of a pong.
pub(crate) const PONG: u8 = 10;

/// The bit that marks the last frame of a message. All frames here have it.
const FINAL: u8 = 0x80;
const MASKED: u8 = 0x80;
/// The length of a client's mask.
const MASK_BYTES: usize = 4;

/// The header of a frame and the position of its payload in a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) opcode: u8,
    /// The offset of the payload.
    pub(crate) start: usize,
    /// The offset after the payload. It is beyond the buffer if the frame is incomplete.
    pub(crate) end: usize,
}

impl Frame {
    /// Parses the header of the first frame. Returns `None` if the header is incomplete. Assumes that a mask is zero.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let &[first, second, ..] = bytes else { return None };
        let (start, length) = match second & !MASKED {
            126 => (4, usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?))),
            127 => (10, usize::try_from(u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?)).ok()?),
            short => (2, usize::from(short)),
        };
        let start = start + if second & MASKED == 0 { 0 } else { MASK_BYTES };
        Some(Self { opcode: first & 0x0f, start, end: start.checked_add(length)? })
    }
}

/// Returns an unmasked frame.
pub(crate) fn from_server(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = header(opcode, payload.len(), 0);
    frame.extend_from_slice(payload);
    frame
}

/// Returns a frame with a mask of zero.
pub(crate) fn from_client(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = header(opcode, payload.len(), MASKED);
    frame.extend_from_slice(&[0; MASK_BYTES]);
    frame.extend_from_slice(payload);
    frame
}

/// Returns the code in the payload of a close frame.
pub(crate) fn close_code(payload: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes(payload.get(..2)?.try_into().ok()?))
}

fn header(opcode: u8, length: usize, masked: u8) -> Vec<u8> {
    let mut header = Vec::with_capacity(length + 14);
    header.push(FINAL | opcode);
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short), _) if short < 126 => header.push(masked | short),
        (_, Ok(medium)) => {
            header.push(masked | 126);
            header.extend_from_slice(&medium.to_be_bytes());
        }
        _ => {
            header.push(masked | 127);
            header.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    header
}

#[cfg(test)]
mod tests;
