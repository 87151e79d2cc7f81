//! The `.env` file of a Laravel application, with the real binary.

use shared::app::App;
use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;
use tests::command::{Finished, run};
use tests::redis::Redis;
use tests::server::{Launch, Role};
use tests::{Server, within};

const KEY: &str = "MWfOjqT8cbGdjnb+QjvKoK1N/0qkOrPqKJ2rW7Z2aLo=";
const SECRET: &str = "pa$word12+/= 'x'";

/// Credentials, among lines that Laravel accepts and lines that it rejects.
const ENV: &str = "\u{feff}APP_NAME=My Shop\nMAIL_FROM_NAME=\"${APP_NAME\nDB_PASSWORD='a # b'\nX=\"a\"b\n\n\
    export REVERB_APP_ID=123456 # the shop\n\
    REVERB_APP_KEY=MWfOjqT8cbGdjnb+QjvKoK1N/0qkOrPqKJ2rW7Z2aLo=\r\n\
    REVERB_APP_SECRET=\"pa$word12+/= 'x'\"\nREVERB_SERVER_HOST=[::1]\nREVERB_SERVER_PATH=ws\n\
    REVERB_APP_PING_INTERVAL=60\nVITE_KEY=\"${REVERB_APP_KEY}\"\n";

fn folder_with(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).expect("a file in it");
    }
    folder
}

async fn print_config(folder: &Path, args: &[&str], variables: &[(&str, &str)]) -> (toml::Table, Finished) {
    let finished = run(folder, &[&["print-config", "--env-file", ".env"], args].concat(), variables).await;
    assert_eq!(finished.code, 0, "{finished:?}");
    (finished.stdout.parse().expect("it is TOML"), finished)
}

#[tokio::test]
async fn an_env_file_with_unreadable_lines_is_accepted() {
    let folder = folder_with(&[(".env", ENV)]);
    let app = App::with_defaults("123456", KEY, SECRET);
    let server = Server::start_with(folder.path(), &["--env-file", ".env"], app).await;
    assert!(server.public.ip().is_loopback() && server.public.is_ipv6(), "{}", server.public);
    assert_eq!(server.prefix, "/ws");
    let (mut sender, mut other) = (server.client().await, server.client().await);
    sender.join("presence-room", "1").await;
    other.join("presence-room", "2").await;
    for count in 0..50 {
        sender.whisper("presence-room", "client-move", &json!({ "x": count }));
    }
    for count in 0..50 {
        other.expect_event("presence-room", "client-move", &json!({ "x": count }).to_string()).await;
    }
    let batch: Vec<Value> =
        (0..30).map(|count| json!({"name": "e", "channel": "presence-room", "data": format!("{count}")})).collect();
    let reply = server.post("/batch_events", &json!({ "batch": batch })).await;
    assert_eq!(reply.status.as_u16(), 200, "{}", reply.body);
    for count in 0..30 {
        other.expect_event("presence-room", "e", &count.to_string()).await;
    }
    let log = server.stop().await;
    for warning in [
        "line 1 of .env is ignored: APP_NAME: expected nothing after the value",
        "line 2 of .env is ignored: MAIL_FROM_NAME: expected a closing quote",
        "line 4 of .env is ignored: X: expected nothing after the value",
        "REVERB_APP_PING_INTERVAL is not used: `server.activity_timeout` sets the time of server pings too",
    ] {
        assert!(log.contains(warning), "{warning:?} is not in {log}");
    }
    assert!(!log.contains("My Shop") && !log.contains("pa$word"), "{log}");
}

#[tokio::test]
async fn member_limits_match_reverb() {
    let folder = folder_with(&[(".env", "REVERB_APP_ID=1\nREVERB_APP_KEY=k\nREVERB_APP_SECRET=s\n")]);
    let app = App::with_defaults("1", "k", "s");
    let args = ["--env-file", ".env", "--host", "127.0.0.1"];
    let server = Server::start_with(folder.path(), &args, app).await;
    let mut members = Vec::new();
    let info = "i".repeat(2_000);
    for number in 1..=120 {
        let mut member = server.client().await;
        member.ask("presence-room", Some(&json!({"user_id": number.to_string(), "user_info": info})));
        let succeeded = member.expect("pusher_internal:subscription_succeeded").await;
        assert_eq!(tests::client::members(&succeeded).len(), number);
        members.push(member);
    }
    server.stop().await;
}

