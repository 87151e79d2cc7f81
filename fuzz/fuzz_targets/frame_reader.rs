//! However a client's bytes arrive, they are read as the same messages or refused for the same reason, within the limit.

#![no_main]

use std::ops::ControlFlow;

use gateway::websocket::{Incoming, Reader, WireError, writer};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;

#[derive(Debug, Arbitrary)]
struct Input<'a> {
    /// Short, so that the fuzzer meets the limit.
    message_bytes_max: u8,
    /// Lengths of the pieces that arrive, over and over.
    pieces: [u8; 4],
    parts: Vec<Part<'a>>,
}

/// What makes up the bytes: frames that are mostly right, and anything at all.
#[derive(Debug, Arbitrary)]
enum Part<'a> {
    Frame { first: u8, mask: [u8; 4], payload: &'a [u8] },
    Header { first: u8, length: u64, mask: [u8; 4] },
    Bytes(&'a [u8]),
}

#[derive(Debug, PartialEq)]
enum Heard {
    Text(String),
    Ping(Vec<u8>),
    Pong,
    Close,
}

fuzz_target!(|input: Input<'_>| {
    let max = usize::from(input.message_bytes_max);
    let bytes: Vec<u8> = input.parts.iter().flat_map(Part::bytes).collect();
    let whole = read(&bytes, &[bytes.len().max(1)], max);
    let pieces = input.pieces.map(|length| usize::from(length).max(1));
    assert_eq!(read(&bytes, &pieces, max), whole, "in pieces of {pieces:?}");
    assert_eq!(read(&bytes, &[1], max), whole, "byte by byte");
    for heard in &whole.0 {
        match heard {
            Heard::Text(text) => assert!(text.len() <= max),
            Heard::Ping(payload) => assert_eq!(writer::pong(payload).len(), 2 + payload.len(), "it can be answered"),
            Heard::Pong | Heard::Close => {}
        }
    }
});

fn read(mut bytes: &[u8], pieces: &[usize], max: usize) -> (Vec<Heard>, Result<(), WireError>) {
    let (mut reader, mut heard, mut closed) = (Reader::default(), Vec::new(), false);
    for length in pieces.iter().cycle() {
        let (piece, rest) = bytes.split_at((*length).min(bytes.len()));
        bytes = rest;
        let result = reader.read(&mut piece.to_vec(), max, |incoming| {
            heard.push(match incoming {
                Incoming::Text(text) => Heard::Text(text.into()),
                Incoming::Ping(payload) => Heard::Ping(payload.into()),
                Incoming::Pong => Heard::Pong,
                Incoming::Close => Heard::Close,
            });
            closed = heard.last() == Some(&Heard::Close);
            if closed { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        if result.is_err() || closed || bytes.is_empty() {
            return (heard, result);
        }
    }
    unreachable!("pieces repeat until the bytes end")
}

impl Part<'_> {
    fn bytes(&self) -> Vec<u8> {
        match *self {
            Self::Frame { first, mask, payload } => {
                // Reserved bits are rare, or few frames would be followed by another.
                let first = if first & 0x70 == 0x70 { first } else { first & 0x8f };
                let masked = payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask);
                header(first, payload.len() as u64, mask).into_iter().chain(masked).collect()
            }
            Self::Header { first, length, mask } => header(first, length, mask),
            Self::Bytes(bytes) => bytes.to_vec(),
        }
    }
}

fn header(first: u8, length: u64, mask: [u8; 4]) -> Vec<u8> {
    let mut bytes = vec![first];
    match length {
        0..126 => bytes.push(0x80 | length as u8),
        126..65_536 => {
            bytes.push(0x80 | 126);
            bytes.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            bytes.push(0x80 | 127);
            bytes.extend_from_slice(&length.to_be_bytes());
        }
    }
    bytes.extend_from_slice(&mask);
    bytes
}
