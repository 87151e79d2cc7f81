use shared::protocol::ChannelName;

use super::{encode, whole};

#[track_caller]
fn check(name: &str, data: &str, channels: &[&str]) {
    let names: Vec<ChannelName> = channels.iter().map(|name| ChannelName::parse(name, 200).unwrap()).collect();
    let expected: Vec<String> = channels.iter().map(|channel| whole(name, data, channel)).collect();
    assert_eq!(encode(name, data, &names), expected);
}

#[test]
fn every_frame_equals_a_separately_encoded_one() {
    check("e", "d", &[]);
    check("e", "d", &["a"]);
    check("my-event", r#"{"hello":"world"}"#, &["news", "private-x", "n", "#server-to-user-1"]);
    check(r"App\Events\OrderShipped", "\"channel\":\"a\"\n", &["a", "e", "event", "channel", "=@,.;_-"]);
    check("Zoë \"channel\":\"", "ë\u{0}", &["a", "b"]);
    check("e", "", &["a", "a", "b"]);
}
