use super::*;

mod splits;

/// The size limit of messages in tests of other rules.
const MAX: usize = 100_000;
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

const CONTINUATION: u8 = 0x0;
const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xa;

/// [`Incoming`] without a lifetime.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Received {
    Text(String),
    Ping(Vec<u8>),
    Pong,
    Close,
}

impl From<Incoming<'_>> for Received {
    fn from(incoming: Incoming<'_>) -> Self {
        match incoming {
            Incoming::Text(text) => Self::Text(text.into()),
            Incoming::Ping(payload) => Self::Ping(payload.into()),
            Incoming::Pong => Self::Pong,
            Incoming::Close => Self::Close,
        }
    }
}

fn message_text(text: &str) -> Received {
    Received::Text(text.into())
}

/// Returns a masked frame. `first`: the first byte, with the FIN bit and the opcode.
fn frame_with(first: u8, mask: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        length @ ..126 => bytes.push(0x80 | length as u8),
        length @ ..65_536 => {
            bytes.push(0x80 | 126);
            bytes.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            bytes.push(0x80 | 127);
            bytes.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    bytes.extend_from_slice(&mask);
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// Returns the only or the last frame of a message.
fn frame(opcode: u8, payload: impl AsRef<[u8]>) -> Vec<u8> {
    frame_with(0x80 | opcode, MASK, payload.as_ref())
}

/// Returns a frame that is not the last of its message.
fn unfinished_frame(opcode: u8, payload: impl AsRef<[u8]>) -> Vec<u8> {
    frame_with(opcode, MASK, payload.as_ref())
}

fn read_into(reader: &mut Reader, bytes: &[u8], max: usize, received: &mut Vec<Received>) -> Result<(), WireError> {
    reader.read(&mut bytes.to_vec(), max, |incoming| {
        received.push(incoming.into());
        ControlFlow::Continue(())
    })
}

/// Reads `bytes` in pieces of `piece` bytes.
fn read(bytes: &[u8], piece: usize, max: usize) -> (Vec<Received>, Result<(), WireError>) {
    let (mut reader, mut received) = (Reader::default(), Vec::new());
    for piece in bytes.chunks(piece) {
        if let Err(error) = read_into(&mut reader, piece, max, &mut received) {
            return (received, Err(error));
        }
    }
    (received, Ok(()))
}

/// Checks that `frames` are read with the same result at once and byte by byte.
#[track_caller]
fn check(frames: &[Vec<u8>], expected: &[Received], end: Result<(), WireError>) {
    let bytes = frames.concat();
    assert_eq!(read(&bytes, bytes.len(), MAX), (expected.to_vec(), end), "whole");
    assert_eq!(read(&bytes, 1, MAX), (expected.to_vec(), end), "byte by byte");
}

#[track_caller]
fn check_refused(frames: &[Vec<u8>], error: WireError) {
    check(frames, &[], Err(error));
}

#[test]
fn the_masked_example_of_the_rfc_is_read() {
    check(&[vec![0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58]], &[message_text("Hello")], Ok(()));
}

#[test]
fn messages_of_every_length_form_are_read() {
    for length in [0, 1, 125, 126, 65_535, 65_536, MAX] {
        let text = "a".repeat(length);
        let bytes = frame(TEXT, &text);
        assert_eq!(read(&bytes, bytes.len(), MAX), (vec![message_text(&text)], Ok(())), "{length}");
    }
}

#[test]
fn a_length_in_a_longer_form_than_needed_is_read() {
    check(&[vec![0x81, 0x80 | 126, 0, 2, 0, 0, 0, 0, b'h', b'i']], &[message_text("hi")], Ok(()));
    check(&[vec![0x81, 0x80 | 127, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, b'h', b'i']], &[message_text("hi")], Ok(()));
}

#[test]
fn several_messages_in_one_read_are_returned_in_order() {
    let frames = [frame(TEXT, "a"), frame(PING, "b"), frame(PONG, "c"), frame(TEXT, ""), frame(CLOSE, "")];
    check(
        &frames,
        &[message_text("a"), Received::Ping(b"b".into()), Received::Pong, message_text(""), Received::Close],
        Ok(()),
    );
}

#[test]
fn binary_messages_count_as_text() {
    check(&[frame(BINARY, "{}")], &[message_text("{}")], Ok(()));
    check(&[unfinished_frame(BINARY, "{"), frame(CONTINUATION, "}")], &[message_text("{}")], Ok(()));
    check_refused(&[frame(BINARY, [0xff])], WireError::Binary);
}

#[test]
fn fragments_form_one_message_and_may_have_control_frames_between_them() {
    let frames = [
        unfinished_frame(TEXT, "a"),
        frame(PING, "1"),
        unfinished_frame(CONTINUATION, ""),
        unfinished_frame(CONTINUATION, "b"),
        frame(PONG, ""),
        frame(CONTINUATION, "c"),
        frame(TEXT, "d"),
    ];
    check(&frames, &[Received::Ping(b"1".into()), Received::Pong, message_text("abc"), message_text("d")], Ok(()));
    check(&[unfinished_frame(TEXT, ""), frame(CONTINUATION, "")], &[message_text("")], Ok(()));
    check(&[unfinished_frame(TEXT, "a"), frame(CLOSE, "")], &[Received::Close], Ok(()));
}

#[test]
fn reserved_bits_are_refused() {
    for bit in [0x40, 0x20, 0x10] {
        check_refused(&[frame_with(0x80 | bit | TEXT, MASK, b"a")], WireError::ReservedBit);
        check_refused(&[frame_with(0x80 | bit | PING, MASK, b"a")], WireError::ReservedBit);
    }
}

#[test]
fn unknown_opcodes_are_refused() {
    for opcode in (0x3..=0x7).chain(0xb..=0xf) {
        check_refused(&[frame(opcode, "")], WireError::Opcode);
    }
}

#[test]
fn frames_without_a_mask_are_refused() {
    for opcode in [CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG] {
        check_refused(&[vec![0x80 | opcode, 0]], WireError::Unmasked);
    }
}

#[test]
fn long_and_fragmented_control_frames_are_refused() {
    for opcode in [PING, PONG, CLOSE] {
        check_refused(&[unfinished_frame(opcode, "")], WireError::Control);
        check_refused(&[frame(opcode, [b'a'; 126])], WireError::Control);
        check_refused(&[frame(opcode, vec![b'a'; 65_536])], WireError::Control);
    }
    check(&[frame(PING, [b'a'; 125])], &[Received::Ping(vec![b'a'; 125])], Ok(()));
}

#[test]
fn fragments_out_of_order_are_refused() {
    check_refused(&[frame(CONTINUATION, "a")], WireError::Fragment);
    check_refused(&[unfinished_frame(CONTINUATION, "a")], WireError::Fragment);
    check_refused(&[unfinished_frame(TEXT, "a"), frame(TEXT, "b")], WireError::Fragment);
    check_refused(&[unfinished_frame(TEXT, "a"), unfinished_frame(BINARY, "b")], WireError::Fragment);
    let continued_after_end = [unfinished_frame(TEXT, "a"), frame(CONTINUATION, "b"), frame(CONTINUATION, "c")];
    check(&continued_after_end, &[message_text("ab")], Err(WireError::Fragment));
}

#[test]
fn invalid_close_frames_are_refused() {
    #[track_caller]
    fn check_close(payload: &[u8], valid: bool) {
        match valid {
            true => check(&[frame(CLOSE, payload)], &[Received::Close], Ok(())),
            false => check_refused(&[frame(CLOSE, payload)], WireError::Close),
        }
    }
    check_close(b"", true);
    check_close(b"\x03", false);
    for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999_u16] {
        check_close(&code.to_be_bytes(), true);
    }
    for code in [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, u16::MAX] {
        check_close(&code.to_be_bytes(), false);
    }
    check_close(&[&1000_u16.to_be_bytes(), "tschüß".as_bytes()].concat(), true);
    check_close(&[&1000_u16.to_be_bytes(), [0xff].as_slice()].concat(), false);
    check_close(&[&1000_u16.to_be_bytes(), [b'a'; 123].as_slice()].concat(), true);
}

#[test]
fn a_message_that_is_not_utf_8_is_refused() {
    for bad in [b"\xff".as_slice(), b"a\xc3", b"\xed\xa0\x80", b"\xc0\xaf", b"\xf4\x90\x80\x80"] {
        check_refused(&[frame(TEXT, bad)], WireError::Text);
        check_refused(&[unfinished_frame(TEXT, bad), frame(CONTINUATION, "")], WireError::Text);
        check_refused(&[unfinished_frame(TEXT, "a"), frame(CONTINUATION, bad)], WireError::Text);
    }
    check_refused(&[unfinished_frame(TEXT, b"\xc3"), frame(CONTINUATION, b"a")], WireError::Text);
}

#[test]
fn a_character_may_be_split_over_fragments() {
    let euro = "€".as_bytes();
    let frames = [unfinished_frame(TEXT, &euro[..1]), frame(PING, ""), unfinished_frame(CONTINUATION, &euro[1..2])];
    let rest = [frame(CONTINUATION, &euro[2..])];
    check(&[frames.as_slice(), &rest].concat(), &[Received::Ping(Vec::new()), message_text("€")], Ok(()));
}

#[test]
fn messages_before_an_invalid_frame_are_returned() {
    check(&[frame(TEXT, "a"), frame(TEXT, b"\xff"), frame(TEXT, "b")], &[message_text("a")], Err(WireError::Text));
}

#[test]
fn every_error_has_its_close_code_and_label() {
    #[track_caller]
    fn check(error: WireError, code: u16, label: &str) {
        assert_eq!((error.close_code().code(), error.cause_label()), (code, label), "{error}");
    }
    check(WireError::ReservedBit, 1002, "reserved_bit");
    check(WireError::Opcode, 1002, "opcode");
    check(WireError::Unmasked, 1002, "unmasked");
    check(WireError::Control, 1002, "control");
    check(WireError::Fragment, 1002, "fragment");
    check(WireError::Close, 1002, "close");
    check(WireError::TooLarge, 1009, "too_large");
    check(WireError::Text, 1007, "text");
    check(WireError::Binary, 1003, "binary");
}

/// Returns the memory of the reader, in bytes.
fn owned(reader: &mut Reader) -> usize {
    reader.unfinished().map_or(0, |(bytes, _)| bytes)
}

/// Attaches a mark to the message that is incomplete after the first of `pieces`. Returns, for each of the others,
/// whether the mark is still attached after it.
fn marked_after(pieces: &[&[u8]]) -> Vec<bool> {
    let mut reader = Reader::<()>::new();
    let mut marked = Vec::new();
    for (index, piece) in pieces.iter().enumerate() {
        let read = reader.read(&mut piece.to_vec(), MAX, |_| ControlFlow::Continue(()));
        assert_eq!(read, Ok(()), "piece {index}");
        match (reader.unfinished(), index) {
            (Some((_, attachment)), 0) => *attachment = Some(()),
            (None, 0) => panic!("no message is incomplete after the first piece"),
            (unfinished, _) => marked.push(unfinished.is_some_and(|(_, attachment)| attachment.is_some())),
        }
    }
    marked
}

#[test]
fn an_attachment_is_dropped_with_its_message() {
    let text = frame(TEXT, "hello");
    let (start, end) = text.split_at(4);
    assert_eq!(marked_after(&[start, end]), [false], "a frame in two pieces");
    assert_eq!(marked_after(&[&text[..1], &text[1..2], &text[2..]]), [true, false], "a frame in three");
    assert_eq!(
        marked_after(&[start, &[end, start].concat()]),
        [false],
        "the start of the next frame is another message"
    );
    let fragment = unfinished_frame(TEXT, "he");
    let next = unfinished_frame(CONTINUATION, "l");
    assert_eq!(marked_after(&[&fragment, &frame(PONG, ""), &next, &frame(CONTINUATION, "lo")]), [true, true, false]);
    assert_eq!(marked_after(&[&fragment[..1], &fragment[1..], &next]), [true, true], "a fragment in two pieces");
    let ping = frame(PING, "hello");
    assert_eq!(marked_after(&[&fragment, &ping[..3], &ping[3..]]), [true, true], "a ping between fragments");
    assert_eq!(marked_after(&[&ping[..3], &[&ping[3..], &fragment].concat()]), [false], "a ping before them");
    let around = [frame(CONTINUATION, ""), unfinished_frame(TEXT, "b")].concat();
    assert_eq!(marked_after(&[&fragment, &around]), [false], "the next fragmented message");
}

#[test]
fn binary_messages_without_text_are_refused() {
    for bad in [b"\xff".as_slice(), b"a\xc3"] {
        check_refused(&[frame(BINARY, bad)], WireError::Binary);
        check_refused(&[unfinished_frame(BINARY, bad), frame(CONTINUATION, "")], WireError::Binary);
        check_refused(&[unfinished_frame(BINARY, "a"), frame(CONTINUATION, bad)], WireError::Binary);
    }
}

#[test]
fn a_length_above_the_limit_is_refused_before_the_payload_arrives() {
    const LIMIT: usize = 1_000;
    for length in [LIMIT as u64 + 1, 1 << 32, 1 << 62, u64::MAX] {
        for first in [0x80 | TEXT, TEXT, BINARY, CONTINUATION, 0x80 | CONTINUATION] {
            // The mask has not arrived.
            let header = [&[first, 0x80 | 127], length.to_be_bytes().as_slice()].concat();
            let (mut reader, mut received) = (Reader::default(), Vec::new());
            assert_eq!(read_into(&mut reader, &header, LIMIT, &mut received), Err(WireError::TooLarge), "{length}");
            assert_eq!(owned(&mut reader), 0);
        }
    }
    let header = [0x81, 0x80 | 126, 0x03, 0xe9];
    assert_eq!(read(&header, 1, LIMIT), (Vec::new(), Err(WireError::TooLarge)), "1001 bytes in the short form");
    let whole = frame(TEXT, "a".repeat(LIMIT));
    assert_eq!(read(&whole, 1, LIMIT).1, Ok(()), "exactly the limit");
}

#[test]
fn an_announced_length_allocates_no_memory() {
    const LIMIT: usize = 1 << 30;
    let header = [0x81, 0x80 | 127, 0, 0, 0, 0, 0x40, 0, 0, 0, 1, 2, 3, 4, b'x'];
    let mut reader = Reader::default();
    assert_eq!(read_into(&mut reader, &header, LIMIT, &mut Vec::new()), Ok(()));
    assert!(owned(&mut reader) <= 2 * header.len(), "{} bytes", owned(&mut reader));
}

#[test]
fn the_sum_of_fragments_is_limited() {
    const LIMIT: usize = 10;
    let fits =
        [unfinished_frame(TEXT, "12345"), unfinished_frame(CONTINUATION, "6789"), frame(CONTINUATION, "0")].concat();
    assert_eq!(read(&fits, 1, LIMIT), (vec![message_text("1234567890")], Ok(())));
    let too_large =
        [unfinished_frame(TEXT, "12345"), unfinished_frame(CONTINUATION, "6789"), frame(CONTINUATION, "01")].concat();
    assert_eq!(read(&too_large, 1, LIMIT), (Vec::new(), Err(WireError::TooLarge)));
    let never_ending = [unfinished_frame(TEXT, "12345"), unfinished_frame(CONTINUATION, "678901")].concat();
    assert_eq!(read(&never_ending, 1, LIMIT), (Vec::new(), Err(WireError::TooLarge)));
    let next_message =
        [unfinished_frame(TEXT, "12345"), frame(CONTINUATION, "67890"), frame(TEXT, "1234567890")].concat();
    assert_eq!(read(&next_message, 1, LIMIT), (vec![message_text("1234567890"), message_text("1234567890")], Ok(())));
}

#[test]
fn control_frames_do_not_count_toward_the_limit() {
    let frames = [unfinished_frame(TEXT, "12345"), frame(PING, "1234567890"), frame(CONTINUATION, "")].concat();
    assert_eq!(read(&frames, 1, 5), (vec![Received::Ping(b"1234567890".into()), message_text("12345")], Ok(())));
}

#[test]
fn a_break_stops_the_reader_and_drops_the_rest() {
    let frames = [frame(TEXT, "a"), frame(CLOSE, ""), frame(TEXT, "b"), vec![0xff; 3]].concat();
    for head in 0..frames.len() {
        let (mut reader, mut received) = (Reader::default(), Vec::new());
        let mut stopped = false;
        for mut piece in [frames[..head].to_vec(), frames[head..].to_vec()] {
            if stopped {
                break;
            }
            let result = reader.read(&mut piece, MAX, |incoming| {
                received.push(Received::from(incoming));
                stopped = received.last() == Some(&Received::Close);
                if stopped { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            assert_eq!(result, Ok(()), "split at {head}");
        }
        assert_eq!(received, [message_text("a"), Received::Close], "split at {head}");
        assert_eq!(owned(&mut reader), 0, "split at {head}");
    }
}

#[test]
fn memory_is_allocated_only_for_incomplete_messages() {
    let mut reader = Reader::default();
    let mut feed = |bytes: &[u8]| {
        read_into(&mut reader, bytes, MAX, &mut Vec::new()).unwrap();
        owned(&mut reader)
    };
    let long = frame(TEXT, "a".repeat(5_000));
    assert_eq!(feed(&long), 0, "a whole frame");
    assert!(feed(&long[..3_000]) >= 3_000, "a part of a frame");
    assert_eq!(feed(&long[3_000..]), 0, "its rest");
    assert!(feed(&unfinished_frame(TEXT, "a".repeat(5_000))) >= 5_000, "a fragment");
    assert!(feed(&frame(PING, "")) >= 5_000, "a control frame in between");
    assert_eq!(feed(&frame(CONTINUATION, "")), 0, "its end");
    assert!(feed(&long[..1]) > 0, "one byte");
    assert_eq!(feed(&long[1..]), 0, "all but one byte");
    assert_eq!(feed(&[]), 0, "no bytes");
}

#[test]
fn the_start_of_a_frame_does_not_keep_the_memory_of_the_previous_one() {
    let mut reader = Reader::default();
    let long = frame(TEXT, "a".repeat(50_000));
    read_into(&mut reader, &long[..40_000], MAX, &mut Vec::new()).unwrap();
    read_into(&mut reader, &[&long[40_000..], &frame(TEXT, "b")[..3]].concat(), MAX, &mut Vec::new()).unwrap();
    assert!(owned(&mut reader) < 100, "{} bytes", owned(&mut reader));
}
