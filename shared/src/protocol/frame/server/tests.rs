//! Tests of the exact JSON of each message to a client. Source: protocol reference 0.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::protocol::frame::tests::text;

#[track_caller]
fn check(frame: ServerFrame<'_>, expected: &str) {
    assert_eq!(frame.encode(), expected);
}

fn member(user_id: &str, user_info: Option<&str>) -> Member {
    Member { user_id: user_id.into(), user_info: user_info.map(Into::into) }
}

#[test]
fn connection_established_has_text_data() {
    check(
        ServerFrame::ConnectionEstablished { socket_id: "131160.155806628".parse().unwrap(), activity_timeout_s: 120 },
        r#"{"event":"pusher:connection_established","data":"{\"socket_id\":\"131160.155806628\",\"activity_timeout\":120}"}"#,
    );
}

#[test]
fn subscription_succeeded_has_text_data_even_when_there_is_none() {
    check(
        ServerFrame::Subscribed { channel: "news" },
        r#"{"event":"pusher_internal:subscription_succeeded","channel":"news","data":"{}"}"#,
    );
}

#[test]
fn members_come_as_ids_and_as_a_hash() {
    check(
        ServerFrame::SubscribedWithMembers {
            channel: "presence-x",
            members: &[member("1", Some(r#"{"name":"A"}"#)), member("2", None)],
        },
        r#"{"event":"pusher_internal:subscription_succeeded","channel":"presence-x","data":"{\"presence\":{\"count\":2,\"ids\":[\"1\",\"2\"],\"hash\":{\"1\":{\"name\":\"A\"},\"2\":null}}}"}"#,
    );
    check(
        ServerFrame::SubscribedWithMembers { channel: "presence-x", members: &[] },
        r#"{"event":"pusher_internal:subscription_succeeded","channel":"presence-x","data":"{\"presence\":{\"count\":0,\"ids\":[],\"hash\":{}}}"}"#,
    );
}

#[test]
fn subscription_error_has_text_data() {
    check(
        ServerFrame::SubscriptionError {
            channel: "private-x",
            kind: "AuthError",
            error: "The connection is unauthorized.",
            status: 401,
        },
        r#"{"event":"pusher:subscription_error","channel":"private-x","data":"{\"type\":\"AuthError\",\"error\":\"The connection is unauthorized.\",\"status\":401}"}"#,
    );
}

#[test]
fn member_added_has_text_data_and_always_an_info() {
    check(
        ServerFrame::MemberAdded { channel: "presence-x", member: &member("3", Some(r#"{"name":"C"}"#)) },
        r#"{"event":"pusher_internal:member_added","channel":"presence-x","data":"{\"user_id\":\"3\",\"user_info\":{\"name\":\"C\"}}"}"#,
    );
    check(
        ServerFrame::MemberAdded { channel: "presence-x", member: &member("3", None) },
        r#"{"event":"pusher_internal:member_added","channel":"presence-x","data":"{\"user_id\":\"3\",\"user_info\":null}"}"#,
    );
}

#[test]
fn member_removed_has_text_data() {
    check(
        ServerFrame::MemberRemoved { channel: "presence-x", user_id: &"3".into() },
        r#"{"event":"pusher_internal:member_removed","channel":"presence-x","data":"{\"user_id\":\"3\"}"}"#,
    );
}

#[test]
fn subscription_count_has_text_data() {
    check(
        ServerFrame::SubscriptionCount { channel: "news", count: 101 },
        r#"{"event":"pusher_internal:subscription_count","channel":"news","data":"{\"subscription_count\":101}"}"#,
    );
}

#[test]
fn cache_miss_has_text_data_even_when_there_is_none() {
    check(
        ServerFrame::CacheMiss { channel: "cache-x" },
        r#"{"event":"pusher:cache_miss","channel":"cache-x","data":"{}"}"#,
    );
}

#[test]
fn channel_events_have_the_publishers_text_as_data() {
    check(
        ServerFrame::Event { channel: "news", name: "my-event", data: r#"{"hello":"world"}"#, user_id: None },
        r#"{"event":"my-event","channel":"news","data":"{\"hello\":\"world\"}"}"#,
    );
    check(
        ServerFrame::Event {
            channel: "private-orders.1",
            name: r"App\Events\OrderShipped",
            data: "no JSON \u{0}\n\"",
            user_id: None,
        },
        r#"{"event":"App\\Events\\OrderShipped","channel":"private-orders.1","data":"no JSON \u0000\n\""}"#,
    );
}

#[test]
fn client_events_of_presence_channels_name_their_sender() {
    check(
        ServerFrame::Event {
            channel: "presence-x",
            name: "client-typing",
            data: r#"{"x":1}"#,
            user_id: Some(&"3".into()),
        },
        r#"{"event":"client-typing","channel":"presence-x","data":"{\"x\":1}","user_id":"3"}"#,
    );
}

#[test]
fn signin_success_is_an_object_around_the_text_received() {
    check(
        ServerFrame::SignedIn { user_data: r#"{"id":"12345", "x":1}"# },
        r#"{"event":"pusher:signin_success","data":{"user_data":"{\"id\":\"12345\", \"x\":1}"}}"#,
    );
}

#[test]
fn watchlist_events_are_an_object_without_a_channel() {
    let (a, b, c) = ("a".into(), "b".into(), "c".into());
    check(
        ServerFrame::Watchlist { online: &[a, b], offline: &[c] },
        r#"{"event":"pusher_internal:watchlist_events","data":{"events":[{"name":"online","user_ids":["a","b"]},{"name":"offline","user_ids":["c"]}]}}"#,
    );
    check(
        ServerFrame::Watchlist { online: &[], offline: &["c".into()] },
        r#"{"event":"pusher_internal:watchlist_events","data":{"events":[{"name":"offline","user_ids":["c"]}]}}"#,
    );
}

#[test]
fn errors_are_objects_with_a_code_or_null() {
    check(
        ServerFrame::Error {
            code: Some(4301),
            message: "The rate limit for sending client events exceeded the quota.",
        },
        r#"{"event":"pusher:error","data":{"code":4301,"message":"The rate limit for sending client events exceeded the quota."}}"#,
    );
    check(
        ServerFrame::Error { code: None, message: "a \"b\"" },
        r#"{"event":"pusher:error","data":{"code":null,"message":"a \"b\""}}"#,
    );
}

#[test]
fn a_close_is_announced_with_its_code() {
    check(
        ServerFrame::closing(CloseCode::UnknownApp, "App key X not in this cluster."),
        r#"{"event":"pusher:error","data":{"code":4001,"message":"App key X not in this cluster."}}"#,
    );
}

#[test]
fn a_pong_has_an_empty_object() {
    check(ServerFrame::Pong, r#"{"event":"pusher:pong","data":{}}"#);
}

fn decode(json: &str) -> Value {
    serde_json::from_str(json).expect("valid JSON")
}

proptest! {
    #[test]
    fn a_decoded_event_equals_the_encoded_one(
        channel in text(), name in text(), data in text(), user_id in prop::option::of(text()),
    ) {
        let user = user_id.as_deref().map(UserId::from);
        let json = ServerFrame::Event { channel: &channel, name: &name, data: &data, user_id: user.as_ref() }.encode();
        let mut expected = json!({"event": name, "channel": channel, "data": data});
        if let Some(user_id) = user_id {
            expected["user_id"] = user_id.into();
        }
        prop_assert_eq!(decode(&json), expected);
    }

    #[test]
    fn all_other_texts_are_escaped(channel in text(), id in text(), words in text()) {
        let user_id = UserId::from(&*id);
        let members = [Member { user_id: user_id.clone(), user_info: Some(Value::from(&*words).to_string().into()) }];
        let inner = |json: &str| decode(decode(json)["data"].as_str().expect("data is a text"));

        let json = ServerFrame::SubscribedWithMembers { channel: &channel, members: &members }.encode();
        prop_assert_eq!(&decode(&json)["channel"], &channel);
        let mut hash = serde_json::Map::new();
        hash.insert(id.clone(), words.clone().into());
        prop_assert_eq!(inner(&json), json!({"presence": {"count": 1, "ids": [id], "hash": hash}}));

        let json = ServerFrame::MemberAdded { channel: &channel, member: &members[0] }.encode();
        prop_assert_eq!(inner(&json), json!({"user_id": id, "user_info": words}));
        let json = ServerFrame::MemberRemoved { channel: &channel, user_id: &user_id }.encode();
        prop_assert_eq!(inner(&json), json!({"user_id": id}));
        let json = ServerFrame::SubscriptionError { channel: &channel, kind: &id, error: &words, status: 401 }.encode();
        prop_assert_eq!(inner(&json), json!({"type": id, "error": words, "status": 401}));
        let json = ServerFrame::Error { code: None, message: &words }.encode();
        prop_assert_eq!(decode(&json)["data"].clone(), json!({"code": null, "message": words}));
        let json = ServerFrame::SignedIn { user_data: &words }.encode();
        prop_assert_eq!(decode(&json)["data"].clone(), json!({"user_data": words}));
        let json = ServerFrame::Watchlist { online: &[user_id], offline: &[] }.encode();
        prop_assert_eq!(decode(&json)["data"].clone(), json!({"events": [{"name": "online", "user_ids": [id]}]}));
    }
}
