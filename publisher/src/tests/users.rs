use hyper::Method;
use shared::cluster::envelope::Body;

use super::harness::World;

#[tokio::test]
async fn users_of_a_channel_are_listed_with_string_ids() {
    let world = World::new();
    world.get("/apps/3/channels/presence-a/users", &[]).await.ok(r#"{"users":[]}"#);
    world.join("presence-a", r#"{"user_id":10,"user_info":{"name": "Zoë"}}"#).await;
    world.join("presence-a", r#"{"user_id":"2"}"#).await;
    world.get("/apps/3/channels/presence-a/users", &[]).await.ok(r#"{"users":[{"id":"10"},{"id":"2"}]}"#);
    let expected = r#"{"users":[{"id":"10","user_info":{"name": "Zoë"}},{"id":"2","user_info":null}]}"#;
    world.get("/apps/3/channels/presence-a/users", &[("with_user_info", "1")]).await.ok(expected);
}

/// Returns the topics that receive the request to terminate a user. `id`: in the encoding of the path.
async fn terminated(id: &str, body: &str) -> Vec<String> {
    let world = World::new();
    world.subscribe(&["#server-to-user-12345", "#server-to-user-ana@example.com"]).await;
    world.post(&format!("/apps/3/users/{id}/terminate_connections"), body).await.ok("{}");
    let topics = world.envelopes().into_iter().map(|(topic, envelope)| {
        assert!(matches!(envelope.body, Body::Terminate), "{envelope:?}");
        topic.channel.to_string()
    });
    topics.collect()
}

#[tokio::test]
async fn terminating_reaches_the_topic_of_the_user() {
    assert_eq!(terminated("12345", "{}").await, ["#server-to-user-12345"]);
    assert_eq!(terminated("12345", "").await, ["#server-to-user-12345"]);
    assert_eq!(terminated("ana%40example.com", "{}").await, ["#server-to-user-ana@example.com"]);
    assert_eq!(terminated("%31%32345", "{}").await, ["#server-to-user-12345"]);
    assert!(terminated("unknown", "{}").await.is_empty());
}

#[tokio::test]
async fn a_signature_over_the_decoded_path_is_accepted() {
    let world = World::new();
    let query = world.query(&Method::POST, "/apps/3/users/ana@example.com/terminate_connections", &[], "{}");
    let uri = format!("/apps/3/users/ana%40example.com/terminate_connections?{query}");
    world.send(Method::POST, &uri, "{}").await.ok("{}");
}

#[tokio::test]
async fn an_invalid_user_id_is_refused() {
    let world = World::new();
    let character = "Invalid user id: it is empty or has a character that is not allowed";
    for id in ["", "a%20b", "a%2Fb", "%FF"] {
        world.post(&format!("/apps/3/users/{id}/terminate_connections"), "{}").await.refused(400, character);
    }
    let path = format!("/apps/3/users/{}/terminate_connections", "x".repeat(129));
    world.post(&path, "{}").await.refused(400, "Invalid user id: longer than 128 characters");
}

#[tokio::test]
async fn a_request_of_pusher_http_python_identifies_the_app_by_its_key() {
    let world = World::new();
    world.subscribe(&["#server-to-user-12345"]).await;
    world.post("/users/12345/terminate_connections", "{}").await.ok("{}");
    assert_eq!(world.envelopes().len(), 1);
    let unsigned = "/users/12345/terminate_connections";
    world.send(Method::POST, unsigned, "{}").await.refused(401, "Missing parameter: auth_key");
    let unknown = "/users/12345/terminate_connections?auth_key=unknown";
    world.send(Method::POST, unknown, "{}").await.refused(401, "Unknown auth_key");
}
