//! Commands for operators: `healthcheck`, `doctor`, and `trigger` and `listen` over TLS.

mod redis;

use std::process::Stdio;

use tests::command::{carillon, run};
use tests::redis::tls::Certificates;
use tests::setup::{APP_ID, APP_KEY, APP_SECRET};
use tests::{Server, Setup, within};
use tokio::io::AsyncReadExt;

#[tokio::test]
async fn a_healthcheck_needs_only_the_binary() {
    let server = Server::plain().await;
    let folder = tempfile::tempdir().expect("a folder");
    let port = server.admin.port().to_string();
    for args in [["healthcheck", "--admin-port", &port].as_slice(), &["healthcheck", "--live", "--admin-port", &port]] {
        let finished = run(folder.path(), args, &[]).await;
        assert_eq!((finished.code, finished.stdout.as_str()), (0, "ok\n"), "{finished:?}");
    }
    // Problems of other sections do not fail the check: secrets of another user, or a section of another version.
    let text = format!(
        "[admin]\nport = {port}\n[tls]\ncert = \"/nowhere\"\n[sevrer]\nprot = 1\n[redis]\nurl = \"nonsense\"\n\
         [[apps]]\nid = \"a b\"\nsecret_file = \"/nowhere\"\n"
    );
    std::fs::write(folder.path().join("carillon.toml"), text).expect("the file can be written");
    let args = ["healthcheck", "--config", "carillon.toml"];
    let finished = run(folder.path(), &args, &[]).await;
    assert_eq!((finished.code, finished.stdout.as_str()), (0, "ok\n"), "{finished:?}");
    let finished = run(folder.path(), &args, &[("CARILLON_ADMIN__HOST", "0.0.0.0"), ("CARILLON_TLS__CERT", "5")]).await;
    assert_eq!(finished.code, 0, "{finished:?}");
    for (variable, words) in [(("CARILLON_ADMIN__PROT", "1"), "prot"), (("CARILLON_ADMIN__PORT", "x"), "admin.port")] {
        let finished = run(folder.path(), &args, &[variable]).await;
        assert_eq!(finished.code, 2, "the settings that it needs are still checked: {finished:?}");
        assert!(finished.stderr.contains(words), "{finished:?}");
    }
    server.stop().await;
    let finished = run(folder.path(), &["healthcheck", "--admin-port", &port], &[]).await;
    assert_eq!(finished.code, 1);
    assert!(finished.stderr.contains("cannot reach"), "{finished:?}");
}

#[tokio::test]
async fn doctor_checks_every_part_and_reports_problems() {
    let redis = tests::Redis::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("carillon.toml"), Setup::default().toml()).expect("the file can be written");
    let url = redis.url();
    let doctor = async |more: &[&str]| {
        let mut args = vec!["doctor", "--config", "carillon.toml"];
        args.extend(more);
        run(folder.path(), &args, &[]).await
    };
    let finished = doctor(&["--redis", &url, "--role", "gateway"]).await;
    assert_eq!(finished.code, 0, "{finished:?}");
    let subjects = ["configuration", "descriptors", "redis latency", "redis version", "redis role", "redis eviction"];
    for subject in subjects.into_iter().chain(["redis buffers", "redis rights", "clock"]) {
        // A slow Redis or few descriptors are reported on some machines.
        let may_warn = ["descriptors", "redis latency"].contains(&subject);
        let is_reported = |verdict: &str| finished.stdout.contains(&format!("{verdict:<8} {subject}"));
        assert!(is_reported("ok") || may_warn && is_reported("warning"), "{subject}: {}", finished.stdout);
    }
    assert_eq!(redis.keys("*").await, [""; 0], "doctor leaves no keys");
    let _: ::redis::Value = redis.run("CONFIG SET maxmemory-policy allkeys-lru").await;
    let finished = doctor(&["--redis", &url]).await;
    assert_eq!(finished.code, 1, "{finished:?}");
    assert!(finished.stdout.contains("problem  redis eviction"), "{}", finished.stdout);
    let _: ::redis::Value = redis.run("CONFIG SET maxmemory-policy noeviction").await;
    let _: ::redis::Value =
        redis.run("ACL SETUSER weak on >weak-pass +@all -sadd -config ~carillon:* &carillon:*").await;
    let weak = url.replacen("redis://", "redis://weak:weak-pass@", 1);
    let finished = doctor(&["--redis", &weak]).await;
    assert_eq!(finished.code, 1, "{finished:?}");
    assert!(
        finished.stdout.contains("problem  redis rights") && finished.stdout.contains("SADD"),
        "{}",
        finished.stdout
    );
    assert!(finished.stdout.contains("warning  redis buffers"), "{}", finished.stdout);
    assert!(!finished.stdout.contains("weak-pass"), "{}", finished.stdout);
    let finished = doctor(&["--redis", "redis://127.0.0.1:1"]).await;
    assert_eq!(finished.code, 1, "{finished:?}");
    assert!(finished.stdout.contains("problem  redis"), "{}", finished.stdout);
    let finished = doctor(&[]).await;
    assert!(finished.stdout.contains("ok       clock          not compared"), "{}", finished.stdout);
    let server = Server::plain().await;
    let public = format!("http://{}", server.public);
    for url in [public.clone(), format!("ws://{}/", server.public)] {
        let finished = doctor(&["--url", &url]).await;
        assert_eq!(finished.code, 0, "{finished:?}");
        assert!(
            finished.stdout.contains("establishes connections") && !finished.stdout.contains(APP_KEY),
            "{}",
            finished.stdout
        );
        assert!(finished.stdout.contains("s apart from the clock of the public address"), "{}", finished.stdout);
    }
    server.stop().await;
    let strict =
        Server::start(Setup::default().server("deny = [\"127.0.0.0/8\"]\ntrusted_proxies = [\"127.0.0.1\"]")).await;
    let finished = doctor(&["--url", &format!("http://{}", strict.public)]).await;
    assert_eq!(finished.code, 1, "the refusal follows the upgrade: {finished:?}");
    assert!(finished.stdout.contains("problem  public address") && finished.stdout.contains("4009"), "{finished:?}");
    strict.stop().await;
    let finished = doctor(&["--url", &public]).await;
    assert_eq!(finished.code, 1, "{finished:?}");
}

