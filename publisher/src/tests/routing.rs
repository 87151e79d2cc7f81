use hyper::Method;

use super::harness::{World, app};
use crate::routes::{Path, RouteMatch, labels};

#[tokio::test]
async fn an_unknown_path_is_not_found() {
    let world = World::new();
    for path in ["/apps", "/apps/3", "/apps/3/event", "/apps/3/events/", "/app/3/events", "/apps/3/users/1", "*"] {
        world.send(Method::GET, path, "").await.refused(404, "Not found");
    }
}

#[tokio::test]
async fn a_wrong_method_is_refused_with_the_allowed_ones() {
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
async fn health_checks_work_with_and_without_the_prefix() {
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
async fn a_configured_prefix_is_required_in_the_path_and_optional_in_the_signature() {
    let world = World::with(app(), "/ws/v1");
    world.get("/ws/v1/apps/3/channels", &[]).await.ok(r#"{"channels":{}}"#);
    let query = world.query(&Method::GET, "/apps/3/channels", &[], "");
    world.send(Method::GET, &format!("/ws/v1/apps/3/channels?{query}"), "").await.ok(r#"{"channels":{}}"#);
    world.send(Method::GET, &format!("/apps/3/channels?{query}"), "").await.refused(404, "Not found");
}

#[tokio::test]
async fn doubled_slashes_before_apps_are_accepted() {
    let world = World::with(app(), "/ws");
    world.get("/ws//apps/3/channels", &[]).await.ok(r#"{"channels":{}}"#);
    world.get("//ws/apps/3/channels", &[]).await.ok(r#"{"channels":{}}"#);
    world.get("/ws/apps//channels", &[]).await.refused(404, "No matching application for ID [].");
}

#[tokio::test]
async fn a_listener_serves_the_api() {
    let world = World::new();
    let body = r#"{"name":"e","data":"x","channel":"a"}"#;
    let query = world.query(&Method::POST, "/apps/3/events", &[], body);
    let head = format!("POST /apps/3/events?{query} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n");
    let response = world.wire(&format!("{head}content-length: {}\r\n\r\n{body}", body.len())).await;
    assert!(response.starts_with("HTTP/1.1 200 OK\r\n") && response.ends_with("\r\n\r\n{}"), "{response}");
    let response = world.wire(&format!("{head}content-length: 999999\r\n\r\n")).await;
    assert!(response.starts_with("HTTP/1.1 413 Payload Too Large\r\n"), "{response}");
    let response = world.wire("HEAD /up HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    assert!(response.starts_with("HTTP/1.1 200 OK\r\n") && response.ends_with("\r\n\r\n"), "{response}");
}

#[test]
fn every_route_has_a_unique_label() {
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
    let label = |path| RouteMatch::find(&Path::split(path, "").segments()).map(|found| found.label());
    let mut all: Vec<Option<&str>> = labels().map(Some).collect();
    all.dedup();
    assert_eq!(paths.map(label), *all);
}
