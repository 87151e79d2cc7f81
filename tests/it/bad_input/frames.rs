//! Bytes that violate RFC 6455, and unusual bytes that it allows.

use tests::raw::{BINARY, CLOSE, CONTINUATION, FIN, PING, PONG, TEXT, frame, frame_head};
use tests::{Raw, Server, Setup, Witnesses};

use super::start;

const SUBSCRIBE: &[u8] = br#"{"event":"pusher:subscribe","data":{"channel":"news"}}"#;

/// Sends bytes and expects the connection to be closed with `code`.
async fn breaks(server: &Server, witnesses: &mut Witnesses, what: &str, bytes: &[u8], code: u16) {
    let mut raw = server.raw().await;
    raw.send(bytes).await;
    assert_eq!(raw.close().await, code, "{what}");
    // The server waits for the client to close its side.
    assert_eq!(raw.frame().await, None, "{what}: no frame follows a close frame");
    drop(raw);
    witnesses.are_served(server).await;
}

async fn is_subscribed(raw: &mut Raw) {
    let message = raw.message().await;
    assert_eq!(message["event"], "pusher_internal:subscription_succeeded", "{message}");
}

#[tokio::test]
async fn broken_frames_end_with_1002() {
    let (server, mut witnesses) = start(Setup::default()).await;
    let mut unmasked = vec![FIN | TEXT, SUBSCRIBE.len().try_into().expect("short")];
    unmasked.extend(SUBSCRIBE);
    let long_ping = frame(FIN | PING, &[b'x'; 126]);
    let cases: [(&str, Vec<u8>); 13] = [
        ("unmasked", unmasked),
        ("first reserved bit", frame(FIN | 0x40 | TEXT, SUBSCRIBE)),
        ("second reserved bit", frame(FIN | 0x20 | TEXT, SUBSCRIBE)),
        ("third reserved bit", frame(FIN | 0x10 | PING, b"")),
        ("opcode 3", frame(FIN | 3, b"")),
        ("opcode 11", frame(FIN | 11, b"")),
        ("a continuation of nothing", frame(FIN | CONTINUATION, SUBSCRIBE)),
        ("a message inside another", [frame(TEXT, b"{"), frame(FIN | TEXT, SUBSCRIBE)].concat()),
        ("a fragmented ping", frame(PING, b"x")),
        ("a ping of 126 bytes", long_ping),
        ("a close frame of one byte", frame(FIN | CLOSE, b"x")),
        ("a close frame with code 1005", frame(FIN | CLOSE, &1005u16.to_be_bytes())),
        ("a close reason that is not UTF-8", frame(FIN | CLOSE, &[0x03, 0xe8, 0xff])),
    ];
    for (what, bytes) in &cases {
        breaks(&server, &mut witnesses, what, bytes, 1002).await;
    }
    server.metric_reaches("carillon_connections_closed_total{code=\"1002\"}", 13.0).await;
    assert_eq!(server.metric("carillon_protocol_errors_total{kind=\"unmasked\"}").await, 1.0);
    server.stop().await;
}

#[tokio::test]
async fn messages_above_the_limit_end_with_1009() {
    let (server, mut witnesses) = start(Setup::default().limit("message_bytes = \"16KiB\"")).await;
    let whole = frame(FIN | TEXT, &vec![b' '; 16 * 1024 + 1]);
    breaks(&server, &mut witnesses, "one byte too much", &whole, 1009).await;
    let claim = frame_head(FIN | TEXT, u64::MAX >> 1);
    breaks(&server, &mut witnesses, "a claim of 8 EiB", &claim, 1009).await;
    breaks(&server, &mut witnesses, "a claim of 16 EiB", &frame_head(FIN | BINARY, u64::MAX), 1009).await;
    let half = vec![b' '; 8 * 1024];
    let fragments = [frame(TEXT, &half), frame(CONTINUATION, &half), frame(FIN | CONTINUATION, b" ")].concat();
    breaks(&server, &mut witnesses, "too much by fragments", &fragments, 1009).await;
    assert_eq!(server.metric("carillon_protocol_errors_total{kind=\"too_large\"}").await, 4.0);

    let mut raw = server.raw().await;
    let mut largest = SUBSCRIBE.to_vec();
    largest.resize(16 * 1024, b' ');
    raw.send_frame(FIN | TEXT, &largest).await;
    is_subscribed(&mut raw).await;
    server.stop().await;
}

#[tokio::test]
async fn text_that_is_not_utf_8_ends_with_1007() {
    let (server, mut witnesses) = start(Setup::default()).await;
    let cut_apart = [frame(TEXT, b"\"\xc3"), frame(FIN | CONTINUATION, b"(\"")].concat();
    for (what, bytes) in [
        ("a lone continuation byte", frame(FIN | TEXT, b"\"\x80\"")),
        ("a surrogate", frame(FIN | TEXT, b"\"\xed\xa0\x80\"")),
        ("a character that its fragments do not complete", cut_apart),
    ] {
        breaks(&server, &mut witnesses, what, &bytes, 1007).await;
    }
    server.stop().await;
}

