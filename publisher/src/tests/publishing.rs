use std::time::Duration;

use hyper::Method;
use shared::cluster::roster::Roster;

use super::harness::World;

/// Publishes once and returns the events for subscribers of `a`, `b` and `private-encrypted-x`.
async fn received_after(body: &str) -> Vec<(String, Option<String>)> {
    let world = World::new();
    world.subscribe(&["a", "b", "private-encrypted-x"]).await;
    world.post("/apps/3/events", body).await.ok("{}");
    world.events()
}

fn frame(text: &str) -> (String, Option<String>) {
    (text.into(), None)
}

#[tokio::test]
async fn an_event_with_channel_goes_to_one_channel() {
    let body = r#"{"name":"App\\Events\\OrderShipped","data":"{\"order\":{\"id\":1}}","channel":"a"}"#;
    let expected = r#"{"event":"App\\Events\\OrderShipped","channel":"a","data":"{\"order\":{\"id\":1}}"}"#;
    assert_eq!(received_after(body).await, [frame(expected)]);
}

#[tokio::test]
async fn an_event_with_channels_goes_to_each_of_them_once_in_order() {
    let body = r#"{"name":"e","data":"x","channels":["b","a","b","private-encrypted-x","a"]}"#;
    let expected = [
        frame(r#"{"event":"e","channel":"b","data":"x"}"#),
        frame(r#"{"event":"e","channel":"a","data":"x"}"#),
        frame(r#"{"event":"e","channel":"private-encrypted-x","data":"x"}"#),
    ];
    assert_eq!(received_after(body).await, expected);
}

#[tokio::test]
async fn channels_is_preferred_over_channel_unless_it_is_empty() {
    let both = r#"{"name":"e","data":"x","channel":"a","channels":["b"]}"#;
    assert_eq!(received_after(both).await, [frame(r#"{"event":"e","channel":"b","data":"x"}"#)]);
    let empty = r#"{"name":"e","data":"x","channel":"a","channels":[]}"#;
    assert_eq!(received_after(empty).await, [frame(r#"{"event":"e","channel":"a","data":"x"}"#)]);
    let null = r#"{"name":"e","data":"x","channel":"a","channels":null}"#;
    assert_eq!(received_after(null).await, [frame(r#"{"event":"e","channel":"a","data":"x"}"#)]);
}

#[tokio::test]
async fn a_socket_is_excluded_on_every_channel() {
    let body = r#"{"name":"e","data":"x","channels":["a","b"],"socket_id":"1234.5678"}"#;
    let except: Vec<_> = received_after(body).await.into_iter().map(|(_, except)| except).collect();
    assert_eq!(except, [Some("1234.5678".to_owned()), Some("1234.5678".to_owned())]);
}

#[tokio::test]
async fn a_null_socket_id_excludes_no_connection() {
    let body = r#"{"name":"e","data":"x","channel":"a","socket_id":null,"info":null}"#;
    assert_eq!(received_after(body).await, [frame(r#"{"event":"e","channel":"a","data":"x"}"#)]);
}

#[tokio::test]
async fn data_that_is_not_a_string_becomes_compact_json() {
    let body = "{\"name\":\"e\",\"channel\":\"a\",\"data\":{ \"b\" : 1.50,\n\"a\":[ ] } }";
    assert_eq!(received_after(body).await, [frame(r#"{"event":"e","channel":"a","data":"{\"b\":1.50,\"a\":[]}"}"#)]);
}

#[tokio::test]
async fn unknown_members_are_ignored() {
    let body = r#"{"name":"e","data":"x","channel":"a","tags":{"x":[1]},"idempotency_key":7}"#;
    assert_eq!(received_after(body).await.len(), 1);
}

#[tokio::test]
async fn an_event_reaches_a_user_by_the_user_channel() {
    let world = World::new();
    world.subscribe(&["#server-to-user-12345"]).await;
    let body = r##"{"name":"my-event","data":"{}","channel":"#server-to-user-12345"}"##;
    world.post("/apps/3/events", body).await.ok("{}");
    assert_eq!(world.events(), [frame(r##"{"event":"my-event","channel":"#server-to-user-12345","data":"{}"}"##)]);
}

#[tokio::test]
async fn an_event_without_subscribers_is_accepted() {
    World::new().post("/apps/3/events", r#"{"name":"e","data":"","channel":"empty"}"#).await.ok("{}");
}

#[tokio::test]
async fn only_cache_channels_keep_the_last_event_for_half_an_hour() {
    let world = World::new();
    let body = r#"{"name":"e","data":"x","channels":["cache-a","a"],"socket_id":"1.1"}"#;
    world.post("/apps/3/events", body).await.ok("{}");
    let kept = world.roster.cached(&world.topic("cache-a")).await.unwrap().unwrap();
    assert_eq!(kept.frame, r#"{"event":"e","channel":"cache-a","data":"x"}"#);
    assert!(kept.ttl > Duration::from_secs(1790) && kept.ttl <= Duration::from_secs(1800), "{:?}", kept.ttl);
    assert_eq!(world.roster.cached(&world.topic("a")).await.unwrap(), None);
}

#[tokio::test]
async fn the_response_has_the_attributes_that_each_kind_of_channel_has() {
    let world = World::new();
    world.occupy("my-channel", 1).await;
    world.occupy("presence-a", 3).await;
    world.join("presence-a", r#"{"user_id":"1"}"#).await;
    let publish = |channels: &str, info: &str| {
        let body = format!(r#"{{"name":"e","data":"x","channels":[{channels}],"info":"{info}"}}"#);
        let world = &world;
        async move { world.post("/apps/3/events", &body).await }
    };
    publish(r#""my-channel","presence-b","presence-a""#, "user_count,subscription_count").await.ok(concat!(
        r#"{"channels":{"my-channel":{"subscription_count":1},"#,
        r#""presence-b":{"user_count":0,"subscription_count":0},"#,
        r#""presence-a":{"user_count":1,"subscription_count":3}}}"#
    ));
    publish(r#""a","a""#, " subscription_count ,shoe_size").await.ok(r#"{"channels":{"a":{"subscription_count":0}}}"#);
    publish(r#""a","presence-b""#, "user_count").await.ok(r#"{"channels":{"a":{},"presence-b":{"user_count":0}}}"#);
    publish(r#""a""#, "user_count").await.ok(r#"{"channels":{"a":{}}}"#);
    publish(r#""a""#, "shoe_size").await.ok("{}");
    publish(r#""a""#, "").await.ok("{}");
}

#[tokio::test]
async fn an_invalid_info_does_not_refuse_a_publish() {
    for info in [r#""user_count""#, r#""cache""#, "7", "null", "[]", "[7]", "{}", "true", r#""\ud800""#] {
        let world = World::new();
        world.subscribe(&["a"]).await;
        let body = format!(r#"{{"name":"e","data":"x","channel":"a","info":{info}}}"#);
        let reply = world.post("/apps/3/events", &body).await;
        assert_eq!((reply.status.as_u16(), world.events().len()), (200, 1), "{info}: {}", reply.body);
    }
}

#[tokio::test]
async fn the_path_of_2012_accepts_the_data_as_body() {
    let world = World::new();
    world.subscribe(&["a"]).await;
    let params = [("name", "e"), ("socket_id", "1.2")];
    let reply = world.signed(Method::POST, "/apps/3/channels/a/events", &params, r#"{"some": "data"}"#).await;
    reply.check(202, "");
    let expected = r#"{"event":"e","channel":"a","data":"{\"some\": \"data\"}"}"#;
    assert_eq!(world.events(), [(expected.to_owned(), Some("1.2".to_owned()))]);
}
