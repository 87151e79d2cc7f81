use proptest::prelude::*;
use serde_json::json;

use super::*;

mod vectors;

const KEY: &str = "278d425bdf160c739803";
const NOW_S: u64 = 1_353_088_179;
const EVENTS: &str = "/apps/3/events";

fn app() -> App {
    serde_json::from_value(json!({"id": "3", "key": KEY, "secret": "7ad3773142a6692b25b8"})).unwrap()
}

/// Appends the signature of `text` to `query`.
fn with_signature(query: &str, text: &str) -> String {
    format!("{query}&auth_signature={}", app().secret.sign(&[text.as_bytes()]).to_hex())
}

/// Returns the parameters of every signed query, in the order in which they are signed.
fn auth_params() -> String {
    format!("auth_key={KEY}&auth_timestamp={NOW_S}&auth_version=1.0")
}

fn verify(query: &str, method: &str, path: &str, body: &[u8]) -> Result<(), RequestAuthError> {
    verify_at(query, method, path, body, NOW_S)
}

fn verify_at(query: &str, method: &str, path: &str, body: &[u8], now_s: u64) -> Result<(), RequestAuthError> {
    let query = SignedQuery::parse(query);
    query.verify_head(&app(), method, path, now_s)?;
    query.verify_body(body)
}

/// Verifies a GET with this query and the signature of `text`.
#[track_caller]
fn check_get(path: &str, query: &str, text: &str, accepted: bool) {
    let verified = verify(&with_signature(query, text), "GET", path, b"");
    assert_eq!(verified.is_ok(), accepted, "{query} signed over {text:?}: {verified:?}");
}

#[test]
fn a_key_of_another_app_is_refused() {
    let query = signed_query(&app(), "POST", EVENTS, &[], b"{}", NOW_S);
    let other = query.replace(KEY, "another");
    assert_eq!(verify(&other, "POST", EVENTS, b"{}"), Err(RequestAuthError::UnknownKey));
}

#[test]
fn a_timestamp_may_differ_by_599_seconds() {
    #[track_caller]
    fn check(now_s: u64, expected: Result<(), RequestAuthError>) {
        let query = signed_query(&app(), "POST", EVENTS, &[], b"{}", NOW_S);
        assert_eq!(verify_at(&query, "POST", EVENTS, b"{}", now_s), expected, "{now_s}");
    }
    let expired = |now_s| Err(RequestAuthError::TimestampExpired { given_s: NOW_S, now_s });
    check(NOW_S, Ok(()));
    check(NOW_S + 599, Ok(()));
    check(NOW_S - 599, Ok(()));
    check(NOW_S + 600, expired(NOW_S + 600));
    check(NOW_S - 600, expired(NOW_S - 600));
    check(0, expired(0));
    check(u64::MAX, expired(u64::MAX));
}

#[test]
fn a_timestamp_that_is_not_a_number_is_refused() {
    for timestamp in ["", "soon", "-1", "1353088179.5", "99999999999999999999", "0x10"] {
        let query = format!("auth_key={KEY}&auth_timestamp={timestamp}&auth_version=1.0");
        assert_eq!(verify(&query, "GET", EVENTS, b""), Err(RequestAuthError::TimestampFormat), "{timestamp:?}");
    }
}

#[test]
fn an_altered_body_is_refused() {
    let query = signed_query(&app(), "POST", EVENTS, &[], b"{}", NOW_S);
    assert_eq!(verify(&query, "POST", EVENTS, b"{}"), Ok(()));
    assert_eq!(verify(&query, "POST", EVENTS, b"{ }"), Err(RequestAuthError::BodyMd5));
    assert_eq!(verify(&query, "POST", EVENTS, b""), Err(RequestAuthError::BodyMd5));
}

#[test]
fn a_body_requires_body_md5_and_an_empty_body_does_not() {
    let bare = with_signature(&auth_params(), &format!("POST\n{EVENTS}\n{}", auth_params()));
    assert_eq!(verify(&bare, "POST", EVENTS, b"{}"), Err(RequestAuthError::Missing("body_md5")));
    assert_eq!(verify(&bare, "POST", EVENTS, b""), Ok(()));
    for md5 in ["d41d8cd98f00b204e9800998ecf8427e", ""] {
        let query = format!("{}&body_md5={md5}", auth_params());
        let query = with_signature(&query, &format!("POST\n{EVENTS}\n{query}"));
        assert_eq!(verify(&query, "POST", EVENTS, b""), Ok(()), "{md5:?}");
        assert_eq!(verify(&query, "POST", EVENTS, b"{}"), Err(RequestAuthError::BodyMd5), "{md5:?}");
    }
}

