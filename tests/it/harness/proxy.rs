//! The fault proxy in front of an echo server.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use tests::proxy::{Mode, Scope};
use tests::{Proxy, Redis, eventually, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Starts a server that echoes its input, and returns its port.
async fn echo() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("it is bound").port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut reads, mut writes) = stream.split();
                // The test that closes the connection checks only its own side.
                let _ = tokio::io::copy(&mut reads, &mut writes).await;
            });
        }
    });
    port
}

async fn connect(proxy: &Proxy) -> TcpStream {
    TcpStream::connect(("127.0.0.1", proxy.port)).await.expect("the proxy listens")
}

async fn send(stream: &mut TcpStream, text: &str) {
    stream.write_all(text.as_bytes()).await.expect("the connection is open");
}

async fn expect(stream: &mut TcpStream, text: &str) {
    let mut bytes = vec![0; text.len()];
    within("an echo", stream.read_exact(&mut bytes)).await.expect("the connection is open");
    assert_eq!(bytes, text.as_bytes());
}

async fn exchange(stream: &mut TcpStream, text: &str) {
    send(stream, text).await;
    expect(stream, text).await;
}

/// Checks that no byte arrives while another connection is answered.
async fn expect_silence(stream: &mut TcpStream, port: u16) {
    let mut witness = TcpStream::connect(("127.0.0.1", port)).await.expect("the echo listens");
    for _ in 0..10 {
        exchange(&mut witness, "still").await;
    }
    let read = stream.try_read(&mut [0; 16]);
    assert!(read.as_ref().is_err_and(|error| error.kind() == ErrorKind::WouldBlock), "{read:?}");
}

#[tokio::test]
async fn forwarded_bytes_are_complete_in_order_and_counted() {
    let proxy = Proxy::start(echo().await).await;
    let mut stream = connect(&proxy).await;
    let text: String = (0..100_000).map(|number| format!("{number},")).collect();
    let (mut reads, mut writes) = stream.split();
    let mut received = String::new();
    let sending = async {
        writes.write_all(text.as_bytes()).await.expect("the connection is open");
        writes.shutdown().await.expect("the connection is open");
    };
    let (read, ()) = within("the echo", async { tokio::join!(reads.read_to_string(&mut received), sending) }).await;
    read.expect("it is text");
    assert!(received == text, "the echo differs");
    eventually("the connection is closed", async || proxy.open() == 0).await;
    let bytes = 2 * text.len() as u64;
    assert_eq!((proxy.accepted(), proxy.forwarded_bytes(), proxy.lost_bytes()), (1, bytes, 0));
}

#[tokio::test]
async fn a_cut_resets_open_connections_and_new_ones_work() {
    let proxy = Proxy::start(echo().await).await;
    let mut stream = connect(&proxy).await;
    exchange(&mut stream, "before").await;
    proxy.cut();
    let end = within("the end", stream.read(&mut [0; 16])).await;
    assert_eq!(end.expect_err("a reset is an error").kind(), ErrorKind::ConnectionReset);
    exchange(&mut connect(&proxy).await, "after").await;
}

#[tokio::test]
async fn a_stall_delays_bytes_and_loses_none() {
    let port = echo().await;
    let mut proxy = Proxy::start(port).await;
    let mut stream = connect(&proxy).await;
    exchange(&mut stream, "before").await;
    proxy.set(Mode::Stall).await;
    send(&mut stream, "during ").await;
    let mut late = connect(&proxy).await;
    send(&mut late, "late").await;
    expect_silence(&mut stream, port).await;
    expect_silence(&mut late, port).await;
    proxy.set(Mode::Pass).await;
    send(&mut stream, "after").await;
    expect(&mut stream, "during after").await;
    expect(&mut late, "late").await;
    assert_eq!(proxy.lost_bytes(), 0);
}

#[tokio::test]
async fn a_delay_applies_to_each_direction() {
    const DELAY: Duration = Duration::from_millis(100);
    let mut proxy = Proxy::start(echo().await).await;
    let mut stream = connect(&proxy).await;
    proxy.set(Mode::Delay(DELAY)).await;
    let started = Instant::now();
    exchange(&mut stream, "slow").await;
    assert!(started.elapsed() >= 2 * DELAY, "{:?}", started.elapsed());
}

