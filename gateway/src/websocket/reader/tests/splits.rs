//! Property tests: the messages do not depend on how the bytes are split.

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

/// A message or control frame that a client sends.
#[derive(Clone, Debug)]
enum Sent {
    Message { text: String, binary: bool, fragments: Vec<Fragment> },
    Control(Control),
}

/// The place where a message is split, and a control frame between the parts.
#[derive(Clone, Debug)]
struct Fragment {
    at: Index,
    then: Option<Control>,
}

#[derive(Clone, Debug)]
enum Control {
    Ping(Vec<u8>),
    Pong(Vec<u8>),
}

impl Control {
    fn received(&self) -> Received {
        match self {
            Self::Ping(payload) => Received::Ping(payload.clone()),
            Self::Pong(_) => Received::Pong,
        }
    }

    fn frame(&self, mask: [u8; 4]) -> Vec<u8> {
        match self {
            Self::Ping(payload) => frame_with(0x80 | PING, mask, payload),
            Self::Pong(payload) => frame_with(0x80 | PONG, mask, payload),
        }
    }
}

impl Sent {
    /// Appends the frames to `bytes` and the expected messages to `received`.
    fn write(&self, mask: [u8; 4], bytes: &mut Vec<u8>, received: &mut Vec<Received>) {
        let (text, binary, fragments) = match self {
            Self::Control(control) => {
                bytes.extend(control.frame(mask));
                return received.push(control.received());
            }
            Self::Message { text, binary, fragments } => (text, *binary, fragments),
        };
        let mut cuts: Vec<usize> = fragments.iter().map(|fragment| fragment.at.index(text.len() + 1)).collect();
        cuts.sort_unstable();
        let (mut opcode, mut start) = (if binary { BINARY } else { TEXT }, 0);
        for (cut, fragment) in cuts.into_iter().zip(fragments) {
            bytes.extend(frame_with(opcode, mask, &text.as_bytes()[start..cut]));
            (opcode, start) = (CONTINUATION, cut);
            if let Some(control) = &fragment.then {
                bytes.extend(control.frame(mask));
                received.push(control.received());
            }
        }
        bytes.extend(frame_with(0x80 | opcode, mask, &text.as_bytes()[start..]));
        received.push(message_text(text));
    }
}

fn control() -> impl Strategy<Value = Control> {
    let payload = || prop::collection::vec(any::<u8>(), 0..=125);
    prop_oneof![payload().prop_map(Control::Ping), payload().prop_map(Control::Pong)]
}

fn message() -> impl Strategy<Value = Sent> {
    let text = prop_oneof![
        4 => any::<String>(),
        1 => (120_usize..300).prop_map(|length| "é".repeat(length)),
        1 => (65_500_usize..65_600).prop_map(|length| "x".repeat(length)),
    ];
    let fragment = (any::<Index>(), prop::option::of(control())).prop_map(|(at, then)| Fragment { at, then });
    (text, any::<bool>(), prop::collection::vec(fragment, 0..4)).prop_map(|(text, binary, fragments)| Sent::Message {
        text,
        binary,
        fragments,
    })
}

fn conversation() -> impl Strategy<Value = Vec<(Sent, [u8; 4])>> {
    let sent = prop_oneof![2 => message(), 1 => control().prop_map(Sent::Control)];
    prop::collection::vec((sent, any::<[u8; 4]>()), 0..6)
}

fn write(sent: &[(Sent, [u8; 4])]) -> (Vec<u8>, Vec<Received>) {
    let (mut bytes, mut received) = (Vec::new(), Vec::new());
    for (sent, mask) in sent {
        sent.write(*mask, &mut bytes, &mut received);
    }
    (bytes, received)
}

/// Splits `bytes` into pieces of these lengths, repeatedly. Skips empty pieces.
fn pieces<'a>(mut bytes: &'a [u8], lengths: &'a [usize]) -> impl Iterator<Item = &'a [u8]> {
    let mut lengths = lengths.iter().cycle();
    std::iter::from_fn(move || {
        let length = (*lengths.next()?).min(bytes.len());
        let (piece, rest) = bytes.split_at(length);
        bytes = rest;
        (!piece.is_empty()).then_some(piece)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_split_gives_the_sent_messages(
        sent in conversation(), lengths in prop::collection::vec(1_usize..3_000, 1..20),
    ) {
        let (bytes, expected) = write(&sent);
        let (mut reader, mut received) = (Reader::default(), Vec::new());
        for piece in pieces(&bytes, &lengths) {
            prop_assert_eq!(read_into(&mut reader, piece, MAX, &mut received), Ok(()));
        }
        prop_assert_eq!(received, expected);
        prop_assert_eq!(owned(&mut reader), 0);
    }

    #[test]
    fn any_split_of_random_bytes_gives_the_same_result(
        noise in prop::collection::vec(any::<u8>(), 0..200),
        sent in conversation(),
        lengths in prop::collection::vec(1_usize..300, 1..20),
    ) {
        let bytes = [write(&sent).0, noise].concat();
        let whole = read(&bytes, bytes.len().max(1), MAX);
        let (mut reader, mut received, mut result) = (Reader::default(), Vec::new(), Ok(()));
        for piece in pieces(&bytes, &lengths) {
            result = read_into(&mut reader, piece, MAX, &mut received);
            if result.is_err() {
                break;
            }
        }
        prop_assert_eq!((received, result), whole);
    }

    #[test]
    fn the_memory_of_the_reader_is_at_most_two_messages(
        bytes in prop::collection::vec(prop_oneof![any::<u8>(), Just(0x01), Just(0x80), Just(0x81), Just(0xff)], 0..500),
        length in 1_usize..40,
    ) {
        const LIMIT: usize = 64;
        let mut reader = Reader::default();
        for piece in bytes.chunks(length) {
            if read_into(&mut reader, piece, LIMIT, &mut Vec::new()).is_err() {
                break;
            }
            // A vector allocates at most twice its length. There are two: a frame with its header, and a message.
            prop_assert!(owned(&mut reader) <= 2 * (2 * LIMIT + 14 + length));
        }
    }
}

#[test]
fn a_read_may_end_at_any_byte() {
    let frames = [
        frame(TEXT, "{\"event\":\"pusher:ping\"}"),
        unfinished_frame(TEXT, "a".repeat(130)),
        frame(PING, "p"),
        frame(CONTINUATION, "€"),
        frame(CLOSE, 1000_u16.to_be_bytes()),
    ]
    .concat();
    let expected = read(&frames, frames.len(), MAX);
    assert_eq!(expected.0.len(), 4);
    for first in 0..=frames.len() {
        for second in first..=frames.len() {
            let (mut reader, mut received) = (Reader::default(), Vec::new());
            for piece in [&frames[..first], &frames[first..second], &frames[second..]] {
                assert_eq!(read_into(&mut reader, piece, MAX, &mut received), Ok(()));
            }
            assert_eq!(received, expected.0, "split at {first} and {second}");
            assert_eq!(owned(&mut reader), 0, "split at {first} and {second}");
        }
    }
}
