use proptest::prelude::*;

use super::*;

const ALLOWED: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-=@,.;";

#[track_caller]
fn check(raw: &str, expected: Result<ChannelKind, ChannelNameError>) {
    assert_eq!(ChannelName::parse(raw, 200).map(|name| name.kind()), expected, "{raw:?}");
}

#[test]
fn prefixes_decide_the_kind_longest_first() {
    check("news", Ok(ChannelKind::Public));
    check("cache-news", Ok(ChannelKind::Cache));
    check("private-news", Ok(ChannelKind::Private));
    check("private-cache-news", Ok(ChannelKind::PrivateCache));
    check("private-encrypted-news", Ok(ChannelKind::Encrypted));
    check("private-encrypted-cache-news", Ok(ChannelKind::EncryptedCache));
    check("presence-news", Ok(ChannelKind::Presence));
    check("presence-cache-news", Ok(ChannelKind::PresenceCache));
    check("#server-to-user-12345", Ok(ChannelKind::User));
}

#[test]
fn prefixes_are_anchored_and_end_with_a_dash() {
    check("my-cache-x", Ok(ChannelKind::Public));
    check("my-private-x", Ok(ChannelKind::Public));
    check("privatex", Ok(ChannelKind::Public));
    check("presence_x", Ok(ChannelKind::Public));
    check("cache", Ok(ChannelKind::Public));
    check("Private-x", Ok(ChannelKind::Public));
    check("cachex", Ok(ChannelKind::Public));
    check("private-cachex", Ok(ChannelKind::Private));
    check("private-encryptedx", Ok(ChannelKind::Private));
    check("private-encrypted-cachex", Ok(ChannelKind::Encrypted));
    check("presence-cachex", Ok(ChannelKind::Presence));
    check("private-my-encrypted-x", Ok(ChannelKind::Private));
    check("presence-encrypted-x", Ok(ChannelKind::Presence));
    check("cache-private-x", Ok(ChannelKind::Cache));
}

#[test]
fn a_prefix_alone_is_a_name() {
    check("private-", Ok(ChannelKind::Private));
    check("presence-", Ok(ChannelKind::Presence));
    check("private-encrypted-cache-", Ok(ChannelKind::EncryptedCache));
}

#[test]
fn names_with_other_characters_are_refused() {
    check(ALLOWED, Ok(ChannelKind::Public));
    for raw in
        ["a b", "a/b", "a:b", "a#b", "a\n", "\0", "é", "a+b", "*", "#news", "#server-to-user-a#", "#server-to-user"]
    {
        check(raw, Err(ChannelNameError::Character));
    }
}

#[test]
fn empty_names_are_refused() {
    check("", Err(ChannelNameError::Empty));
    check("#server-to-user-", Err(ChannelNameError::Empty));
}

#[test]
fn the_length_includes_the_prefix() {
    check(&"a".repeat(200), Ok(ChannelKind::Public));
    check(&"a".repeat(201), Err(ChannelNameError::TooLong { max: 200 }));
    check(&format!("private-{}", "a".repeat(192)), Ok(ChannelKind::Private));
    check(&format!("private-{}", "a".repeat(193)), Err(ChannelNameError::TooLong { max: 200 }));
}

#[test]
fn a_user_channel_returns_its_user() {
    let name = ChannelName::of_user("12345", 128).unwrap();
    assert_eq!((name.as_str(), name.kind()), ("#server-to-user-12345", ChannelKind::User));
    assert_eq!(name.user_id(), Some("12345"));
    assert_eq!(ChannelName::parse("news", 200).unwrap().user_id(), None);
}

#[test]
fn user_ids_that_are_invalid_in_channel_names_are_refused() {
    assert_eq!(ChannelName::of_user("", 128), Err(ChannelNameError::Empty));
    assert_eq!(ChannelName::of_user("a b", 128), Err(ChannelNameError::Character));
    assert!(ChannelName::of_user(&"a".repeat(128), 128).is_ok());
    assert_eq!(ChannelName::of_user(&"a".repeat(129), 128), Err(ChannelNameError::TooLong { max: 128 }));
}

#[test]
fn kinds_have_the_properties_that_the_protocol_defines() {
    #[track_caller]
    fn check(kind: ChannelKind, auth: bool, presence: bool, cache: bool, client_events: bool) {
        let said = (kind.needs_auth(), kind.is_presence(), kind.is_cache(), kind.takes_client_events());
        assert_eq!(said, (auth, presence, cache, client_events), "{kind:?}");
    }
    check(ChannelKind::Public, false, false, false, false);
    check(ChannelKind::Cache, false, false, true, false);
    check(ChannelKind::Private, true, false, false, true);
    check(ChannelKind::PrivateCache, true, false, true, true);
    check(ChannelKind::Encrypted, true, false, false, false);
    check(ChannelKind::EncryptedCache, true, false, true, false);
    check(ChannelKind::Presence, true, true, false, true);
    check(ChannelKind::PresenceCache, true, true, true, true);
    check(ChannelKind::User, false, false, false, false);
}

/// Generates names that are valid or almost valid.
fn nearly_a_name() -> impl Strategy<Value = String> {
    let prefix = prop::sample::select(vec!["", "private-", "presence-cache-", USER_PREFIX, "#"]);
    (prefix, "[A-Za-z0-9_=@,.;-]{0,12}", prop::option::weighted(0.3, any::<char>()), "[a-z]{0,3}").prop_map(
        |(prefix, body, odd, end)| format!("{prefix}{body}{}{end}", odd.map(String::from).unwrap_or_default()),
    )
}

/// Returns whether a name matches `^(#server-to-user-)?[A-Za-z0-9_\-=@,.;]+$` and has at most `max` characters.
fn is_name(raw: &str, max: usize) -> bool {
    let checked = raw.strip_prefix("#server-to-user-").unwrap_or(raw);
    !checked.is_empty() && checked.chars().all(|character| ALLOWED.contains(character)) && raw.chars().count() <= max
}

proptest! {
    #[test]
    fn a_name_is_accepted_exactly_when_the_protocol_allows_it(raw in nearly_a_name(), max in 0_usize..40) {
        prop_assert_eq!(ChannelName::parse(&raw, max).is_ok(), is_name(&raw, max));
    }

    #[test]
    fn any_text_is_accepted_exactly_when_the_protocol_allows_it(raw in any::<String>()) {
        prop_assert_eq!(ChannelName::parse(&raw, 200).is_ok(), is_name(&raw, 200));
    }

    #[test]
    fn a_name_keeps_its_text(raw in nearly_a_name()) {
        if let Ok(name) = ChannelName::parse(&raw, 200) {
            prop_assert_eq!(name.as_str(), &raw);
            prop_assert_eq!(name.to_string(), raw.clone());
            prop_assert_eq!(&name, &ChannelName::parse(&raw, 64).unwrap());
            prop_assert_eq!(name.kind() == ChannelKind::User, raw.starts_with('#'));
        }
    }
}
