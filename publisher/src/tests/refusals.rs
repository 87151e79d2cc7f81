use bytesize::ByteSize;

use super::harness::{World, app};

/// Expects that a publish of `body` is refused, and that no event was published.
async fn refused(body: &str, status: u16, text: &str) {
    let world = World::new();
    world.subscribe(&["a"]).await;
    world.post("/apps/3/events", body).await.refused(status, text);
    assert!(world.events().is_empty(), "{body}");
}

fn event(name: &str, channel: &str) -> String {
    format!(r#"{{"name":{name:?},"data":"x","channel":{channel:?}}}"#)
}

#[tokio::test]
async fn a_missing_parameter_is_refused() {
    refused(r#"{"name":"e","data":"x"}"#, 400, "Missing required parameter: channel").await;
    refused(r#"{"name":"e","data":"x","channels":[]}"#, 400, "Missing required parameter: channel").await;
    refused(r#"{"data":"x","channel":"a"}"#, 400, "Missing required parameter: name").await;
    refused(r#"{"name":"e","channel":"a"}"#, 400, "Missing required parameter: data").await;
    refused(r#"{"name":"e","channel":"a","data":null}"#, 400, "Missing required parameter: data").await;
    World::new().post("/apps/3/batch_events", "{}").await.refused(400, "Missing required parameter: batch");
}

#[tokio::test]
async fn a_body_with_invalid_json_is_refused_and_not_quoted() {
    refused("", 400, "Invalid JSON at line 1 column 0").await;
    refused("{\"name\":\n nope}", 400, "Invalid JSON at line 2 column 3").await;
    refused(r#"{"name":"e","data":"\ud800","channel":"a"}"#, 400, "Invalid JSON at line 1 column 8").await;
    let world = World::new();
    let reply = world.post("/apps/3/events", r#"{"name":"e","data":"x","channels":"very private"}"#).await;
    assert_eq!(reply.status, 400);
    assert!(reply.body.starts_with("Invalid parameter type at line 1 column "), "{}", reply.body);
    assert!(!reply.body.contains("private"));
}

#[tokio::test]
async fn an_array_is_not_accepted_as_an_event() {
    for body in [r#"["e","x","a"]"#, r#"["e","x","a",null,null,null]"#, "[]", " [{}]", "7", "null", r#""{}""#] {
        let reply = World::new().post("/apps/3/events", body).await;
        assert_eq!((reply.status.as_u16(), reply.body.starts_with("Invalid parameter type at")), (400, true), "{body}");
    }
    for body in [r#"[[]]"#, r#"{"batch":[["e","x","a"]]}"#, r#"{"batch":{}}"#, r#"{"batch":[7]}"#] {
        let reply = World::new().post("/apps/3/batch_events", body).await;
        assert_eq!((reply.status.as_u16(), reply.body.starts_with("Invalid parameter type at")), (400, true), "{body}");
    }
}

#[tokio::test]
async fn an_error_is_one_line_without_a_line_break_or_a_link_to_another_service() {
    let world = World::new();
    for reply in [
        world.send(hyper::Method::GET, "/nothing", "").await,
        world.send(hyper::Method::GET, "/apps/3/events", "").await,
        world.send(hyper::Method::POST, "/apps/3/events", "{}").await,
        world.post("/apps/3/events", "{").await,
        world.post("/apps/3/events", "{}").await,
        world.post("/apps/3/events", &format!(r#"{{"name":"e","channel":"a","data":"{}"}}"#, "x".repeat(20_000))).await,
    ] {
        assert!(reply.status.is_client_error() && !reply.body.is_empty(), "{}", reply.body);
        assert!(!reply.body.contains(['\n', '\r']) && !reply.body.contains("pusher.com"), "{}", reply.body);
    }
}

#[tokio::test]
async fn an_invalid_event_name_is_refused() {
    let reserved = "Invalid event name: event names that start with pusher: or pusher_internal: are reserved";
    refused(&event("pusher:ping", "a"), 400, reserved).await;
    refused(&event("pusher_internal:member_added", "a"), 400, reserved).await;
    refused(&event("", "a"), 400, "Invalid event name: event name is empty").await;
    refused(&event(&"x".repeat(201), "a"), 400, "Invalid event name: event name is longer than 200 characters").await;
}

#[tokio::test]
async fn an_invalid_channel_name_is_refused() {
    let character = r#"Invalid channel name "a/b": channel name has a character that is not allowed"#;
    refused(&event("e", "a/b"), 400, character).await;
    refused(&event("e", ""), 400, r#"Invalid channel name "": channel name is empty"#).await;
    let long = format!(r#"Invalid channel name "{}…": channel name is longer than 200 characters"#, "x".repeat(64));
    refused(&event("e", &"x".repeat(201)), 400, &long).await;
    refused(r#"{"name":"e","data":"x","channels":["a","a/b"]}"#, 400, character).await;
}

#[tokio::test]
async fn an_invalid_socket_id_is_refused() {
    for socket_id in ["", "1", "1.", "a.b", "1.2.3", "+1.2"] {
        let body = format!(r#"{{"name":"e","data":"x","channel":"a","socket_id":"{socket_id}"}}"#);
        let text = "Invalid socket_id: it must be of the form digits.digits";
        refused(&body, 400, text).await;
    }
}

#[tokio::test]
async fn data_is_measured_after_decoding() {
    let text = "The data content of this event exceeds the allowed maximum (10240 bytes): it has 10241 bytes, for channel \"a\". The app's setting limits.event_bytes raises the maximum";
    let with_data = |data: String| format!(r#"{{"name":"e","channel":"a","data":"{data}"}}"#);
    refused(&with_data("x".repeat(10_241)), 413, text).await;
    let world = World::new();
    world.post("/apps/3/events", &with_data("x".repeat(10_240))).await.ok("{}");
    world.post("/apps/3/events", &with_data("\\\"".repeat(10_240))).await.ok("{}");
    let batch = format!(r#"{{"batch":[{}]}}"#, with_data("x".repeat(10_241)));
    world.post("/apps/3/batch_events", &batch).await.refused(413, text);
    world.post("/apps/3/channels/a/events", &"x".repeat(10_241)).await.refused(400, "Missing required parameter: name");
}

#[tokio::test]
async fn errors_contain_the_limits_of_the_app() {
    let mut app = app();
    app.limits.event_bytes = ByteSize::b(3);
    app.limits.batch = 1;
    app.limits.channels_per_event = 1;
    let world = World::with(app, "");
    let reply = world.post("/apps/3/events", r#"{"name":"e","channel":"a","data":"four"}"#).await;
    assert_eq!(reply.status, 413);
    assert!(reply.body.contains("(3 bytes): it has 4 bytes, for channel \"a\"."), "{}", reply.body);
    let reply = world.post("/apps/3/events", r#"{"name":"e","channels":["b"],"data":"four"}"#).await;
    assert!(reply.body.contains("channel \"b\"") && !reply.body.contains("four"), "{}", reply.body);
    let two = r#"{"name":"e","data":"x","channels":["a","b"]}"#;
    world.post("/apps/3/events", two).await.refused(400, "Too many channels (2 > 1)");
    world.post("/apps/3/batch_events", r#"{"batch":[{},{}]}"#).await.refused(400, "Batch too large (2 > 1)");
}

#[tokio::test]
async fn too_many_channels_or_events_are_refused() {
    let channels: Vec<String> = (0..101).map(|index| format!("\"c-{index}\"")).collect();
    let body = |count: usize| format!(r#"{{"name":"e","data":"x","channels":[{}]}}"#, channels[..count].join(","));
    refused(&body(101), 400, "Too many channels (101 > 100)").await;
    World::new().post("/apps/3/events", &body(100)).await.ok("{}");
    let batch = |count: usize| format!(r#"{{"batch":[{}]}}"#, vec![event("e", "a"); count].join(","));
    World::new().post("/apps/3/batch_events", &batch(11)).await.refused(400, "Batch too large (11 > 10)");
    World::new().post("/apps/3/batch_events", &batch(10)).await.ok("{}");
}

#[tokio::test]
async fn user_counts_of_channels_without_users_are_refused() {
    let text = "Cannot retrieve the user count unless the channel is a presence channel";
    let world = World::new();
    world.get("/apps/3/channels/a", &[("info", "subscription_count,user_count")]).await.refused(400, text);
    let text = "user_count may only be requested for presence channels - please supply filter_by_prefix begining with presence-";
    world.get("/apps/3/channels", &[("info", "user_count")]).await.refused(400, text);
    world.get("/apps/3/channels", &[("info", "user_count"), ("filter_by_prefix", "pres")]).await.refused(400, text);
}

#[tokio::test]
async fn users_of_channels_without_users_are_refused() {
    let text = "Users can only be retrieved for presence channels";
    World::new().get("/apps/3/channels/private-a/users", &[]).await.refused(400, text);
    World::new().get("/apps/3/channels/presence_a/users", &[]).await.refused(400, text);
}

#[tokio::test]
async fn requests_about_an_invalid_channel_name_are_refused() {
    let text = r#"Invalid channel name "a b": channel name has a character that is not allowed"#;
    World::new().get("/apps/3/channels/a%20b", &[]).await.refused(400, text);
    World::new().get("/apps/3/channels/a%20b/users", &[]).await.refused(400, text);
    World::new().get("/apps/3/channels/a%20b/stats", &[]).await.refused(400, text);
}

#[tokio::test]
async fn an_app_over_its_rate_limit_is_refused() {
    let mut limited = app();
    limited.limits.events_per_second = 3;
    let world = World::with(limited, "");
    world.subscribe(&["a"]).await;
    let one = event("e", "a");
    world.post("/apps/3/batch_events", &format!(r#"{{"batch":[{one},{one}]}}"#)).await.ok("{}");
    let reply = world.post("/apps/3/batch_events", &format!(r#"{{"batch":[{one},{one},{one}]}}"#)).await;
    assert_eq!((reply.status.as_u16(), world.events().len()), (429, 2), "a batch is refused as a whole");
    assert_eq!(reply.body, "Too many events: this app may publish 3 per second");
    assert_eq!(
        (&reply.headers["retry-after"], &reply.headers["x-ratelimit-limit"]),
        (&"1".parse().unwrap(), &"3".parse().unwrap())
    );
}
