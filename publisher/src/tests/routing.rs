use hyper::Method;

use super::harness::{World, app};
use crate::routes::{LABELS, Path, Route};

#[tokio::test]
async fn unknown_paths() {
    let world = World::new();
    for path in ["/apps", "/apps/3", "/apps/3/event", "/apps/3/events/", "/app/3/events", "/apps/3/users/1", "*"] {
        world.send(Method::GET, path, "").await.refused(404, "Not found");
    }
}

#[tokio::test]
async fn known_paths_say_which_method_they_take() {
    let world = World::new();
    let reply = world.send(Method::GET, "/apps/3/events", "").await;
    reply.refused(405, "Method not allowed, only POST");
    assert_eq!(reply.header("allow"), Some("POST"));
    let reply = world.send(Method::DELETE, "/apps/unknown/channels/a", "").await;
    reply.refused(405, "Method not allowed, only GET");
    assert_eq!(reply.header("allow"), Some("GET"));
    let reply = world.send(Method::POST, "/up", "").await;
    assert_eq!((reply.status.as_u16(), reply.header("allow")), (405, Some("GET, HEAD")));
}

#[tokio::test]
async fn health_is_answered_with_and_without_the_prefix() {
    let world = World::with(app(), "/ws");
    world.send(Method::GET, "/up", "").await.ok(r#"{"health":"OK"}"#);
    world.send(Method::HEAD, "/up?x=1", "").await.ok(r#"{"health":"OK"}"#);
    world.send(Method::GET, "/ws/up", "").await.ok(r#"{"health":"OK"}"#);
    world.send(Method::GET, "/", "").await.ok(r#"{"health":"OK"}"#);
    world.send(Method::HEAD, "/", "").await.ok(r#"{"health":"OK"}"#);
    world.send(Method::GET, "/ws/", "").await.ok(r#"{"health":"OK"}"#);
    world.send(Method::GET, "/ws//up", "").await.ok(r#"{"health":"OK"}"#);
    world.send(Method::GET, "/wsup", "").await.refused(404, "Not found");
    world.send(Method::GET, "/ws", "").await.refused(404, "Not found");
}

#[tokio::test]
async fn a_prefix_is_needed_where_it_is_configured_and_may_be_left_out_of_the_signature() {
    let world = World::with(app(), "/ws/v1");
    world.get("/ws/v1/apps/3/channels", &[]).await.ok(r#"{"channels":{}}"#);
    let query = world.query(&Method::GET, "/apps/3/channels", &[], "");
    world.send(Method::GET, &format!("/ws/v1/apps/3/channels?{query}"), "").await.ok(r#"{"channels":{}}"#);
    world.send(Method::GET, &format!("/apps/3/channels?{query}"), "").await.refused(404, "Not found");
}

#[tokio::test]
async fn slashes_may_be_doubled_before_the_apps() {
    let world = World::with(app(), "/ws");
    world.get("/ws//apps/3/channels", &[]).await.ok(r#"{"channels":{}}"#);
    world.get("//ws/apps/3/channels", &[]).await.ok(r#"{"channels":{}}"#);
    world.get("/ws/apps//channels", &[]).await.refused(404, "No matching application for ID [].");
}

#[tokio::test]
async fn a_listener_can_serve_the_api() {
    let world = World::new();
    let body = r#"{"name":"e","data":"x","channel":"a"}"#;
    let query = world.query(&Method::POST, "/apps/3/events", &[], body);
    let head = format!("POST /apps/3/events?{query} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n");
    let answer = world.wire(&format!("{head}content-length: {}\r\n\r\n{body}", body.len())).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\n{}"), "{answer}");
    let answer = world.wire(&format!("{head}content-length: 999999\r\n\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 413 Payload Too Large\r\n"), "{answer}");
    let answer = world.wire("HEAD /up HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\n"), "{answer}");
}

#[test]
fn every_route_has_a_label_of_its_own() {
    let paths = [
        "/up",
        "/apps/3/events",
        "/apps/3/batch_events",
        "/apps/3/channels",
        "/apps/3/channels/a",
        "/apps/3/channels/a/users",
        "/apps/3/channels/a/stats",
        "/apps/3/channels/a/events",
        "/apps/3/connections",
        "/apps/3/users/1/terminate_connections",
    ];
    let label = |path| Route::find(&Path::split(path, "").segments()).map(|route| route.label());
    assert_eq!(paths.map(label), LABELS.map(Some));
}
