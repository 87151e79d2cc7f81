//! The ways in which Redis can be reached, and what keeps clusters on one Redis apart.

use tests::redis::{Access, PASSWORD, USER};
use tests::server::{Launch, Role};
use tests::{Cluster, Redis, Server, Setup};

/// An app that webhooks are kept for.
const WEBHOOK: &str = "[[apps.webhooks]]\nurl = \"http://127.0.0.1:9/hooks\"";

/// A gateway and a publisher with these arguments, and a client and an event that show that they meet.
async fn meet(setup: &Setup, url: &str) -> [Server; 2] {
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
    stop(meet(&Setup::default(), &redis.socket_url()).await).await;
}

#[tokio::test]
async fn a_database_by_its_number() {
    let redis = Redis::start().await;
    let servers = meet(&Setup::default(), &format!("{}/5", redis.url())).await;
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
async fn a_wrong_password_is_said_and_never_printed() {
    let redis = Redis::with(Access::Password).await;
    let url = format!("redis://{USER}:wrong-{PASSWORD}@127.0.0.1:{}", redis.port);
    for role in [Role::Gateway, Role::Publisher] {
        let server = Launch::new(role).setup(&Setup::default()).args(&["--redis", &url]).start().await;
        tests::eventually("the log says so", async || server.log().contains("WRONGPASS")).await;
        assert_eq!(server.readiness().await.0, 503);
        assert_eq!(server.admin_get("/livez").await.status, 200);
        assert!(!server.banner.contains(PASSWORD), "{}", server.banner);
        let log = server.stop().await;
        assert!(!log.contains(PASSWORD), "{log}");
    }
}

#[tokio::test]
async fn tls_with_an_authority_of_ones_own() {
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
async fn a_redis_that_asks_for_client_certificates() {
    let cluster = Cluster::start().access(Access::MutualTls).setup(Setup::default().more(WEBHOOK)).await;
    let mut clients = cluster.subscribers("news").await;
    cluster.publish("news", "hello", "1").await;
    for client in &mut clients {
        client.expect_event("news", "hello", "1").await;
    }
    let (mut ana, mut bo) = (cluster.client(0).await, cluster.client(1).await);
    ana.join("presence-room", "ana").await;
    assert_eq!(bo.join("presence-room", "bo").await, ["ana", "bo"]);
    let place = tempfile::tempdir().expect("a folder");
    let redis = &cluster.redis;
    let config = |lines: &str| Setup::default().more(WEBHOOK).redis(lines).toml();
    std::fs::write(place.path().join("carillon.toml"), config(&redis.tls_lines())).expect("a file");
    let ca_only = format!("ca_file = {:?}", redis.ca_file());
    std::fs::write(place.path().join("without.toml"), config(&ca_only)).expect("a file");
    let url = redis.url();
    let run = async |file: &str, command: &[&str]| {
        let args = [command, &["--config", file, "--redis", &url]].concat();
        tests::command::run(place.path(), &args, &[]).await
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
async fn tls_whose_authority_is_not_known_is_not_talked_to() {
    let redis = Redis::with(Access::Tls).await;
    let server = Launch::new(Role::Gateway).setup(&Setup::default()).args(&["--redis", &redis.url()]).start().await;
    tests::eventually("the log says so", async || server.log().contains("redis does not answer")).await;
    assert_eq!(server.readiness().await.0, 503);
    server.stop().await;
}

#[tokio::test]
async fn two_clusters_with_prefixes_of_their_own_share_a_redis_and_nothing_else() {
    let redis = Redis::start().await;
    let setup = |prefix: &str| Setup::default().redis(&format!("prefix = {prefix:?}"));
    // The members of both channels are called the same; each cluster must find itself alone.
    let one = meet(&setup("one"), &redis.url()).await;
    let two = meet(&setup("two"), &redis.url()).await;
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
async fn partitions_change_keys_and_nothing_else() {
    let redis = Redis::start().await;
    let servers = meet(&Setup::default().redis("partitions = 64"), &redis.url()).await;
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
