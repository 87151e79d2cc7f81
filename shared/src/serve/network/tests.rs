use hyper::header::HeaderValue;

use super::*;

fn networks(text: &str) -> Networks {
    text.parse().unwrap()
}

fn headers(lines: &[&str]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in lines {
        headers.append("x-forwarded-for", HeaderValue::from_str(line).unwrap());
    }
    headers
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn a_network_contains_its_addresses_in_both_forms() {
    let list = networks("10.0.0.0/8, 192.168.1.7, 2001:db8::/32");
    for inside in ["10.1.2.3", "::ffff:10.1.2.3", "192.168.1.7", "2001:db8:1::1"] {
        assert!(list.contains(ip(inside)), "{inside}");
    }
    for outside in ["11.0.0.1", "192.168.1.8", "2001:db9::1", "::1"] {
        assert!(!list.contains(ip(outside)), "{outside}");
    }
    assert_eq!(networks("10.1.2.3/8"), networks("10.0.0.0/8"));
    assert_eq!(networks("::ffff:10.0.0.0/104"), networks("10.0.0.0/8"));
    assert_eq!(list.to_string(), "10.0.0.0/8, 192.168.1.7/32, 2001:db8::/32");
    for wrong in ["10.0.0.0/33", "localhost", "10.0.0", "x"] {
        assert!(wrong.parse::<Networks>().is_err(), "{wrong}");
    }
}

#[test]
fn deny_takes_precedence_over_allow() {
    let access = Access { allow: networks("10.0.0.0/8"), deny: networks("10.6.6.0/24"), ..Access::default() };
    assert!(access.admits(ip("10.1.1.1")));
    assert!(!access.admits(ip("10.6.6.1")) && !access.admits(ip("8.8.8.8")));
    assert!(Access::default().admits(ip("8.8.8.8")));
}

#[test]
fn only_the_addresses_that_trusted_proxies_added_are_used() {
    let access = Access { trusted_proxies: networks("10.0.0.0/8"), ..Access::default() };
    let client = |peer: &str, lines: &[&str]| {
        let peer = RemoteAddr { address: ip(peer), may_be_proxy: true };
        access.client(peer, &headers(lines)).map_or("unknown".to_owned(), |client| client.to_string())
    };
    assert_eq!(client("8.8.8.8", &["1.1.1.1"]), "8.8.8.8", "the header of an untrusted client is ignored");
    assert_eq!(client("10.0.0.1", &[]), "10.0.0.1");
    assert_eq!(client("10.0.0.1", &["1.1.1.1"]), "1.1.1.1");
    assert_eq!(client("10.0.0.1", &["6.6.6.6, 1.1.1.1"]), "1.1.1.1", "the client wrote the first one");
    assert_eq!(client("10.0.0.1", &["6.6.6.6, 1.1.1.1, 10.0.0.2"]), "1.1.1.1");
    assert_eq!(client("10.0.0.1", &["6.6.6.6", "1.1.1.1", "10.0.0.2"]), "1.1.1.1", "several lines are one list");
    assert_eq!(client("::ffff:10.0.0.1", &["::ffff:1.1.1.1"]), "1.1.1.1");
    assert_eq!(client("10.0.0.1", &["[2001:db8::1]:4711"]), "2001:db8::1");
    assert_eq!(client("10.0.0.1", &["1.1.1.1:4711"]), "1.1.1.1");
    assert_eq!(client("10.0.0.1", &["1.1.1.1, unknown"]), "unknown");
    assert_eq!(client("10.0.0.1", &["1.1.1.1, unknown, 10.0.0.3"]), "unknown");
    assert_eq!(client("10.0.0.1", &["unknown, 1.1.1.1"]), "1.1.1.1");
    let mut odd = HeaderMap::new();
    odd.append("x-forwarded-for", HeaderValue::from_bytes(b"\xff, 1.1.1.1").unwrap());
    let peer = RemoteAddr { address: ip("10.0.0.1"), may_be_proxy: true };
    assert_eq!(
        access.client(peer, &odd),
        Some(ip("1.1.1.1")),
        "the bytes of the client do not hide the address from the proxy"
    );
    let balancer = RemoteAddr { address: ip("10.0.0.1"), may_be_proxy: false };
    assert_eq!(access.client(balancer, &headers(&["1.1.1.1"])), Some(ip("10.0.0.1")));
}

#[test]
fn connections_count_for_the_client_that_the_nearest_proxy_states() {
    let access = Access { trusted_proxies: networks("10.0.0.0/8"), ..Access::default() };
    let counted = |peer: &str, may_be_proxy: bool, lines: &[&str]| {
        access.counted_client(RemoteAddr { address: ip(peer), may_be_proxy }, &headers(lines))
    };
    assert_eq!(counted("8.8.8.8", true, &[]), Some(ip("8.8.8.8")));
    assert_eq!(
        counted("8.8.8.8", true, &["1.1.1.1"]),
        Some(ip("8.8.8.8")),
        "the header of an untrusted client is ignored"
    );
    for proxy in ["10.0.0.1", "127.0.0.1", "::1", "::ffff:127.0.0.1"] {
        assert_eq!(counted(proxy, true, &["6.6.6.6, 1.1.1.1"]), Some(ip("1.1.1.1")), "{proxy}");
        assert_eq!(counted(proxy, true, &["6.6.6.6, 1.1.1.1", "10.0.0.2, 127.0.0.1"]), Some(ip("1.1.1.1")), "{proxy}");
        assert_eq!(counted(proxy, true, &[]), None, "{proxy} states no client");
        assert_eq!(counted(proxy, true, &["1.1.1.1, unknown"]), None, "{proxy}");
        assert_eq!(counted(proxy, false, &["1.1.1.1"]), None, "{proxy}");
    }
}

#[test]
fn a_health_check_of_a_trusted_proxy_states_no_client() {
    let access = Access { trusted_proxies: networks("10.0.0.0/8"), ..Access::default() };
    let is_own = |peer: &str, may_be_proxy: bool, lines: &[&str]| {
        access.is_proxy_itself(RemoteAddr { address: ip(peer), may_be_proxy }, &headers(lines))
    };
    assert!(is_own("10.0.0.1", true, &[]) && is_own("10.0.0.1", false, &["1.1.1.1"]));
    assert!(!is_own("10.0.0.1", true, &["1.1.1.1"]) && !is_own("10.0.0.1", true, &[""]));
    assert!(!is_own("8.8.8.8", true, &[]) && !is_own("127.0.0.1", true, &[]));
}

#[test]
fn a_client_with_an_unknown_address_is_allowed_only_if_all_are() {
    assert!(Access::default().admits_client(None));
    assert!(!Access { deny: networks("10.0.0.0/8"), ..Access::default() }.admits_client(None));
    assert!(!Access { allow: networks("10.0.0.0/8"), ..Access::default() }.admits_client(None));
}
