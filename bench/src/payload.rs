//! What is sent, and how a receiver tells one event from the next without parsing JSON.

/// Marks the sequence number in an event's data; survives a server's JSON encoding unchanged.
const MARK: &[u8] = b"seq=";

/// Digits of the sequence number.
const DIGITS: usize = 10;

/// An event's data of `bytes` bytes that carries `sequence`.
pub(crate) fn data(sequence: u64, bytes: usize) -> String {
    let mut data = format!("seq={sequence:0DIGITS$};");
    data.extend(std::iter::repeat_n('x', bytes.saturating_sub(data.len())));
    data
}

/// The sequence number in a message, if it carries one.
pub(crate) fn sequence(message: &[u8]) -> Option<u64> {
    let start = memchr::memmem::find(message, MARK)? + MARK.len();
    std::str::from_utf8(message.get(start..start + DIGITS)?).ok()?.parse().ok()
}
