//! Checks that the division of a client's bytes into reads does not change the messages, the errors, or the size limit.

#![no_main]

use std::ops::ControlFlow;

use gateway::websocket::{Incoming, Reader, WireError, writer};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;

#[derive(Debug, Arbitrary)]
struct Input<'a> {
    /// The size limit. It is small, which lets the fuzzer reach it.
    message_bytes_max: u8,
    /// The lengths of the pieces that arrive, in rotation.
    pieces: [u8; 4],
    parts: Vec<Part<'a>>,
}

/// A part of the input: a mostly valid frame, a frame header, or arbitrary bytes.
#[derive(Debug, Arbitrary)]
enum Part<'a> {
    Frame { first: u8, mask: [u8; 4], payload: &'a [u8] },
    Header { first: u8, length: u64, mask: [u8; 4] },
    Bytes(&'a [u8]),
}

#[derive(Debug, PartialEq)]
enum Received {
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
    assert_eq!(read(&bytes, &pieces, max), whole, "read in pieces of {pieces:?}");
    assert_eq!(read(&bytes, &[1], max), whole, "read byte by byte");
    for received in &whole.0 {
        match received {
            Received::Text(text) => assert!(text.len() <= max),
            Received::Ping(payload) => assert_eq!(writer::pong(payload).len(), 2 + payload.len(), "a pong fits into one frame"),
            Received::Pong | Received::Close => {}
        }
    }
});

fn read(mut bytes: &[u8], pieces: &[usize], max: usize) -> (Vec<Received>, Result<(), WireError>) {
    let (mut reader, mut received, mut closed) = (Reader::default(), Vec::new(), false);
    for length in pieces.iter().cycle() {
        let (piece, rest) = bytes.split_at((*length).min(bytes.len()));
        bytes = rest;
        let result = reader.read(&mut piece.to_vec(), max, |incoming| {
            received.push(match incoming {
                Incoming::Text(text) => Received::Text(text.into()),
                Incoming::Ping(payload) => Received::Ping(payload.into()),
                Incoming::Pong => Received::Pong,
                Incoming::Close => Received::Close,
            });
            closed = received.last() == Some(&Received::Close);
            if closed { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        if result.is_err() || closed || bytes.is_empty() {
            return (received, result);
        }
    }
    unreachable!("the pieces repeat until all bytes are read")
}

impl Part<'_> {
    fn bytes(&self) -> Vec<u8> {
        match *self {
            Self::Frame { first, mask, payload } => {
                // Reserved bits end the connection. They are rare to let most frames be followed by another.
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
