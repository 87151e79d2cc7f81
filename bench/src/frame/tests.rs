use super::*;

/// Lengths on both sides of where the header changes its form.
const LENGTHS: [usize; 8] = [0, 1, 125, 126, 156, 65_535, 65_536, 100_000];

#[test]
fn what_is_written_is_read_again() {
    for length in LENGTHS {
        let payload = vec![b'x'; length];
        for frame in [from_server(TEXT, &payload), from_client(TEXT, &payload)] {
            let parsed = Frame::parse(&frame).expect("a whole header");
            assert_eq!(parsed.opcode, TEXT);
            assert_eq!(parsed.end, frame.len(), "{length} bytes");
            assert_eq!(&frame[parsed.start..parsed.end], payload);
        }
    }
}

#[test]
fn half_a_header_is_none() {
    for length in LENGTHS {
        let frame = from_server(TEXT, &vec![b'x'; length]);
        let start = Frame::parse(&frame).expect("a whole header").start;
        for cut in 0..start {
            assert_eq!(Frame::parse(&frame[..cut]), None, "{cut} bytes of the header for {length}");
        }
    }
}

#[test]
fn a_length_beyond_all_memory_is_none() {
    assert_eq!(Frame::parse(&[0x81, 127, 255, 255, 255, 255, 255, 255, 255, 255]), None);
}

#[test]
fn a_close_frame_has_a_code_or_none() {
    assert_eq!(close_code(&[0x10, 0x04, b'x']), Some(4100));
    assert_eq!(close_code(&[]), None);
}
