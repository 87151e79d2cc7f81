//! Messages that start and do not end.

use std::time::Duration;

use tests::raw::{CLOSE, CONTINUATION, FIN, PING, PONG, TEXT, frame, frame_head};
use tests::{PATIENCE, Raw, Setup, within, within_time};
use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval};

use super::start;

/// Sends the start of a message, then one of `drops` each second. Returns how long the server waited, and its close code.
async fn closed_after(mut raw: Raw, start: Vec<u8>, drops: Vec<Vec<u8>>) -> (Duration, u16) {
    raw.send(&start).await;
    let began = Instant::now();
    let mut second = interval(Duration::from_secs(1));
    let mut drops = drops.into_iter().cycle();
    let code = within_time(PATIENCE, "the close of a message that does not end", async {
        loop {
            tokio::select! {
                code = close_code(&mut raw) => return code,
                _ = second.tick() => if let Some(drop) = drops.next() {
                    // The server can be closing the connection already.
                    let _ = raw.stream.write_all(&drop).await;
                },
            }
        }
    })
    .await;
    (began.elapsed(), code)
}

/// Skips pongs up to the close frame.
async fn close_code(raw: &mut Raw) -> u16 {
    loop {
        // `Raw::frame` would fail, because it expects a frame within its own deadline.
        let bytes = raw.some().await;
        let mut rest = bytes.as_slice();
        while let [first, length, ..] = *rest {
            let (head, tail) = rest.split_at(2 + usize::from(length));
            if first & 0xf == CLOSE {
                return u16::from_be_bytes([head[2], head[3]]);
            }
            rest = tail;
        }
    }
}

#[tokio::test]
async fn a_message_that_does_not_end_is_closed_with_1008() {
    let (server, mut witnesses) = start(Setup::default()).await;
    let text = br#"{"event":"pusher:ping","data":{}}"#;
    let whole = frame(FIN | TEXT, text);
    let fragment = frame(TEXT, &vec![b' '; 32 * 1024]);
    let cases = [
        ("a fragment and pongs", fragment.clone(), vec![frame(FIN | PONG, b"")]),
        ("a fragment and pings", fragment, vec![frame(FIN | PING, b"")]),
        ("fragments without end", frame(TEXT, b""), vec![frame(CONTINUATION, b" ")]),
        ("a header only", frame_head(FIN | TEXT, 60 * 1024), Vec::new()),
        ("the start of a header", whole[..1].to_vec(), Vec::new()),
        ("a byte a second", frame_head(FIN | TEXT, 60 * 1024), vec![b"x".to_vec()]),
        ("a ping whose payload is missing", frame_head(FIN | PING, 100), Vec::new()),
    ];
    let mut slow = JoinSet::new();
    for (what, start, drops) in cases {
        let raw = server.raw().await;
        slow.spawn(async move {
            let (took, code) = closed_after(raw, start, drops).await;
            assert_eq!(code, 1008, "{what}");
            assert!(took > Duration::from_secs(28), "{what}: closed after {took:?}");
        });
    }
    // A client that sends whole messages in fragments, for longer than the limit of one message.
    let steady = async {
        let mut raw = server.raw().await;
        let mut second = interval(Duration::from_secs(1));
        for _ in 0..36 {
            let (begin, end) = text.split_at(10);
            raw.send(&frame(TEXT, begin)).await;
            second.tick().await;
            raw.send(&frame(FIN | CONTINUATION, end)).await;
            assert_eq!(raw.message().await["event"], "pusher:pong");
        }
    };
    tokio::join!(slow.join_all(), steady);
    server.metric_reaches("carillon_connections_closed_total{code=\"1008\"}", 7.0).await;
    witnesses.are_served(&server).await;
    server.stop().await;
}

#[tokio::test]
async fn incomplete_messages_of_many_clients_have_bounded_memory() {
    const SOCKETS: usize = 2_400;
    const BYTES: usize = 60 * 1024;
    // 140 MiB are sent. The server can store 64 MiB of them, in buffers of 64 KiB.
    const GROWTH_MAX: u64 = 110 * 1024 * 1024;
    let (server, mut witnesses) = start(Setup::default()).await;
    let before = server.resident_bytes();
    let mut start = frame_head(FIN | TEXT, BYTES as u64);
    start.resize(BYTES - 1, b' ');
    let mut sockets = Vec::with_capacity(SOCKETS);
    for _ in 0..SOCKETS {
        let mut raw = server.raw().await;
        raw.send(&start).await;
        sockets.push(raw);
    }
    witnesses.are_served(&server).await;
    // The oldest partial messages were closed.
    within("the close of the oldest", sockets[0].expect_close(4100)).await;
    let growth = server.resident_bytes().saturating_sub(before);
    assert!(growth < GROWTH_MAX, "{growth} bytes");
    // The latest one is not affected: its message of spaces ends and is answered.
    let mut latest = sockets.pop().expect("a socket");
    latest.send(&[b' '; 20]).await;
    assert_eq!(latest.message().await["event"], "pusher:error");
    drop(sockets);
    witnesses.are_served(&server).await;
    server.stop().await;
}
