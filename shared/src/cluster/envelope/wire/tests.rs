use proptest::prelude::*;

use super::*;
use crate::protocol::SocketId;

#[track_caller]
fn check(envelope: &Envelope, message: &str) {
    assert_eq!(String::from_utf8(envelope.encode()).unwrap(), message);
    let read = Envelope::decode(&Bytes::from(message.to_owned())).unwrap();
    assert_eq!(format!("{read:?}"), format!("{envelope:?}"));
}

fn envelope(position: Option<(u64, u64)>, body: Body) -> Envelope {
    let position = position.map(|(epoch, sequence)| Position { epoch, sequence });
    Envelope { published_at_us: 17, position, body }
}

fn event(frame: &'static str, except: Option<&str>, cached: bool) -> Body {
    let except: Option<SocketId> = except.map(|except| except.parse().unwrap());
    Body::Event { frame: Bytes::from_static(frame.as_bytes()), except, cached }
}

#[test]
fn every_kind_of_body_is_encoded_and_decoded() {
    check(&envelope(None, event("{\"a\":\n1}", None, false)), "1 E - - 17 -\n{\"a\":\n1}");
    check(&envelope(None, event("{}", Some("12.34"), false)), "1 E - - 17 12.34\n{}");
    check(&envelope(Some((3, 4)), event("{}", None, true)), "1 K 3 4 17 -\n{}");
    let member = |info: Option<&str>| Member { user_id: UserId::from("zoë"), user_info: info.map(Into::into) };
    check(&envelope(Some((3, 4)), Body::MemberAdded(member(Some("{}")))), "1 A 3 4 17 -\n4:zoë{}");
    check(&envelope(Some((3, 4)), Body::MemberAdded(member(None))), "1 A 3 4 17 -\n4:zoë");
    check(&envelope(Some((3, 5)), Body::MemberRemoved(UserId::from("zoë"))), "1 R 3 5 17 -\nzoë");
    check(&envelope(None, Body::SubscriptionCount(7)), "1 C - - 17 -\n7");
    check(&envelope(None, Body::UserOnline(true)), "1 O - - 17 -\n1");
    check(&envelope(None, Body::UserOnline(false)), "1 O - - 17 -\n0");
    check(&envelope(None, Body::Terminate), "1 T - - 17 -\n");
}

#[test]
fn a_newer_version_and_a_malformed_message_are_different_errors() {
    let read = |message: &str| Envelope::decode(&Bytes::from(message.to_owned())).map(drop);
    assert_eq!(read("2 Z whatever comes\n"), Err(EnvelopeError::Newer(2)));
    for message in [
        "",
        "\n",
        "1",
        "1 E - - 17 -",
        "x E - - 17 -\n",
        "1 E - - x -\n",
        "1 E - - 17 x\n",
        "1 E 1 - 17 -\n",
        "1 Z - - 17 -\n",
        "1 A 1 1 17 -\n9:ana",
        "1 A 1 1 17 -\n0:{}",
        "1 A 1 1 17 -\n3:ana{",
        "1 A 1 1 17 -\n1:ë",
        "1 C - - 17 -\nmany",
        "1 R 1 1 17 -\n\u{0}",
    ] {
        let expected = if message.ends_with('\u{0}') { Ok(()) } else { Err(EnvelopeError::Malformed) };
        assert_eq!(read(message), expected, "{message:?}");
    }
}

proptest! {
    #[test]
    fn decoding_arbitrary_bytes_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Envelope::decode(&Bytes::from(bytes));
    }

    #[test]
    fn decoding_an_arbitrary_payload_never_panics(kind in "[EKARCOT]", payload in ".{0,40}") {
        let _ = Envelope::decode(&Bytes::from(format!("1 {kind} 1 2 3 -\n{payload}")));
    }
}