#[tokio::test]
async fn half_open_connections_stay_silent_on_both_sides() {
    let port = echo().await;
    let mut proxy = Proxy::start(port).await;
    let (mut busy, mut idle, gone) = (connect(&proxy).await, connect(&proxy).await, connect(&proxy).await);
    exchange(&mut busy, "before").await;
    exchange(&mut idle, "before").await;
    proxy.set(Mode::HalfOpen).await;
    send(&mut busy, "during").await;
    let mut taken = connect(&proxy).await;
    send(&mut taken, "during").await;
    drop(gone);
    eventually("what was sent is lost", async || proxy.lost_bytes() == 12).await;
    expect_silence(&mut busy, port).await;
    proxy.set(Mode::Pass).await;
    for stream in [&mut busy, &mut idle, &mut taken] {
        send(stream, "after").await;
    }
    eventually("what was sent is lost", async || proxy.lost_bytes() == 12 + 15).await;
    for stream in [&mut busy, &mut idle, &mut taken] {
        expect_silence(stream, port).await;
    }
    assert_eq!(proxy.open(), 4, "the closed connection is still open at the server");
    exchange(&mut connect(&proxy).await, "new").await;
    proxy.cut();
    let end = within("the end", busy.read(&mut [0; 16])).await;
    assert_eq!(end.expect_err("a reset is an error").kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn refusing_rejects_new_connections_and_keeps_open_ones() {
    let mut proxy = Proxy::start(echo().await).await;
    let mut stream = connect(&proxy).await;
    // The connection must be accepted first. Otherwise it would end with the listener.
    exchange(&mut stream, "before").await;
    proxy.set(Mode::Refuse).await;
    let refused = TcpStream::connect(("127.0.0.1", proxy.port)).await;
    assert_eq!(refused.expect_err("no process listens").kind(), ErrorKind::ConnectionRefused);
    exchange(&mut stream, "during").await;
    proxy.set(Mode::Pass).await;
    exchange(&mut connect(&proxy).await, "after").await;
}

#[tokio::test]
async fn without_a_server_connections_are_reset() {
    let proxy = Proxy::start(tests::ports::free()).await;
    let mut stream = connect(&proxy).await;
    let end = within("the end", stream.read(&mut [0; 16])).await;
    assert_eq!(end.expect_err("a reset is an error").kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn faults_can_apply_to_subscribers_only() {
    let redis = Redis::start().await;
    let mut proxy = Proxy::start(redis.port).await;
    let (mut subscriber, mut other) = (connect(&proxy).await, connect(&proxy).await);
    send(&mut subscriber, "*2\r\n$9\r\nSUBSCRIBE\r\n$4\r\nnews\r\n").await;
    expect(&mut subscriber, "*3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n").await;
    let pushed = "*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$1\r\n";
    assert_eq!(redis.publish("news", b"1").await, 1);
    expect(&mut subscriber, &format!("{pushed}1\r\n")).await;
    proxy.set_for(Scope::Subscribers, Mode::DropPushes).await;
    assert_eq!(redis.publish("news", b"2").await, 1);
    eventually("the push is lost", async || proxy.lost_bytes() > 0).await;
    proxy.set_for(Scope::Subscribers, Mode::Stall).await;
    assert_eq!(redis.publish("news", b"3").await, 1);
    send(&mut other, "*1\r\n$4\r\nPING\r\n").await;
    expect(&mut other, "+PONG\r\n").await;
    proxy.set(Mode::Pass).await;
    expect(&mut subscriber, &format!("{pushed}3\r\n")).await;
    proxy.cut_for(Scope::Subscribers);
    let end = within("the end", subscriber.read(&mut [0; 16])).await;
    assert_eq!(end.expect_err("a reset is an error").kind(), ErrorKind::ConnectionReset);
    send(&mut other, "*1\r\n$4\r\nPING\r\n").await;
    expect(&mut other, "+PONG\r\n").await;
}