fn setup_with(certificates: &Certificates) -> Setup {
    let tls = format!("[tls]\ncert = {:?}\nkey = {:?}", certificates.certificate, certificates.key);
    Setup::default().more(&tls)
}

#[tokio::test]
async fn trigger_and_listen_use_tls_with_trusted_servers() {
    let folder = tempfile::tempdir().expect("a folder");
    let certificates = Certificates::make(folder.path());
    let server = Server::start(setup_with(&certificates)).await;
    let [https, wss] = ["https", "wss"].map(|scheme| format!("{scheme}://localhost:{}", server.public.port()));
    let app = ["--app-id", APP_ID, "--key", APP_KEY, "--secret", APP_SECRET];
    let authority = certificates.authority.to_str().expect("a path of text");
    let listen = [&["listen", "--url", &wss, "--ca", authority, "--count", "1", "--timeout", "15s", "room"][..], &app];
    let mut listener =
        carillon(&listen.concat(), &[]).stdout(Stdio::piped()).spawn().expect("the binary can be started");
    server.metric_reaches("carillon_subscriptions", 1.0).await;
    let data = "x".repeat(10_000);
    let trigger = async |url: &str, more: &[&str]| {
        let args = [&["trigger", "--url", url][..], more, &app, &["room", "large", &data]].concat();
        run(folder.path(), &args, &[]).await
    };
    let finished = trigger(&https, &[]).await;
    assert_eq!((finished.code, finished.stdout.as_str()), (1, ""), "the authority is unknown: {finished:?}");
    assert!(finished.stderr.contains("TLS handshake with localhost"), "{}", finished.stderr);
    let finished = trigger(&format!("https://{}", server.public), &["--ca", authority]).await;
    assert_eq!(finished.code, 1, "the certificate is not for an address: {finished:?}");
    let finished = trigger(&https, &["--ca", authority]).await;
    assert_eq!((finished.code, finished.stdout.as_str()), (0, "published\n"), "{finished:?}");
    let mut printed = String::new();
    let stdout = listener.stdout.as_mut().expect("stdout is a pipe");
    within("the received events", stdout.read_to_string(&mut printed)).await.expect("it is UTF-8");
    assert_eq!(printed, format!("room large {data}\n"));
    assert_eq!(within("the end of listen", listener.wait()).await.expect("waiting succeeds").code(), Some(0));
    std::fs::write(folder.path().join("carillon.toml"), Setup::default().toml()).expect("the file can be written");
    let doctor = ["doctor", "--config", "carillon.toml", "--url", &wss];
    for (more, code, words) in [(&[][..], 1, "cannot be reached"), (&["--ca", authority], 0, "establishes connections")]
    {
        let finished = run(folder.path(), &[&doctor, more].concat(), &[]).await;
        assert_eq!(finished.code, code, "{finished:?}");
        assert!(finished.stdout.contains(words), "{finished:?}");
    }
    server.stop().await;
}
