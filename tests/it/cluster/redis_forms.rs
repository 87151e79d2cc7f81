//! The ways to reach a Redis, and the separation of clusters that share one.

use tests::redis::{Access, PASSWORD, USER};
use tests::server::{Launch, Role};
use tests::{Cluster, Redis, Server, Setup};

/// An app with webhooks.
const WEBHOOK: &str = "[[apps.webhooks]]\nurl = \"http://127.0.0.1:9/hooks\"";

/// Starts a gateway and a publisher with these arguments. An event for a client shows that they share the Redis.
async fn start_both(setup: &Setup, url: &str) -> [Server; 2] {
    let mut servers = Vec::new();
    for role in [Role::Gateway, Role::Publisher] {
        let server = Launch::new(role).setup(setup).args(&["--redis", url]).start().await;
        server.ready().await;
        servers.push(server);
    }
    let servers: [Server; 2] = servers.try_into().unwrap_or_else(|_| unreachable!("two were started"));
    let [gateway, publisher] = &servers;
    let mut client = gateway.client().await;
    client.subscribe("news").await;
    assert_eq!(client.join("presence-room", "ana").await, ["ana"]);
    publisher.publish("news", "hello", "1").await;
    client.expect_event("news", "hello", "1").await;
    assert_eq!(publisher.get("/channels/presence-room/users").await["users"][0]["id"], "ana");
    servers
}

async fn stop(servers: [Server; 2]) -> String {
    let mut logs = String::new();
    for server in servers {
        logs += &server.banner.clone();
        logs += &server.stop().await;
    }
    logs
}

#[tokio::test]
async fn a_unix_socket() {
    let redis = Redis::start().await;
    stop(start_both(&Setup::default(), &redis.socket_url()).await).await;
}

#[tokio::test]
async fn a_database_by_its_number() {
    let redis = Redis::start().await;
    let servers = start_both(&Setup::default(), &format!("{}/5", redis.url())).await;
    assert_eq!(redis.keys("*").await, [""; 0], "nothing is in the first database");
    assert!(redis.run::<String>("INFO keyspace").await.contains("db5:keys="));
    stop(servers).await;
}

#[tokio::test]
async fn a_user_and_a_password_that_is_never_printed() {
    let cluster = Cluster::start().access(Access::Password).setup(Setup::default().flag("--debug")).await;
    let mut clients = cluster.subscribers("news").await;
    cluster.publish("news", "hello", "1").await;
    for client in &mut clients {
        client.expect_event("news", "hello", "1").await;
    }
    for server in cluster.servers() {
        let redis = server.banner.lines().find(|line| line.trim_start().starts_with("redis"));
        assert!(redis.is_some_and(|line| line.contains(&cluster.redis.port.to_string())), "{}", server.banner);
        assert!(!server.banner.contains(PASSWORD), "{}", server.banner);
    }
    for log in cluster.stop().await {
        assert!(!log.contains(PASSWORD), "{log}");
    }
}

#[tokio::test]
async fn a_wrong_password_is_reported_and_never_printed() {
    let redis = Redis::with(Access::Password).await;
    let url = format!("redis://{USER}:wrong-{PASSWORD}@127.0.0.1:{}", redis.port);
    for role in [Role::Gateway, Role::Publisher] {
        let server = Launch::new(role).setup(&Setup::default()).args(&["--redis", &url]).start().await;
        tests::eventually("the message is in the log", async || server.log().contains("WRONGPASS")).await;
        assert_eq!(server.readiness().await.0, 503);
        assert_eq!(server.admin_get("/livez").await.status, 200);
        assert!(!server.banner.contains(PASSWORD), "{}", server.banner);
        let log = server.stop().await;
        assert!(!log.contains(PASSWORD), "{log}");
    }
}

#[tokio::test]
async fn tls_with_a_private_certificate_authority() {
    let cluster = Cluster::start().access(Access::Tls).await;
    let mut clients = cluster.subscribers("news").await;
    cluster.publish("news", "hello", "1").await;
    for client in &mut clients {
        client.expect_event("news", "hello", "1").await;
    }
    let (mut ana, mut bo) = (cluster.client(0).await, cluster.client(1).await);
    ana.join("presence-room", "ana").await;
    assert_eq!(bo.join("presence-room", "bo").await, ["ana", "bo"]);
    cluster.stop().await;
}

