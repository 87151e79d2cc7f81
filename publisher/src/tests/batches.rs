use super::harness::World;

#[tokio::test]
async fn the_events_of_a_batch_are_published_in_order() {
    let world = World::new();
    world.subscribe(&["a", "b"]).await;
    let body = r#"{"batch":[
        {"name":"e1","data":"\"x\"","channel":"a"},
        {"name":"e2","data":{"y": 1},"channel":"b","socket_id":"1234.1234"},
        {"name":"e3","data":"z","channel":"a"}]}"#;
    world.post("/apps/3/batch_events", body).await.ok("{}");
    let expected = [
        (r#"{"event":"e1","channel":"a","data":"\"x\""}"#.to_owned(), None),
        (r#"{"event":"e2","channel":"b","data":"{\"y\":1}"}"#.to_owned(), Some("1234.1234".to_owned())),
        (r#"{"event":"e3","channel":"a","data":"z"}"#.to_owned(), None),
    ];
    assert_eq!(world.events(), expected);
}

#[tokio::test]
async fn the_response_has_attributes_for_every_event_in_order() {
    let world = World::new();
    world.occupy("my-channel", 1).await;
    let body = r#"{"batch":[
        {"name":"e","data":"x","channel":"my-channel","info":"subscription_count"},
        {"name":"e","data":"x","channel":"my-channel-2"},
        {"name":"e","data":"x","channel":"presence-my-channel","info":"user_count,subscription_count"}]}"#;
    let expected = r#"{"batch":[{"subscription_count":1},{},{"user_count":0,"subscription_count":0}]}"#;
    world.post("/apps/3/batch_events", body).await.ok(expected);
}

#[tokio::test]
async fn an_invalid_info_does_not_refuse_a_batch() {
    let world = World::new();
    world.subscribe(&["a", "b"]).await;
    let body = r#"{"batch":[
        {"name":"e","data":"x","channel":"a","info":"user_count"},
        {"name":"e","data":"x","channel":"b","info":{"user_count":true}},
        {"name":"e","data":"x","channel":"presence-c","info":["user_count","cache",7]},
        {"name":"e","data":"x","channel":"presence-d","info":["subscription_count"]}]}"#;
    world.post("/apps/3/batch_events", body).await.ok(r#"{"batch":[{},{},{},{"subscription_count":0}]}"#);
    assert_eq!(world.events().len(), 2);
}

#[tokio::test]
async fn an_empty_batch_is_accepted() {
    World::new().post("/apps/3/batch_events", r#"{"batch":[]}"#).await.ok("{}");
}

/// Sends a batch with an invalid second event. Expects an error, and that no event was published.
#[track_caller]
fn check(second: &'static str, status: u16, text: &'static str) -> impl Future<Output = ()> {
    let location = std::panic::Location::caller();
    async move {
        let world = World::new();
        world.subscribe(&["a"]).await;
        let body = format!(r#"{{"batch":[{{"name":"e","data":"x","channel":"a"}},{second}]}}"#);
        let reply = world.post("/apps/3/batch_events", &body).await;
        assert_eq!((reply.status.as_u16(), reply.body), (status, text.to_owned()), "{location}");
        assert!(world.events().is_empty(), "{location}");
    }
}

#[tokio::test]
async fn an_invalid_event_refuses_the_whole_batch() {
    check(r#"{"data":"x","channel":"a"}"#, 400, "Missing required parameter: name").await;
    check(r#"{"name":"e","channel":"a"}"#, 400, "Missing required parameter: data").await;
    check(r#"{"name":"e","data":"x"}"#, 400, "Missing required parameter: channel").await;
    check(r#"{"name":"e","data":"x","channels":["a"]}"#, 400, "Missing required parameter: channel").await;
    check(
        r#"{"name":"e","data":"x","channel":"a b"}"#,
        400,
        r#"Invalid channel name "a b": channel name has a character that is not allowed"#,
    )
    .await;
    check(
        r#"{"name":"e","data":"x","channel":"a","socket_id":"1"}"#,
        400,
        "Invalid socket_id: it must be of the form digits.digits",
    )
    .await;
    check(r#"["e","x","a"]"#, 400, "Invalid parameter type at line 1 column 48").await;
}
