//! Parses the frames of a client.

use std::ops::ControlFlow;

use fastwebsockets::{OpCode, unmask};
use shared::protocol::CloseCode;

/// A parser for the frames of one client. It allocates memory only while a frame or a fragmented message is incomplete.
///
/// `T`: a value that the owner attaches to an incomplete message. It is dropped with the message.
pub struct Reader<T = ()> {
    unfinished: Option<Box<Unfinished<T>>>,
}

struct Unfinished<T> {
    /// The received part of an incomplete frame: at most a header and the largest message.
    frame: Vec<u8>,
    /// The received part of a fragmented message.
    message: Option<Message>,
    attachment: Option<T>,
}

/// The received fragments of a message.
struct Message {
    is_binary: bool,
    bytes: Vec<u8>,
}

/// A message or control frame of a client.
#[derive(Debug, PartialEq, Eq)]
pub enum Incoming<'a> {
    /// A text message, or a binary message that is valid UTF-8. Some clients send text in binary messages.
    Text(&'a str),
    /// A ping with at most 125 bytes, which must be answered with a pong of the same bytes.
    Ping(&'a [u8]),
    /// A pong.
    Pong,
    /// A close frame, or the answer to one.
    Close,
}

/// A violation of the WebSocket protocol. The rest of the stream cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// A reserved bit is set, although no extension was negotiated.
    #[error("a reserved bit is set")]
    ReservedBit,
    /// An opcode that RFC 6455 does not define.
    #[error("the opcode is unknown")]
    Opcode,
    /// The frame of a client is not masked.
    #[error("the frame is not masked")]
    Unmasked,
    /// A control frame that is fragmented or longer than 125 bytes.
    #[error("a control frame is fragmented or too long")]
    Control,
    /// A continuation without a message, or a new message inside a fragmented one.
    #[error("fragments are out of order")]
    Fragment,
    /// A close frame with one byte of payload, an undefined code, or a reason that is not UTF-8.
    #[error("the close frame is malformed")]
    Close,
    /// A message that exceeds the limit, in one frame or in fragments.
    #[error("the message is too large")]
    TooLarge,
    /// A text message that is not UTF-8.
    #[error("the message is not UTF-8")]
    Text,
    /// A binary message that is not UTF-8.
    #[error("binary messages are not accepted")]
    Binary,
}

impl WireError {
    /// Returns the code to close the connection with.
    pub fn close_code(self) -> CloseCode {
        match self {
            Self::TooLarge => CloseCode::MessageTooBig,
            Self::Text => CloseCode::InvalidText,
            Self::Binary => CloseCode::UnsupportedData,
            _ => CloseCode::ProtocolError,
        }
    }

    /// Returns the error as a metric label.
    pub fn cause_label(self) -> &'static str {
        match self {
            Self::ReservedBit => "reserved_bit",
            Self::Opcode => "opcode",
            Self::Unmasked => "unmasked",
            Self::Control => "control",
            Self::Fragment => "fragment",
            Self::Close => "close",
            Self::TooLarge => "too_large",
            Self::Text => "text",
            Self::Binary => "binary",
        }
    }
}

struct Header {
    fin: bool,
    opcode: OpCode,
    mask: [u8; 4],
    /// The size of the header.
    bytes: usize,
    payload_bytes: usize,
}

impl Default for Reader {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Reader<T> {
    /// Returns a reader for the start of a stream.
    pub fn new() -> Self {
        Self { unfinished: None }
    }

    /// Returns the memory of the incomplete message, in bytes, and its attachment, or `None` between messages.
    pub fn unfinished(&mut self) -> Option<(usize, &mut Option<T>)> {
        let unfinished = self.unfinished.as_deref_mut()?;
        let message_bytes = unfinished.message.as_ref().map_or(0, |message| message.bytes.capacity());
        Some((unfinished.frame.capacity() + message_bytes, &mut unfinished.attachment))
    }

    /// Drops the incomplete message. The rest of the stream cannot be read.
    pub fn forget(&mut self) {
        self.unfinished = None;
    }