#[test]
fn parameters_of_the_signature_are_required() {
    let whole = signed_query(&app(), "POST", EVENTS, &[], b"{}", NOW_S);
    for name in ["auth_key", "auth_version", "auth_timestamp", "auth_signature"] {
        let rest: Vec<&str> = whole.split('&').filter(|pair| !pair.starts_with(&format!("{name}="))).collect();
        assert_eq!(verify(&rest.join("&"), "POST", EVENTS, b"{}"), Err(RequestAuthError::Missing(name)));
    }
    assert_eq!(verify("", "POST", EVENTS, b""), Err(RequestAuthError::Missing("auth_key")));
}

#[test]
fn parameters_of_the_signature_may_not_be_repeated() {
    for name in ["auth_key", "auth_timestamp", "auth_version", "body_md5"] {
        let md5 = body_md5(b"{}");
        let query = format!("{}&body_md5={md5}", auth_params());
        let pair = query.split('&').find(|pair| pair.starts_with(name)).unwrap();
        let text = query.replace(pair, &format!("{pair}&{pair}"));
        let query = with_signature(&text, &format!("POST\n{EVENTS}\n{text}"));
        assert_eq!(verify(&query, "POST", EVENTS, b"{}"), Err(RequestAuthError::Repeated(name)));
    }
}

#[test]
fn a_version_other_than_1_0_is_refused() {
    for version in ["", "1", "1.00", "2.0"] {
        let query = format!("auth_key={KEY}&auth_timestamp={NOW_S}&auth_version={version}");
        assert_eq!(verify(&query, "GET", EVENTS, b""), Err(RequestAuthError::Version), "{version:?}");
    }
}

/// Each query fails the expected check and all later ones.
#[test]
fn checks_come_in_the_order_key_version_timestamp_signature_body() {
    #[track_caller]
    fn check(query: &str, expected: &str) {
        let error = verify(query, "POST", EVENTS, b"{}").unwrap_err();
        assert_eq!(error.cause_label(), expected, "{query}");
    }
    let wrong = "auth_signature=00&body_md5=00";
    check(&format!("auth_key=x&auth_version=2&auth_timestamp=1&{wrong}"), "key");
    check(&format!("auth_key={KEY}&auth_version=2&auth_timestamp=1&{wrong}"), "version");
    check(&format!("auth_key={KEY}&auth_version=1.0&auth_timestamp=1&{wrong}"), "timestamp");
    check(&format!("auth_key={KEY}&auth_version=1.0&auth_timestamp={NOW_S}&{wrong}"), "signature");
    let query = format!("{}&body_md5=00", auth_params());
    check(&with_signature(&query, &format!("POST\n{EVENTS}\n{query}")), "body_md5");
}

#[test]
fn a_digest_in_upper_case_is_refused() {
    let query = signed_query(&app(), "GET", "/apps/3/channels", &[], b"", NOW_S);
    let (rest, digest) = query.split_once("auth_signature=").unwrap();
    let (digest, end) = digest.split_at(64);
    let upper = format!("{rest}auth_signature={}{end}", digest.to_uppercase());
    assert_eq!(verify(&upper, "GET", "/apps/3/channels", b"").unwrap_err().cause_label(), "signature");
}

#[test]
fn the_order_on_the_wire_does_not_matter() {
    let text = format!("GET\n/apps/3/channels\n{}&filter_by_prefix=a&info=user_count", auth_params());
    let query = format!("info=user_count&{}&filter_by_prefix=a", auth_params());
    check_get("/apps/3/channels", &query, &text, true);
}

#[test]
fn names_are_lower_cased_before_they_are_sorted() {
    let text = format!("GET\n/a\n{}&name=x&zone=y", auth_params());
    check_get("/a", &format!("ZONE=y&Name=x&{}", auth_params().replace("auth_key", "AUTH_KEY")), &text, true);
    let text = format!("GET\n/a\n{}&Name=x", auth_params());
    check_get("/a", &format!("Name=x&{}", auth_params()), &text, false);
}

