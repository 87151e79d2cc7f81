use hyper::Method;

use super::harness::{World, app};

const BODY: &str = r#"{"name":"e","data":"x","channel":"a"}"#;

#[tokio::test]
async fn a_request_to_an_unknown_app_is_refused() {
    let world = World::new();
    let reply = world.send(Method::POST, "/apps/4/events", BODY).await;
    reply.refused(404, "No matching application for ID [4].");
    let reply = world.send(Method::GET, "/apps//channels", "").await;
    reply.refused(404, "No matching application for ID [].");
    let reply = world.send(Method::GET, &format!("/apps/{}/channels", "x".repeat(1000)), "").await;
    reply.refused(404, &format!("No matching application for ID [{}…].", "x".repeat(64)));
    let reply = world.send(Method::GET, "/apps/%0A%FF/channels", "").await;
    reply.refused(404, "No matching application for ID [\\n\u{fffd}].");
}

#[tokio::test]
async fn a_request_without_a_valid_signature_is_refused() {
    let world = World::new();
    world.subscribe(&["a"]).await;
    let reply = world.send(Method::POST, "/apps/3/events", BODY).await;
    reply.refused(401, "Missing parameter: auth_key");
    let query = world.query(&Method::POST, "/apps/3/events", &[], BODY);
    let reply = world.send(Method::POST, &format!("/apps/3/events?{query}"), &BODY.replace('x', "y")).await;
    reply.refused(401, "Invalid body_md5: it does not match the MD5 digest of the body");
    let reply = world.send(Method::POST, &format!("/apps/3/batch_events?{query}"), BODY).await;
    assert_eq!(reply.status, 401);
    assert!(reply.body.starts_with("Invalid signature: ") && reply.body.contains("another secret"), "{}", reply.body);
    assert!(reply.body.contains("You should have sent HmacSHA256Hex("), "{}", reply.body);
    let stale = query.replace("auth_timestamp=1", "auth_timestamp=9");
    let reply = world.send(Method::POST, &format!("/apps/3/events?{stale}"), BODY).await;
    assert_eq!(reply.status, 401);
    assert!(reply.body.starts_with("Timestamp expired: "), "{}", reply.body);
    assert!(world.events().is_empty());
}

#[tokio::test]
async fn every_route_of_an_app_requires_a_signature() {
    let world = World::new();
    for (method, path) in [
        (Method::POST, "/apps/3/events"),
        (Method::POST, "/apps/3/batch_events"),
        (Method::GET, "/apps/3/channels"),
        (Method::GET, "/apps/3/channels/a"),
        (Method::GET, "/apps/3/channels/presence-a/users"),
        (Method::GET, "/apps/3/channels/a/stats"),
        (Method::POST, "/apps/3/channels/a/events"),
        (Method::GET, "/apps/3/connections"),
        (Method::POST, "/apps/3/users/1/terminate_connections"),
    ] {
        world.send(method, path, "").await.refused(401, "Missing parameter: auth_key");
    }
}

#[tokio::test]
async fn only_a_signed_request_reveals_that_an_app_is_disabled() {
    let mut app = app();
    app.enabled = false;
    let world = World::with(app, "");
    world.post("/apps/3/events", BODY).await.refused(403, "The application is disabled");
    world.send(Method::POST, "/apps/3/events", BODY).await.refused(401, "Missing parameter: auth_key");
}