#[tokio::test]
async fn a_redis_that_requires_client_certificates() {
    let cluster = Cluster::start().access(Access::MutualTls).setup(Setup::default().more(WEBHOOK)).await;
    let mut clients = cluster.subscribers("news").await;
    cluster.publish("news", "hello", "1").await;
    for client in &mut clients {
        client.expect_event("news", "hello", "1").await;
    }
    let (mut ana, mut bo) = (cluster.client(0).await, cluster.client(1).await);
    ana.join("presence-room", "ana").await;
    assert_eq!(bo.join("presence-room", "bo").await, ["ana", "bo"]);
    let folder = tempfile::tempdir().expect("a folder");
    let redis = &cluster.redis;
    let config = |lines: &str| Setup::default().more(WEBHOOK).redis(lines).toml();
    std::fs::write(folder.path().join("carillon.toml"), config(&redis.tls_lines())).expect("a file");
    let ca_only = format!("ca_file = {:?}", redis.ca_file());
    std::fs::write(folder.path().join("without.toml"), config(&ca_only)).expect("a file");
    let url = redis.url();
    let run = async |file: &str, command: &[&str]| {
        let args = [command, &["--config", file, "--redis", &url]].concat();
        tests::command::run(folder.path(), &args, &[]).await
    };
    for command in [["doctor"].as_slice(), &["webhooks", "list"]] {
        let finished = run("carillon.toml", command).await;
        assert_eq!(finished.code, 0, "{finished:?}");
        let finished = run("without.toml", command).await;
        assert_eq!(finished.code, 1, "{finished:?}");
        assert!(!format!("{finished:?}").contains(PASSWORD), "{finished:?}");
    }
    cluster.stop().await;
}

#[tokio::test]
async fn tls_with_an_unknown_authority_is_refused() {
    let redis = Redis::with(Access::Tls).await;
    let server = Launch::new(Role::Gateway).setup(&Setup::default()).args(&["--redis", &redis.url()]).start().await;
    tests::eventually("the message is in the log", async || server.log().contains("redis is unreachable")).await;
    assert_eq!(server.readiness().await.0, 503);
    server.stop().await;
}

#[tokio::test]
async fn two_clusters_with_different_prefixes_can_share_a_redis() {
    let redis = Redis::start().await;
    let setup = |prefix: &str| Setup::default().redis(&format!("prefix = {prefix:?}"));
    // The members of both channels have the same names. Each cluster must see only its own.
    let one = start_both(&setup("one"), &redis.url()).await;
    let two = start_both(&setup("two"), &redis.url()).await;
    let mut clients = Vec::new();
    for [gateway, _] in [&one, &two] {
        let mut client = gateway.client().await;
        client.subscribe("shared").await;
        clients.push(client);
    }
    for (name, [_, publisher]) in [("one", &one), ("two", &two)] {
        publisher.publish("shared", "from", name).await;
    }
    clients[0].expect_event("shared", "from", "one").await;
    clients[1].expect_event("shared", "from", "two").await;
    for client in &mut clients {
        client.settle().await;
    }
    let strays: Vec<String> = redis.keys("*").await;
    assert!(strays.iter().all(|key| key.starts_with("one:") || key.starts_with("two:")), "{strays:?}");
    stop(one).await;
    stop(two).await;
}

#[tokio::test]
async fn the_number_of_partitions_changes_only_keys() {
    let redis = Redis::start().await;
    let servers = start_both(&Setup::default().redis("partitions = 64"), &redis.url()).await;
    let mut client = servers[0].client().await;
    let names: Vec<String> = (0..20).map(|number| format!("news-{number:02}")).collect();
    for name in &names {
        client.subscribe(name).await;
    }
    let channels = servers[1].get("/channels?filter_by_prefix=news-").await;
    let listed: Vec<&String> = channels["channels"].as_object().expect("an object").keys().collect();
    assert_eq!(listed, names.iter().collect::<Vec<_>>());
    let mut api = servers[1].api_client();
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    api.trigger(&all, "hello", "1", None).await.expect("an answer");
    for name in &names {
        client.expect_event(name, "hello", "1").await;
    }
    assert!(redis.keys("carillon:{*}:ch:shop").await.len() > 5, "channels are spread");
    stop(servers).await;
}