#[tokio::test]
async fn binary_messages_without_text_end_with_1003() {
    let (server, mut witnesses) = start(Setup::default()).await;
    for (what, bytes) in [
        ("a binary frame", frame(FIN | BINARY, b"\x00\xff")),
        ("a fragmented one", [frame(BINARY, b"\x00\xff"), frame(FIN | CONTINUATION, b"")].concat()),
        ("one whose second fragment is no text", [frame(BINARY, b"{"), frame(FIN | CONTINUATION, b"\xff}")].concat()),
    ] {
        breaks(&server, &mut witnesses, what, &bytes, 1003).await;
    }
    server.metric_reaches("carillon_connections_closed_total{code=\"1003\"}", 3.0).await;
    server.stop().await;
}

#[tokio::test]
async fn binary_frames_with_text_are_messages() {
    let (server, mut witnesses) = start(Setup::default()).await;
    let mut raw = server.raw().await;
    raw.send_frame(FIN | BINARY, SUBSCRIBE).await;
    is_subscribed(&mut raw).await;
    witnesses.are_served(&server).await;
    server.stop().await;
}

#[tokio::test]
async fn fragmented_messages_are_reassembled() {
    let (server, mut witnesses) = start(Setup::default()).await;
    let mut raw = server.raw().await;
    // Every byte is a fragment, with a ping between two fragments, and a character of two bytes is split.
    let text = r#"{"event":"pusher:subscribe","data":{"channel":"news","x":"é"}}"#.as_bytes();
    let mut bytes = frame(TEXT, &text[..1]);
    for byte in &text[1..text.len() - 1] {
        bytes.extend(frame(FIN | PING, b"p"));
        bytes.extend(frame(CONTINUATION, &[*byte]));
    }
    bytes.extend(frame(CONTINUATION, b""));
    bytes.extend(frame(FIN | CONTINUATION, &text[text.len() - 1..]));
    raw.send(&bytes).await;
    for _ in 1..text.len() - 1 {
        let pong = raw.frame().await.expect("a pong");
        assert_eq!((pong.opcode, pong.payload.as_slice()), (PONG, b"p".as_slice()));
    }
    is_subscribed(&mut raw).await;
    witnesses.are_served(&server).await;
    server.stop().await;
}

#[tokio::test]
async fn frames_that_arrive_byte_by_byte_are_read() {
    let (server, mut witnesses) = start(Setup::default()).await;
    let mut raw = server.raw().await;
    let mut padded = SUBSCRIBE.to_vec();
    padded.resize(300, b' ');
    for byte in frame(FIN | TEXT, &padded) {
        raw.send(&[byte]).await;
    }
    is_subscribed(&mut raw).await;
    witnesses.are_served(&server).await;
    server.stop().await;
}

#[tokio::test]
async fn many_frames_in_one_packet_are_read_in_order() {
    let (server, mut witnesses) = start(Setup::default()).await;
    let mut raw = server.raw().await;
    let count = 2_000u16;
    raw.send(&(0..count).flat_map(|number| frame(FIN | PING, &number.to_be_bytes())).collect::<Vec<u8>>()).await;
    for number in 0..count {
        assert_eq!(raw.frame().await.expect("a pong").payload, number.to_be_bytes());
    }
    witnesses.are_served(&server).await;
    server.stop().await;
}

#[tokio::test]
async fn a_close_frame_from_a_client_is_answered_and_the_stream_ends() {
    let (server, mut witnesses) = start(Setup::default()).await;
    for payload in [&b""[..], &[0x03, 0xe8], &[0x0f, 0xa0, b'b', b'y', b'e']] {
        let mut raw = server.raw().await;
        raw.send_frame(FIN | CLOSE, payload).await;
        assert_eq!(raw.close().await, 1000);
        assert_eq!(raw.frame().await, None);
    }
    server.metric_reaches("carillon_connections_closed_total{code=\"1000\"}", 3.0).await;
    witnesses.are_served(&server).await;
    server.stop().await;
}

#[tokio::test]
async fn frames_that_announce_more_than_they_send_use_no_memory_and_delay_no_client() {
    const SOCKETS: usize = 400;
    // 400 announced lengths of 60 KiB are 23 MiB if the server allocates them.
    const GROWTH_MAX: u64 = 6 * 1024 * 1024;
    let (server, mut witnesses) = start(Setup::default()).await;
    let mut sockets = Vec::with_capacity(SOCKETS);
    for _ in 0..SOCKETS {
        sockets.push(server.raw().await);
    }
    let before = server.resident_bytes();
    for raw in &mut sockets {
        raw.send(&frame_head(FIN | TEXT, 60 * 1024)).await;
        raw.send(b"only this").await;
    }
    // 14 bytes of head and 9 of payload each. The server has read all of them.
    server.metric_reaches("carillon_connections", SOCKETS as f64 + 2.0).await;
    tests::eventually("all bytes are read", async || {
        server.metric("carillon_received_bytes_total").await >= (SOCKETS * 17) as f64
    })
    .await;
    witnesses.are_served(&server).await;
    let growth = server.resident_bytes().saturating_sub(before);
    assert!(growth < GROWTH_MAX, "{growth} bytes for {SOCKETS} announced frames");
    drop(sockets);
    server.metric_reaches("carillon_connections", 2.0).await;
    witnesses.are_served(&server).await;
    server.stop().await;
}
