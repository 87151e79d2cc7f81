use super::*;

#[track_caller]
fn check(allowed: &[&str], origin: &str, expected: bool) {
    let patterns: Vec<String> = allowed.iter().map(|pattern| pattern.to_string()).collect();
    assert_eq!(is_allowed(&patterns, Some(origin)), expected, "{allowed:?} {origin:?}");
}

#[test]
fn a_client_without_an_origin_is_allowed() {
    assert!(is_allowed(&[], None));
    assert!(is_allowed(&["example.com".into()], None));
}

#[test]
fn without_patterns_no_page_is_allowed() {
    check(&[], "https://example.com", false);
    check(&[], "null", false);
}

#[test]
fn a_star_allows_every_page() {
    for origin in ["https://example.com", "http://localhost:3000", "null", "", "file://", "https://[::1]:8443"] {
        check(&["*"], origin, true);
    }
}

#[test]
fn a_host_is_allowed_with_any_scheme_and_port() {
    for origin in ["https://example.com", "http://example.com", "https://example.com:8443", "capacitor://example.com"] {
        check(&["example.com"], origin, true);
    }
    for origin in ["https://www.example.com", "https://example.com.evil.org", "https://evilexample.com", "https://com"]
    {
        check(&["example.com"], origin, false);
    }
    check(&["a.org", "b.org"], "https://b.org", true);
    check(&["a.org", "b.org"], "https://c.org", false);
}

#[test]
fn a_host_with_a_port_is_allowed_only_on_that_port() {
    check(&["localhost:3000"], "http://localhost:3000", true);
    check(&["localhost:3000"], "http://localhost:3001", false);
    check(&["localhost:3000"], "http://localhost", false);
    check(&["localhost:*"], "http://localhost:3001", true);
    check(&["localhost:*"], "http://localhost", false);
}

#[test]
fn an_origin_with_a_scheme_must_match_exactly() {
    check(&["https://example.com"], "https://example.com", true);
    check(&["https://example.com"], "http://example.com", false);
    check(&["https://example.com"], "https://example.com:8443", false);
    check(&["https://example.com:8443"], "https://example.com:8443", true);
    check(&["https://*.example.com"], "https://a.example.com", true);
    check(&["https://*.example.com"], "http://a.example.com", false);
}

#[test]
fn a_star_matches_any_sequence_of_characters() {
    for (origin, expected) in [
        ("https://a.example.com", true),
        ("https://a.b.example.com", true),
        ("https://a.example.com:8443", true),
        ("https://.example.com", true),
        ("https://example.com", false),
        ("https://aexample.com", false),
        ("https://a.example.com.evil.org", false),
        ("https://a.example.org", false),
    ] {
        check(&["*.example.com"], origin, expected);
    }
    check(&["app-*.example.*"], "https://app-7.example.org", true);
    check(&["app-*.example.*"], "https://app-.example.", true);
    check(&["app-*.example.*"], "https://web-7.example.org", false);
    check(&["a**b"], "https://ab", true);
}

#[test]
fn each_character_is_matched_once() {
    check(&["ab*ba"], "aba", false);
    check(&["ab*ba"], "abba", true);
    check(&["a*b*b"], "ab", false);
    check(&["a*b*b"], "abb", true);
    check(&["*a*a*"], "a", false);
}

#[test]
fn letter_case_is_ignored() {
    check(&["Example.COM"], "https://example.com", true);
    check(&["example.com"], "HTTPS://EXAMPLE.com", true);
    check(&["HTTPS://*.Example.com"], "https://a.eXample.com", true);
}

#[test]
fn an_origin_without_a_host_must_match_exactly() {
    check(&["null"], "null", true);
    check(&["example.com"], "null", false);
    check(&["file://"], "file://", true);
    check(&["example.com"], "file://", false);
}

#[test]
fn the_colons_of_an_ipv6_address_are_not_a_port() {
    check(&["[::1]"], "http://[::1]", true);
    check(&["[::1]"], "http://[::1]:3000", true);
    check(&["[::1]:3000"], "http://[::1]:3000", true);
    check(&["[:"], "http://[::1]", false);
}

#[test]
fn stars_in_the_origin_are_not_patterns() {
    check(&["example.com"], "https://*", false);
    check(&["a.example.com"], "https://*.example.com", false);
}
