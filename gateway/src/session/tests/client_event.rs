//! Protocol reference 2.4 and 2.5.

use std::time::Duration;

use super::*;

const TYPING: &str = "client-typing";

#[track_caller]
fn check_published(client: &mut Client, channel: &str, data: Value, expected: &Value) {
    let action = client.sends(&client_event(TYPING, channel, data));
    let json = action.strip_prefix(&format!("publish {TYPING} on {channel}: ")).unwrap_or_else(|| panic!("{action}"));
    assert_eq!(serde_json::from_str::<Value>(json).unwrap(), *expected);
}

#[test]
fn private_and_presence_channels_accept_client_events() {
    for channel in ["private-a", "private-cache-a"] {
        let mut client = Client::new();
        client.joins(channel, None);
        let expected = json!({"event": TYPING, "channel": channel, "data": r#"{"x":1}"#});
        check_published(&mut client, channel, json!({"x": 1}), &expected);
    }
    for channel in ["presence-a", "presence-cache-a"] {
        let mut client = Client::new();
        client.joins(channel, Some(r#"{"user_id":10}"#));
        let expected = json!({"event": TYPING, "channel": channel, "data": r#"{"x":1}"#, "user_id": "10"});
        check_published(&mut client, channel, json!({"x": 1}), &expected);
    }
}

#[test]
fn a_client_event_is_published_as_the_json_of_an_event() {
    let mut client = Client::new();
    client.joins("presence-a", Some(r#"{"user_id":"3"}"#));
    client.check(
        &client_event(TYPING, "presence-a", json!({"x": 1})),
        r#"publish client-typing on presence-a: {"event":"client-typing","channel":"presence-a","data":"{\"x\":1}","user_id":"3"}"#,
    );
}

#[test]
fn the_user_id_is_that_of_the_member_of_the_channel() {
    let mut client = Client::new();
    client.signs_in(r#"{"id":"7"}"#);
    client.is_signed_in();
    client.joins("private-a", None);
    client.joins("presence-b", Some(r#"{"user_id":"1"}"#));
    let expected = json!({"event": TYPING, "channel": "private-a", "data": "null"});
    check_published(&mut client, "private-a", Value::Null, &expected);
    let forged = json!({"event": TYPING, "channel": "presence-b", "data": "x", "user_id": "forged"});
    client.check(
        &forged,
        r#"publish client-typing on presence-b: {"event":"client-typing","channel":"presence-b","data":"x","user_id":"1"}"#,
    );
}

#[test]
fn data_is_published_as_a_text() {
    #[track_caller]
    fn check(data: Value, expected: &str) {
        let mut client = Client::new();
        client.joins("private-a", None);
        let expected = json!({"event": TYPING, "channel": "private-a", "data": expected});
        check_published(&mut client, "private-a", data, &expected);
    }
    check(json!("plain"), "plain");
    check(json!(r#"{"x":1}"#), r#"{"x":1}"#);
    check(json!({"x": [1]}), r#"{"x":[1]}"#);
    check(json!([]), "[]");
    check(json!(1.5), "1.5");
    check(json!(true), "true");
    check(json!("\" \\ \n é"), "\" \\ \n é");
    check(json!(""), "");
}

/// An event with several mistakes is refused for the first of them.
#[test]
fn mistakes_are_checked_in_order() {
    let mut client = Client::of(app(|app| app.client_events = false));
    let large = || json!("x".repeat(17));
    let long_name = format!("client-{}", "a".repeat(14));
    client.check(&client_event(&long_name, "news", large()), "refused: client events are disabled for the app");

    let mut client = Client::new();
    client.check(&client_event(&long_name, "news", large()), "refused: event name is longer than 20 characters");
    client.check(&client_event(TYPING, "news", large()), "refused: connection is not subscribed to the channel");
    client.joins("news", None);
    client.check(&client_event(TYPING, "news", large()), "refused: channel kind does not allow client events");
    client.joins("private-a", None);
    for _ in 0..2 {
        client.sends(&client_event(TYPING, "private-a", json!("x")));
    }
    client.check(&client_event(TYPING, "private-a", large()), "refused: data is larger than 16 bytes");
    client.check(
        &client_event(TYPING, "private-a", json!("x")),
        "refused: rate limit of 2 client events per second exceeded",
    );
}

#[test]
fn event_names_are_checked() {
    let mut client = Client::new();
    client.joins("private-a", None);
    let mut check = |name: &str, expected: &str| client.check(&client_event(name, "private-a", json!("")), expected);
    check("client-a\n", "refused: event name has a control character");
    check("client-\0", "refused: event name has a control character");
    check(&format!("client-{}", "é".repeat(14)), "refused: event name is longer than 20 characters");
    let odd = r"client-A\b.c:/é";
    let json = json!({"event": odd, "channel": "private-a", "data": ""});
    let action = client.sends(&client_event(odd, "private-a", json!("")));
    let published = action.strip_prefix(&format!("publish {odd} on private-a: ")).expect("it was published");
    assert_eq!(serde_json::from_str::<Value>(published).unwrap(), json);
}

#[test]
fn other_kinds_of_channels_refuse_client_events() {
    for channel in ["news", "cache-news", "private-encrypted-a", "private-encrypted-cache-a"] {
        let mut client = Client::new();
        client.joins(channel, None);
        client.check(&client_event(TYPING, channel, json!("x")), "refused: channel kind does not allow client events");
    }
    let mut client = Client::new();
    client.signs_in(r#"{"id":"7"}"#);
    client.is_signed_in();
    client.check(
        &client_event(TYPING, "#server-to-user-7", json!("x")),
        "refused: connection is not subscribed to the channel",
    );
}

#[test]
fn a_pending_subscription_allows_client_events() {
    let mut client = Client::new();
    let event = client_event(TYPING, "private-a", json!("x"));
    client.check(&event, "refused: connection is not subscribed to the channel");
    client.subscribes("private-a", None);
    assert!(client.sends(&event).starts_with("publish"));
    client.enters("private-a");
    assert!(client.sends(&event).starts_with("publish"));
    client.sends(&unsubscribe("private-a"));
    client.check(&event, "refused: connection is not subscribed to the channel");
    client.check(&client_event(TYPING, "", json!("x")), "refused: connection is not subscribed to the channel");
    client
        .check(&client_event(TYPING, "not a name", json!("x")), "refused: connection is not subscribed to the channel");
}

#[test]
fn a_pending_subscription_of_a_presence_channel_does_not_allow_client_events() {
    let mut client = Client::new();
    let event = client_event(TYPING, "presence-a", json!("x"));
    client.subscribes("presence-a", Some(r#"{"user_id":"1"}"#));
    client.check(&event, "refused: connection is not subscribed to the channel");
    client.enters("presence-a");
    assert!(client.sends(&event).starts_with("publish"));
}

#[test]
fn data_is_measured_as_it_is_published() {
    let mut client = Client::of(app(|app| app.limits.client_events_per_second = 0));
    client.joins("private-a", None);
    let mut check = |data: Value, fits: bool| {
        let action = client.sends(&client_event(TYPING, "private-a", data));
        assert_eq!(action.starts_with("publish"), fits, "{action}");
        assert!(fits || action == "refused: data is larger than 16 bytes");
    };
    check(json!("x".repeat(16)), true);
    check(json!("x".repeat(17)), false);
    check(json!("\n".repeat(16)), true);
    check(json!("é".repeat(8)), true);
    check(json!("é".repeat(9)), false);
    check(json!({"x": "1234567890"}), false);
    check(json!({"x": "12345678"}), true);
}

#[test]
fn client_events_are_limited_per_second() {
    let mut client = Client::new();
    client.joins("private-a", None);
    client.joins("private-b", None);
    let event = |channel| client_event(TYPING, channel, json!("x"));
    assert!(client.sends(&event("private-a")).starts_with("publish"));
    assert!(client.sends(&event("private-b")).starts_with("publish"));
    client.check(&event("private-a"), "refused: rate limit of 2 client events per second exceeded");
    client.check(&event("private-b"), "refused: rate limit of 2 client events per second exceeded");
    client.now += Duration::from_millis(500);
    assert!(client.sends(&event("private-a")).starts_with("publish"));
    client.check(&event("private-a"), "refused: rate limit of 2 client events per second exceeded");
}

#[test]
fn refused_client_events_do_not_count_for_the_rate() {
    let mut client = Client::new();
    client.joins("private-a", None);
    for _ in 0..10 {
        client.sends(&client_event(TYPING, "private-b", json!("x")));
        client.sends(&client_event(TYPING, "private-a", json!("x".repeat(17))));
    }
    assert!(client.sends(&client_event(TYPING, "private-a", json!("x"))).starts_with("publish"));
}

#[test]
fn a_limit_of_zero_means_no_limit() {
    let mut client = Client::of(app(|app| app.limits.client_events_per_second = 0));
    client.joins("private-a", None);
    for _ in 0..1_000 {
        assert!(client.sends(&client_event(TYPING, "private-a", json!("x"))).starts_with("publish"));
    }
}