#[test]
fn values_are_decoded_before_they_are_signed() {
    let text = format!("GET\n/a\n{}&info=a,b c&ë=+&", auth_params());
    check_get("/a", &format!("{}&info=a%2Cb%20c&%C3%AB=%2B%26", auth_params()), &text, true);
    check_get("/a", &format!("{}&info=a,b+c&%c3%ab=%2b%26", auth_params()), &text, true);
    check_get("/a", &format!("{}&info=a%252Cb+c&%C3%AB=%2B%26", auth_params()), &text, false);
}

#[test]
fn a_path_may_be_signed_with_or_without_its_prefix() {
    let wire = "/prefix/more/apps/3/channels";
    let text = |path: &str| format!("GET\n{path}\n{}", auth_params());
    check_get(wire, &auth_params(), &text(wire), true);
    check_get(wire, &auth_params(), &text("/apps/3/channels"), true);
    check_get(wire, &auth_params(), &text("/more/apps/3/channels"), false);
    check_get("/apps/3/channels", &auth_params(), &text(wire), false);
}

#[test]
fn a_path_may_be_signed_encoded_or_decoded() {
    let wire = "/prefix/apps/3/users/a%40b%20%C3%AB/terminate_connections";
    let text = |path: &str| format!("GET\n{path}\n{}", auth_params());
    check_get(wire, &auth_params(), &text(wire), true);
    check_get(wire, &auth_params(), &text("/apps/3/users/a%40b%20%C3%AB/terminate_connections"), true);
    check_get(wire, &auth_params(), &text("/apps/3/users/a@b ë/terminate_connections"), true);
    check_get(wire, &auth_params(), &text("/prefix/apps/3/users/a@b ë/terminate_connections"), true);
    check_get(wire, &auth_params(), &text("/apps/3/users/a@b%20ë/terminate_connections"), false);
}

#[test]
fn arrays_may_be_signed_as_ruby_or_as_php_does() {
    let wire = format!("{}&info[]=b&info%5B%5D=a", auth_params());
    let text = |params: &str| format!("GET\n/a\n{}&{params}", auth_params());
    check_get("/a", &wire, &text("info[]=b&info[]=a"), true);
    check_get("/a", &wire, &text("info=b,a"), true);
    check_get("/a", &wire, &text("info[]=a&info[]=b"), false);
    check_get("/a", &wire, &text("info=a,b"), false);
}

#[test]
fn the_signature_covers_method_and_path() {
    let query = signed_query(&app(), "POST", EVENTS, &[], b"{}", NOW_S);
    assert_eq!(verify(&query, "post", EVENTS, b"{}"), Ok(()));
    for (method, path) in [("GET", EVENTS), ("POST", "/apps/3/batch_events"), ("POST", "/apps/4/events")] {
        assert_eq!(verify(&query, method, path, b"{}").unwrap_err().cause_label(), "signature", "{method} {path}");
    }
}

#[test]
fn callers_receive_the_text_to_sign_and_never_the_digest() {
    let query = format!("{}&auth_signature=00", auth_params());
    let error = verify(&query, "GET", "/apps/3/channels", b"").unwrap_err();
    let expected = format!(
        "Invalid signature: the request was signed with another secret than the app's, or changed after that. \
         You should have sent HmacSHA256Hex(\"GET\\n/apps/3/channels\\n{}\", your_secret_key)",
        auth_params()
    );
    assert_eq!(error.client_text(), expected);
    assert_eq!(RequestAuthError::UnknownKey.client_text(), "Unknown auth_key");
    assert_eq!(RequestAuthError::Missing("auth_key").client_text(), "Missing parameter: auth_key");
    assert_eq!(RequestAuthError::Missing("auth_version").client_text(), "Version required");
    assert_eq!(RequestAuthError::Missing("auth_timestamp").client_text(), "Timestamp required");
    assert_eq!(
        RequestAuthError::TimestampExpired { given_s: 1, now_s: 1000 }.client_text(),
        "Timestamp expired: Given timestamp (1) not within 600s of server time (1000)"
    );
}

