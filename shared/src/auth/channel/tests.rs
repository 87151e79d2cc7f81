use proptest::prelude::*;
use serde_json::json;

use super::*;

const KEY: &str = "278d425bdf160c739803";

fn app() -> App {
    serde_json::from_value(json!({"id": "3", "key": KEY, "secret": "7ad3773142a6692b25b8"})).unwrap()
}

fn socket() -> SocketId {
    "1234.1234".parse().unwrap()
}

fn channel(name: &str) -> ChannelName {
    ChannelName::parse(name, 200).unwrap()
}

fn verify(name: &str, channel_data: Option<&str>, auth: Option<&str>) -> Result<(), ChannelAuthError> {
    verify_channel(&app(), socket(), &channel(name), channel_data, auth)
}

#[track_caller]
fn check_vector(name: &str, channel_data: Option<&str>, digest: &str) {
    let auth = format!("{KEY}:{digest}");
    assert_eq!(sign_channel(&app(), socket(), &channel(name), channel_data), auth);
    assert_eq!(verify(name, channel_data, Some(&auth)), Ok(()));
}

#[test]
fn vector_1_private() {
    check_vector("private-foobar", None, "58df8b0c36d6982b82c3ecf6b4662e34fe8c25bba48f5369f135bf843651c3a4");
}

#[test]
fn vector_2_user_sign_in() {
    let auth = format!("{KEY}:4708d583dada6a56435fb8bc611c77c359a31eebde13337c16ab43aa6de336ba");
    let user_data = r#"{"id":"12345"}"#;
    assert_eq!(sign_user(&app(), socket(), user_data), auth);
    assert_eq!(verify_user(&app(), socket(), user_data, Some(&auth)), Ok(()));
}

