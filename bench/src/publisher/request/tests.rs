use serde_json::Value;
use shared::auth::request::SignedQuery;

use super::*;

fn app() -> App {
    serde_json::from_str(r#"{"id":"app-id","key":"app-key","secret":"app-secret"}"#).expect("the app is valid")
}

/// Verifies the signature and the length of a request. Returns its path and body.
fn verified(request: &[u8]) -> (String, Value) {
    let text = std::str::from_utf8(request).expect("the request is UTF-8");
    let (head, body) = text.split_once("\r\n\r\n").expect("the request has a head and a body");
    let target = head.split(' ').nth(1).expect("the request has a target");
    let (path, query) = target.split_once('?').expect("the target has a query");
    let query = SignedQuery::parse(query);
    query.verify_head(&app(), "POST", path, unix_s()).expect("the signature is valid");
    query.verify_body(body.as_bytes()).expect("the digest of the body is valid");
    assert!(head.contains(&format!("Content-Length: {}", body.len())), "{head}");
    (path.to_owned(), serde_json::from_str(body).expect("the body is JSON"))
}

#[test]
fn a_single_event_is_signed() {
    let mut requests = Requests::new(app(), 100);
    let (path, body) = verified(requests.request(&[Planned { channel: 7, sequence: 3 }], 5));
    assert_eq!(path, "/apps/app-id/events");
    assert_eq!(body["channel"], "bench-000007");
    let data = body["data"].as_str().expect("the data is a string");
    assert!(data.starts_with("seq=0000000003;at=000000000000000005;ch=000007;xxx"), "{data}");
    assert_eq!(data.len(), 100);
}

#[test]
fn several_events_are_sent_as_a_batch() {
    let mut requests = Requests::new(app(), 0);
    let events = [Planned { channel: 0, sequence: 0 }, Planned { channel: 1, sequence: 0 }];
    for _ in 0..2 {
        let (path, body) = verified(requests.request(&events, 5));
        assert_eq!(path, "/apps/app-id/batch_events");
        assert_eq!(body["batch"].as_array().map(Vec::len), Some(2));
        assert_eq!(body["batch"][1]["channel"], "bench-000001");
    }
}
