//! Measures parsing of a client message and encoding of an event. Each happens once per message or event, not per
//! delivery.

use std::hint::black_box;
use std::ops::ControlFlow;

use criterion::{BatchSize, Criterion};
use gateway::websocket::{Incoming, Reader, writer};
use shared::protocol::{ClientFrame, ServerFrame};

/// The limit of the message length, which is the default of an app.
const MESSAGE_BYTES_MAX: usize = 64 * 1024;

const SUBSCRIBE: &str = r#"{"event":"pusher:subscribe","data":{"auth":"","channel":"orders.42"}}"#;
const SUBSCRIBE_PRESENCE: &str = r#"{"event":"pusher:subscribe","data":{"auth":"app-key:58df8b0c36d6982b82c3ecf6b4662e34fe8c25bba48f5369f135bf843651c3a4","channel_data":"{\"user_id\":\"1\",\"user_info\":{\"name\":\"Ana\"}}","channel":"presence-room"}}"#;
const CLIENT_EVENT: &str = r#"{"event":"client-typing","channel":"private-room","data":{"user":"ana","typing":true}}"#;
const PING: &str = r#"{"event":"pusher:ping","data":{}}"#;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    parse(&mut criterion);
    encode(&mut criterion);
    criterion.final_summary();
}

/// Measures parsing of client messages: the JSON alone, and with the masked frame.
fn parse(criterion: &mut Criterion) {
    let messages = [
        ("subscribe", SUBSCRIBE),
        ("subscribe_presence", SUBSCRIBE_PRESENCE),
        ("client_event", CLIENT_EVENT),
        ("ping", PING),
    ];
    let mut group = criterion.benchmark_group("parse");
    for (name, text) in messages {
        group.bench_function(format!("{name}/json"), |bencher| {
            bencher.iter(|| ClientFrame::parse(black_box(text)).expect("the message is valid"));
        });
        let frame = masked(text);
        group.bench_function(format!("{name}/frame"), |bencher| {
            let mut reader = Reader::default();
            bencher.iter_batched_ref(
                || frame.clone(),
                |frame| {
                    let read = reader.read(frame, MESSAGE_BYTES_MAX, |incoming| {
                        if let Incoming::Text(text) = incoming {
                            black_box(ClientFrame::parse(text).expect("the message is valid"));
                        }
                        ControlFlow::Continue(())
                    });
                    read.expect("the frame is complete");
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

/// Measures encoding of an event to the frame that every subscriber receives.
fn encode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encode");
    for bytes in [100, 1_000, 10_000] {
        let data = format!(r#"{{"text":"{}"}}"#, "x".repeat(bytes));
        group.bench_function(format!("event/{bytes}"), |bencher| {
            bencher.iter(|| {
                let event = ServerFrame::Event { channel: "orders.42", name: "shipped", data: &data, user_id: None };
                writer::text(black_box(event).encode().as_bytes())
            });
        });
    }
    group.finish();
}

/// Returns a masked text frame, as browsers send it.
fn masked(text: &str) -> Vec<u8> {
    const MASK: [u8; 4] = [0x12, 0x34, 0x56, 0x78];
    let mut frame = match u8::try_from(text.len()) {
        Ok(short) if short < 126 => vec![0x81, 0x80 | short],
        _ => {
            let length = u16::try_from(text.len()).expect("the message is shorter than 64 KiB").to_be_bytes();
            vec![0x81, 0x80 | 126, length[0], length[1]]
        }
    };
    frame.extend_from_slice(&MASK);
    frame.extend(text.bytes().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}
