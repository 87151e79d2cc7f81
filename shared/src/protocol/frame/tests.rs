use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

#[track_caller]
fn check(text: &str, expected: ClientFrame<'_>) {
    match ClientFrame::parse(text) {
        Ok(frame) => assert_eq!(frame, expected, "{text}"),
        Err(error) => panic!("{error}: {text}"),
    }
}

#[track_caller]
fn check_refused(text: &str, cause: &str) {
    let refused = ClientFrame::parse(text).map_err(|error| error.cause_label());
    assert_eq!(refused, Err(cause), "{text}");
}

fn subscribe(channel: &str, auth: Option<&str>, channel_data: Option<&str>) -> ClientFrame<'static> {
    ClientFrame::Subscribe {
        channel: channel.into(),
        auth: auth.map(Into::into),
        channel_data: channel_data.map(Into::into),
    }
}

fn client_event(name: &str, channel: &str, data: &str) -> ClientFrame<'static> {
    ClientFrame::ClientEvent {
        name: name.to_owned().into(),
        channel: channel.to_owned().into(),
        data: data.to_owned().into(),
    }
}

fn unknown(name: &'static str) -> ClientFrame<'static> {
    ClientFrame::Unknown { name: name.into() }
}

#[test]
fn the_messages_of_pusher_js_are_read() {
    check(r#"{"event":"pusher:subscribe","data":{"auth":"","channel":"news"}}"#, subscribe("news", Some(""), None));
    check(
        r#"{"event":"pusher:subscribe","data":{"auth":"KEY:HEX","channel":"private-x"}}"#,
        subscribe("private-x", Some("KEY:HEX"), None),
    );
    check(
        r#"{"event":"pusher:subscribe","data":{"auth":"KEY:HEX","channel_data":"{\"user_id\":\"1\",\"user_info\":{}}","channel":"presence-x"}}"#,
        subscribe("presence-x", Some("KEY:HEX"), Some(r#"{"user_id":"1","user_info":{}}"#)),
    );
    check(
        r#"{"event":"pusher:unsubscribe","data":{"channel":"news"}}"#,
        ClientFrame::Unsubscribe { channel: "news".into() },
    );
    check(
        r#"{"event":"pusher:signin","data":{"auth":"KEY:HEX","user_data":"{\"id\":\"12345\"}"}}"#,
        ClientFrame::SignIn { auth: "KEY:HEX".into(), user_data: r#"{"id":"12345"}"#.into() },
    );
    check(
        r#"{"event":"client-typing","data":{"x":1},"channel":"private-x"}"#,
        client_event("client-typing", "private-x", r#"{"x":1}"#),
    );
    check(r#"{"event":"pusher:ping","data":{}}"#, ClientFrame::Ping);
    check(r#"{"event":"pusher:pong","data":{}}"#, ClientFrame::Pong);
}

#[test]
fn data_may_be_a_text_that_holds_the_object() {
    check(
        r#"{"event":"pusher:subscribe","data":"{\"auth\":\"K:H\",\"channel\":\"private-x\",\"channel_data\":\"{\\\"user_id\\\":1}\"}"}"#,
        subscribe("private-x", Some("K:H"), Some(r#"{"user_id":1}"#)),
    );
    check(
        r#"{"event":"pusher:unsubscribe","data":"{\"channel\":\"news\"}"}"#,
        ClientFrame::Unsubscribe { channel: "news".into() },
    );
    check_refused(r#"{"event":"pusher:subscribe","data":"\"{}\""}"#, "data");
    check_refused(r#"{"event":"pusher:subscribe","data":"news"}"#, "data");
}

#[test]
fn absent_null_and_empty_channel_data_are_distinguished() {
    check(
        r#"{"event":"pusher:subscribe","data":{"channel":"a","auth":null,"channel_data":null}}"#,
        subscribe("a", None, None),
    );
    check(r#"{"event":"pusher:subscribe","data":{"channel":"a"}}"#, subscribe("a", None, None));
    check(r#"{"event":"pusher:subscribe","data":{"channel":"a","channel_data":""}}"#, subscribe("a", None, Some("")));
    for (field, value, found) in [
        ("channel_data", r#"{"user_id":1}"#, "an object"),
        ("channel_data", "7", "a number"),
        ("channel_data", "[]", "a list"),
        ("channel_data", "true", "a boolean"),
        ("auth", "{}", "an object"),
    ] {
        check(
            &format!(r#"{{"event":"pusher:subscribe","data":{{"channel":"a","{field}":{value}}}}}"#),
            ClientFrame::BadSubscribe { channel: "a".into(), field, found },
        );
    }
}

#[test]
fn other_members_are_ignored() {
    check(
        r#"{"event":"pusher:subscribe","user_id":7,"x":[{}],"data":{"channel":"a","y":{"z":null},"filter":[1]}}"#,
        subscribe("a", None, None),
    );
    check(
        r#"{"event":"client-a","user_id":"forged","channel":"private-a","data":"x"}"#,
        client_event("client-a", "private-a", "x"),
    );
    check(" {\n\t\"event\" : \"pusher:ping\" } ", ClientFrame::Ping);
}

#[test]
fn pings_may_carry_anything_or_nothing() {
    for data in ["null", "\"\"", "[1]", "7", "{\"a\":1}"] {
        check(&format!(r#"{{"event":"pusher:ping","data":{data}}}"#), ClientFrame::Ping);
    }
    check(r#"{"event":"pusher:pong"}"#, ClientFrame::Pong);
}

#[test]
fn a_message_that_is_not_an_object_with_an_event_is_refused() {
    for text in [
        "",
        " ",
        "null",
        "7",
        "\"pusher:ping\"",
        "{",
        "{}",
        "[]",
        r#"["pusher:ping"]"#,
        r#"{"event":7}"#,
        r#"{"event":null}"#,
        r#"{"event":"pusher:ping"}}"#,
        r#"{"event":"pusher:ping",}"#,
        r#"{"event":"pusher:ping","data":}"#,
        r#"{"event":"pusher:ping","data":{"a":01}}"#,
        r#"{"event":"a","event":"b"}"#,
        r#"{'event':'pusher:ping'}"#,
        "{\"event\":\"a\nb\"}",
        r#"{"event":"\ud800"}"#,
        "\u{feff}{\"event\":\"pusher:ping\"}",
    ] {
        check_refused(text, "json");
    }
}

#[test]
fn data_without_a_required_field_is_refused() {
    for data in ["{}", "null", "7", "[]", r#"["news"]"#, r#"{"channel":7}"#, r#"{"channel":null}"#, "\"\""] {
        check_refused(&format!(r#"{{"event":"pusher:subscribe","data":{data}}}"#), "data");
        check_refused(&format!(r#"{{"event":"pusher:unsubscribe","data":{data}}}"#), "data");
    }
    check_refused(r#"{"event":"pusher:subscribe"}"#, "data");
    check_refused(r#"{"event":"pusher:subscribe","channel":"news"}"#, "data");
    for data in ["{}", r#"{"auth":"K:H"}"#, r#"{"user_data":"{}"}"#] {
        check_refused(&format!(r#"{{"event":"pusher:signin","data":{data}}}"#), "data");
    }
    check(
        r#"{"event":"pusher:signin","data":{"auth":"K:H","user_data":{"id":"1"}}}"#,
        ClientFrame::BadSignIn { field: "user_data", found: "an object" },
    );
}

#[test]
fn data_of_client_events_is_forwarded_as_text() {
    let cases = [
        (r#""plain""#, "plain"),
        (r#""{\"x\":1}""#, r#"{"x":1}"#),
        (r#""a\u0000\"\\\/""#, "a\0\"\\/"),
        (r#"{"x": [1, null]}"#, r#"{"x": [1, null]}"#),
        ("12.50", "12.50"),
        ("true", "true"),
        ("[]", "[]"),
        ("null", "null"),
        (r#""""#, ""),
    ];
    for (data, expected) in cases {
        check(
            &format!(r#"{{"event":"client-a","channel":"private-a","data":{data}}}"#),
            client_event("client-a", "private-a", expected),
        );
    }
    check(r#"{"event":"client-a","channel":"private-a"}"#, client_event("client-a", "private-a", "null"));
}

#[test]
fn a_string_with_invalid_unicode_is_forwarded_as_json() {
    check(
        r#"{"event":"client-a","channel":"private-a","data":"\ud800"}"#,
        client_event("client-a", "private-a", r#""\ud800""#),
    );
}

#[test]
fn client_events_need_a_channel() {
    check_refused(r#"{"event":"client-a","data":{}}"#, "no_channel");
    check_refused(r#"{"event":"client-a","channel":null,"data":{}}"#, "no_channel");
    check_refused(r#"{"event":"client-a","channel":7,"data":{}}"#, "json");
}

#[test]
fn parsing_does_not_check_names() {
    check(r#"{"event":"client-\u0000","channel":"\u0000","data":1}"#, client_event("client-\0", "\0", "1"));
    check(r#"{"event":"client-","channel":"","data":1}"#, client_event("client-", "", "1"));
    check(r#"{"event":"pusher:subscribe","data":{"channel":"\u0000 é"}}"#, subscribe("\0 é", None, None));
}

#[test]
fn unknown_events_are_distinguished_from_invalid_ones() {
    check(r#"{"event":"pusher:hello","data":7}"#, unknown("pusher:hello"));
    check(
        r#"{"event":"pusher_internal:member_added","channel":"presence-a"}"#,
        unknown("pusher_internal:member_added"),
    );
    check(r#"{"event":"my-event"}"#, unknown("my-event"));
    check(r#"{"event":""}"#, unknown(""));
    check(r#"{"event":"Client-a"}"#, unknown("Client-a"));
    check(r#"{"event":"pusher:\u0073ubscribe2"}"#, unknown("pusher:subscribe2"));
    check(r#"{"event":"pusher:\u0070ing"}"#, ClientFrame::Ping);
}

#[test]
fn deep_nesting_does_not_overflow_the_stack() {
    let deep = "[".repeat(100_000) + &"]".repeat(100_000);
    check(
        &format!(r#"{{"event":"client-a","channel":"private-a","data":{deep}}}"#),
        client_event("client-a", "private-a", &deep),
    );
    check(&format!(r#"{{"event":"pusher:ping","extra":{deep}}}"#), ClientFrame::Ping);
    check(
        &format!(r#"{{"event":"pusher:subscribe","data":{{"x":{deep},"channel":"a"}}}}"#),
        subscribe("a", None, None),
    );
    check_refused(&format!(r#"{{"event":{deep}}}"#), "json");
    check_refused(&format!(r#"{{"event":"pusher:subscribe","data":{{"channel":{deep}}}}}"#), "data");
    check_refused(&"[".repeat(100_000), "json");
    check_refused(&(r#"{"event":"#.to_owned() + &r#"{"a":"#.repeat(100_000)), "json");
}

pub(super) fn text() -> impl Strategy<Value = String> {
    prop_oneof![any::<String>(), "[\\x00-\\x7f\"\\\\]{0,20}"]
}

proptest! {
    #[test]
    fn no_text_causes_a_panic(text in text()) {
        let _ = ClientFrame::parse(&text);
    }

    #[test]
    fn no_member_causes_a_panic(event in text(), data in text(), raw in "[\\[\\]{}\":,0-9a-z ]{0,20}") {
        let quoted_data = Value::from(data).to_string();
        for data in [&quoted_data, &raw] {
            let _ = ClientFrame::parse(&format!(r#"{{"event":{},"channel":"a","data":{data}}}"#, Value::from(&*event)));
        }
    }

    #[test]
    fn a_subscription_is_read_as_it_was_written(
        channel in text(), auth in any::<Option<String>>(), channel_data in any::<Option<String>>(), as_text: bool,
    ) {
        let data = json!({"channel": channel, "auth": auth, "channel_data": channel_data});
        let data = if as_text { Value::from(data.to_string()) } else { data };
        let sent = json!({"event": "pusher:subscribe", "data": data}).to_string();
        prop_assert_eq!(ClientFrame::parse(&sent).unwrap(), subscribe(&channel, auth.as_deref(), channel_data.as_deref()));
    }

    #[test]
    fn a_client_event_is_read_as_it_was_written(name in text(), channel in text(), data in text()) {
        let name = format!("client-{name}");
        let sent = json!({"event": name, "channel": channel, "data": data}).to_string();
        prop_assert_eq!(ClientFrame::parse(&sent).unwrap(), client_event(&name, &channel, &data));
    }
}
