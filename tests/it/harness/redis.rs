//! The Redis of the cluster tests.

use tests::Redis;
use tests::redis::{Access, PASSWORD, USER};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[tokio::test]
async fn redis_restarts_empty_on_the_same_port() {
    let mut redis = Redis::start().await;
    let url = redis.url();
    redis.run::<()>("SET key value").await;
    assert_eq!(redis.keys("*").await, ["key"]);
    redis.kill().await;
    assert!(TcpStream::connect(("127.0.0.1", redis.port)).await.is_err(), "no process listens");
    redis.start_again().await;
    assert_eq!(redis.url(), url);
    assert_eq!(redis.keys("*").await, [""; 0]);
}

#[tokio::test]
async fn a_paused_redis_accepts_connections_and_answers_none() {
    let redis = Redis::start().await;
    redis.pause();
    let mut stream = TcpStream::connect(("127.0.0.1", redis.port)).await.expect("the system accepts the connection");
    stream.write_all(b"PING\r\n").await.expect("the system accepts the bytes");
    redis.resume();
    let mut answer = [0; 7];
    tests::within("a response", stream.read_exact(&mut answer)).await.expect("an answer");
    assert_eq!(&answer, b"+PONG\r\n");
}

#[tokio::test]
async fn redis_requires_the_configured_password() {
    let redis = Redis::with(Access::Password).await;
    assert_eq!(redis.run::<String>("ACL WHOAMI").await, USER);
    let open = ::redis::Client::open(format!("redis://127.0.0.1:{}", redis.port)).expect("a valid URL");
    let mut connection = open.get_multiplexed_async_connection().await.expect("a connection");
    let refused = ::redis::cmd("PING").exec_async(&mut connection).await;
    assert_eq!(refused.expect_err("it is refused").code(), Some("NOAUTH"));
    let known = ::redis::Client::open(redis.url()).expect("a valid URL");
    let mut connection = known.get_multiplexed_async_connection().await.expect("a connection");
    let user: String = ::redis::cmd("ACL").arg("WHOAMI").query_async(&mut connection).await.expect("an answer");
    assert_eq!(user, USER);
}

#[tokio::test]
async fn the_tls_certificate_is_signed_by_the_test_authority() {
    let redis = Redis::with(Access::Tls).await;
    assert!(redis.url().starts_with("rediss://") && redis.url().contains(PASSWORD));
    let ca_file = redis.ca_file().to_str().expect("the path is UTF-8").to_owned();
    let place = format!("localhost:{}", redis.port);
    let verify = |more: &[&str]| {
        let mut command = std::process::Command::new("openssl");
        command.args(["s_client", "-connect", &place, "-verify_return_error"]).args(more);
        command.stdin(std::process::Stdio::null()).output().expect("openssl is installed").status.success()
    };
    assert!(verify(&["-CAfile", &ca_file]));
    assert!(!verify(&[]), "no other client trusts the authority");
}
