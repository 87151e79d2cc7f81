//! The signed requests of protocol reference 10.

use super::*;

/// Verifies a request. `path` and `params` are in their encoded form. `params` lacks the parameters of every signed
/// query.
#[track_caller]
fn check(method: &str, path: &str, params: &str, body: &str, digest: &str) {
    let md5 = if body.is_empty() { String::new() } else { format!("&body_md5={}", body_md5(body.as_bytes())) };
    let query = format!("{}{md5}{params}&auth_signature={digest}", auth_params());
    assert_eq!(verify(&query, method, path, body.as_bytes()), Ok(()));
}

/// Checks that [`signed_query`] returns the same digest.
#[track_caller]
fn check_signing(method: &str, path: &str, params: &[(&str, &str)], body: &str, digest: &str) {
    let query = signed_query(&app(), method, path, params, body.as_bytes(), NOW_S);
    assert!(query.contains(&format!("auth_signature={digest}")), "{query}");
    assert_eq!(verify(&query, method, path, body.as_bytes()), Ok(()));
}

#[test]
fn vector_7_events() {
    let body = r#"{"name":"foo","channels":["project-3"],"data":"{\"some\":\"data\"}"}"#;
    assert_eq!((body.len(), &*body_md5(body.as_bytes())), (68, "ec365a775a4cd0599faeb73354201b6f"));
    let digest = "da454824c97ba181a32ccc17a72625ba02771f50b50e1e7430e47a1f3f457e6c";
    check("POST", "/apps/3/events", "", body, digest);
    check_signing("POST", "/apps/3/events", &[], body, digest);
}

#[test]
fn vector_8_batch_events() {
    let body = r#"{"batch":[{"name":"e1","data":"\"x\"","channel":"a"},{"name":"e2","data":"{}","channel":"b","socket_id":"1234.1234"}]}"#;
    assert_eq!((body.len(), &*body_md5(body.as_bytes())), (118, "0665bbc5f469d495580a6f2a9b22ae40"));
    let digest = "b7ea78865358f2acbb5308a2d349dcab3c4dc5501a07840394c6a6d9a310190f";
    check("POST", "/apps/3/batch_events", "", body, digest);
    check_signing("POST", "/apps/3/batch_events", &[], body, digest);
}

#[test]
fn vector_9_terminate_connections() {
    let path = "/apps/3/users/12345/terminate_connections";
    assert_eq!(body_md5(b"{}"), "99914b932bd37a50b983c5e7c90ae93b");
    let digest = "01fa634edeb0cae84115307cad5c23f65a46cd286461b1c89637a3b5871a8f0e";
    check("POST", path, "", "{}", digest);
    check_signing("POST", path, &[], "{}", digest);
}

#[test]
fn vector_10_events_from_laravel() {
    let body = r#"{"name":"App\\Events\\OrderShipped","data":"{\"order\":{\"id\":1}}","channel":"private-orders.1","socket_id":"1234.1234"}"#;
    assert_eq!((body.len(), &*body_md5(body.as_bytes())), (121, "a7a186c152d46d64183734e3ace441ce"));
    let digest = "04c58a4c13c8b57a003e4ccc1033037566d1792e6dfabefccf44d52bddae0cbc";
    check("POST", "/apps/3/events", "", body, digest);
    check_signing("POST", "/apps/3/events", &[], body, digest);
}

#[test]
fn vector_11_events_to_a_user() {
    let body = r##"{"name":"my-event","data":"{\"message\":\"hello world\"}","channel":"#server-to-user-12345"}"##;
    assert_eq!((body.len(), &*body_md5(body.as_bytes())), (92, "bc37a3287d54b4574d08dc5c1c9b9ae3"));
    let digest = "fdba6d4cc27fc639928e5a868b9a970276ecf76546f29b0af48496acb7d2c5dd";
    check("POST", "/apps/3/events", "", body, digest);
    check_signing("POST", "/apps/3/events", &[], body, digest);
}

#[test]
fn vector_12_channels() {
    let digest = "16819168891cb5dfd72b5c7a5d3d602605b26c6ba1930033b5e2eeeb65010291";
    check("GET", "/apps/3/channels", "&filter_by_prefix=presence-&info=user_count", "", digest);
    let params = [("info", "user_count"), ("filter_by_prefix", "presence-")];
    check_signing("GET", "/apps/3/channels", &params, "", digest);
}

#[test]
fn vector_13_a_channel_with_a_comma_encoded_or_not() {
    let digest = "377ee9260ea002a70c0d40cd887d55cb36db9f7f821297f5efacbcce66be356d";
    check("GET", "/apps/3/channels/presence-foobar", "&info=user_count%2Csubscription_count", "", digest);
    check("GET", "/apps/3/channels/presence-foobar", "&info=user_count,subscription_count", "", digest);
    let params = [("info", "user_count,subscription_count")];
    check_signing("GET", "/apps/3/channels/presence-foobar", &params, "", digest);
}

#[test]
fn vector_14_a_name_in_capitals_and_an_encoded_space() {
    let digest = "6a6e31f72a2adcd41d7457906558236d4a3d880aa6b57a0eb81ecddad9584fe6";
    check("GET", "/some/resource", "&Name=Something%20else", "", digest);
    check("GET", "/some/resource", "&name=Something+else", "", digest);
    check_signing("GET", "/some/resource", &[("Name", "Something else")], "", digest);
}
