//! Processes that inherit their listening sockets from systemd. The sockets outlive the processes.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::process::Stdio;
use std::time::Duration;

use tests::server::{Launch, Role};
use tests::setup::app;
use tests::{Raw, Redis, Setup, TestClient, eventually, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Returns a listening socket that the test keeps open, like systemd.
fn socket() -> (TcpListener, SocketAddr) {
    let socket = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = socket.local_addr().expect("it listens");
    (socket, address)
}

fn copy(socket: &TcpListener) -> TcpListener {
    socket.try_clone().expect("a descriptor can be copied")
}

/// Longer than the retry interval of a client and the start of a process.
const BETWEEN: Duration = Duration::from_secs(3);

#[tokio::test]
async fn connections_wait_while_no_process_runs() {
    let (socket, address) = socket();
    let launch = || Launch::new(Role::Up).setup(&Setup::default()).socket(copy(&socket), "public");
    let first = launch().start().await;
    assert_eq!(first.public, address, "server.port is ignored");
    assert!(first.banner.contains("public inherited"), "{}", first.banner);
    let mut before = first.client().await;
    before.subscribe("room").await;
    first.publish("room", "hello", "1").await;
    before.expect_event("room", "hello", "1").await;
    first.stop().await;
    // No process runs. A WebSocket and a request of the HTTP API are still sent.
    let mut request = TcpStream::connect(address).await.expect("it waits");
    request.write_all(b"GET /up HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.expect("it is sent");
    let url = client::ServerUrl::new("127.0.0.1", address.port(), "");
    let client = tokio::spawn(async move { TestClient::connect(&url, &app(), &Default::default()).await });
    tokio::time::sleep(BETWEEN).await;
    assert!(!client.is_finished());
    let second = launch().start().await;
    let mut client = within("the connection_established", client).await.expect("it is connected");
    client.subscribe("room").await;
    second.publish("room", "hello", "2").await;
    client.expect_event("room", "hello", "2").await;
    let mut answer = String::new();
    within("the response", request.read_to_string(&mut answer)).await.expect("it is not reset");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    second.stop().await;
}

#[tokio::test]
async fn waiting_connections_are_served_by_the_next_process() {
    let redis = Redis::start().await;
    for role in [Role::Gateway, Role::Publisher] {
        let (socket, address) = socket();
        // `drain.accept` applies only to sockets that close with their process.
        let setup = Setup::default().drain("accept = \"20s\"");
        let launch =
            || Launch::new(role).setup(&setup).args(&["--redis", &redis.url()]).socket(copy(&socket), "public");
        let first = launch().start().await;
        first.ready().await;
        let old = Raw::connect(address).await;
        first.signal(rustix::process::Signal::TERM);
        eventually("the server drains", async || first.readiness().await.0 == 503).await;
        let mut waiting = TcpStream::connect(address).await.expect("it waits");
        waiting
            .write_all(b"GET /up HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            .await
            .expect("the system accepts the bytes");
        first.kill().await;
        drop(old);
        let second = launch().start().await;
        let mut answer = String::new();
        within("the response", waiting.read_to_string(&mut answer)).await.expect("it is not reset");
        assert!(answer.starts_with("HTTP/1.1 "), "{answer}");
        second.kill().await;
    }
}

#[tokio::test]
async fn the_admin_and_peer_listeners_can_be_inherited() {
    let redis = Redis::start().await;
    let (socket, address) = socket();
    let setup = Setup::default();
    let launch = |name: &str| {
        Launch::new(Role::Gateway).setup(&setup).args(&["--redis", &redis.url()]).socket(copy(&socket), name)
    };
    let server = launch("admin").start().await;
    assert_eq!(server.admin, address);
    server.ready().await;
    server.stop().await;
    let server = launch("peers").start().await;
    assert!(server.banner.contains(&format!("http://{address}   requests that other gateways")), "{}", server.banner);
    server.stop().await;
}

#[tokio::test]
async fn an_unusable_inherited_socket_is_reported_with_its_cause() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("carillon.toml"), Setup::default().toml()).expect("a file");
    let (listener, address) = socket();
    let udp = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
    let unix = UnixListener::bind(folder.path().join("socket")).expect("a path");
    let connection = std::net::TcpStream::connect(address).expect("it listens");
    let any = TcpListener::bind("0.0.0.0:0").expect("a port is free");
    let sockets: [(OwnedFd, &str, &str, &str); 6] = [
        (copy(&listener).into(), "clients", "carillon.toml", "FileDescriptorName=public, admin or peers"),
        (copy(&listener).into(), "peers", "carillon.toml", "only gateways of a cluster"),
        (udp.into(), "public", "carillon.toml", "a TCP socket"),
        (unix.into(), "public", "carillon.toml", "a TCP socket"),
        (connection.into(), "public", "carillon.toml", "Accept=no"),
        (any.into(), "public", "", "the demo app"),
    ];
    for (socket, name, config, expected) in sockets {
        let mut command = tests::command::activated(&tests::command::binary(), name);
        command.args(["up", "--port", "0", "--admin-port", "0"]).env_clear().current_dir(folder.path());
        if !config.is_empty() {
            command.args(["--config", config]);
        }
        command.stdin(Stdio::from(socket)).stdout(Stdio::piped()).stderr(Stdio::piped());
        let output = within("the end", command.output()).await.expect("it can be run");
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{name}: {text}");
        assert!(text.contains("LISTEN_FDS: ") && text.contains(expected), "{name}: {text}");
    }
}
