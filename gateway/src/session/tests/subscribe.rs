//! Protocol reference 2.1, 2.2, 3.1 and 3.2.

use super::*;

const ANA: &str = r#"{"user_id":"1","user_info":{"a":1}}"#;

#[test]
fn channels_without_a_prefix_need_no_signature() {
    for channel in ["news", "cache-news", "my-private-x", "privatex", "presence_x", "A-Z_a=@,.;9"] {
        for auth in [None, Some(""), Some("key:nonsense")] {
            let expected = format!("enter {channel}");
            Client::new().check(&subscribe(channel, auth, None), &expected);
        }
    }
}

#[test]
fn channels_with_a_prefix_need_a_valid_signature() {
    for channel in ["private-a", "private-cache-a", "private-encrypted-a", "private-encrypted-cache-a"] {
        let mut client = Client::new();
        client.check(&subscribe(channel, None, None), "refused: auth is missing");
        client.check(&subscribe(channel, Some(""), None), "refused: auth is missing");
        client.check(&subscribe(channel, Some("nonsense"), None), "refused: auth is not of the form key:signature");
        let other_key = client.auth(channel, None).replace("key:", "yek:");
        client
            .check(&subscribe(channel, Some(&other_key), None), "refused: auth is signed with the key of another app");
        let other_channel = client.auth("private-b", None);
        client.check(&subscribe(channel, Some(&other_channel), None), "refused: signature does not match");
        assert_eq!(client.session.subscriptions.count(), 0);
        assert_eq!(client.subscribes(channel, None), format!("enter {channel}"));
    }
}

#[test]
fn a_signature_for_another_connection_is_refused() {
    let mut client = Client::new();
    let channel = ChannelName::parse("private-a", 200).unwrap();
    let auth = sign_channel(&client.app, "1.1".parse().unwrap(), &channel, None);
    client.check(&subscribe("private-a", Some(&auth), None), "refused: signature does not match");
}

#[test]
fn on_private_channels_channel_data_may_be_signed_or_not() {
    for data in ["", r#"{"role":"admin"}"#, "not json"] {
        assert_eq!(Client::new().subscribes("private-a", Some(data)), "enter private-a");
        let mut client = Client::new();
        let short = client.auth("private-a", None);
        client.check(&subscribe("private-a", Some(&short), Some(data)), "enter private-a");
        let mut client = Client::new();
        let full = client.auth("private-a", Some(data));
        client.check(&subscribe("private-a", Some(&full), None), "refused: signature does not match");
    }
}

