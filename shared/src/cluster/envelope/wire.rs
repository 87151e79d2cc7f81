//! The encoding of an [`Envelope`] in Redis.
//!
//! A header line, `VERSION KIND EPOCH SEQUENCE STAMP EXCEPT\n`, and the payload. The format has no escapes because the
//! Lua scripts write it too, by concatenation. Data from Redis is untrusted: a malformed message is an error, not a
//! panic.

use std::fmt::Display;
use std::io::Write;
use std::str::FromStr;

use bytes::Bytes;

use super::{Body, Envelope, Position};
use crate::protocol::{Member, UserId};

/// The version that this node writes, and the newest version that it reads.
pub const VERSION: u32 = 1;

/// The text for a missing position or a missing excluded connection.
const NONE: &str = "-";

/// The error of a message that cannot be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// The message was written by a newer version of Carillon.
    #[error("envelope version {0} is newer than {VERSION}")]
    Newer(u32),
    /// The message is not an envelope.
    #[error("envelope is malformed")]
    Malformed,
}

impl EnvelopeError {
    /// The error as a metric label.
    pub fn cause_label(self) -> &'static str {
        match self {
            Self::Newer(_) => "newer_version",
            Self::Malformed => "malformed",
        }
    }
}

impl Envelope {
    /// Encodes the envelope.
    pub fn encode(&self) -> Vec<u8> {
        let (kind, except, payload): (_, _, &[u8]) = match &self.body {
            Body::Event { frame, except, cached } => (if *cached { 'K' } else { 'E' }, *except, frame),
            Body::MemberAdded(member) => return self.with_payload('A', &added(member)),
            Body::MemberRemoved(user_id) => ('R', None, user_id.as_str().as_bytes()),
            Body::SubscriptionCount(count) => return self.with_payload('C', count.to_string().as_bytes()),
            Body::UserOnline(online) => ('O', None, if *online { b"1" } else { b"0" }),
            Body::Terminate => ('T', None, b""),
        };
        match except {
            Some(except) => self.join(kind, &except, payload),
            None => self.join(kind, &NONE, payload),
        }
    }

    fn with_payload(&self, kind: char, payload: &[u8]) -> Vec<u8> {
        self.join(kind, &NONE, payload)
    }

    fn join(&self, kind: char, except: &dyn Display, payload: &[u8]) -> Vec<u8> {
        let mut message = Vec::with_capacity(HEADER_BYTES_MAX + payload.len());
        // Writing to memory cannot fail.
        let _ = match self.position {
            Some(Position { epoch, sequence }) => write!(message, "{VERSION} {kind} {epoch} {sequence}"),
            None => write!(message, "{VERSION} {kind} {NONE} {NONE}"),
        };
        let _ = writeln!(message, " {} {except}", self.published_at_us);
        message.extend_from_slice(payload);
        message
    }

    /// Decodes a message. The frame of an event shares the memory of the message.
    ///
    /// # Errors
    /// [`EnvelopeError`].
    pub fn decode(message: &Bytes) -> Result<Self, EnvelopeError> {
        let end =
            message.iter().take(HEADER_BYTES_MAX).position(|byte| *byte == b'\n').ok_or(EnvelopeError::Malformed)?;
        let header = std::str::from_utf8(&message[..end]).map_err(|_| EnvelopeError::Malformed)?;
        let mut fields = header.split(' ');
        let mut field = || fields.next().ok_or(EnvelopeError::Malformed);
        let version: u32 = parse(field()?)?;
        if version > VERSION {
            return Err(EnvelopeError::Newer(version));
        }
        let (kind, epoch, sequence, stamp, except) = (field()?, field()?, field()?, field()?, field()?);
        let position = match (epoch, sequence) {
            (NONE, NONE) => None,
            _ => Some(Position { epoch: parse(epoch)?, sequence: parse(sequence)? }),
        };
        let payload = message.slice(end + 1..);
        let body = match kind {
            "E" | "K" => {
                // Invalid UTF-8 would make every subscriber of the channel close its connection.
                text(&payload)?;
                let except = if except == NONE { None } else { Some(parse(except)?) };
                Body::Event { frame: payload, except, cached: kind == "K" }
            }
            "A" => Body::MemberAdded(member(text(&payload)?)?),
            "R" => Body::MemberRemoved(UserId::from(text(&payload)?)),
            "C" => Body::SubscriptionCount(parse(text(&payload)?)?),
            "O" => Body::UserOnline(text(&payload)? == "1"),
            "T" => Body::Terminate,
            _ => return Err(EnvelopeError::Malformed),
        };
        Ok(Self { published_at_us: parse(stamp)?, position, body })
    }
}

/// An upper bound on the length of a header: six numbers of up to 20 digits, and separators.
const HEADER_BYTES_MAX: usize = 160;

/// Encodes a member as `LENGTH:USER_ID`, followed by the user info as JSON if there is any.
fn added(member: &Member) -> Vec<u8> {
    let user_id = member.user_id.as_str();
    format!("{}:{user_id}{}", user_id.len(), member.user_info.as_deref().unwrap_or_default()).into_bytes()
}

fn member(payload: &str) -> Result<Member, EnvelopeError> {
    let (length, rest) = payload.split_once(':').ok_or(EnvelopeError::Malformed)?;
    let (user_id, info) = rest.split_at_checked(parse(length)?).ok_or(EnvelopeError::Malformed)?;
    if user_id.is_empty() {
        return Err(EnvelopeError::Malformed);
    }
    Ok(Member { user_id: UserId::from(user_id), user_info: info_of(info)? })
}

/// Parses user info. It must be valid JSON, because the gateway copies it into the JSON for clients.
pub fn info_of(info: &str) -> Result<Option<std::sync::Arc<str>>, EnvelopeError> {
    if info.is_empty() {
        return Ok(None);
    }
    serde_json::from_str::<&serde_json::value::RawValue>(info).map_err(|_| EnvelopeError::Malformed)?;
    Ok(Some(info.into()))
}

fn parse<T: FromStr>(text: &str) -> Result<T, EnvelopeError> {
    text.parse().map_err(|_| EnvelopeError::Malformed)
}

fn text(payload: &[u8]) -> Result<&str, EnvelopeError> {
    std::str::from_utf8(payload).map_err(|_| EnvelopeError::Malformed)
}

#[cfg(test)]
mod tests;
