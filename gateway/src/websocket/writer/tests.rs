use fastwebsockets::{Role, WebSocket};
use proptest::prelude::*;

use super::*;

/// `header`: the bytes before the payload.
#[track_caller]
fn check(frame: &[u8], header: &[u8], payload: &[u8]) {
    let (head, rest) = frame.split_at(header.len());
    assert_eq!((head, rest.len()), (header, payload.len()));
    assert!(rest == payload);
}

#[test]
fn headers_have_the_shortest_form_and_no_mask() {
    let text_of = |length: usize| vec![b'a'; length];
    check(&text(b""), &[0x81, 0], b"");
    check(&text(b"hi"), &[0x81, 2], b"hi");
    check(&text(&text_of(125)), &[0x81, 125], &text_of(125));
    check(&text(&text_of(126)), &[0x81, 126, 0, 126], &text_of(126));
    check(&text(&text_of(65_535)), &[0x81, 126, 0xff, 0xff], &text_of(65_535));
    check(&text(&text_of(65_536)), &[0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0], &text_of(65_536));
}

#[test]
fn control_frames_have_their_opcodes() {
    check(&ping(), &[0x89, 0], b"");
    check(&pong(b""), &[0x8a, 0], b"");
    check(&pong(&[7; 125]), &[0x8a, 125], &[7; 125]);
    check(&close(CloseCode::UnknownApp, "no"), &[0x88, 4, 0x0f, 0xa1], b"no");
    check(&close(CloseCode::Normal, ""), &[0x88, 2, 0x03, 0xe8], b"");
}

#[test]
fn a_long_reason_is_truncated_at_a_character_boundary() {
    #[track_caller]
    fn check_cut(reason: &str, length: usize) {
        let expected = [&4200_u16.to_be_bytes(), &reason.as_bytes()[..length]].concat();
        check(&close(CloseCode::Reconnect, reason), &[0x88, length as u8 + 2], &expected);
    }
    check_cut(&"a".repeat(123), 123);
    check_cut(&"a".repeat(124), 123);
    check_cut(&"é".repeat(62), 122);
    check_cut(&("a".to_owned() + &"é".repeat(62)), 123);
    check_cut(&"€".repeat(42), 123);
    check_cut(&("aa".to_owned() + &"€".repeat(41)), 122);
    check_cut(&"🦀".repeat(31), 120);
}

/// Reads the frames in `bytes` with the client of fastwebsockets.
async fn read_by_client(bytes: &[u8], count: usize) -> Vec<(OpCode, Vec<u8>)> {
    use tokio::io::AsyncWriteExt;

    let (mut server, client) = tokio::io::duplex(bytes.len().max(1));
    server.write_all(bytes).await.unwrap();
    let mut client = WebSocket::after_handshake(client, Role::Client);
    client.set_auto_close(false);
    client.set_auto_pong(false);
    let mut frames = Vec::new();
    for _ in 0..count {
        let frame = client.read_frame().await.unwrap();
        assert!(frame.fin);
        frames.push((frame.opcode, frame.payload.to_vec()));
    }
    frames
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn another_implementation_reads_the_written_frames(
        message in any::<String>(), length in 0_usize..70_000, payload in prop::collection::vec(any::<u8>(), 0..=125),
        reason in ".{0,200}",
    ) {
        let long = "x".repeat(length);
        let bytes = [
            text(message.as_bytes()),
            ping(),
            text(long.as_bytes()),
            pong(&payload),
            close(CloseCode::OverCapacity, &reason),
        ]
        .concat();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let frames = runtime.block_on(read_by_client(&bytes, 5));
        let expected =
            [(OpCode::Text, message.into_bytes()), (OpCode::Ping, Vec::new()), (OpCode::Text, long.into_bytes())];
        prop_assert!(frames[..3] == expected);
        prop_assert_eq!(&frames[3], &(OpCode::Pong, payload));
        let (opcode, payload_of_close) = &frames[4];
        let (code, cut) = payload_of_close.split_first_chunk().expect("a close frame has a code");
        prop_assert_eq!((*opcode, u16::from_be_bytes(*code)), (OpCode::Close, 4100));
        let cut = std::str::from_utf8(cut).expect("a reason is UTF-8");
        prop_assert!(reason.starts_with(cut));
        prop_assert!(cut == reason || (120..=123).contains(&cut.len()));
    }
}