#[test]
fn vector_3_presence() {
    check_vector(
        "presence-foobar",
        Some(r#"{"user_id":10,"user_info":{"name":"Mr. Channels"}}"#),
        "31935e7d86dba64c2a90aed31fdc61869f9b22ba9d8863bba239c03ca481bc80",
    );
}

#[test]
fn vector_3b_presence_of_the_older_documentation() {
    check_vector(
        "presence-foobar",
        Some(r#"{"user_id":10,"user_info":{"name":"Mr. Pusher"}}"#),
        "afaed3695da2ffd16931f457e338e6c9f2921fa133ce7dac49f529792be6304c",
    );
}

#[test]
fn vector_4_presence_of_a_signed_in_user() {
    check_vector("presence-foobar", None, "71506e66e7fdca106571b8999a849ad34245bc653772e51e0026c1a2475b92ba");
}

#[test]
fn vector_5_private_with_channel_data() {
    check_vector(
        "private-foobar",
        Some(r#"{"role":"admin"}"#),
        "2fdd607234addfcd24a66162b5bc45ac4ad8880fb42ed4390c3d7e8d573857bd",
    );
}

#[test]
fn vector_6_encrypted() {
    check_vector("private-encrypted-foobar", None, "e6a18892d037c5d5e76a2265df4f086ffc38631605530dfd214aa5bff495f533");
}

#[test]
fn vectors_17_and_17b_the_raw_bytes_of_channel_data_are_signed() {
    let escaped = r#"{"user_id":"1","user_info":{"name":"Zo\u00eb"}}"#;
    let utf8 = r#"{"user_id":"1","user_info":{"name":"Zoë"}}"#;
    let (of_escaped, of_utf8) = (
        "e1d9237f761fa9fbff47497fd721d1818a9d57fd3a0c59fd480855ed09177f65",
        "4574f765b5bad63fb42fe0fdf8294ab8c40f1fff5679518c007725dcd931996e",
    );
    check_vector("presence-foobar", Some(escaped), of_escaped);
    check_vector("presence-foobar", Some(utf8), of_utf8);
    assert!(verify("presence-foobar", Some(utf8), Some(&format!("{KEY}:{of_escaped}"))).is_err());
}

#[test]
fn auth_of_another_form_is_refused() {
    let digest = "58df8b0c36d6982b82c3ecf6b4662e34fe8c25bba48f5369f135bf843651c3a4";
    #[track_caller]
    fn check(auth: Option<&str>, expected: ChannelAuthError) {
        assert_eq!(verify("private-foobar", None, auth), Err(expected.clone()), "{auth:?}");
        assert_eq!(verify_user(&app(), socket(), "{}", auth), Err(expected), "{auth:?}");
    }
    check(None, ChannelAuthError::Missing);
    check(Some(""), ChannelAuthError::Missing);
    check(Some("nonsense"), ChannelAuthError::Format);
    check(Some(KEY), ChannelAuthError::Format);
    check(Some(&format!("{KEY}:")), ChannelAuthError::Format);
    check(Some(&format!("{KEY}:{}", digest.to_uppercase())), ChannelAuthError::Format);
    check(Some(&format!("{KEY}:{digest}0")), ChannelAuthError::Format);
    check(Some(&format!("{KEY}:{digest}:")), ChannelAuthError::Key);
    check(Some(&format!("{KEY}:é")), ChannelAuthError::Format);
    check(Some(&format!(":{digest}")), ChannelAuthError::Key);
    check(Some(&format!("other:{digest}")), ChannelAuthError::Key);
    check(Some(&format!("{KEY} :{digest}")), ChannelAuthError::Key);
    check(Some(&format!("{KEY}::{digest}")), ChannelAuthError::Key);
}

#[test]
fn a_digest_of_another_text_is_refused_with_the_expected_text() {
    #[track_caller]
    fn check(signed: (&str, &str, Option<&str>), name: &str, channel_data: Option<&str>, expected_over: &str) {
        let auth = sign_channel(&app(), signed.0.parse().unwrap(), &channel(signed.1), signed.2);
        let refused = Err(ChannelAuthError::Signature { expected_over: expected_over.into() });
        assert_eq!(verify(name, channel_data, Some(&auth)), refused, "{signed:?}");
    }
    check(("1234.1235", "private-a", None), "private-a", None, "1234.1234:private-a");
    check(("1234.1234", "private-b", None), "private-a", None, "1234.1234:private-a");
    check(("1234.1234", "private-a", Some("{}")), "private-a", None, "1234.1234:private-a");
    check(("1234.1234", "private-a", Some("{}")), "private-a", Some("{ }"), "1234.1234:private-a:{ }");
    check(("1234.1234", "presence-a", Some("1")), "presence-a", Some("2"), "1234.1234:presence-a:2");
}

#[test]
fn on_presence_channels_channel_data_must_be_signed() {
    for name in ["presence-a", "presence-cache-a"] {
        let short = sign_channel(&app(), socket(), &channel(name), None);
        assert!(verify(name, Some(r#"{"user_id":"1"}"#), Some(&short)).is_err());
        assert!(verify(name, Some(""), Some(&short)).is_err());
        let empty = sign_channel(&app(), socket(), &channel(name), Some(""));
        assert!(verify(name, None, Some(&empty)).is_err());
    }
}

#[test]
fn on_other_channels_both_forms_are_accepted() {
    for name in ["private-a", "private-cache-a", "private-encrypted-a", "private-encrypted-cache-a"] {
        for data in ["", r#"{"role":"admin"}"#] {
            let full = sign_channel(&app(), socket(), &channel(name), Some(data));
            let short = sign_channel(&app(), socket(), &channel(name), None);
            assert_eq!(verify(name, Some(data), Some(&full)), Ok(()));
            assert_eq!(verify(name, Some(data), Some(&short)), Ok(()));
            assert!(verify(name, None, Some(&full)).is_err());
        }
    }
}

#[test]
fn a_sign_in_signature_is_not_valid_for_a_subscription_and_vice_versa() {
    let sign_in = sign_user(&app(), socket(), "{}");
    assert!(verify("private-user", Some("{}"), Some(&sign_in)).is_err());
    let subscription = sign_channel(&app(), socket(), &channel("private-user"), Some("{}"));
    assert!(verify_user(&app(), socket(), "{}", Some(&subscription)).is_err());
}

#[test]
fn clients_receive_the_text_to_sign_and_never_the_digest() {
    let auth = format!("{KEY}:{}", "0".repeat(64));
    let error = verify("private-foobar", None, Some(&auth)).unwrap_err();
    assert_eq!(
        error.client_text("subscription to private-foobar"),
        "Invalid signature: Expected HMAC SHA256 hex digest of 1234.1234:private-foobar"
    );
    assert_eq!(
        ChannelAuthError::Format.client_text("subscription to private-x"),
        "Auth value for subscription to private-x is invalid: should be of format 'key:signature'"
    );
    assert_eq!(error.to_string(), "signature does not match");
    assert_eq!(error.cause_label(), "signature");
}

fn channel_data() -> impl Strategy<Value = Option<String>> {
    prop::option::of(any::<String>())
}

proptest! {
    #[test]
    fn signed_texts_are_accepted(
        name in "(private|presence|private-encrypted|private-cache)-[a-z0-9;,.=@_-]{0,10}", data in channel_data(),
    ) {
        let auth = sign_channel(&app(), socket(), &channel(&name), data.as_deref());
        prop_assert_eq!(verify(&name, data.as_deref(), Some(&auth)), Ok(()));
        let user_data = data.unwrap_or_default();
        let auth = sign_user(&app(), socket(), &user_data);
        prop_assert_eq!(verify_user(&app(), socket(), &user_data, Some(&auth)), Ok(()));
    }

    #[test]
    fn an_auth_with_a_changed_byte_is_refused(data in channel_data(), at: prop::sample::Index, byte in 0_u8..128) {
        let auth = sign_channel(&app(), socket(), &channel("presence-a"), data.as_deref());
        let mut changed = auth.clone().into_bytes();
        changed[at.index(auth.len())] = byte;
        let changed = String::from_utf8(changed).unwrap();
        prop_assert_eq!(verify("presence-a", data.as_deref(), Some(&changed)).is_ok(), changed == auth);
    }

    #[test]
    fn other_channel_data_is_refused(signed in channel_data(), sent in channel_data()) {
        let auth = sign_channel(&app(), socket(), &channel("presence-a"), signed.as_deref());
        prop_assert_eq!(verify("presence-a", sent.as_deref(), Some(&auth)).is_ok(), signed == sent);
    }

    #[test]
    fn no_auth_causes_a_panic(auth in any::<String>(), data in channel_data()) {
        prop_assert!(verify("private-a", data.as_deref(), Some(&auth)).is_err());
        let with_key = format!("{KEY}:{auth}");
        prop_assert!(verify("private-a", data.as_deref(), Some(&with_key)).is_err());
    }
}

#[test]
fn a_key_may_have_every_character_that_is_valid_in_a_path() {
    for key in ["MWfOjqT8cbGdjnb+Qjv/oK1Nn0qk==", "a:b:c", "a b", "ключ", "a%2Fb", "a&b=c"] {
        let app: App = serde_json::from_value(json!({"id": "3", "key": key, "secret": "+/= :"})).unwrap();
        let auth = sign_channel(&app, socket(), &channel("private-a"), None);
        assert_eq!(verify_channel(&app, socket(), &channel("private-a"), None, Some(&auth)), Ok(()), "{key}");
        let auth = sign_user(&app, socket(), "{}");
        assert_eq!(verify_user(&app, socket(), "{}", Some(&auth)), Ok(()), "{key}");
    }
}
