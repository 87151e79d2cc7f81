use serde_json::{Value, json};
use shared::protocol::{ChannelName, ClientFrame, EventName, Member, User};

use super::*;

/// Checks the exact JSON of the messages.
#[track_caller]
fn check(refusal: &Refusal, expected: &[&str]) {
    assert_eq!(refusal.messages(), expected);
}

/// Checks that the refusal is one `pusher:error`.
#[track_caller]
fn check_error(refusal: &Refusal, code: Option<u16>, message: &str) {
    let messages = refusal.messages();
    let [only] = messages.as_slice() else { panic!("{messages:?}") };
    let expected = json!({"event": "pusher:error", "data": {"code": code, "message": message}});
    assert_eq!(serde_json::from_str::<Value>(only).unwrap(), expected);
}

/// Checks both messages of a refused subscription: the one that pusher-js reads and the one for other libraries.
#[track_caller]
fn check_subscription(reason: SubscribeError, kind: &str, status: u16, code: u16, text: &str) {
    let refusal = Refusal::Subscription { channel: "presence-a".into(), reason };
    let messages = refusal.messages();
    let [notice, error] = messages.as_slice() else { panic!("{messages:?}") };
    let notice: Value = serde_json::from_str(notice).unwrap();
    assert_eq!((&notice["event"], &notice["channel"]), (&json!("pusher:subscription_error"), &json!("presence-a")));
    let data: Value = serde_json::from_str(notice["data"].as_str().expect("data is a text")).unwrap();
    assert_eq!(data, json!({"type": kind, "error": text, "status": status}));
    let expected = json!({"event": "pusher:error", "data": {"code": code, "message": text}});
    assert_eq!(serde_json::from_str::<Value>(error).unwrap(), expected);
}

fn invalid_message(text: &str) -> Refusal {
    Refusal::Message(ClientFrame::parse(text).unwrap_err())
}

fn bad_name(raw: &str) -> ChannelNameError {
    ChannelName::parse(raw, 8).unwrap_err()
}

fn bad_member(channel_data: &str) -> MemberError {
    Member::parse(channel_data, 4, 4).unwrap_err()
}

fn bad_signature() -> ChannelAuthError {
    ChannelAuthError::Signature { expected_over: "1234.1234:private-a".into() }
}

#[test]
fn a_refused_subscription_is_answered_with_two_messages() {
    let refusal = Refusal::Subscription { channel: "private-a".into(), reason: SubscribeError::Auth(bad_signature()) };
    check(
        &refusal,
        &[
            r#"{"event":"pusher:subscription_error","channel":"private-a","data":"{\"type\":\"AuthError\",\"error\":\"Invalid signature: Expected HMAC SHA256 hex digest of 1234.1234:private-a\",\"status\":401}"}"#,
            r#"{"event":"pusher:error","data":{"code":4009,"message":"Invalid signature: Expected HMAC SHA256 hex digest of 1234.1234:private-a"}}"#,
        ],
    );
}

#[test]
fn an_error_without_a_code_has_a_null_code() {
    check(
        &Refusal::UnknownEvent { name: "my-event".into() },
        &[
            r#"{"event":"pusher:error","data":{"code":null,"message":"Unknown event \"my-event\": client events start with client-"}}"#,
        ],
    );
}

