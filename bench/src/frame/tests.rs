use super::*;

/// Lengths around the limits of the three header formats.
const LENGTHS: [usize; 8] = [0, 1, 125, 126, 156, 65_535, 65_536, 100_000];

#[test]
fn a_written_frame_can_be_parsed() {
    for length in LENGTHS {
        let payload = vec![b'x'; length];
        for frame in [from_server(TEXT, &payload), from_client(TEXT, &payload)] {
            let parsed = Frame::parse(&frame).expect("the header is complete");
            assert_eq!(parsed.opcode, TEXT);
            assert_eq!(parsed.end, frame.len(), "{length} bytes");
            assert_eq!(&frame[parsed.start..parsed.end], payload);
        }
    }
}

#[test]
fn an_incomplete_header_is_not_parsed() {
    for length in LENGTHS {
        let frame = from_server(TEXT, &vec![b'x'; length]);
        let start = Frame::parse(&frame).expect("the header is complete").start;
        for cut in 0..start {
            assert_eq!(Frame::parse(&frame[..cut]), None, "{cut} bytes of the header for {length}");
        }
    }
}

#[test]
fn a_length_that_overflows_is_not_parsed() {
    assert_eq!(Frame::parse(&[0x81, 127, 255, 255, 255, 255, 255, 255, 255, 255]), None);
}

#[test]
fn the_code_of_a_close_frame_is_optional() {
    assert_eq!(close_code(&[0x10, 0x04, b'x']), Some(4100));
    assert_eq!(close_code(&[]), None);
}
