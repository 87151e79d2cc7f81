use super::harness::World;

#[tokio::test]
async fn the_list_of_channels_is_an_object_even_when_empty() {
    World::new().get("/apps/3/channels", &[]).await.ok(r#"{"channels":{}}"#);
}

#[tokio::test]
async fn occupied_channels_are_listed_by_name_without_user_channels() {
    let world = World::new();
    world.occupy("presence-b", 3).await;
    world.join("presence-b", r#"{"user_id":1}"#).await;
    world.occupy("a", 1).await;
    world.occupy("vacated", 0).await;
    world.occupy("#server-to-user-1", 1).await;
    world.get("/apps/3/channels", &[]).await.ok(r#"{"channels":{"a":{},"presence-b":{}}}"#);
    let counts = [("info", "subscription_count")];
    let expected = r#"{"channels":{"a":{"subscription_count":1},"presence-b":{"subscription_count":3}}}"#;
    world.get("/apps/3/channels", &counts).await.ok(expected);
    let both = [("info", "user_count,subscription_count"), ("filter_by_prefix", "presence-")];
    let expected = r#"{"channels":{"presence-b":{"user_count":1,"subscription_count":3}}}"#;
    world.get("/apps/3/channels", &both).await.ok(expected);
    world.get("/apps/3/channels", &[("filter_by_prefix", "private-")]).await.ok(r#"{"channels":{}}"#);
}

#[tokio::test]
async fn a_channel_has_the_requested_attributes() {
    let world = World::new();
    world.occupy("presence-b", 3).await;
    world.join("presence-b", r#"{"user_id":1}"#).await;
    world.get("/apps/3/channels/presence-b", &[]).await.ok(r#"{"occupied":true}"#);
    let both = [("info", "user_count,subscription_count,shoe_size")];
    let expected = r#"{"occupied":true,"user_count":1,"subscription_count":3}"#;
    world.get("/apps/3/channels/presence-b", &both).await.ok(expected);
    world.get("/apps/3/channels/empty", &[]).await.ok(r#"{"occupied":false}"#);
    let expected = r#"{"occupied":false,"user_count":0,"subscription_count":0}"#;
    world.get("/apps/3/channels/presence-empty", &both).await.ok(expected);
}

#[tokio::test]
async fn a_user_channel_is_occupied_while_the_user_is_signed_in() {
    let world = World::new();
    world.occupy("#server-to-user-7", 1).await;
    world.get("/apps/3/channels/%23server-to-user-7", &[]).await.ok(r#"{"occupied":true}"#);
}

#[tokio::test]
async fn a_cache_channel_has_its_last_event_and_the_remaining_time() {
    let world = World::new();
    let cache = [("info", "cache")];
    let empty = r#"{"occupied":false,"cache":null}"#;
    world.get("/apps/3/channels/cache-a", &cache).await.ok(empty);
    world.get("/apps/3/channels/a", &cache).await.ok(empty);
    let body = r#"{"name":"e","data":"{\"some\":\"däta\"}","channels":["cache-a","a"]}"#;
    world.post("/apps/3/events", body).await.ok("{}");
    let expected = r#"{"occupied":false,"cache":{"data":"{\"some\":\"däta\"}","ttl":1800}}"#;
    world.get("/apps/3/channels/cache-a", &cache).await.ok(expected);
    world.get("/apps/3/channels/a", &cache).await.ok(empty);
    world.get("/apps/3/channels/cache-a", &[]).await.ok(r#"{"occupied":false}"#);
}

#[tokio::test]
async fn the_stats_of_2012_return_the_channel_without_attributes() {
    let world = World::new();
    world.occupy("a", 1).await;
    world.get("/apps/3/channels/a/stats", &[("info", "subscription_count")]).await.ok(r#"{"occupied":true}"#);
}

#[tokio::test]
async fn open_connections_are_counted() {
    let world = World::new();
    world.get("/apps/3/connections", &[]).await.ok(r#"{"connections":0}"#);
    shared::cluster::roster::Roster::report_connections(&*world.roster, &world.app.id, 42).await.unwrap();
    world.get("/apps/3/connections", &[]).await.ok(r#"{"connections":42}"#);
}
