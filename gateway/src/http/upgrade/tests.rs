use super::*;

/// `offers`: the header lines of the request. `expected`: the subprotocol of the response.
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
fn the_response_names_only_an_offered_subprotocol() {
    check_offer(&[], None);
    check_offer(&[b"pusher-channels-protocol-7"], Some("pusher-channels-protocol-7"));
    check_offer(&[b"pusher-channels-protocol-5"], Some("pusher-channels-protocol-5"));
    check_offer(&[b"chat"], None);
    check_offer(&[b"x-pusher-channels-protocol-7"], None);
}

#[test]
fn the_response_names_the_first_supported_offer() {
    check_offer(&[b"chat, pusher-channels-protocol-7 , soap"], Some("pusher-channels-protocol-7"));
    check_offer(&[b"chat", b"pusher-channels-protocol-7"], Some("pusher-channels-protocol-7"));
    check_offer(&[b"pusher-channels-protocol-6,pusher-channels-protocol-7"], Some("pusher-channels-protocol-6"));
}

#[test]
fn an_offer_without_a_version_is_ignored() {
    check_offer(&[b"pusher-channels-protocol-"], None);
    check_offer(&[b"pusher-channels-protocol-x"], None);
    check_offer(&[b"pusher-channels-protocol-x, pusher-channels-protocol-7"], Some("pusher-channels-protocol-7"));
    check_offer(&[b"pusher-channels-protocol-\xff"], None);
    check_offer(&[b"\xff"], None);
    check_offer(&[b"\xff, pusher-channels-protocol-7"], Some("pusher-channels-protocol-7"));
}