#[test]
fn parameters_are_found_by_their_lower_case_names() {
    let query = SignedQuery::parse("Info=a%2Cb&info=c&empty=&flag&auth_signature=x");
    assert_eq!(query.param("info"), Some("a,b"));
    assert_eq!(query.param("empty"), Some(""));
    assert_eq!(query.param("flag"), Some(""));
    assert_eq!(query.param("Info"), None);
    assert_eq!(query.param("auth_signature"), None);
}

fn params() -> impl Strategy<Value = Vec<(String, String)>> {
    prop::collection::vec(("[a-zA-Z_]{1,6}(\\[\\])?", any::<String>()), 0..4)
}

fn signed(params: &[(String, String)], body: &[u8]) -> String {
    let params: Vec<(&str, &str)> = params.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    signed_query(&app(), "POST", EVENTS, &params, body, NOW_S)
}

proptest! {
    #[test]
    fn signed_requests_are_accepted(params in params(), body in any::<Vec<u8>>()) {
        prop_assert_eq!(verify(&signed(&params, &body), "POST", EVENTS, &body), Ok(()));
    }

    #[test]
    fn a_changed_byte_of_the_query_is_refused(params in params(), at: prop::sample::Index, byte in 0_u8..128) {
        let query = signed(&params, b"{}");
        let mut changed = query.clone().into_bytes();
        changed[at.index(query.len())] = byte;
        let changed = String::from_utf8(changed).unwrap();
        let (before, after) = (SignedQuery::parse(&query), SignedQuery::parse(&changed));
        // The change may be another spelling of the same parameters: `%2c` for `%2C`, `+` for `%20`, `Auth_key` for
        // `auth_key`.
        let same = before.params == after.params && before.signature == after.signature;
        prop_assert_eq!(verify(&changed, "POST", EVENTS, b"{}").is_ok(), same, "{}", changed);
    }

    #[test]
    fn a_changed_byte_of_the_body_is_refused(
        body in prop::collection::vec(any::<u8>(), 1..64), at: prop::sample::Index, change in 1_u8..,
    ) {
        let mut changed = body.clone();
        changed[at.index(body.len())] ^= change;
        prop_assert_eq!(verify(&signed(&[], &body), "POST", EVENTS, &changed), Err(RequestAuthError::BodyMd5));
    }

    #[test]
    fn no_query_causes_a_panic(query in any::<String>(), path in any::<String>(), body in any::<Vec<u8>>()) {
        prop_assert!(verify(&query, "POST", &path, &body).is_err());
        let query = format!("{}&auth_signature={}&{query}", auth_params(), "0".repeat(64));
        prop_assert!(verify(&query, "POST", &path, &body).is_err());
    }
}

#[test]
fn keys_may_be_sent_encoded_or_unencoded() {
    for key in ["MWfOjqT8cbGdjnb+Qjv/oK1Nn0qk==", "a%2Fb", "a:b", "100%"] {
        let app: App = serde_json::from_value(json!({"id": "3", "key": key, "secret": "s+/="})).unwrap();
        let encoded = signed_query(&app, "POST", EVENTS, &[], b"{}", NOW_S);
        // The libraries for Node and Python send what they signed.
        let plain = format!("auth_key={key}&auth_timestamp={NOW_S}&auth_version=1.0&body_md5={}", body_md5(b"{}"));
        let signature = app.secret.sign(&[format!("POST\n{EVENTS}\n{plain}").as_bytes()]).to_hex();
        for query in [encoded, format!("{plain}&auth_signature={signature}")] {
            let parsed = SignedQuery::parse(&query);
            assert_eq!(parsed.verify_head(&app, "POST", EVENTS, NOW_S), Ok(()), "{query}");
            assert_eq!(parsed.verify_body(b"{}"), Ok(()), "{query}");
            let other = SignedQuery::parse(&query.replace("auth_version=1.0", "auth_version=1.0&x=1"));
            assert!(other.verify_head(&app, "POST", EVENTS, NOW_S).is_err(), "{query}");
        }
    }
    let plus = format!("{}&x=a+b", auth_params());
    check_get("/apps/3/channels", &plus, &format!("GET\n/apps/3/channels\n{}&x=a b", auth_params()), true);
    check_get("/apps/3/channels", &plus, &format!("GET\n/apps/3/channels\n{plus}"), true);
    check_get("/apps/3/channels", &plus, &format!("GET\n/apps/3/channels\n{}&x=ab", auth_params()), false);
}