#[test]
fn the_member_of_a_presence_channel_is_read_from_channel_data() {
    for channel in ["presence-a", "presence-cache-a"] {
        #[track_caller]
        fn check(channel: &str, channel_data: &str, expected: &str) {
            assert_eq!(Client::new().subscribes(channel, Some(channel_data)), format!("enter {channel} as {expected}"));
        }
        check(channel, ANA, r#"1 {"a":1}"#);
        check(channel, r#"{"user_id":10}"#, "10 -");
        check(channel, r#"{"user_id":"10","user_info":null}"#, "10 -");
        check(channel, r#"{"user_id":"Zo\u00eb","user_info":"Zo\u00eb"}"#, r#"Zoë "Zo\u00eb""#);
    }
}

#[test]
fn on_presence_channels_channel_data_must_be_signed_and_name_a_user() {
    let mut client = Client::new();
    let short = client.auth("presence-a", None);
    client.check(&subscribe("presence-a", Some(&short), Some(ANA)), "refused: signature does not match");
    client.check(&subscribe("presence-a", None, Some(ANA)), "refused: auth is missing");
    client.check(
        &subscribe("presence-a", Some(&short), None),
        "refused: presence channel without channel data or sign-in",
    );
    for data in ["{}", r#"{"user_id":""}"#, r#"{"user_id":null}"#] {
        assert_eq!(client.subscribes("presence-a", Some(data)), "refused: channel_data has no user_id");
    }
    for (value, found) in [("[]", "a list"), ("true", "a boolean")] {
        let data = format!(r#"{{"user_id":{value}}}"#);
        let expected = format!("refused: user_id in channel_data is {found}; expected a string or a number");
        assert_eq!(client.subscribes("presence-a", Some(&data)), expected);
    }
    let object =
        json!({"event": "pusher:subscribe", "data": {"channel": "presence-a", "channel_data": {"user_id": 1}}});
    client.check(&object, "refused: channel_data is an object, not a string");
    for data in ["", "1", "[]"] {
        assert_eq!(
            client.subscribes("presence-a", Some(data)),
            "refused: channel_data is not valid JSON with a user_id",
            "{data}"
        );
    }
    assert_eq!(client.session.subscriptions.count(), 0);
}

#[test]
fn members_are_bounded() {
    let mut client = Client::new();
    let long_id = r#"{"user_id":"12345678901"}"#;
    assert_eq!(client.subscribes("presence-a", Some(long_id)), "refused: user_id is longer than 10 characters");
    let large_info = r#"{"user_id":"1","user_info":"123456789012345"}"#;
    assert_eq!(client.subscribes("presence-a", Some(large_info)), "refused: user_info is larger than 16 bytes");
    let just_fits = r#"{"user_id":"1234567890","user_info":"12345678901234"}"#;
    assert_eq!(client.subscribes("presence-a", Some(just_fits)), r#"enter presence-a as 1234567890 "12345678901234""#);
}

#[test]
fn a_signed_in_user_joins_presence_channels_without_channel_data() {
    let mut client = Client::new();
    client.signs_in(r#"{"id":"7","user_info":{"b":2}}"#);
    assert_eq!(client.subscribes("presence-a", None), r#"enter presence-a as 7 {"b":2}"#);
    assert_eq!(
        client.subscribes("presence-b", Some(ANA)),
        r#"enter presence-b as 1 {"a":1}"#,
        "channel data has priority"
    );
    client
        .check(&subscribe("presence-c", Some("key:nonsense"), None), "refused: auth is not of the form key:signature");
    client.check(&subscribe("presence-c", None, None), "refused: auth is missing");
}

#[test]
fn the_info_of_a_signed_in_user_has_the_same_limit() {
    let mut client = Client::new();
    client.signs_in(r#"{"id":"7","user_info":"123456789012345"}"#);
    assert_eq!(client.subscribes("presence-a", None), "refused: user_info is larger than 16 bytes");
    assert_eq!(client.subscribes("private-a", None), "enter private-a");
}

#[test]
fn invalid_channel_names_are_refused() {
    let mut client = Client::new();
    client.check(&subscribe("", None, None), "refused: channel name is empty");
    client.check(&subscribe("#server-to-user-", None, None), "refused: channel name is empty");
    client.check(&subscribe(&"a".repeat(41), None, None), "refused: channel name is longer than 40 characters");
    for name in ["a b", "a/b", "a:b", "é", "#a", "#server-to-users-1", "news\n", "a\0", "#server-to-user-a b"] {
        client.check(&subscribe(name, None, None), "refused: channel name has a character that is not allowed");
    }
    client.check(&subscribe(&"a".repeat(40), None, None), &format!("enter {}", "a".repeat(40)));
}

#[test]
fn a_repeated_request_is_answered_after_the_first() {
    let mut client = Client::new();
    assert_eq!(client.subscribes("private-a", None), "enter private-a");
    assert_eq!(client.subscribes("private-a", None), "nothing", "the reply is pending");
    client.enters("private-a");
    assert_eq!(client.subscribes("private-a", None), "reply again private-a");
    assert_eq!(client.subscribes("private-a", None), "nothing", "one reply is pending");
    let channel = ChannelName::parse("private-a", 200).unwrap();
    let ticket = client.session.subscriptions.find_mut(&channel).unwrap().ticket;
    assert!(client.session.subscriptions.confirm_again(&channel, ticket));
    assert_eq!(client.subscribes("private-a", None), "reply again private-a");
    assert_eq!(client.session.subscriptions.count(), 1);
}

#[test]
fn a_repeated_request_needs_its_signature_too() {
    let mut client = Client::new();
    client.joins("private-a", None);
    client.check(&subscribe("private-a", None, None), "refused: auth is missing");
    assert_eq!(client.session.subscriptions.count(), 1, "the subscription remains");
}

#[test]
fn a_repeated_request_does_not_change_the_member() {
    let mut client = Client::new();
    client.joins("presence-a", Some(ANA));
    assert_eq!(client.subscribes("presence-a", Some(r#"{"user_id":"2"}"#)), "reply again presence-a");
    client.check(&unsubscribe("presence-a"), "leave presence-a as 1");
}

#[test]
fn an_unsubscribe_leaves_once() {
    let mut client = Client::new();
    client.check(&unsubscribe("news"), "nothing");
    client.joins("news", None);
    client.check(&unsubscribe("other"), "nothing");
    client.check(&unsubscribe("not a name"), "nothing");
    client.check(&unsubscribe("#server-to-user-1"), "nothing");
    client.check(&unsubscribe("news"), "leave news");
    client.check(&unsubscribe("news"), "nothing");
    client.joins("presence-a", Some(ANA));
    client.check(&unsubscribe("presence-a"), "leave presence-a as 1");
}

#[test]
fn a_late_reply_does_not_confirm_a_later_request() {
    let mut client = Client::new();
    let channel = ChannelName::parse("news", 200).unwrap();
    client.subscribes("news", None);
    let first = client.session.subscriptions.find_mut(&channel).unwrap().ticket;
    client.check(&unsubscribe("news"), "leave news");
    assert_eq!(client.subscribes("news", None), "enter news", "a new request");
    assert_eq!(client.session.subscriptions.count(), 2, "both requests are pending");
    assert!(client.session.subscriptions.confirm(&channel, first).is_none());
    assert_eq!(client.session.subscriptions.count(), 1);
    let second = client.session.subscriptions.find_mut(&channel).unwrap().ticket;
    assert!(client.session.subscriptions.fail(&channel, second).is_some());
    assert_eq!(client.session.subscriptions.count(), 0);
}

#[test]
fn channels_of_a_connection_are_bounded() {
    let mut client = Client::new();
    for channel in ["a", "b", "private-c"] {
        client.subscribes(channel, None);
    }
    client.check(&subscribe("d", None, None), "refused: connection has the maximum of 3 subscriptions");
    assert_eq!(client.subscribes("a", None), "nothing", "the connection is subscribed to it");
    client.check(&subscribe("private-d", None, None), "refused: auth is missing");
    client.enters("b");
    client.check(&unsubscribe("b"), "leave b");
    client.check(&subscribe("d", None, None), "enter d");
    assert_eq!(client.session.subscriptions.take_all().len(), 3);
    client.check(&subscribe("e", None, None), "enter e");
}

#[test]
fn abandoned_requests_count_until_they_complete() {
    let mut client = Client::new();
    for _ in 0..3 {
        client.subscribes("a", None);
        client.check(&unsubscribe("a"), "leave a");
    }
    client.check(&subscribe("a", None, None), "refused: connection has the maximum of 3 subscriptions");
}

#[test]
fn only_the_signed_in_user_can_subscribe_to_a_user_channel() {
    let mut client = Client::new();
    let own = subscribe("#server-to-user-7", Some(""), None);
    client.check(&own, "refused: the channel belongs to another user");
    let auth = client.auth("#server-to-user-7", None);
    client.check(&subscribe("#server-to-user-7", Some(&auth), None), "refused: the channel belongs to another user");
    client.signs_in(r#"{"id":"7"}"#);
    client.check(&own, "refused: the channel belongs to another user");
    client.is_signed_in();
    let succeeded =
        r##"send {"event":"pusher_internal:subscription_succeeded","channel":"#server-to-user-7","data":"{}"}"##;
    client.check(&own, succeeded);
    client.check(&own, succeeded);
    client.check(&subscribe("#server-to-user-8", Some(""), None), "refused: the channel belongs to another user");
    client.check(&subscribe("#server-to-user-77", Some(""), None), "refused: the channel belongs to another user");
    assert_eq!(client.session.subscriptions.count(), 0, "it does not count for the limit of the connection");
    client.session.sign_out();
    client.check(&own, "refused: the channel belongs to another user");
}