    /// Parses the next bytes of the stream. Calls `each` for every message that they complete, in order, until it
    /// returns `Break`. The bytes after that are dropped.
    ///
    /// `input` is unmasked in place. `message_bytes_max` limits the size of messages, and with it the memory of this
    /// reader.
    ///
    /// # Errors
    /// [`WireError`]. `each` has been called for the messages before the invalid frame.
    pub fn read(
        &mut self,
        input: &mut [u8],
        message_bytes_max: usize,
        mut each: impl FnMut(Incoming<'_>) -> ControlFlow<()>,
    ) -> Result<(), WireError> {
        let (mut frame, mut message, mut attachment) = match self.unfinished.take() {
            Some(unfinished) => (unfinished.frame, unfinished.message, unfinished.attachment),
            None => (Vec::new(), None, None),
        };
        let progress;
        if frame.is_empty() {
            progress = frames(input, &mut message, message_bytes_max, &mut each)?;
            frame = input[progress.bytes..].to_vec();
        } else {
            frame.extend_from_slice(input);
            progress = frames(&mut frame, &mut message, message_bytes_max, &mut each)?;
            if progress.bytes > 0 {
                // A copy, because the rest would keep the capacity of the whole buffer.
                frame = frame[progress.bytes..].to_vec();
            }
        }
        if progress.is_between_messages {
            attachment = None;
        }
        if !frame.is_empty() || message.is_some() {
            self.unfinished = Some(Box::new(Unfinished { frame, message, attachment }));
        }
        Ok(())
    }
}

/// The result of [`frames`].
struct Progress {
    /// The size of the complete frames.
    bytes: usize,
    /// Whether a message ended. An incomplete message then started after it.
    is_between_messages: bool,
}

/// Parses the complete frames at the start of `bytes`.
fn frames(
    bytes: &mut [u8],
    message: &mut Option<Message>,
    message_bytes_max: usize,
    each: &mut impl FnMut(Incoming<'_>) -> ControlFlow<()>,
) -> Result<Progress, WireError> {
    let mut progress = Progress { bytes: 0, is_between_messages: false };
    while let Some(header) = parse_header(&bytes[progress.bytes..], message_bytes_max)? {
        let start = progress.bytes + header.bytes;
        let end = start + header.payload_bytes;
        let Some(payload) = bytes.get_mut(start..end) else { break };
        progress.bytes = end;
        unmask(payload, header.mask);
        if one_frame(&header, payload, message, message_bytes_max, each)?.is_break() {
            return Ok(Progress { bytes: bytes.len(), is_between_messages: true });
        }
        progress.is_between_messages |= message.is_none();
    }
    Ok(progress)
}

/// Parses the header at the start of `bytes`. Returns `None` if it is incomplete. The announced length is checked
/// before the payload arrives.
fn parse_header(bytes: &[u8], message_bytes_max: usize) -> Result<Option<Header>, WireError> {
    let &[first, second, ..] = bytes else { return Ok(None) };
    if first & 0b0111_0000 != 0 {
        return Err(WireError::ReservedBit);
    }
    let fin = first & 0b1000_0000 != 0;
    let opcode = OpCode::try_from(first & 0b1111).map_err(|_| WireError::Opcode)?;
    if second & 0b1000_0000 == 0 {
        return Err(WireError::Unmasked);
    }
    let short = usize::from(second & 0b0111_1111);
    let control = matches!(opcode, OpCode::Close | OpCode::Ping | OpCode::Pong);
    if control && (!fin || short > 125) {
        return Err(WireError::Control);
    }
    let (length_bytes, payload_bytes) = match short {
        126 => match bytes.get(2..4) {
            Some(length) => (2, u64::from(u16::from_be_bytes(length.try_into().expect("two bytes")))),
            None => return Ok(None),
        },
        127 => match bytes.get(2..10) {
            Some(length) => (8, u64::from_be_bytes(length.try_into().expect("eight bytes"))),
            None => return Ok(None),
        },
        short => (0, short as u64),
    };
    let payload_bytes = usize::try_from(payload_bytes).map_err(|_| WireError::TooLarge)?;
    if !control && payload_bytes > message_bytes_max {
        return Err(WireError::TooLarge);
    }
    let mask_start = 2 + length_bytes;
    let Some(mask) = bytes.get(mask_start..mask_start + 4) else { return Ok(None) };
    let mask = mask.try_into().expect("four bytes");
    Ok(Some(Header { fin, opcode, mask, bytes: mask_start + 4, payload_bytes }))
}

fn one_frame(
    header: &Header,
    payload: &[u8],
    message: &mut Option<Message>,
    message_bytes_max: usize,
    each: &mut impl FnMut(Incoming<'_>) -> ControlFlow<()>,
) -> Result<ControlFlow<()>, WireError> {
    match header.opcode {
        OpCode::Ping => Ok(each(Incoming::Ping(payload))),
        OpCode::Pong => Ok(each(Incoming::Pong)),
        OpCode::Close => {
            check_close(payload)?;
            Ok(each(Incoming::Close))
        }
        OpCode::Text | OpCode::Binary => {
            if message.is_some() {
                return Err(WireError::Fragment);
            }
            let is_binary = header.opcode == OpCode::Binary;
            if header.fin {
                return Ok(each(Incoming::Text(text(payload, is_binary)?)));
            }
            *message = Some(Message { is_binary, bytes: payload.to_vec() });
            Ok(ControlFlow::Continue(()))
        }
        OpCode::Continuation => {
            let Some(so_far) = message else { return Err(WireError::Fragment) };
            if so_far.bytes.len() + payload.len() > message_bytes_max {
                return Err(WireError::TooLarge);
            }
            so_far.bytes.extend_from_slice(payload);
            if !header.fin {
                return Ok(ControlFlow::Continue(()));
            }
            let Some(whole) = message.take() else { return Err(WireError::Fragment) };
            Ok(each(Incoming::Text(text(&whole.bytes, whole.is_binary)?)))
        }
    }
}

fn check_close(payload: &[u8]) -> Result<(), WireError> {
    let Some((code, reason)) = payload.split_first_chunk::<2>() else {
        return if payload.is_empty() { Ok(()) } else { Err(WireError::Close) };
    };
    let code = fastwebsockets::CloseCode::from(u16::from_be_bytes(*code));
    if !code.is_allowed() || std::str::from_utf8(reason).is_err() {
        return Err(WireError::Close);
    }
    Ok(())
}

fn text(bytes: &[u8], is_binary: bool) -> Result<&str, WireError> {
    std::str::from_utf8(bytes).map_err(|_| if is_binary { WireError::Binary } else { WireError::Text })
}

#[cfg(test)]
mod tests;
