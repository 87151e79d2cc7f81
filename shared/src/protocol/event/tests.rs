use proptest::prelude::*;

use super::*;

#[track_caller]
fn check(raw: &str, expected: Result<(), EventNameError>) {
    assert_eq!(EventName::parse(raw, 200).map(|name| assert_eq!(name.as_str(), raw)), expected, "{raw:?}");
}

#[test]
fn class_names_and_unicode_names_are_allowed() {
    for raw in [r"App\Events\OrderShipped", ".client-typing", "a:b/c.d", "client-typing", "été", "a b", "pusher", "🎉"]
    {
        check(raw, Ok(()));
    }
}

#[test]
fn reserved_names_are_refused() {
    check("pusher:subscribe", Err(EventNameError::Reserved));
    check("pusher_internal:member_added", Err(EventNameError::Reserved));
    check("pusher:", Err(EventNameError::Reserved));
    check("pusher_internal", Ok(()));
    check("pusher-x", Ok(()));
    check("Pusher:x", Ok(()));
}

#[test]
fn length_counts_characters() {
    check(&"a".repeat(200), Ok(()));
    check(&"é".repeat(200), Ok(()));
    check(&"a".repeat(201), Err(EventNameError::TooLong { max: 200 }));
}

#[test]
fn empty_names_and_control_characters_are_refused() {
    check("", Err(EventNameError::Empty));
    for raw in ["a\0", "a\nb", "\u{7f}", "\u{85}"] {
        check(raw, Err(EventNameError::Control));
    }
}

#[test]
fn client_events_are_recognized_by_their_prefix() {
    for (raw, expected) in [("client-x", true), ("client-", true), ("client", false), ("Client-x", false), ("x", false)]
    {
        assert_eq!(is_client_event(raw), expected, "{raw:?}");
    }
}

proptest! {
    #[test]
    fn an_accepted_name_is_short_unreserved_and_printable(raw in any::<String>(), max in 0_usize..20) {
        let expected = !raw.is_empty()
            && raw.chars().count() <= max
            && !is_reserved(&raw)
            && !raw.chars().any(char::is_control);
        prop_assert_eq!(EventName::parse(&raw, max).is_ok(), expected);
    }
}
