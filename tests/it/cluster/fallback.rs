//! Sessions of the HTTP transports whose requests reach different nodes. Source: protocol reference 6.7.

use std::time::{Duration, Instant};

use serde_json::json;
use shared::auth::sign_user;
use tests::fallback::{HttpSession, Line, TRANSPORTS, Transport, close_code, messages, until_over};
use tests::{Cluster, HttpClient, PATIENCE, Raw, Server, Setup, eventually, eventually_within, within};
use tokio::task::JoinSet;

const FORWARDED: &str = "carillon_fallback_forwarded_total{result=\"answered\"}";

/// Publishes events of some kilobytes on the channel of the client and receives them from it.
async fn exchange(cluster: &Cluster, client: &mut HttpClient, events: usize) {
    let channel = client.socket_id.to_string();
    client.subscribe(&channel).await;
    let data = |number: usize| format!("{number} {}", "\u{e9}".repeat(2_000));
    let publish = async {
        for number in 0..events {
            cluster.publish(&channel, "e", &data(number)).await;
        }
    };
    let receive = async {
        for number in 0..events {
            client.expect_event(&channel, "e", &data(number)).await;
        }
    };
    within("all events", async { tokio::join!(Box::pin(publish), Box::pin(receive)) }).await;
}

/// Returns the peer address of the node that has the session.
async fn holder(cluster: &Cluster, session: &HttpSession) -> Option<String> {
    let holder: Option<String> = cluster.redis.run(&format!("GET carillon:{{0}}:hs:{}", session.name())).await;
    holder.map(|holder| holder.split_once('@').expect("an id and an address").1.to_owned())
}

