//! The data of an event: its sequence number, send time and channel. A receiver finds it without parsing JSON, and the
//! JSON encoding of a server does not change it.

use std::fmt::Write;

use memchr::memmem::Finder;

/// The text before the sequence number.
const MARK: &[u8] = b"seq=";
/// The text between sequence number and timestamp.
const STAMP: &[u8] = b";at=";
/// The text between timestamp and channel.
const CHANNEL: &[u8] = b";ch=";
/// Digits of the sequence number.
const SEQUENCE_DIGITS: usize = 10;
/// Digits of the timestamp: 31 years in nanoseconds.
const STAMP_DIGITS: usize = 18;
/// Digits of the channel's number.
const CHANNEL_DIGITS: usize = 6;

/// The first sequence number of warm-up events, which are not counted.
pub(crate) const UNCOUNTED: u64 = 9_000_000_000;

/// The content of an event's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Payload {
    /// The number of the event's channel.
    pub(crate) channel: u64,
    /// The number of the event in its channel, from 0.
    pub(crate) sequence: u64,
    /// The send time, from [`crate::clock::now_ns`].
    pub(crate) sent_ns: u64,
}

impl Payload {
    /// Appends the data of an event, padded to `bytes`. The data is longer if the numbers need more space.
    pub(crate) fn write(self, bytes: usize, text: &mut String) {
        let start = text.len();
        let Self { channel, sequence, sent_ns } = self;
        // Writing to a `String` cannot fail.
        let _ =
            write!(text, "seq={sequence:0SEQUENCE_DIGITS$};at={sent_ns:0STAMP_DIGITS$};ch={channel:0CHANNEL_DIGITS$};");
        let missing = bytes.saturating_sub(text.len() - start);
        text.extend(std::iter::repeat_n('x', missing));
    }
}

/// Finds payloads in messages. A server's messages have them at the same offset, which is tried first.
pub(crate) struct PayloadFinder {
    mark: Finder<'static>,
    expected_at: usize,
}

impl PayloadFinder {
    pub(crate) fn new() -> Self {
        Self { mark: Finder::new(MARK), expected_at: 0 }
    }

    /// Returns the payload of a message, if it has one.
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