#[tokio::test]
async fn quotes_that_docker_leaves_are_removed() {
    let variables = [("REVERB_APP_ID", "\"1\""), ("REVERB_APP_KEY", "'k 1'"), ("REVERB_APP_SECRET", "\"s\"")];
    let folder = folder_with(&[(".env", "REVERB_APP_KEY=of-the-file\n")]);
    let (config, finished) = print_config(folder.path(), &[], &variables).await;
    assert_eq!((config["apps"][0]["id"].as_str(), config["apps"][0]["key"].as_str()), (Some("1"), Some("k 1")));
    assert_eq!(finished.stderr, "");
}

#[tokio::test]
async fn every_variable_of_reverb_is_applied_or_reported() {
    let env = format!(
        "{ENV}REVERB_SERVER_PORT=6001\nREVERB_APP_MAX_CONNECTIONS=7\nREVERB_APP_MAX_MESSAGE_SIZE=20000\n\
         REVERB_MAX_REQUEST_SIZE=1000000\nREVERB_APP_ACCEPT_CLIENT_EVENTS_FROM=none\nREVERB_APP_ACTIVITY_TIMEOUT=45\n\
         REVERB_SCALING_ENABLED=true\nREDIS_HOST=db.example\nREDIS_PASSWORD=null\nREVERB_SCALING_CHANNEL=shop\n\
         REVERB_TLS_CERT=/x\nREVERB_TYPO=1\n"
    );
    let folder = folder_with(&[(".env", &env)]);
    let (config, finished) = print_config(folder.path(), &[], &[]).await;
    let (server, app) = (&config["server"], &config["apps"][0]);
    assert_eq!((server["host"].as_str(), server["port"].as_integer()), (Some("::1"), Some(6001)));
    assert_eq!((server["path_prefix"].as_str(), server["activity_timeout"].as_str()), (Some("/ws"), Some("45s")));
    assert_eq!((app["key"].as_str(), app["client_events"].as_bool()), (Some(KEY), Some(false)));
    let limits = &app["limits"];
    assert_eq!((limits["connections"].as_integer(), limits["presence_members"].as_integer()), (Some(7), Some(10_000)));
    assert_eq!((limits["message_bytes"].as_str(), limits["event_bytes"].as_str()), (Some("20000B"), Some("1000000B")));
    let redis = &config["redis"];
    assert_eq!((redis["url"].as_str(), redis["prefix"].as_str()), (Some("redis://db.example:6379/0"), Some("shop")));
    let named = |name: &str| finished.stderr.lines().filter(|line| line.contains(name)).count();
    assert_eq!([named("REVERB_TLS_CERT"), named("REVERB_TYPO"), named("REVERB_APP_PING_INTERVAL")], [1, 1, 1]);
    assert_eq!(finished.stderr.lines().count(), 6, "three variables and three broken lines: {}", finished.stderr);

    let again = folder_with(&[("again.toml", &finished.stdout)]);
    let finished = run(again.path(), &["check-config", "--config", "again.toml"], &[]).await;
    assert_eq!(finished.code, 0, "the printed configuration can be parsed: {finished:?}");
}

#[tokio::test]
async fn settings_without_a_variable_come_from_other_sources() {
    let toml = "[[apps]]\nallowed_origins = [\"shop.example\"]\n[apps.limits]\nbatch = 7\n";
    let folder = folder_with(&[(".env", ENV), ("carillon.toml", toml)]);
    let variables = [("CARILLON_APPS__0__LIMITS__CONNECTIONS", "5"), ("CARILLON_APPS__0__SUBSCRIPTION_COUNT", "true")];
    let (config, _) = print_config(folder.path(), &["--config", "carillon.toml"], &variables).await;
    let app = &config["apps"][0];
    assert_eq!((app["id"].as_str(), app["key"].as_str()), (Some("123456"), Some(KEY)));
    assert_eq!(app["allowed_origins"][0].as_str(), Some("shop.example"));
    let limits = &app["limits"];
    assert_eq!((limits["batch"].as_integer(), limits["connections"].as_integer()), (Some(7), Some(5)));
    assert_eq!(app["subscription_count"].as_bool(), Some(true));
    let finished = run(folder.path(), &["check-config", "--config", "carillon.toml"], &[]).await;
    assert_eq!(finished.code, 2);
    assert!(finished.stderr.contains("apps.0.id: expected a value, here or in REVERB_APP_ID"), "{}", finished.stderr);
}

