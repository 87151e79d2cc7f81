use proptest::prelude::*;

use super::*;

/// `expected`: the user id and the user info, or the error.
#[track_caller]
fn check_member(channel_data: &str, expected: Result<(&str, Option<&str>), &str>) {
    let read = Member::parse(channel_data, 8, 32);
    let read = read.as_ref().map(|member| (member.user_id.as_str(), member.user_info.as_deref())).map_err(cause);
    assert_eq!(read, expected, "{channel_data:?}");
}

fn cause(error: &MemberError) -> &'static str {
    match error {
        MemberError::Json(_) => "json",
        MemberError::UserIdKind { found } => found,
        MemberError::NoUserId => "no user id",
        MemberError::UserIdTooLong { .. } => "id too long",
        MemberError::UserInfoTooLarge { .. } => "info too large",
    }
}

/// `expected`: the id, the user info and the watchlist, or the error.
#[track_caller]
fn check_user(user_data: &str, expected: Result<(&str, Option<&str>, &[&str]), &str>) {
    let read = User::parse(user_data, 8);
    let read = read.map_err(|error| match error {
        UserError::Json(_) => "json",
        UserError::IdKind { found } | UserError::WatchlistKind { found } | UserError::WatchedKind { found } => found,
        UserError::NoId => "no id",
        UserError::IdTooLong { .. } => "id too long",
    });
    let watchlist = |user: &User| user.watchlist.iter().map(|id| id.to_string()).collect::<Vec<_>>();
    let read = read.as_ref().map(|user| (user.id.as_str(), user.user_info.as_deref(), watchlist(user))).map_err(|e| *e);
    let expected = expected.map(|(id, info, watched)| (id, info, watched.iter().map(|id| id.to_string()).collect()));
    assert_eq!(read, expected, "{user_data:?}");
}

