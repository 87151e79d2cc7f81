//! Events from any node reach their subscribers on every node, once and in order, and no other socket.

use std::collections::BTreeSet;

use client::ApiClient;
use serde_json::{Value, json};
use shared::app::App;
use tests::{Cluster, Setup, TestClient, within};

#[tokio::test]
async fn an_event_reaches_the_sockets_of_every_gateway_in_order() {
    const EVENTS: usize = 200;
    let cluster = Cluster::start().await;
    let mut clients = cluster.subscribers("news").await;
    let mut api = cluster.api_client();
    for number in 0..EVENTS {
        let reply = api.trigger(&["news"], "count", &number.to_string(), None).await.expect("an answer");
        assert_eq!(reply.status.as_u16(), 200);
    }
    for client in &mut clients {
        for number in 0..EVENTS {
            client.expect_event("news", "count", &number.to_string()).await;
        }
    }
    cluster.stop().await;
}

#[tokio::test]
async fn gateways_subscribe_only_to_the_channels_of_their_sockets() {
    let cluster = Cluster::start().await;
    let mut client = cluster.client(0).await;
    client.subscribe("mine").await;
    cluster.gateway(1).client().await.subscribe("other").await;
    let received = "carillon_redis_messages_received_total";
    for number in 0..5 {
        cluster.publish("mine", "e", &number.to_string()).await;
        client.expect_event("mine", "e", &number.to_string()).await;
    }
    assert_eq!(cluster.gateway(0).metric(received).await, 5.0);
    assert_eq!(cluster.gateway(1).metric(received).await, 0.0);
    // The gateway unsubscribes soon after the last socket, and subscribes again for the next one.
    drop(client);
    cluster.gateway(0).metric_reaches("carillon_redis_subscribed_topics", 0.0).await;
    assert_eq!(cluster.redis.run::<Vec<String>>("PUBSUB CHANNELS *mine").await, [""; 0]);
    let mut client = cluster.client(0).await;
    client.subscribe("mine").await;
    cluster.publish("mine", "e", "again").await;
    client.expect_event("mine", "e", "again").await;
    cluster.stop().await;
}

#[tokio::test]
async fn an_event_published_right_after_the_confirmation_is_received() {
    let cluster = Cluster::start().await;
    let mut api = cluster.api_client();
    for round in 0..50 {
        let mut client = cluster.client(round % 2).await;
        let channel = format!("fresh-{}", round / 2);
        client.subscribe(&channel).await;
        api.trigger(&[&channel], "e", &round.to_string(), None).await.expect("an answer");
        client.expect_event(&channel, "e", &round.to_string()).await;
    }
    cluster.stop().await;
}

#[tokio::test]
async fn the_excluded_socket_is_excluded_on_every_gateway() {
    let cluster = Cluster::start().await;
    let mut clients = cluster.subscribers("news").await;
    for excluded in 0..clients.len() {
        let socket_id = clients[excluded].socket_id;
        cluster.publish_except("news", "others", "1", socket_id).await;
        cluster.publish("news", "all", "2").await;
        for (index, client) in clients.iter_mut().enumerate() {
            if index != excluded {
                client.expect_event("news", "others", "1").await;
            }
            client.expect_event("news", "all", "2").await;
        }
    }
    let ids: BTreeSet<String> = clients.iter().map(|client| client.socket_id.to_string()).collect();
    assert_eq!(ids.len(), clients.len());
    cluster.stop().await;
}

