//! Servers with self-signed certificates of `openssl req -x509`, and clients that trust them by name.

use std::path::Path;
use std::sync::Arc;

use shared::serve::tls::{Config, Tls};
use tests::redis::tls::Certificates;
use tests::redis::{Access, PASSWORD};
use tests::server::{Launch, Role};
use tests::setup::{APP_ID, APP_KEY, APP_SECRET};
use tests::{Cluster, Receiver, Server, Setup, eventually};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

#[tokio::test]
async fn a_self_signed_redis_is_trusted_if_its_certificate_is_the_ca_file() {
    let cluster = Cluster::start().access(Access::SelfSigned).await;
    let mut clients = cluster.subscribers("news").await;
    cluster.publish("news", "hello", "1").await;
    for client in &mut clients {
        client.expect_event("news", "hello", "1").await;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let config = Setup::default().redis(&cluster.redis.tls_lines()).toml();
    std::fs::write(folder.path().join("carillon.toml"), config).expect("a file");
    let doctor = async |url: &str| {
        tests::command::run(folder.path(), &["doctor", "--config", "carillon.toml", "--redis", url], &[]).await
    };
    let url = cluster.redis.url();
    let finished = doctor(&url).await;
    assert_eq!(finished.code, 0, "{finished:?}");
    let finished = doctor(&url.replace("localhost", "127.0.0.1")).await;
    assert_eq!(finished.code, 1, "the certificate is not for the address: {finished:?}");
    assert!(finished.stdout.contains("not valid for name"), "{finished:?}");
    assert!(!finished.stdout.contains(PASSWORD), "{finished:?}");
    cluster.stop().await;
}

#[tokio::test]
async fn renewed_certificates_of_redis_are_used_without_a_restart() {
    let mut cluster = Cluster::start().access(Access::MutualTls).await;
    cluster.redis.kill().await;
    cluster.redis.renew_certificates();
    cluster.redis.start_again().await;
    cluster.ready().await;
    let mut clients = cluster.subscribers("news").await;
    eventually("an event arrives", async || cluster.try_publish("news", "hello", "1").await.status == 200).await;
    for client in &mut clients {
        client.expect_event("news", "hello", "1").await;
    }
    cluster.stop().await;
}

#[tokio::test]
async fn a_different_certificate_of_redis_is_refused() {
    let redis = tests::Redis::with(Access::SelfSigned).await;
    let other = tempfile::tempdir().expect("a folder");
    let foreign = Certificates::self_signed(other.path());
    let setup = Setup::default().redis(&format!("ca_file = {:?}", foreign.authority));
    let server = Launch::new(Role::Gateway).setup(&setup).args(&["--redis", &redis.url()]).start().await;
    eventually("the reason is in the log", async || server.log().contains("UnknownIssuer")).await;
    assert_eq!(server.readiness().await.0, 503);
    server.stop().await;
}

#[tokio::test]
async fn commands_trust_the_certificate_of_the_flag() {
    let folder = tempfile::tempdir().expect("a folder");
    let certificates = Certificates::self_signed(folder.path());
    let tls = format!("[tls]\ncert = {:?}\nkey = {:?}", certificates.certificate, certificates.key);
    let server = Server::start(Setup::default().more(&tls)).await;
    let other = tempfile::tempdir().expect("a folder");
    let foreign = Certificates::self_signed(other.path());
    let url = format!("https://localhost:{}", server.public.port());
    let trigger = async |url: &str, ca: &Path| {
        let ca = ca.to_str().expect("a path of text");
        let app = ["--app-id", APP_ID, "--key", APP_KEY, "--secret", APP_SECRET];
        let args = [&["trigger", "--url", url, "--ca", ca][..], &app, &["room", "event", "1"]].concat();
        tests::command::run(folder.path(), &args, &[]).await
    };
    let finished = trigger(&url, &certificates.certificate).await;
    assert_eq!((finished.code, finished.stdout.as_str()), (0, "published\n"), "{finished:?}");
    for (url, ca) in
        [(url.as_str(), &foreign.certificate), (&format!("https://{}", server.public), &certificates.certificate)]
    {
        let finished = trigger(url, ca).await;
        assert_eq!((finished.code, finished.stdout.as_str()), (1, ""), "{finished:?}");
        assert!(finished.stderr.contains("TLS handshake with"), "{finished:?}");
    }
    let finished = trigger(&url, &certificates.key).await;
    assert_eq!(finished.code, 2, "{finished:?}");
    assert!(finished.stderr.contains("--ca: cannot use") && finished.stderr.contains("no certificate"), "{finished:?}");
    server.stop().await;
}

#[tokio::test]
async fn webhooks_trust_the_certificates_of_the_ca_file() {
    let receiver = Receiver::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let certificates = Certificates::self_signed(folder.path());
    let front = Front::start(&certificates, &receiver).await;
    let endpoint = format!("[[apps.webhooks]]\nurl = \"https://localhost:{}/hooks\"", front.port);
    let ca_file = format!("[webhooks]\nca_file = {:?}", certificates.certificate);
    for (more, is_trusted) in [("", false), (ca_file.as_str(), true)] {
        let server = Server::start(Setup::default().more(&endpoint).more(more)).await;
        server.client().await.subscribe("room").await;
        if is_trusted {
            assert_eq!(receiver.events(1).await[0].name, "channel_occupied");
        } else {
            eventually("the reason is in the log", async || server.log().contains("UnknownIssuer")).await;
            assert_eq!(receiver.received().len(), 0);
        }
        server.kill().await;
    }
}

/// Terminates TLS in front of a receiver of webhooks.
struct Front {
    port: u16,
    task: JoinHandle<()>,
}

impl Front {
    async fn start(certificates: &Certificates, receiver: &Receiver) -> Self {
        let config = Config { cert: Some(certificates.certificate.clone()), key: Some(certificates.key.clone()) };
        let tls: Arc<Tls> = Tls::new(&config).expect("the files are valid").expect("they are set");
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port is free");
        let port = listener.local_addr().expect("it listens").port();
        let receiver = receiver.address;
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let tls = tls.clone();
                tokio::spawn(async move {
                    let Ok(mut stream) = tls.accept(stream).await else { return };
                    let Ok(mut plain) = TcpStream::connect(receiver).await else { return };
                    // If one side ends, the other is closed.
                    let _ = tokio::io::copy_bidirectional(&mut stream, &mut plain).await;
                });
            }
        });
        Self { port, task }
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.task.abort();
    }
}
