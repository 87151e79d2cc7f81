//! Invalid configurations with which the roles of a cluster do not start.

use tests::Setup;
use tests::command::run;

#[tokio::test]
async fn without_redis_gateways_and_publishers_do_not_start() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("carillon.toml"), Setup::default().toml()).expect("a file");
    for role in ["gateway", "publisher"] {
        let finished = run(folder.path(), &[role, "--config", "carillon.toml", "--port", "0"], &[]).await;
        assert_eq!((finished.code, finished.stdout.as_str()), (2, ""), "{finished:?}");
        assert!(finished.stderr.contains("redis.url"), "{finished:?}");
    }
}

#[tokio::test]
async fn without_an_app_gateways_and_publishers_do_not_start() {
    let folder = tempfile::tempdir().expect("a folder");
    for role in ["gateway", "publisher"] {
        let finished = run(folder.path(), &[role, "--redis", "redis://127.0.0.1:1", "--port", "0"], &[]).await;
        assert_eq!((finished.code, finished.stdout.as_str()), (2, ""), "{finished:?}");
        assert!(finished.stderr.contains("apps"), "{finished:?}");
        let finished = run(folder.path(), &[role], &[]).await;
        assert_eq!(finished.code, 2);
        assert!(finished.stderr.contains("apps") && finished.stderr.contains("redis.url"), "{finished:?}");
    }
}

#[tokio::test]
async fn an_invalid_redis_url_is_refused_without_printing_its_password() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = |lines: &str| Setup::default().redis(lines).toml();
    for (lines, key) in [
        ("url = \"http://user:never-print-this@127.0.0.1\"", "redis.url"),
        ("url = \"redis//user:never-print-this@127.0.0.1\"", "redis.url"),
        ("url = \"redis://127.0.0.1\"\nprefix = \"a b\"", "redis.prefix"),
        ("url = \"redis://127.0.0.1\"\npartitions = 0", "redis.partitions"),
        ("url = \"rediss://127.0.0.1\"\nca_file = \"missing.pem\"", "redis.ca_file"),
        (
            "url = \"rediss://127.0.0.1\"\ncert_file = \"missing.pem\"",
            "redis.key_file: expected a file, since redis.cert_file",
        ),
        (
            "url = \"rediss://127.0.0.1\"\nkey_file = \"missing.key\"",
            "redis.cert_file: expected a file, since redis.key_file",
        ),
        (
            "url = \"rediss://127.0.0.1\"\ncert_file = \"missing.pem\"\nkey_file = \"missing.key\"",
            "redis.cert_file: cannot use missing.pem",
        ),
        (
            "url = \"redis://127.0.0.1\"\ncert_file = \"missing.pem\"\nkey_file = \"missing.key\"",
            "redis.cert_file: expected redis.url to begin with rediss://",
        ),
        ("url = \"redis://127.0.0.1\"\ncommand_timeout = \"0s\"", "redis.command_timeout"),
        ("ulr = \"redis://127.0.0.1\"", "redis.ulr"),
    ] {
        std::fs::write(folder.path().join("carillon.toml"), config(lines)).expect("a file");
        for command in ["gateway", "publisher", "up", "check-config"] {
            let finished = run(folder.path(), &[command, "--config", "carillon.toml"], &[]).await;
            assert_eq!((finished.code, finished.stdout.as_str()), (2, ""), "{command} with {lines}: {finished:?}");
            assert!(finished.stderr.contains(key), "{key} is not in the output for {lines}: {finished:?}");
            assert!(!finished.stderr.contains("never-print-this"), "{finished:?}");
        }
    }
}
