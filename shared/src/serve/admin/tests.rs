//! The connection limit of the admin listener.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::*;

/// The timeout of operations that complete at once.
const SOON: Duration = Duration::from_secs(10);

struct Healthy;

impl Health for Healthy {
    fn live(&self) -> Result<(), String> {
        Ok(())
    }

    fn ready(&self) -> Result<(), String> {
        Ok(())
    }
}

async fn listener() -> SocketAddr {
    let config = Config { port: 0, ..Config::default() };
    let admin = Admin::bind(&config, Registry::new(), Arc::new(Healthy), None).await.unwrap();
    let address = admin.address().unwrap();
    tokio::spawn(admin.run());
    address
}

/// Requests `/livez` on a connection that stays open. Returns whether the response is a success.
async fn is_live(stream: &mut TcpStream) -> bool {
    let request = async {
        stream.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").await?;
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\nok") {
            answer.push(stream.read_u8().await?);
        }
        Ok::<_, io::Error>(answer.starts_with(b"HTTP/1.1 200"))
    };
    timeout(SOON, request).await.expect("a response, or the end of the connection").unwrap_or(false)
}

#[tokio::test]
async fn idle_connections_do_not_block_new_ones_and_the_longest_idle_one_is_dropped() {
    let address = listener().await;
    let mut open = Vec::new();
    for _ in 0..CONNECTIONS_MAX {
        let mut stream = TcpStream::connect(address).await.unwrap();
        assert!(is_live(&mut stream).await);
        open.push(stream);
    }
    assert!(is_live(&mut open[0]).await, "the connection is now the most recent one");
    for _ in 0..3 {
        let mut probe = TcpStream::connect(address).await.unwrap();
        assert!(is_live(&mut probe).await, "a health check gets a response despite all connections");
        open.push(probe);
    }
    for (index, stream) in open.iter_mut().enumerate() {
        assert_eq!(is_live(stream).await, !(1..=3).contains(&index), "{index}");
    }
}

#[tokio::test]
async fn connections_without_a_request_do_not_block_new_ones() {
    let address = listener().await;
    let mut open = Vec::new();
    for _ in 0..3 * CONNECTIONS_MAX {
        open.push(TcpStream::connect(address).await.unwrap());
    }
    let mut probe = TcpStream::connect(address).await.unwrap();
    assert!(is_live(&mut probe).await);
}

#[tokio::test]
async fn closed_connections_no_longer_count() {
    let address = listener().await;
    let mut first = TcpStream::connect(address).await.unwrap();
    assert!(is_live(&mut first).await);
    for _ in 0..2 * CONNECTIONS_MAX {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        timeout(SOON, stream.read_to_end(&mut answer)).await.expect("an end").unwrap();
    }
    assert!(is_live(&mut first).await, "the first connection was not dropped");
}