#[test]
fn user_ids_are_texts_even_if_a_number_was_signed() {
    check_member(r#"{"user_id":"1"}"#, Ok(("1", None)));
    check_member(r#"{"user_id":10}"#, Ok(("10", None)));
    check_member(r#"{"user_id":-1}"#, Ok(("-1", None)));
    check_member(r#"{"user_id":1.5}"#, Ok(("1.5", None)));
    check_member(r#"{"user_id":0}"#, Ok(("0", None)));
    check_member(r#"{"user_id":"Zo\u00eb"}"#, Ok(("Zoë", None)));
    check_member(r#"{"user_id":"\ud800"}"#, Err("json"));
}

#[test]
fn a_numeric_id_keeps_its_notation() {
    for number in ["12345678901234567890123", "1.50", "1e2", "-0", "18446744073709551616"] {
        let member = Member::parse(&format!(r#"{{"user_id": {number} }}"#), 128, 32).unwrap();
        assert_eq!(member.user_id.as_str(), number);
    }
}

#[test]
fn user_info_is_kept_byte_for_byte() {
    check_member(r#"{"user_id":"1","user_info":{ "a" : 1 }}"#, Ok(("1", Some(r#"{ "a" : 1 }"#))));
    check_member(r#"{"user_id":"1","user_info":"Zo\u00eb"}"#, Ok(("1", Some(r#""Zo\u00eb""#))));
    check_member(r#"{"user_id":"1","user_info":[1e2]}"#, Ok(("1", Some("[1e2]"))));
    check_member(r#"{"user_id":"1","user_info":null}"#, Ok(("1", None)));
}

#[test]
fn other_members_are_ignored() {
    check_member(r#"{"role":{"a":[]},"user_id":"1"}"#, Ok(("1", None)));
}

#[test]
fn channel_data_without_a_user_id_is_refused() {
    for data in ["{}", r#"{"user_id":""}"#, r#"{"user_id":null}"#, r#"{"user_info":{}}"#] {
        check_member(data, Err("no user id"));
    }
}

#[test]
fn channel_data_of_another_form_is_refused() {
    for data in ["", "null", "[]", r#"["1"]"#, "1", r#""{}""#, "{"] {
        check_member(data, Err("json"));
    }
    check_member(r#"{"user_id":true}"#, Err("a boolean"));
    check_member(r#"{"user_id":[1]}"#, Err("a list"));
    check_member(r#"{"user_id":{}}"#, Err("an object"));
    check_member(r#"{"user_id":"1","user_id":"2"}"#, Err("json"));
    check_member(r#"{"user_id":"1"}x"#, Err("json"));
}

#[test]
fn ids_are_counted_in_characters_and_info_in_bytes() {
    check_member(r#"{"user_id":"éééééééé"}"#, Ok(("éééééééé", None)));
    check_member(r#"{"user_id":"123456789"}"#, Err("id too long"));
    check_member(r#"{"user_id":123456789}"#, Err("id too long"));
    let fits = format!("\"{}\"", "a".repeat(30));
    check_member(&format!(r#"{{"user_id":"1","user_info":{fits}}}"#), Ok(("1", Some(&fits))));
    let large = format!("\"{}\"", "é".repeat(16));
    check_member(&format!(r#"{{"user_id":"1","user_info":{large}}}"#), Err("info too large"));
}

#[test]
fn deep_nesting_does_not_overflow_and_respects_the_limit() {
    let deep = "[".repeat(100_000) + &"]".repeat(100_000);
    check_member(&format!(r#"{{"user_id":"1","user_info":{deep}}}"#), Err("info too large"));
    check_member(&format!(r#"{{"user_id":{deep}}}"#), Err("a list"));
    check_user(&format!(r#"{{"id":{deep}}}"#), Err("a list"));
    check_user(&format!(r#"{{"id":"1","watchlist":{deep}}}"#), Err("a list"));
}

#[test]
fn a_signed_in_user_has_a_text_as_id() {
    check_user(r#"{"id":"12345"}"#, Ok(("12345", None, &[])));
    check_user(r#"{"id":"1","user_info":{"name":"A"}}"#, Ok(("1", Some(r#"{"name":"A"}"#), &[])));
    for data in ["{}", r#"{"id":""}"#, r#"{"id":null}"#] {
        check_user(data, Err("no id"));
    }
    check_user(r#"{"id":12345}"#, Err("a number"));
    check_user(r#"{"id":{}}"#, Err("an object"));
    for data in ["", "[]", r#"["1"]"#, "null"] {
        check_user(data, Err("json"));
    }
    check_user(r#"{"id":"123456789"}"#, Err("id too long"));
}

#[test]
fn a_watchlist_keeps_its_order_without_repeats() {
    check_user(r#"{"id":"1","watchlist":["b","a","b"]}"#, Ok(("1", None, &["b", "a"])));
    check_user(r#"{"id":"1","watchlist":[]}"#, Ok(("1", None, &[])));
    check_user(r#"{"id":"1","watchlist":null}"#, Ok(("1", None, &[])));
    check_user(r#"{"id":"1","watchlist":[1]}"#, Err("a number"));
    check_user(r#"{"id":"1","watchlist":["a",null]}"#, Err("null"));
    check_user(r#"{"id":"1","watchlist":"a"}"#, Err("a string"));
}

#[test]
fn a_signed_in_user_joins_with_the_info_of_the_sign_in() {
    let user = User::parse(r#"{"id":"1","user_info":{"name":"A"},"watchlist":["2"]}"#, 8).unwrap();
    let member = Member { user_id: "1".into(), user_info: Some(r#"{"name":"A"}"#.into()) };
    assert_eq!(user.as_member(), member);
}

proptest! {
    #[test]
    fn no_text_causes_a_panic(data in any::<String>()) {
        let _ = Member::parse(&data, 128, 1024);
        let _ = User::parse(&data, 128);
    }

    #[test]
    fn any_id_survives_json(id in ".{1,128}", info in any::<Option<String>>()) {
        let json = serde_json::json!({"user_id": id, "user_info": info}).to_string();
        let member = Member::parse(&json, 128, usize::MAX).unwrap();
        prop_assert_eq!(member.user_id.as_str(), &id);
        let read: Option<String> = member.user_info.as_deref().map(|info| serde_json::from_str(info).unwrap());
        prop_assert_eq!(read, info);
    }
}
