//! What an operator runs beside a server: `healthcheck` and `doctor`.

use tests::command::run;
use tests::setup::APP_KEY;
use tests::{Server, Setup};

#[tokio::test]
async fn a_healthcheck_needs_nothing_but_the_binary() {
    let server = Server::plain().await;
    let place = tempfile::tempdir().expect("a folder");
    let port = server.admin.port().to_string();
    for args in [["healthcheck", "--admin-port", &port].as_slice(), &["healthcheck", "--live", "--admin-port", &port]] {
        let finished = run(place.path(), args, &[]).await;
        assert_eq!((finished.code, finished.stdout.as_str()), (0, "ok\n"), "{finished:?}");
    }
    server.stop().await;
    let finished = run(place.path(), &["healthcheck", "--admin-port", &port], &[]).await;
    assert_eq!(finished.code, 1);
    assert!(finished.stderr.contains("cannot reach"), "{finished:?}");
}

#[tokio::test]
async fn doctor_looks_at_everything_and_says_what_is_wrong() {
    let redis = tests::Redis::start().await;
    let place = tempfile::tempdir().expect("a folder");
    std::fs::write(place.path().join("carillon.toml"), Setup::default().toml()).expect("the file can be written");
    let url = redis.url();
    let doctor = async |more: &[&str]| {
        let mut args = vec!["doctor", "--config", "carillon.toml"];
        args.extend(more);
        run(place.path(), &args, &[]).await
    };
    let finished = doctor(&["--redis", &url, "--role", "gateway"]).await;
    assert_eq!(finished.code, 0, "{finished:?}");
    let subjects = ["configuration", "descriptors", "redis latency", "redis version", "redis role", "redis eviction"];
    for subject in subjects.into_iter().chain(["redis buffers", "redis rights", "clock"]) {
        assert!(finished.stdout.contains(&format!("ok       {subject}")), "{subject}: {}", finished.stdout);
    }
    assert_eq!(redis.keys("*").await, [""; 0], "nothing is left behind");
    let _: redis::Value = redis.run("CONFIG SET maxmemory-policy allkeys-lru").await;
    let finished = doctor(&["--redis", &url]).await;
    assert_eq!(finished.code, 1, "{finished:?}");
    assert!(finished.stdout.contains("problem  redis eviction"), "{}", finished.stdout);
    let _: redis::Value = redis.run("CONFIG SET maxmemory-policy noeviction").await;
    let _: redis::Value = redis.run("ACL SETUSER weak on >weak-pass +@all -xadd -config ~carillon:* &carillon:*").await;
    let weak = url.replacen("redis://", "redis://weak:weak-pass@", 1);
    let finished = doctor(&["--redis", &weak]).await;
    assert_eq!(finished.code, 1, "{finished:?}");
    assert!(
        finished.stdout.contains("problem  redis rights") && finished.stdout.contains("XADD"),
        "{}",
        finished.stdout
    );
    assert!(finished.stdout.contains("warning  redis settings"), "{}", finished.stdout);
    assert!(!finished.stdout.contains("weak-pass"), "{}", finished.stdout);
    let finished = doctor(&["--redis", "redis://127.0.0.1:1"]).await;
    assert_eq!(finished.code, 1, "{finished:?}");
    assert!(finished.stdout.contains("problem  redis"), "{}", finished.stdout);
    let server = Server::plain().await;
    let public = format!("http://{}", server.public);
    let finished = doctor(&["--url", &public]).await;
    assert_eq!(finished.code, 0, "{finished:?}");
    assert!(finished.stdout.contains("opens WebSockets") && !finished.stdout.contains(APP_KEY), "{}", finished.stdout);
    server.stop().await;
    let finished = doctor(&["--url", &public]).await;
    assert_eq!(finished.code, 1, "{finished:?}");
}
