use proptest::prelude::*;

use super::*;

const SECRET: &str = "7ad3773142a6692b25b8";

#[track_caller]
fn check(signed: &str, digest: &str) {
    let secret = Secret::new(SECRET);
    assert_eq!(secret.sign(&[signed.as_bytes()]).to_hex(), digest);
    assert!(secret.verifies(&[signed.as_bytes()], &Signature::from_hex(digest).unwrap()));
}

#[test]
fn vector_15_a_webhook_is_signed_over_its_bytes() {
    check(
        r#"{"time_ms":1327078148132,"events":[{"name":"channel_occupied","channel":"my-channel"}]}"#,
        "c19001ae3963ccb13bf618e5b16ba9848e7e74df0993aa0689168e341c6833cf",
    );
}

#[test]
fn vector_16_a_webhook_of_a_client_event_is_signed_over_its_bytes() {
    check(
        r#"{"time_ms":1327078148132,"events":[{"name":"client_event","channel":"presence-foobar","event":"client-msg","data":"{\"some\":\"data\"}","socket_id":"1234.1234","user_id":"10"}]}"#,
        "772d0e406a80c8575110e513b3d404c2f4068090819dc411e5d21948895c0d24",
    );
}

#[test]
fn a_secret_is_never_printed() {
    let secret = Secret::new(SECRET);
    assert_eq!(format!("{secret} {secret:?} {secret:#?}"), "*** *** ***");
    assert_eq!(serde_json::to_string(&secret).unwrap(), r#""***""#);
    assert_eq!(format!("{:?}", secret.sign(&[b"x"])), "Signature(***)");
    assert_eq!(secret.reveal(), SECRET);
}

#[test]
fn a_secret_may_look_like_a_number() {
    let secret: Secret = serde_json::from_str("12345678901234567890").unwrap();
    assert_eq!(secret.reveal(), "12345678901234567890");
}

#[test]
fn a_secret_of_another_type_is_refused_without_being_quoted() {
    for json in ["1.25", "true", "null", "[1]", "{}"] {
        let error = serde_json::from_str::<Secret>(json).unwrap_err();
        assert!(error.to_string().starts_with("a secret must be a text"), "{error}");
    }
}

#[test]
fn an_empty_secret_is_recognized() {
    assert!(Secret::new("").is_empty());
    assert!(!Secret::new(" ").is_empty());
}

#[test]
fn digests_are_64_lower_case_hex_digits() {
    #[track_caller]
    fn check(text: &str, accepted: bool) {
        assert_eq!(Signature::from_hex(text).is_some(), accepted, "{text:?}");
    }
    let hex = "58df8b0c36d6982b82c3ecf6b4662e34fe8c25bba48f5369f135bf843651c3a4";
    check(hex, true);
    check(&hex.to_uppercase(), false);
    check(&hex.replace('f', "F"), false);
    check(&hex[..63], false);
    check(&hex[..62], false);
    check(&format!("{hex}0"), false);
    check(&format!("{hex}00"), false);
    check(&format!(" {}", &hex[1..]), false);
    check(&hex.replace('5', "g"), false);
    check(&hex.replace("58", "é"), false);
    check("", false);
}

#[test]
fn texts_are_compared_whole() {
    for (a, b) in [("", ""), ("a", "a"), ("a", "b"), ("a", "ab"), ("ab", "a"), ("", "a"), ("é", "é")] {
        assert_eq!(constant_time_eq(a, b), a == b, "{a:?} {b:?}");
    }
}

proptest! {
    #[test]
    fn a_signature_verifies_for_any_split_of_the_text(key in any::<String>(), text in any::<Vec<u8>>(), at: prop::sample::Index) {
        let secret = Secret::new(key);
        let (left, right) = text.split_at(at.index(text.len() + 1));
        let signature = secret.sign(&[left, right]);
        prop_assert!(secret.verifies(&[&text], &signature));
        prop_assert_eq!(Signature::from_hex(&signature.to_hex()).unwrap().0, signature.0);
    }

    #[test]
    fn a_changed_byte_is_refused(
        text in prop::collection::vec(any::<u8>(), 1..64), at: prop::sample::Index, change in 1_u8..,
    ) {
        let secret = Secret::new(SECRET);
        let signature = secret.sign(&[&text]);
        let mut changed = text.clone();
        changed[at.index(text.len())] ^= change;
        prop_assert!(!secret.verifies(&[&changed], &signature));
        let mut forged = signature;
        forged.0[at.index(32)] ^= change;
        prop_assert!(!secret.verifies(&[&text], &forged));
    }

    #[test]
    fn reading_a_digest_never_panics(text in any::<String>()) {
        let _ = Signature::from_hex(&text);
    }
}
