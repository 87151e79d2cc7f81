use super::*;

const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";

const VALID: [&str; 5] = ["Host: a", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", KEY];

fn request(method: &str, version: Version, lines: &[&str]) -> Request<()> {
    let mut request = Request::builder().method(method).version(version).uri("/app/key");
    for line in lines {
        let (name, value) = line.split_once(": ").unwrap();
        request = request.header(name, value);
    }
    request.body(()).unwrap()
}

#[track_caller]
fn check_lines(lines: &[&str], expected: Result<(), InvalidHandshake>) {
    assert_eq!(check(&request("GET", Version::HTTP_11, lines)), expected, "{lines:?}");
}

/// Checks the valid request with one header replaced by `others`.
#[track_caller]
fn check_with(line: &str, others: &[&str], expected: Result<(), InvalidHandshake>) {
    let name = line.split(':').next().unwrap();
    let lines: Vec<&str> =
        VALID.into_iter().filter(|valid| !valid.starts_with(name)).chain(others.iter().copied()).collect();
    check_lines(&lines, expected);
}

#[test]
fn upgrade_tokens_match_in_any_case_and_in_lists_and_repeated_headers() {
    check_lines(&VALID, Ok(()));
    for connection in [
        &["Connection: upgrade"][..],
        &["Connection: UPGRADE"],
        &["Connection: keep-alive, Upgrade"],
        &["Connection: keep-alive ,upgrade , x"],
        &["Connection: keep-alive", "Connection: upgrade"],
        &["connection: x", "CONNECTION: keep-alive,Upgrade"],
    ] {
        check_with("Connection", connection, Ok(()));
    }
    for upgrade in [
        &["Upgrade: WebSocket"][..],
        &["Upgrade: WEBSOCKET"],
        &["Upgrade: h2c, websocket"],
        &["Upgrade: h2c", "Upgrade: websocket"],
    ] {
        check_with("Upgrade", upgrade, Ok(()));
    }
    check_with("X", &["Content-Length: 0"], Ok(()));
    check_with("X", &["Sec-WebSocket-Extensions: permessage-deflate", "Sec-WebSocket-Protocol: a, b"], Ok(()));
}

#[test]
fn only_get_over_http_1_1_opens_a_websocket() {
    for method in ["POST", "PUT", "HEAD", "OPTIONS", "DELETE", "PATCH", "get", "XYZ"] {
        assert_eq!(check(&request(method, Version::HTTP_11, &VALID)), Err(InvalidHandshake::Method), "{method}");
    }
    for lines in [&VALID[..], &["Connection: close"], &[]] {
        assert_eq!(check(&request("GET", Version::HTTP_10, lines)), Err(InvalidHandshake::Http10));
    }
}

#[test]
fn both_upgrade_headers_are_required() {
    check_lines(&["Host: a"], Err(InvalidHandshake::NoUpgrade));
    check_lines(&["Host: a", "Connection: Upgrade", "Upgrade: h2c"], Err(InvalidHandshake::NoUpgrade));
    for connection in [&[][..], &["Connection: close"], &["Connection: keep-alive"], &["Connection: upgraded"]] {
        check_with("Connection", connection, Err(InvalidHandshake::UpgradeRemoved));
    }
    for upgrade in [&[][..], &["Upgrade: websockets"], &["Upgrade: h2c"], &["Upgrade: "]] {
        check_with("Upgrade", upgrade, Err(InvalidHandshake::UpgradeRemoved));
    }
}

#[test]
fn the_version_must_be_13_and_unique() {
    for version in ["12", "8", "0", "013", "13, 8", "8, 13", "thirteen", ""] {
        let line = format!("Sec-WebSocket-Version: {version}");
        check_with("Sec-WebSocket-Version", &[&line], Err(InvalidHandshake::Version));
    }
    check_with("Sec-WebSocket-Version", &[], Err(InvalidHandshake::Version));
    let line = "Sec-WebSocket-Version: 13";
    check_with("Sec-WebSocket-Version", &[line, line], Err(InvalidHandshake::Repeated("Sec-WebSocket-Version")));
}

#[test]
fn the_key_must_be_16_bytes_of_base64_and_unique() {
    for key in [
        "",
        "dGhlIHNhbXBsZSBub25jZQ",
        "dGhlIHNhbXBsZSBub25jZQ=",
        "dGhlIHNhbXBsZSBub25jZQ===",
        "dGhlIHNhbXBsZSBub25jZQ==,dGhlIHNhbXBsZSBub25jZQ==",
        "dGhlIHNhbXBsZSBub25jZTE=",
        "AAAA",
        "dGhlIHNhbXBsZSBub25jZ-==",
        "dGhlIHNhbXBsZSBub25j Q==",
        "dGhlIHNhbXBsZSBub25jZQ==dGhlIHNhbXBsZSBub25jZQ==",
    ] {
        let line = format!("Sec-WebSocket-Key: {key}");
        check_with("Sec-WebSocket-Key", &[&line], Err(InvalidHandshake::Key));
    }
    check_with("Sec-WebSocket-Key", &[], Err(InvalidHandshake::Key));
    check_with("Sec-WebSocket-Key", &[KEY, KEY], Err(InvalidHandshake::Repeated("Sec-WebSocket-Key")));
    check_with("Sec-WebSocket-Key", &["Sec-WebSocket-Key: +/+/+/+/+/+/+/+/+/+/+w=="], Ok(()));
}

#[test]
fn a_handshake_needs_one_host_and_no_body() {
    check_with("Host", &[], Err(InvalidHandshake::Host));
    check_with("Host", &["Host: a", "Host: a"], Err(InvalidHandshake::Host));
    check_with("X", &["Content-Length: 1"], Err(InvalidHandshake::Body));
    check_with("X", &["Transfer-Encoding: chunked"], Err(InvalidHandshake::Body));
}

#[test]
fn every_error_has_a_label_a_status_and_a_text_that_names_the_cause() {
    let kinds = [
        (InvalidHandshake::Method, 405, "GET"),
        (InvalidHandshake::Http10, 426, "proxy_http_version 1.1"),
        (InvalidHandshake::NoUpgrade, 426, "Upgrade: websocket"),
        (InvalidHandshake::UpgradeRemoved, 426, "proxy_set_header Upgrade"),
        (InvalidHandshake::Host, 400, "Host"),
        (InvalidHandshake::Version, 426, "13"),
        (InvalidHandshake::Repeated("Sec-WebSocket-Key"), 400, "only one Sec-WebSocket-Key"),
        (InvalidHandshake::Key, 400, "Sec-WebSocket-Key"),
        (InvalidHandshake::Body, 400, "body"),
    ];
    assert_eq!(kinds.map(|(kind, ..)| kind.label()), InvalidHandshake::LABELS);
    for (kind, status, text) in kinds {
        let response = kind.response();
        assert_eq!((response.status().as_u16(), kind.to_string().contains(text)), (status, true), "{kind}");
        assert_eq!(response.headers()["connection"], "close");
        assert_eq!(response.headers().contains_key("upgrade"), status == 426);
        assert_eq!(response.headers().contains_key("sec-websocket-version"), kind == InvalidHandshake::Version);
    }
}

#[test]
fn one_warning_per_interval_is_allowed() {
    let limit = WarningLimit::default();
    assert!(limit.may_warn(0) && !limit.may_warn(0) && !limit.may_warn(WARNING_INTERVAL_S - 1));
    assert!(limit.may_warn(WARNING_INTERVAL_S) && !limit.may_warn(WARNING_INTERVAL_S + 1));
}
