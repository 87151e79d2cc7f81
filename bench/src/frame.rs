//! WebSocket frames, as far as a load generator needs them: servers do not mask, and the client masks with zero, which
//! leaves its text as it is.

/// Text, in the low four bits of the first byte.
pub(crate) const TEXT: u8 = 1;
/// The other side leaves; a code may follow.
pub(crate) const CLOSE: u8 = 8;
/// Wants a pong with the same payload.
pub(crate) const PING: u8 = 9;
/// Answers a ping.
pub(crate) const PONG: u8 = 10;

/// The last frame of a message: all frames here.
const FINAL: u8 = 0x80;
const MASKED: u8 = 0x80;
/// Bytes of the mask that a client must send along.
const MASK_BYTES: usize = 4;

/// Where the first frame of some bytes lies in them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) opcode: u8,
    /// Where its payload begins.
    pub(crate) start: usize,
    /// Where its payload ends; beyond the bytes when the rest has not arrived.
    pub(crate) end: usize,
}

impl Frame {
    /// Reads a header; `None` while it is incomplete. A client's mask is skipped, and taken to be zero.
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

/// A frame as a server writes it.
pub(crate) fn from_server(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = header(opcode, payload.len(), 0);
    frame.extend_from_slice(payload);
    frame
}

/// A frame as a client writes it.
pub(crate) fn from_client(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = header(opcode, payload.len(), MASKED);
    frame.extend_from_slice(&[0; MASK_BYTES]);
    frame.extend_from_slice(payload);
    frame
}

/// The code in a close frame's payload.
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