#[tokio::test]
async fn a_mistake_is_reported_with_its_variable_and_line() {
    for (env, variables, expected) in [
        ("REVERB_APP_KEY=a?b", &[][..], "apps.0.key: expected a key that a URL path can contain"),
        ("REVERB_APP_KEY=a?b", &[], "(from REVERB_APP_KEY in the file of --env-file)"),
        ("", &[("REVERB_APP_KEY", "a#b")], "(from REVERB_APP_KEY in the environment)"),
        ("REVERB_APP_KEY=two words", &[], "REVERB_APP_KEY: expected nothing after the value"),
        ("REVERB_APP_KEY=two words", &[], "(from line 3 of .env)"),
        ("REVERB_APP_KEY=k\nREVERB_SERVER_PORT=x", &[], "REVERB_SERVER_PORT: expected a port, not \"x\""),
    ] {
        let folder = folder_with(&[(".env", &format!("REVERB_APP_ID=1\nREVERB_APP_SECRET=s\n{env}\n"))]);
        let finished = run(folder.path(), &["check-config", "--env-file", ".env"], variables).await;
        assert_eq!(finished.code, 2, "{env}: {finished:?}");
        assert!(finished.stderr.contains(expected), "{expected:?} is not in {}", finished.stderr);
    }
}

#[tokio::test]
async fn a_service_of_kubernetes_does_not_stop_the_start() {
    let folder = folder_with(&[]);
    let service = [
        ("CARILLON_PORT", "tcp://10.0.0.1:8080"),
        ("CARILLON_SERVICE_HOST", "10.0.0.1"),
        ("CARILLON_SERVICE_PORT", "8080"),
        ("CARILLON_SERVICE_PORT_HTTP", "8080"),
        ("CARILLON_PORT_8080_TCP", "tcp://10.0.0.1:8080"),
        ("CARILLON_PORT_8080_TCP_PROTO", "tcp"),
        ("CARILLON_PORT_8080_TCP_PORT", "8080"),
        ("CARILLON_PORT_8080_TCP_ADDR", "10.0.0.1"),
        ("CARILLON_GATEWAY_SERVICE_HOST", "10.0.0.2"),
        ("CARILLON_GATEWAY_PORT", "tcp://10.0.0.2:8080"),
    ];
    let finished = run(folder.path(), &["check-config"], &service).await;
    assert_eq!((finished.code, finished.stderr.as_str()), (0, ""), "{finished:?}");
    for typo in [("CARILLON_PORT", "9000"), ("CARILLON_SERVER_PORT", "9000"), ("CARILLON_SERVER__PROT", "9000")] {
        let finished = run(folder.path(), &["check-config"], &[typo]).await;
        assert_eq!(finished.code, 2, "{typo:?}: {finished:?}");
    }
}

#[tokio::test]
async fn a_host_can_be_an_ipv6_address_in_brackets() {
    let folder = folder_with(&[]);
    let app = App::with_defaults("app-id", "app-key", "app-secret");
    let server = Server::start_with(folder.path(), &["--host", "[::1]"], app).await;
    assert!(server.public.is_ipv6(), "{}", server.public);
    server.client().await.subscribe("room").await;
    server.stop().await;
}

#[tokio::test]
async fn two_nodes_with_the_scaling_settings_of_reverb_share_events() {
    let redis = Redis::start().await;
    let url = redis.url();
    let env = format!("{ENV}REVERB_SCALING_ENABLED=true\nREDIS_URL={url}\n");
    let folder = folder_with(&[(".env", &env)]);
    let start = || {
        let app = App::with_defaults("123456", KEY, SECRET);
        let launch = Launch { folder: Some(folder.path().to_owned()), app, ..Launch::new(Role::Up) };
        launch.args(&["--env-file", ".env"]).start()
    };
    let (first, second) = tokio::join!(start(), start());
    first.ready().await;
    second.ready().await;
    let mut client = first.client().await;
    client.join("presence-room", "1").await;
    second.publish("presence-room", "hello", "1").await;
    client.expect_event("presence-room", "hello", "1").await;
    assert_eq!(within("members", second.client()).await.join("presence-room", "2").await, ["1", "2"]);
    first.stop().await;
    second.stop().await;
}