#[tokio::test]
async fn client_events_reach_all_other_subscribers_and_never_their_sender() {
    let cluster = Cluster::start().await;
    let (mut ana, mut bo) = (cluster.client(0).await, cluster.client(1).await);
    let mut near = cluster.client(0).await;
    for client in [&mut ana, &mut bo, &mut near] {
        client.subscribe("private-room").await;
    }
    for number in 0..5 {
        ana.whisper("private-room", "client-typing", &json!({ "n": number }));
        for client in [&mut bo, &mut near] {
            client.expect_event("private-room", "client-typing", &format!(r#"{{"n":{number}}}"#)).await;
        }
    }
    cluster.publish("private-room", "marker", "").await;
    for client in [&mut ana, &mut bo, &mut near] {
        client.expect_event("private-room", "marker", "").await;
    }
    ana.join("presence-room", "ana").await;
    bo.join("presence-room", "bo").await;
    ana.expect("pusher_internal:member_added").await;
    bo.whisper("presence-room", "client-hi", &json!("x"));
    let received = ana.expect("client-hi").await;
    assert_eq!((received.user_id.as_deref(), received.data.as_str()), (Some("bo"), "x"));
    cluster.stop().await;
}

/// Returns a batch of events on channels of several kinds in a shuffled order.
fn batch(number: usize) -> Value {
    let event = |channel: &str, index: usize| json!({ "name": "part", "channel": channel, "data": format!("{number}/{index}") });
    let channels = ["news", "cache-news", "news", "private-room", "news", "cache-news", "elsewhere", "news"];
    json!({ "batch": channels.iter().enumerate().map(|(index, channel)| event(channel, index)).collect::<Vec<_>>() })
}

#[tokio::test]
async fn a_batch_arrives_whole_and_in_order() {
    let cluster = Cluster::start().await;
    let mut clients = Vec::new();
    for gateway in 0..2 {
        let mut client = cluster.client(gateway).await;
        client.subscribe("news").await;
        client.subscribe("cache-news").await;
        client.expect("pusher:cache_miss").await;
        client.subscribe("private-room").await;
        clients.push(client);
    }
    for number in 0..20 {
        let reply = cluster.publisher().post("/batch_events", &batch(number)).await;
        assert_eq!(reply.status.as_u16(), 200, "{}", reply.body);
    }
    for client in &mut clients {
        for number in 0..20 {
            // The channel with number 6 has no subscriber.
            for index in [0, 1, 2, 3, 4, 5, 7] {
                assert_eq!(client.expect("part").await.data, format!("{number}/{index}"));
            }
        }
    }
    assert_eq!(cluster.get("/channels/cache-news?info=cache").await["cache"]["data"], "19/5");
    cluster.stop().await;
}

#[tokio::test]
async fn every_publisher_reaches_every_gateway_in_its_own_order() {
    const EVENTS: usize = 100;
    let cluster = Cluster::start().publishers(3).await;
    let mut clients = cluster.subscribers("news").await;
    let publishing = (0..3).map(|index| {
        let mut api = cluster.publisher_at(index).api_client();
        tokio::spawn(async move {
            for number in 0..EVENTS {
                let data = format!("{index}/{number}");
                api.trigger(&["news"], "e", &data, None).await.expect("an answer");
            }
        })
    });
    for task in publishing.collect::<Vec<_>>() {
        task.await.expect("all is published");
    }
    let mut orders = Vec::new();
    for client in &mut clients {
        let mut order = Vec::new();
        for _ in 0..3 * EVENTS {
            order.push(client.expect("e").await.data);
        }
        for index in 0..3 {
            let own: Vec<&String> = order.iter().filter(|data| data.starts_with(&format!("{index}/"))).collect();
            let expected: Vec<String> = (0..EVENTS).map(|number| format!("{index}/{number}")).collect();
            assert_eq!(own, expected.iter().collect::<Vec<_>>());
        }
        orders.push(order);
    }
    assert_eq!(orders[0], orders[1], "the order is the same for all");
    cluster.stop().await;
}

#[tokio::test]
async fn cached_events_are_shared_by_all_nodes() {
    let cluster = Cluster::start().publishers(2).await;
    for channel in ["cache-news", "private-cache-news", "private-encrypted-cache-news"] {
        let mut first = cluster.client(0).await;
        first.subscribe(channel).await;
        assert_eq!(first.expect("pusher:cache_miss").await.data, "{}");
        cluster.publisher_at(0).publish(channel, "old", "1").await;
        // The event is cached although it excludes a socket. That socket receives it with its next subscription.
        cluster.publisher_at(1).publish_except(channel, "new", "2", Some(first.socket_id)).await;
        first.expect_event(channel, "old", "1").await;
        for gateway in 0..2 {
            let mut late = cluster.client(gateway).await;
            late.subscribe(channel).await;
            late.expect_event(channel, "new", "2").await;
        }
        first.settle().await;
        for publisher in 0..2 {
            let path = format!("/channels/{channel}?info=cache");
            assert_eq!(cluster.publisher_at(publisher).get(&path).await["cache"]["data"], "2");
        }
    }
    cluster.publish("cache-unheard", "early", "1").await;
    let mut late = cluster.client(1).await;
    late.subscribe("cache-unheard").await;
    late.expect_event("cache-unheard", "early", "1").await;
    let mut room = cluster.client(0).await;
    room.join("presence-cache-room", "1").await;
    room.expect("pusher:cache_miss").await;
    cluster.publish("presence-cache-room", "a", "1").await;
    room.expect("a").await;
    assert_eq!(late.join("presence-cache-room", "2").await, ["1", "2"]);
    late.expect_event("presence-cache-room", "a", "1").await;
    cluster.stop().await;
}

/// An event published during a subscription is received or replayed, and never received again after a newer one.
#[tokio::test]
async fn a_cached_event_is_neither_lost_nor_replayed_out_of_order() {
    const EVENTS: usize = 150;
    let cluster = Cluster::start().await;
    cluster.publish("cache-news", "n", "0").await;
    let mut api = cluster.api_client();
    let publishing = tokio::spawn(async move {
        for number in 1..=EVENTS {
            let reply = api.trigger(&["cache-news"], "n", &number.to_string(), None).await.expect("an answer");
            assert_eq!(reply.status.as_u16(), 200);
        }
    });
    let mut clients = Vec::new();
    while !publishing.is_finished() {
        for gateway in 0..2 {
            let client = cluster.client(gateway).await;
            client.ask("cache-news", None);
            clients.push(client);
        }
    }
    publishing.await.expect("all is published");
    for client in &mut clients {
        client.expect("pusher_internal:subscription_succeeded").await;
        let mut last = None;
        while last != Some(EVENTS) {
            let number: usize = client.expect("n").await.data.parse().expect("a number");
            assert!(last.is_none_or(|last| number == last + 1), "{number} after {last:?}");
            last = Some(number);
        }
        client.settle().await;
    }
    assert!(clients.len() > 4, "clients connected during the publishes: {}", clients.len());
    cluster.stop().await;
}

#[tokio::test]
async fn nothing_of_one_app_is_seen_by_another() {
    const OTHER: &str = "[[apps]]\nid = \"other\"\nkey = \"other-key\"\nsecret = \"other-secret\"\n";
    let cluster = Cluster::start().setup(Setup::default().more(OTHER)).await;
    let other: App = App::with_defaults("other", "other-key", "other-secret");
    let mut ours = cluster.client(0).await;
    let options = client::Options::default();
    let mut theirs = TestClient::connect(&cluster.gateway(1).url, &other, &options).await;
    for client in [&mut ours, &mut theirs] {
        client.subscribe("private-room").await;
        client.sign_in(&json!({ "id": "ana" })).await;
        client.join("presence-room", "ana").await;
    }
    cluster.publish("private-room", "e", "ours").await;
    cluster.publish("#server-to-user-ana", "e", "ours").await;
    ours.whisper("private-room", "client-e", &json!("ours"));
    ours.expect("e").await;
    ours.expect("e").await;
    assert_eq!(cluster.publisher().post("/users/ana/terminate_connections", &json!({})).await.status.as_u16(), 200);
    ours.expect_close(4009).await;
    cluster.users_become("presence-room", &[]).await;
    let mut api = ApiClient::new(cluster.publisher().url.clone(), other);
    let reply = api.trigger(&["private-room"], "marker", "theirs", None).await.expect("an answer");
    assert_eq!(reply.status.as_u16(), 200);
    theirs.expect_event("private-room", "marker", "theirs").await;
    let users = within("a response", api.get("/channels/presence-room/users", &[])).await.expect("an answer");
    assert_eq!(users.body, r#"{"users":[{"id":"ana"}]}"#);
    cluster.stop().await;
}

#[tokio::test]
async fn whole_nodes_with_one_redis_are_one_cluster() {
    let cluster = Cluster::start().of_whole_nodes(2).await;
    let (mut ana, mut bo) = (cluster.client(0).await, cluster.client(1).await);
    assert_eq!(ana.join("presence-room", "ana").await, ["ana"]);
    assert_eq!(bo.join("presence-room", "bo").await, ["ana", "bo"]);
    ana.expect("pusher_internal:member_added").await;
    for node in 0..2 {
        cluster.gateway(node).publish("presence-room", "from", &node.to_string()).await;
        for client in [&mut ana, &mut bo] {
            client.expect_event("presence-room", "from", &node.to_string()).await;
        }
        let users = cluster.gateway(node).get("/channels/presence-room/users").await;
        assert_eq!(users, json!({ "users": [{ "id": "ana" }, { "id": "bo" }] }));
    }
    cluster.stop().await;
}
