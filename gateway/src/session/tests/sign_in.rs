//! Protocol reference 2.8 and 3.3.

use super::*;

fn watched(client: &mut Client) -> Vec<String> {
    let signed_in = client.session.signed_in().expect("a sign-in");
    signed_in.watched.iter().map(|watched| format!("{} {:?}", watched.user_id, watched.notified)).collect()
}

#[test]
fn a_sign_in_enters_the_channel_of_the_user_and_retains_the_signed_text() {
    let mut client = Client::new();
    let user_data = r#"{ "id" : "7", "user_info": {"a":1} }"#;
    assert_eq!(client.signs_in(user_data), format!("sign in to #server-to-user-7: {user_data}"));
    let signed_in = client.session.signed_in().unwrap();
    assert_eq!((signed_in.user.id.as_str(), signed_in.slot), ("7", None), "the sign-in is pending");
}

#[test]
fn a_sign_in_needs_a_valid_signature() {
    let mut client = Client::new();
    let user_data = r#"{"id":"7"}"#;
    client.check(&sign_in("", user_data), "refused: auth is missing");
    client.check(&sign_in("key", user_data), "refused: auth is not of the form key:signature");
    client.check(&sign_in("key::user::0", user_data), "refused: auth is signed with the key of another app");
    client.check(&sign_in("yek:0", user_data), "refused: auth is signed with the key of another app");
    let of_other_data = sign_user(&client.app, socket(), r#"{"id":"8"}"#);
    client.check(&sign_in(&of_other_data, user_data), "refused: signature does not match");
    let of_other_socket = sign_user(&client.app, "1.1".parse().unwrap(), user_data);
    client.check(&sign_in(&of_other_socket, user_data), "refused: signature does not match");
    assert!(client.session.signed_in().is_none());
}

#[test]
fn a_user_needs_an_id_that_can_name_a_channel() {
    #[track_caller]
    fn check(user_data: &str, expected: &str) {
        let mut client = Client::new();
        assert_eq!(client.signs_in(user_data), format!("refused: {expected}"), "{user_data}");
        assert!(client.session.signed_in().is_none());
    }
    check("{}", "user_data has no id, which must be a non-empty string");
    check(r#"{"id":""}"#, "user_data has no id, which must be a non-empty string");
    check(r#"{"id":null}"#, "user_data has no id, which must be a non-empty string");
    check(r#"{"id":7}"#, r#"id in user_data is a number; expected a string, like "7""#);
    check(r#"{"user_id":"7"}"#, "user_data has no id, which must be a non-empty string");
    check("", "user_data is not valid JSON with an id");
    check("[]", "user_data is not valid JSON with an id");
    let expected = r#"expected a list of user ids as strings, like ["7"]"#;
    check(r#"{"id":"7","watchlist":"8"}"#, &format!("watchlist in user_data is a string; {expected}"));
    let expected = r#"expected user ids as strings, like ["7"]"#;
    check(r#"{"id":"7","watchlist":[8]}"#, &format!("watchlist in user_data has a number in it; {expected}"));
    check(r#"{"id":"12345678901"}"#, "user id is longer than 10 characters");
    check(r#"{"id":"a b"}"#, "user id is not valid in a channel name");
    check(r#"{"id":"Zoë"}"#, "user id is not valid in a channel name");
}

#[test]
fn one_connection_is_one_user() {
    let mut client = Client::new();
    client.signs_in(r#"{"id":"7"}"#);
    assert_eq!(
        client.signs_in(r#"{"id":"8"}"#),
        "refused: connection is signed in as another user",
        "even while the first sign-in is pending"
    );
    client.is_signed_in();
    assert_eq!(client.signs_in(r#"{"id":"8"}"#), "refused: connection is signed in as another user");
    assert_eq!(client.session.signed_in().unwrap().user.id.as_str(), "7");
}

#[test]
fn a_repeated_sign_in_of_the_same_user_is_answered_again() {
    let mut client = Client::new();
    client.signs_in(r#"{"id":"7"}"#);
    assert_eq!(client.signs_in(r#"{"id":"7"}"#), "nothing", "the reply is pending");
    client.is_signed_in();
    assert_eq!(
        client.signs_in(r#"{"id":"7","user_info":1}"#),
        r#"send {"event":"pusher:signin_success","data":{"user_data":"{\"id\":\"7\",\"user_info\":1}"}}"#
    );
    let bad = sign_in("key:bad", r#"{"id":"7"}"#);
    client.check(&bad, "refused: auth is not of the form key:signature");
    assert!(client.session.signed_in().is_some(), "a bad signature does not sign out");
}

#[test]
fn a_failed_sign_in_can_be_repeated() {
    let mut client = Client::new();
    client.signs_in(r#"{"id":"7"}"#);
    assert_eq!(client.session.sign_out().unwrap().user.id.as_str(), "7");
    assert_eq!(client.signs_in(r#"{"id":"8"}"#), r#"sign in to #server-to-user-8: {"id":"8"}"#);
}

#[test]
fn the_online_state_of_watched_users_is_unknown_at_first() {
    let mut client = Client::new();
    client.signs_in(r#"{"id":"7","watchlist":["b","a"]}"#);
    assert_eq!(watched(&mut client), ["b None", "a None"]);
}

#[test]
fn a_long_watchlist_is_truncated_and_the_sign_in_succeeds() {
    let mut client = Client::new();
    let too_long = r#"{"id":"7","watchlist":["c","b","a"]}"#;
    assert_eq!(client.signs_in(too_long), "sign in to #server-to-user-7, watchlist is longer than 2 users");
    assert_eq!(watched(&mut client), ["c None", "b None"], "the first users are watched");

    let mut client = Client::new();
    let repeats = r#"{"id":"7","watchlist":["a","b","a","b","a"]}"#;
    assert_eq!(client.signs_in(repeats), format!("sign in to #server-to-user-7: {repeats}"));
    assert_eq!(watched(&mut client), ["a None", "b None"]);
}

#[test]
fn without_the_feature_a_watchlist_is_ignored() {
    let mut client = Client::of(app(|app| app.watchlist = false));
    let user_data = r#"{"id":"7","watchlist":["a","b","c"]}"#;
    assert_eq!(client.signs_in(user_data), format!("sign in to #server-to-user-7: {user_data}"));
    assert!(watched(&mut client).is_empty());
}
