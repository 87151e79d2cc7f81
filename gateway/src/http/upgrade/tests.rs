use super::*;

/// `expected`: the code that the client is closed with; `None` when the version will do.
#[track_caller]
fn check_query(query: &str, expected: Option<CloseCode>) {
    assert_eq!(check_version(query).map_err(|farewell| farewell.code).err(), expected, "{query:?}");
}

/// `offers`: one header line each.
#[track_caller]
fn check_offer(offers: &[&[u8]], expected: Option<&str>) {
    let mut headers = HeaderMap::new();
    for offer in offers {
        headers.append(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_bytes(offer).unwrap());
    }
    let chosen = offered_subprotocol(&headers);
    assert_eq!(chosen.as_ref().map(|chosen| chosen.to_str().unwrap()), expected);
}

#[test]
fn versions_4_to_7_and_none_are_spoken() {
    for query in [
        "protocol=7&client=js&version=8.6.0&flash=false",
        "client=java-client&protocol=5&version=2.4.4",
        "protocol=6",
        "protocol=4",
        "protocol=07",
        "%70rotocol=7",
        "",
        "client=js",
        "Protocol=9",
        "=9",
    ] {
        check_query(query, None);
    }
}

#[test]
fn other_numbers_are_unsupported() {
    for query in ["protocol=3", "protocol=8", "protocol=0", "protocol=4294967295", "client=js&protocol=1"] {
        check_query(query, Some(CloseCode::UnsupportedVersion));
    }
}

#[test]
fn what_is_no_number_is_invalid() {
    for query in ["protocol=", "protocol", "protocol=x", "protocol=7.0", "protocol=-7", "protocol=+7", "protocol=7%00"]
    {
        check_query(query, Some(CloseCode::InvalidVersion));
    }
    check_query("protocol=99999999999999999999", Some(CloseCode::InvalidVersion));
}

#[test]
fn of_several_versions_the_first_counts() {
    check_query("protocol=7&protocol=9", None);
    check_query("protocol=9&protocol=7", Some(CloseCode::UnsupportedVersion));
}

#[test]
fn a_refused_version_says_what_is_spoken() {
    assert_eq!(
        check_version("protocol=9"),
        Err(Farewell::new(CloseCode::UnsupportedVersion, "Unsupported protocol version 9: this server speaks 7"))
    );
}

#[test]
fn the_subprotocol_is_answered_only_when_it_was_offered() {
    check_offer(&[], None);
    check_offer(&[b"pusher-channels-protocol-7"], Some("pusher-channels-protocol-7"));
    check_offer(&[b"pusher-channels-protocol-5"], Some("pusher-channels-protocol-5"));
    check_offer(&[b"chat"], None);
    check_offer(&[b"x-pusher-channels-protocol-7"], None);
}

#[test]
fn one_of_several_offers_is_answered() {
    check_offer(&[b"chat, pusher-channels-protocol-7 , soap"], Some("pusher-channels-protocol-7"));
    check_offer(&[b"chat", b"pusher-channels-protocol-7"], Some("pusher-channels-protocol-7"));
    check_offer(&[b"pusher-channels-protocol-6,pusher-channels-protocol-7"], Some("pusher-channels-protocol-6"));
}

#[test]
fn an_offer_without_a_version_is_not_answered() {
    check_offer(&[b"pusher-channels-protocol-"], None);
    check_offer(&[b"pusher-channels-protocol-x"], None);
    check_offer(&[b"pusher-channels-protocol-x, pusher-channels-protocol-7"], Some("pusher-channels-protocol-7"));
    check_offer(&[b"pusher-channels-protocol-\xff"], None);
    check_offer(&[b"\xff"], None);
    check_offer(&[b"\xff, pusher-channels-protocol-7"], Some("pusher-channels-protocol-7"));
}
