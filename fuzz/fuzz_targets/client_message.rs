//! Checks that a client message is parsed as its JSON specifies, and that forwarded data is equivalent JSON.

#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};
use shared::protocol::{ClientFrame, Member, ServerFrame, User};

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    member_data_is_unchanged(text);
    let parsed = ClientFrame::parse(text);
    // `serde_json` parses the whole text for comparison. It rejects deep nesting and lone surrogates, which the parser
    // skips in members that it does not use.
    let Ok(plain) = serde_json::from_str::<Value>(text) else { return };
    let Ok(frame) = parsed else {
        assert!(!(plain.is_object() && is_valid(text, &plain)), "rejected a valid message: {text}");
        return;
    };
    assert!(plain["event"].is_string(), "accepted a message without an event: {text}");
    match frame {
        ClientFrame::Subscribe { channel, auth, channel_data } => {
            let inner = inner_data(&plain);
            assert_eq!(plain["event"], "pusher:subscribe");
            assert_eq!(inner["channel"], channel);
            assert_eq!(inner.get("auth").and_then(Value::as_str), auth.as_deref());
            assert_eq!(inner.get("channel_data").and_then(Value::as_str), channel_data.as_deref());
        }
        ClientFrame::BadSubscribe { channel, field, .. } => {
            let inner = inner_data(&plain);
            assert_eq!(plain["event"], "pusher:subscribe");
            assert_eq!(inner["channel"], channel);
            assert!(!inner[field].is_string(), "rejected a valid {field}: {text}");
        }
        ClientFrame::Unsubscribe { channel } => {
            assert_eq!(plain["event"], "pusher:unsubscribe");
            assert_eq!(inner_data(&plain)["channel"], channel);
        }
        ClientFrame::SignIn { auth, user_data } => {
            let inner = inner_data(&plain);
            assert_eq!(plain["event"], "pusher:signin");
            assert_eq!((&inner["auth"], &inner["user_data"]), (&auth.into(), &user_data.into()));
        }
        ClientFrame::BadSignIn { field, .. } => {
            assert_eq!(plain["event"], "pusher:signin");
            assert!(!inner_data(&plain)[field].is_string(), "rejected a valid {field}: {text}");
        }
        ClientFrame::Ping => assert_eq!(plain["event"], "pusher:ping"),
        ClientFrame::Pong => assert_eq!(plain["event"], "pusher:pong"),
        ClientFrame::ClientEvent { name, channel, data } => {
            assert!(name.starts_with("client-"));
            assert_eq!((&plain["event"], &plain["channel"]), (&Value::from(&*name), &Value::from(&*channel)));
            match plain.get("data").unwrap_or(&Value::Null) {
                Value::String(sent) => assert_eq!(*sent, data),
                sent => assert_eq!(*sent, serde_json::from_str::<Value>(&data).expect("data is JSON")),
            }
            let sender = "7".into();
            let frame = ServerFrame::Event { channel: &channel, name: &name, data: &data, user_id: Some(&sender) };
            let forwarded: Value = serde_json::from_str(&frame.encode()).expect("a frame is JSON");
            assert_eq!(forwarded, json!({"event": name, "channel": channel, "data": data, "user_id": "7"}));
        }
        ClientFrame::Unknown { name } => {
            assert_eq!(plain["event"], *name);
            assert!(!name.starts_with("client-"));
        }
    }
});

/// Returns whether an object is certainly valid: its event needs no data, and no member occurs twice.
fn is_valid(text: &str, plain: &Value) -> bool {
    let needs_no_data =
        plain["event"].as_str().is_some_and(|event| !event.starts_with("pusher:") && !event.starts_with("client-"));
    let once = |member: &str| text.matches(member).count() <= 1;
    let escaped = text.contains('\\');
    let channel = plain.get("channel").is_none_or(|channel| channel.is_string() || channel.is_null());
    needs_no_data && channel && !escaped && ["event", "channel", "data"].into_iter().all(once)
}

/// Returns the `data` of a `pusher:` event, which is an object or a string with the JSON of an object.
fn inner_data(plain: &Value) -> Value {
    match &plain["data"] {
        Value::String(text) => serde_json::from_str(text).expect("the data of an accepted message is JSON"),
        object => object.clone(),
    }
}

/// Checks that the member data of an application is forwarded without changes, in valid JSON.
fn member_data_is_unchanged(text: &str) {
    let _ = User::parse(text, 128);
    let Ok(member) = Member::parse(text, 128, 1024) else { return };
    assert!(!member.user_id.as_str().is_empty());
    let decode = |json: &str| serde_json::from_str::<Value>(json).expect("a frame is JSON");
    let added = decode(&ServerFrame::MemberAdded { channel: "presence-a", member: &member }.encode());
    let list = ServerFrame::SubscribedWithMembers { channel: "presence-a", members: std::slice::from_ref(&member) };
    let list = decode(&list.encode());
    let (Value::String(added), Value::String(list)) = (&added["data"], &list["data"]) else {
        panic!("the data is not a string")
    };
    // The user info is forwarded byte for byte. It may be JSON that only lenient parsers accept.
    let info = member.user_info.as_deref().unwrap_or("null");
    assert!(added.ends_with(&format!(r#","user_info":{info}}}"#)), "{added}");
    let Ok(info) = serde_json::from_str::<Value>(info) else { return };
    // The frame has two more levels of nesting, which can exceed the depth limit of `serde_json`.
    let (Ok(added), Ok(list)) = (serde_json::from_str::<Value>(added), serde_json::from_str::<Value>(list)) else {
        assert!(text.matches(['[', '{']).count() > 100, "invalid JSON for {text}");
        return;
    };
    assert_eq!(added, json!({"user_id": member.user_id.as_str(), "user_info": info}));
    assert_eq!(list["presence"]["ids"], json!([member.user_id.as_str()]));
    assert_eq!(list["presence"]["hash"][member.user_id.as_str()], info);
}
