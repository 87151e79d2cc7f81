use super::*;

fn written(payload: Payload, bytes: usize) -> String {
    let mut text = String::from("before ");
    payload.write(bytes, &mut text);
    text
}

#[test]
fn a_payload_is_found_at_any_offset() {
    let payload = Payload { channel: 7, sequence: 42, sent_ns: 123_456_789_012 };
    let mut finder = PayloadFinder::new();
    for before in ["", r#"{"event":"tick","data":""#, "seq", r#"{"data":""#] {
        let message = format!("{before}{}\"}}", written(payload, 0));
        assert_eq!(finder.find(message.as_bytes()), Some(payload), "{message}");
    }
}

#[test]
fn data_is_padded_and_never_truncated() {
    let payload = Payload { channel: 3, sequence: 1, sent_ns: 2 };
    assert_eq!(written(payload, 100).len(), "before ".len() + 100);
    assert_eq!(written(payload, 3).len(), "before ".len() + 47);
}

#[test]
fn messages_without_a_payload_are_ignored() {
    let mut finder = PayloadFinder::new();
    for message in ["", "seq=", "seq=12", "seq=000000000a;at=000000000000000001;", r#"{"event":"pusher:pong"}"#] {
        assert_eq!(finder.find(message.as_bytes()), None, "{message}");
    }
}
