//! What an event carries: its sequence number and when it was sent, in a form that a receiver reads without parsing JSON
//! and that survives every server's JSON encoding unchanged.

use std::fmt::Write;

use memchr::memmem::Finder;

/// Precedes the sequence number.
const MARK: &[u8] = b"seq=";
/// Between sequence number and stamp.
const STAMP: &[u8] = b";at=";
/// Between stamp and channel.
const CHANNEL: &[u8] = b";ch=";
/// Digits of the sequence number.
const SEQUENCE_DIGITS: usize = 10;
/// Digits of the stamp: 31 years of nanoseconds.
const STAMP_DIGITS: usize = 18;
/// Digits of the channel's number.
const CHANNEL_DIGITS: usize = 6;

/// Sequence numbers from here on are not counted: they warm a server up.
pub(crate) const UNCOUNTED: u64 = 9_000_000_000;

/// What stands in an event's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Payload {
    /// The number of the channel that it was sent on.
    pub(crate) channel: u64,
    /// Counts the events of one channel from 0.
    pub(crate) sequence: u64,
    /// When it was sent, by [`crate::clock::now_ns`].
    pub(crate) sent_ns: u64,
}

impl Payload {
    /// Appends the data of an event, filled up to `bytes`; never shorter than its numbers take.
    pub(crate) fn write(self, bytes: usize, text: &mut String) {
        let start = text.len();
        let Self { channel, sequence, sent_ns } = self;
        // Writing to a text cannot fail.
        let _ =
            write!(text, "seq={sequence:0SEQUENCE_DIGITS$};at={sent_ns:0STAMP_DIGITS$};ch={channel:0CHANNEL_DIGITS$};");
        let missing = bytes.saturating_sub(text.len() - start);
        text.extend(std::iter::repeat_n('x', missing));
    }
}

/// Finds payloads in messages. A server puts them at the same place in every message, so that place is tried first.
pub(crate) struct PayloadFinder {
    mark: Finder<'static>,
    expected_at: usize,
}

impl PayloadFinder {
    pub(crate) fn new() -> Self {
        Self { mark: Finder::new(MARK), expected_at: 0 }
    }

    /// The payload of a message, if it carries one.
    pub(crate) fn find(&mut self, message: &[u8]) -> Option<Payload> {
        if !message.get(self.expected_at..).is_some_and(|rest| rest.starts_with(MARK)) {
            self.expected_at = self.mark.find(message)?;
        }
        let numbers = &message[self.expected_at + MARK.len()..];
        let (sequence, rest) = numbers.split_at_checked(SEQUENCE_DIGITS)?;
        let (stamp, rest) = rest.strip_prefix(STAMP)?.split_at_checked(STAMP_DIGITS)?;
        let channel = rest.strip_prefix(CHANNEL)?.get(..CHANNEL_DIGITS)?;
        Some(Payload { channel: number(channel)?, sequence: number(sequence)?, sent_ns: number(stamp)? })
    }
}

fn number(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0_u64, |number, digit| digit.is_ascii_digit().then(|| number * 10 + u64::from(digit - b'0')))
}

#[cfg(test)]
mod tests;