#[test]
fn all_invalid_messages_have_the_same_error() {
    for text in ["", "{}", r#"{"event":"pusher:subscribe"}"#, r#"{"event":"client-a"}"#] {
        check(
            &invalid_message(text),
            &[r#"{"event":"pusher:error","data":{"code":4200,"message":"Invalid message format"}}"#],
        );
    }
}

#[test]
fn unauthorized_subscriptions_are_auth_errors() {
    let check = |reason, text: &str| check_subscription(reason, "AuthError", 401, 4009, text);
    let form = "Auth value for subscription to presence-a is invalid: should be of format 'key:signature'";
    check(SubscribeError::Auth(ChannelAuthError::Missing), form);
    check(SubscribeError::Auth(ChannelAuthError::Format), form);
    check(
        SubscribeError::Auth(ChannelAuthError::Key),
        "Auth value for subscription to presence-a is invalid: the key does not belong to this app",
    );
    check(
        SubscribeError::NoMember,
        "Subscription to presence-a needs channel_data with a user_id, or a signed-in user",
    );
    check(SubscribeError::NotThatUser, "Subscription to presence-a needs a sign-in as that user");
    check(SubscribeError::Member(bad_member("{}")), "Invalid channel data: channel_data has no user_id");
    check(
        SubscribeError::Field { field: "channel_data", found: "an object" },
        "Invalid subscription: channel_data is an object; expected the string that was signed, exactly as the application's \
         server returned it",
    );
    check(
        SubscribeError::Member(bad_member("[]")),
        "Invalid channel data: channel_data is not valid JSON with a user_id",
    );
}

#[test]
fn the_error_of_a_subscription_names_the_exceeded_limit() {
    let check = |reason, code, text: &str| check_subscription(reason, "LimitReached", code, code, text);
    let long_name = bad_name("123456789");
    check(SubscribeError::Name(long_name), 4009, "Invalid channel name: channel name is longer than 8 characters");
    let long_id = bad_member(r#"{"user_id":"12345"}"#);
    check(SubscribeError::Member(long_id), 4301, "Invalid channel data: user_id is longer than 4 characters");
    let large_info = bad_member(r#"{"user_id":"1","user_info":12345}"#);
    check(SubscribeError::Member(large_info), 4301, "Invalid channel data: user_info is larger than 4 bytes");
    let channels = SubscribeError::TooManyChannels { max: 3 };
    check(channels, 4100, "Subscription limit reached: at most 3 channels per connection");
    check(SubscribeError::PresenceFull { max: 100 }, 4100, "Member limit reached: presence-a has at most 100 members");
}

#[test]
fn other_refused_subscriptions_are_server_errors() {
    check_subscription(
        SubscribeError::Name(bad_name("a b")),
        "ServerError",
        4009,
        4009,
        r#"Invalid channel name "presence-a": channel name has a character that is not allowed"#,
    );
    check_subscription(
        SubscribeError::Name(bad_name("")),
        "ServerError",
        4009,
        4009,
        r#"Invalid channel name "presence-a": channel name is empty"#,
    );
    let text = "The server cannot subscribe now; try again";
    check_subscription(SubscribeError::Unavailable, "ServerError", 4302, 4302, text);
}

#[test]
fn refused_sign_ins_are_4009() {
    #[track_caller]
    fn check(reason: SignInError, text: &str) {
        check_error(&Refusal::SignIn(reason), Some(4009), text);
    }
    let form = "Auth value for sign-in is invalid: should be of format 'key:signature'";
    check(SignInError::Auth(ChannelAuthError::Missing), form);
    check(
        SignInError::Auth(ChannelAuthError::Signature { expected_over: "1.2::user::{}".into() }),
        "Invalid signature: Expected HMAC SHA256 hex digest of 1.2::user::{}",
    );
    let no_id = User::parse("{}", 4).unwrap_err();
    check(SignInError::User(no_id), "Invalid user data: user_data has no id, which must be a non-empty string");
    let id = SignInError::Id(bad_name("a b"));
    check(id, "Invalid user data: the id may only contain A-Z a-z 0-9 _ - = @ , . ;");
    check(SignInError::OtherUser, "This connection is signed in as another user");
    check(SignInError::Unavailable, "The server cannot sign in users now; try again");
}

#[test]
fn a_client_event_over_a_limit_is_refused_with_a_code() {
    #[track_caller]
    fn check(reason: ClientEventError, code: Option<u16>, text: &str) {
        check_error(&Refusal::ClientEvent(reason), code, text);
    }
    check(
        ClientEventError::Disabled,
        None,
        "To send client events, you must enable this feature: client_events in the app's configuration.",
    );
    check(
        ClientEventError::Name(EventName::parse("client-a", 4).unwrap_err()),
        None,
        "Invalid client event: event name is longer than 4 characters",
    );
    check(ClientEventError::Kind, None, "Client event rejected - only supported on private and presence channels");
    check(
        ClientEventError::NotSubscribed { channel: "private-\"a\"".into() },
        None,
        r#"Client event rejected - the connection is not subscribed to "private-\"a\"""#,
    );
    let too_large = "The data content of this event exceeds the allowed maximum (10240 bytes).";
    check(ClientEventError::TooLarge { max: 10_240 }, Some(4301), too_large);
    check(
        ClientEventError::RateLimited { per_second: 10 },
        Some(4301),
        "The rate limit for sending client events exceeded the quota.",
    );
    check(ClientEventError::Busy, Some(4301), "The server is busy and dropped this client event; try again.");
}

#[test]
fn a_long_watchlist_is_reported_with_4302() {
    let refusal = Refusal::WatchlistTooLong { max: 100 };
    check_error(&refusal, Some(4302), "The watchlist is longer than 100 users; the first 100 are watched.");
}

#[test]
fn requests_over_the_rate_are_refused_with_4301() {
    let text = "The rate limit for subscriptions and sign-ins of one connection was exceeded.";
    check_error(&Refusal::SignIn(SignInError::RateLimited), Some(4301), text);
    let refusal = Refusal::Subscription { channel: "news".into(), reason: SubscribeError::RateLimited };
    let messages: Vec<Value> = refusal.messages().iter().map(|json| serde_json::from_str(json).unwrap()).collect();
    assert_eq!(messages[0]["channel"], "news");
    let data: Value = serde_json::from_str(messages[0]["data"].as_str().unwrap()).unwrap();
    assert_eq!((&data["type"], &data["status"]), (&"LimitReached".into(), &4301.into()));
    assert_eq!(messages[1]["data"]["code"], 4301);
}

#[test]
fn text_of_the_client_is_escaped_in_the_json() {
    let name = "\"}\u{0}\n\\".to_owned();
    for refusal in [
        Refusal::UnknownEvent { name: name.clone() },
        Refusal::Subscription { channel: name.clone(), reason: SubscribeError::NotThatUser },
        Refusal::Subscription { channel: name.clone(), reason: SubscribeError::Name(bad_name("\"")) },
        Refusal::ClientEvent(ClientEventError::NotSubscribed { channel: name.clone() }),
    ] {
        for message in refusal.messages() {
            assert!(serde_json::from_str::<Value>(&message).unwrap()["event"].is_string(), "{message}");
        }
    }
}

#[test]
fn text_of_the_client_is_truncated() {
    let long = "\u{0}".repeat(60_000);
    let signature = ChannelAuthError::Signature { expected_over: long.clone() };
    for refusal in [
        Refusal::UnknownEvent { name: long.clone() },
        Refusal::Subscription { channel: long.clone(), reason: SubscribeError::Name(bad_name("\"")) },
        Refusal::Subscription { channel: long.clone(), reason: SubscribeError::Name(bad_name("123456789")) },
        Refusal::Subscription { channel: "private-a".into(), reason: SubscribeError::Auth(signature.clone()) },
        Refusal::SignIn(SignInError::Auth(signature)),
        Refusal::ClientEvent(ClientEventError::NotSubscribed { channel: long.clone() }),
    ] {
        for message in refusal.messages() {
            assert!(message.len() < 8 * 1024, "{} bytes", message.len());
        }
    }
}

#[test]
fn the_expected_text_of_a_signature_is_complete_up_to_a_kibibyte() {
    let text = |length: usize| {
        let reason = ChannelAuthError::Signature { expected_over: "x".repeat(length) };
        reason.client_text("sign-in")
    };
    assert!(text(1024).ends_with(&format!(" digest of {}", "x".repeat(1024))));
    assert!(text(1025).ends_with(&format!(" digest of {}…", "x".repeat(1024))));
}

#[test]
fn refusals_are_counted_by_their_cause() {
    #[track_caller]
    fn check(refusal: &Refusal, auth_failure: Option<&str>, limit: Option<&str>) {
        assert_eq!((refusal.auth_failure(), refusal.limit()), (auth_failure, limit), "{refusal:?}");
    }
    let subscription = |reason| Refusal::Subscription { channel: "a".into(), reason };
    check(&subscription(SubscribeError::Auth(ChannelAuthError::Missing)), Some("missing"), None);
    check(&subscription(SubscribeError::Auth(bad_signature())), Some("signature"), None);
    check(&Refusal::SignIn(SignInError::Auth(ChannelAuthError::Key)), Some("key"), None);
    check(&subscription(SubscribeError::NotThatUser), Some("user"), None);
    check(&subscription(SubscribeError::TooManyChannels { max: 1 }), None, Some("channels"));
    check(&subscription(SubscribeError::PresenceFull { max: 1 }), None, Some("presence_members"));
    check(&Refusal::ClientEvent(ClientEventError::RateLimited { per_second: 1 }), None, Some("client_events"));
    check(&Refusal::ClientEvent(ClientEventError::TooLarge { max: 1 }), None, Some("event_bytes"));
    check(&Refusal::ClientEvent(ClientEventError::Busy), None, Some("node"));
    check(&Refusal::WatchlistTooLong { max: 1 }, None, Some("watchlist"));
    check(&subscription(SubscribeError::Unavailable), None, None);
    check(&subscription(SubscribeError::RateLimited), None, Some("requests"));
    check(&Refusal::SignIn(SignInError::RateLimited), None, Some("requests"));
    check(&invalid_message(""), None, None);
}

#[test]
fn only_pusher_codes_have_an_error_message_before_the_close_frame() {
    assert_eq!(
        Farewell::new(CloseCode::UnknownApp, "App key x not in this cluster.").announcement().as_deref(),
        Some(r#"{"event":"pusher:error","data":{"code":4001,"message":"App key x not in this cluster."}}"#)
    );
    for code in [
        CloseCode::Normal,
        CloseCode::ProtocolError,
        CloseCode::UnsupportedData,
        CloseCode::PolicyViolation,
        CloseCode::MessageTooBig,
    ] {
        assert_eq!(Farewell::new(code, "no").announcement(), None);
    }
}