#[tokio::test]
async fn every_node_accepts_requests_of_a_session() {
    let cluster = Cluster::start().await;
    let (first, second) = (cluster.gateway(0), cluster.gateway(1));
    for transport in TRANSPORTS {
        for session in [
            HttpSession::over(&[first], &[second]),
            HttpSession::over(&[first, second], &[second, first]),
            HttpSession::over(&[first, second, second], &[second]),
        ] {
            let before = second.metric(FORWARDED).await;
            let mut client = HttpClient::with(session, transport).await;
            client.join("presence-room", "ana").await;
            exchange(&cluster, &mut client, 200).await;
            client.settle().await;
            assert!(second.metric(FORWARDED).await > before, "the second gateway forwarded requests");
            assert_eq!(second.metric("carillon_connections_opened_total").await, 0.0);
        }
    }
    let all_released = async || cluster.redis.keys("carillon:*:hs:*").await.is_empty();
    eventually("the sessions are released", all_released).await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_forwarded_stream_delivers_at_once_and_its_end_is_detected() {
    let cluster = Cluster::start().await;
    let (first, second) = (cluster.gateway(0), cluster.gateway(1));
    let session = HttpSession::over(&[first, second], &[first]);
    session.open_poll().await;
    let mut stream = session.receive(Transport::Stream).await;
    session.ask("news").await;
    stream.expect("pusher_internal:subscription_succeeded").await;
    for number in 0..300 {
        cluster.publish("news", "e", &number.to_string()).await;
        assert_eq!(stream.message().await["data"], number.to_string());
    }
    // A later request on another node ends it, like on the same node.
    let later = session.receive(Transport::Stream).await;
    assert_eq!(stream.line().await, None);
    drop(later);
    first.metric_reaches("carillon_connections", 0.0).await;
    let mut stream = session.at(second).receive(Transport::Stream).await;
    assert_eq!(stream.line().await, Some(Line::Open), "the session is lost and another one starts");
    second.metric_reaches("carillon_connections", 1.0).await;
    drop(stream);
    second.metric_reaches("carillon_connections", 0.0).await;
    cluster.stop().await;
}

#[tokio::test]
async fn every_node_answers_messages_for_an_unknown_session_with_404() {
    let cluster = Cluster::start().await;
    let session = HttpSession::new(cluster.gateway(0));
    for gateway in cluster.gateways() {
        assert_eq!(session.at(gateway).send_body(b"[]").await.status, 404);
    }
    session.open_poll().await;
    for gateway in cluster.gateways() {
        let session = session.at(gateway);
        assert_eq!(session.send_body(b"[]").await.status, 204);
        assert_eq!(session.send_body(b"{").await.status, 400);
        assert_eq!(session.send_body(&vec![b' '; 256 * 1024 + 1]).await.status, 413);
        let reply = session.send_body(b"[]").await;
        assert_eq!((reply.status, reply.header("access-control-allow-origin")), (204, Some("*")));
    }
    cluster.stop().await;
}

#[tokio::test]
async fn a_session_of_a_killed_node_starts_again_on_another_node() {
    let mut cluster = Cluster::start().await;
    let (first, second) = (cluster.gateway(0), cluster.gateway(1));
    let idle = HttpSession::over(&[first, second], &[second]);
    idle.open_poll().await;
    let waiting = HttpSession::over(&[first, second], &[second]);
    waiting.open_poll().await;
    let mut raw = Raw::connect(second.public).await;
    raw.send(waiting.request(Transport::Poll).as_bytes()).await;
    // The forwarded request is in progress when the other node exits, or finds it stopped.
    cluster.kill_gateway(0).await;
    let lines = tests::fallback::Response::of(raw).await.rest().await;
    assert_eq!(lines.first(), Some(&Line::Open), "{lines:?}");
    let lines = idle.poll().await;
    assert_eq!(lines.first(), Some(&Line::Open), "{lines:?}");
    for session in [idle, waiting] {
        let session = session.at(cluster.gateway(1));
        session.ask("news").await;
        assert_eq!(messages(&session.poll().await)[0]["event"], "pusher_internal:subscription_succeeded");
        cluster.publish("news", "e", "1").await;
        assert_eq!(messages(&session.poll().await)[0]["data"], "1");
    }
    cluster.stop().await;
}

#[tokio::test]
async fn a_forwarded_stream_of_a_killed_node_receives_the_loss_of_its_session() {
    let mut cluster = Cluster::start().await;
    let session = HttpSession::over(&[cluster.gateway(0)], &[cluster.gateway(0)]);
    session.open_poll().await;
    let mut stream = session.at(cluster.gateway(1)).receive(Transport::Stream).await;
    session.ping().await;
    assert_eq!(stream.line().await, Some(Line::Messages(Vec::new())));
    cluster.kill_gateway(0).await;
    assert_eq!(stream.rest().await, [Line::Open]);
    cluster.stop().await;
}

#[tokio::test]
async fn a_drain_closes_sessions_through_other_nodes() {
    let mut cluster = Cluster::start().await;
    let (first, second) = (cluster.gateway(0), cluster.gateway(1));
    let mut clients = Vec::new();
    for transport in TRANSPORTS {
        let session = HttpSession::over(&[first], &[second]);
        session.open_poll().await;
        // From here on the requests are forwarded by the other node.
        clients.push((transport, session.at(second)));
    }
    let mut responses = Vec::new();
    for (transport, session) in &clients {
        let mut raw = Raw::connect(second.public).await;
        raw.send(session.request(*transport).as_bytes()).await;
        responses.push(raw);
        session.ask("news").await;
    }
    let mut stream = tests::fallback::Response::of(responses.remove(0)).await;
    stream.expect("pusher_internal:subscription_succeeded").await;
    let poll = tests::fallback::Response::of(responses.remove(0)).await.rest().await;
    assert_eq!(messages(&poll)[0]["event"], "pusher_internal:subscription_succeeded");
    let mut raw = Raw::connect(second.public).await;
    raw.send(clients[1].1.request(Transport::Poll).as_bytes()).await;
    let asked = async || cluster.gateway(1).metric("carillon_fallback_requests_total{kind=\"receive\"}").await == 3.0;
    eventually("the poll has arrived", asked).await;
    // After this response of the same node, all earlier forwarded requests were handled.
    clients[1].1.ping().await;
    assert_eq!(tests::fallback::Response::of(raw).await.rest().await, [Line::Messages(Vec::new())]);
    let mut raw = Raw::connect(cluster.gateway(1).public).await;
    raw.send(clients[1].1.request(Transport::Poll).as_bytes()).await;
    cluster.stop_gateway(0).await;
    assert_eq!(close_code(&stream.rest().await), 4200);
    let lines = tests::fallback::Response::of(raw).await.rest().await;
    // A poll that missed the end opens a new session on its node.
    assert!(matches!(lines.first(), Some(Line::Open)) || close_code(&lines) == 4200, "{lines:?}");
    cluster.stop().await;
}

#[tokio::test]
async fn a_polled_session_survives_the_drain_of_a_forwarding_node() {
    let mut cluster = Cluster::start().await;
    let session = HttpSession::over(&[cluster.gateway(0)], &[cluster.gateway(0)]);
    session.open_poll().await;
    session.ask("news").await;
    assert_eq!(messages(&session.poll().await)[0]["event"], "pusher_internal:subscription_succeeded");
    let mut raw = Raw::connect(cluster.gateway(1).public).await;
    raw.send(session.request(Transport::Poll).as_bytes()).await;
    let poll = tests::fallback::Response::of(raw);
    let (_, lines) = tokio::join!(cluster.stop_gateway(1), async { poll.await.rest().await });
    assert_eq!(lines, [Line::Heartbeat]);
    cluster.publish("news", "e", "2").await;
    assert_eq!(messages(&session.poll().await)[0]["data"], "2", "the other node still has the session");
    cluster.stop().await;
}

#[tokio::test]
async fn streams_forwarded_by_a_draining_node_end_over_its_window() {
    const STREAMS: usize = 30;
    let mut cluster = Cluster::start().setup(Setup::default().drain("window = \"4s\"")).await;
    let mut streams = Vec::new();
    for _ in 0..STREAMS {
        let session = HttpSession::over(&[cluster.gateway(0)], &[cluster.gateway(0)]);
        session.open_poll().await;
        let mut stream = session.at(cluster.gateway(1)).receive(Transport::Stream).await;
        session.ping().await;
        assert_eq!(stream.line().await, Some(Line::Messages(Vec::new())));
        streams.push(stream);
    }
    let mut ends = JoinSet::new();
    for stream in streams {
        ends.spawn(async { (until_over(stream).await, Instant::now()) });
    }
    let (_, ends) = tokio::join!(cluster.stop_gateway(1), ends.join_all());
    for (lines, _) in &ends {
        assert_eq!(close_code(lines), 4200);
    }
    // The session names were released, and did not expire.
    let gateway = cluster.gateway(0);
    gateway.metric_reaches("carillon_connections_closed_total{code=\"4200\"}", STREAMS as f64).await;
    gateway.metric_reaches("carillon_connections", 0.0).await;
    let (first, last) = (ends.iter().map(|end| end.1).min(), ends.iter().map(|end| end.1).max());
    assert!(last.zip(first).is_some_and(|(last, first)| last - first > Duration::from_secs(1)), "not all at once");
    cluster.stop().await;
}

#[tokio::test]
async fn every_node_delivers_the_end_of_a_session() {
    let cluster = Cluster::start().await;
    let (first, second) = (cluster.gateway(0), cluster.gateway(1));
    let session = HttpSession::over(&[first, second], &[second]);
    let established = session.open_poll().await;
    let data: serde_json::Value =
        serde_json::from_str(established["data"].as_str().expect("a string")).expect("data is JSON");
    let socket_id = data["socket_id"].as_str().and_then(|id| id.parse().ok()).expect("a socket id");
    let user_data = json!({ "id": "ana" }).to_string();
    let auth = sign_user(&first.app, socket_id, &user_data);
    session.send_event("pusher:signin", &json!({ "auth": auth, "user_data": user_data })).await;
    assert_eq!(messages(&session.poll().await)[0]["event"], "pusher:signin_success");
    let reply = cluster.publisher().post("/users/ana/terminate_connections", &json!({})).await;
    assert_eq!(reply.status.as_u16(), 200);
    first.metric_reaches("carillon_connections_closed_total{code=\"4009\"}", 1.0).await;
    let session = session.at(second);
    assert_eq!(session.send_body(b"[]").await.status, 404);
    assert_eq!(close_code(&session.poll().await), 4009);
    session.open_poll().await;
    assert_eq!(
        second.metric("carillon_connections_opened_total").await,
        1.0,
        "the name was free and this node opened the session"
    );
    cluster.stop().await;
}

#[tokio::test]
async fn without_redis_sessions_work_on_the_node_that_opened_them() {
    let mut cluster = Cluster::start().await;
    cluster.redis.kill().await;
    let mut clients = Vec::new();
    for transport in TRANSPORTS {
        let mut client = HttpClient::connect(cluster.gateway(0), transport).await;
        client.settle().await;
        let elsewhere = client.session.at(cluster.gateway(1));
        assert_eq!(elsewhere.send_body(b"[]").await.status, 404);
        clients.push(client);
    }
    cluster.redis.start_again().await;
    for client in &mut clients {
        let known = async || holder(&cluster, &client.session).await.is_some();
        eventually_within(PATIENCE, "the session is registered again", known).await;
        let elsewhere = client.session.at(cluster.gateway(1));
        elsewhere.send_event("pusher:ping", &json!({})).await;
        client.expect("pusher:pong").await;
    }
    drop(clients);
    cluster.stop().await;
}

#[tokio::test]
async fn requests_with_unknown_app_keys_do_not_query_redis() {
    const ASKED: &str = "carillon_redis_command_seconds_count{command=\"hold_sessions\"}";
    let cluster = Cluster::start().await;
    let gateway = cluster.gateway(0);
    let before = gateway.metric(ASKED).await;
    for _ in 0..10 {
        let mut session = HttpSession::new(gateway);
        session.path = session.path.replace("shop-key", "unknown");
        let lines = session.poll().await;
        assert_eq!(close_code(&lines[1..]), 4001);
        assert_eq!(session.send_body(b"[]").await.status, 404);
    }
    assert_eq!(gateway.metric(ASKED).await, before);
    HttpSession::new(gateway).open_poll().await;
    assert_eq!(gateway.metric(ASKED).await, before + 1.0, "the metric counts forwarded requests");
    cluster.stop().await;
}

/// Returns the status of a request to the listener for peers.
async fn request_as_node(address: &str, method: &str, path: &str, proof: Option<&str>) -> u16 {
    let proof = proof.map(|proof| format!("X-Carillon-Passed-On: {proof}\r\n")).unwrap_or_default();
    let mut raw = Raw::connect(address.parse().expect("an address")).await;
    let request =
        format!("{method} {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{proof}Content-Length: 2\r\n\r\n{BODY}");
    raw.exchange(request.as_bytes()).await.status
}

/// Returns the request that `request_as_node` sends.
const BODY: &str = "[]";

fn proof(server: &Server, path: &str, body: &str, at_s: u64) -> String {
    let at = at_s.to_string();
    let parts: [&[u8]; 6] = [b"passed-on\n", at.as_bytes(), b"\n", path.as_bytes(), b"\n", body.as_bytes()];
    let signature = server.app.secret.sign(&parts);
    format!("{at}.{}", signature.to_hex())
}

#[tokio::test]
async fn the_peer_endpoint_rejects_clients() {
    let cluster = Cluster::start().await;
    let gateway = cluster.gateway(0);
    let mut client = HttpClient::connect(gateway, Transport::Stream).await;
    client.subscribe("news").await;
    let address = holder(&cluster, &client.session).await.expect("the directory has the session");
    let now_s = shared::cluster::envelope::unix_us() / 1_000_000;
    for verb in ["xhr", "xhr_streaming", "xhr_send"] {
        let path = format!("{}/{verb}", client.session.path);
        let other = format!("{path}?n=1");
        for forged in [
            None,
            Some(String::new()),
            Some("1".into()),
            Some(format!("{now_s}.{}", "0".repeat(64))),
            Some(proof(gateway, &other, BODY, now_s)),
            Some(proof(gateway, &path, "[\"\"]", now_s)),
            Some(proof(gateway, &path, BODY, now_s - 120)),
            Some(proof(gateway, &path, BODY, now_s + 120)),
        ] {
            assert_eq!(request_as_node(&address, "POST", &path, forged.as_deref()).await, 403, "{forged:?}");
        }
        assert_eq!(request_as_node(&address, "GET", &path, Some(&proof(gateway, &path, BODY, now_s))).await, 403);
    }
    for path in ["/", "/up", "/metrics", "/apps/shop/events", "/app/shop-key", "/pusher/app/unknown/1/a/xhr"] {
        assert_eq!(request_as_node(&address, "POST", path, None).await, 404, "{path}");
    }
    let path = format!("{}/xhr_send", client.session.path);
    assert_eq!(request_as_node(&address, "POST", &path, Some(&proof(gateway, &path, BODY, now_s))).await, 204);
    client.settle().await;
    drop(client);
    cluster.stop().await;
}

#[tokio::test]
async fn a_node_advertises_the_configured_address() {
    let port = tests::ports::free();
    let setup = Setup::default()
        .more(&format!("[peers]\nhost = \"127.0.0.1\"\nport = {port}\nadvertise = \"localhost:{port}\""));
    let cluster = Cluster::start().gateways(1).setup(setup).await;
    let session = HttpSession::new(cluster.gateway(0));
    session.open_poll().await;
    assert_eq!(holder(&cluster, &session).await, Some(format!("localhost:{port}")));
    cluster.stop().await;
}
