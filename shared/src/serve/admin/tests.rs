//! Who gets a place when there are few.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::*;

/// For what happens at once.
const SOON: Duration = Duration::from_secs(10);

struct Well;

impl Health for Well {
    fn live(&self) -> Result<(), String> {
        Ok(())
    }

    fn ready(&self) -> Result<(), String> {
        Ok(())
    }
}

async fn listener() -> SocketAddr {
    let config = Config { port: 0, ..Config::default() };
    let admin = Admin::bind(&config, Registry::new(), Arc::new(Well), None).await.unwrap();
    let address = admin.address().unwrap();
    tokio::spawn(admin.run());
    address
}

/// Asks on a connection that stays open; whether it was answered with success.
async fn lives(stream: &mut TcpStream) -> bool {
    let asked = async {
        stream.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").await?;
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\nok") {
            answer.push(stream.read_u8().await?);
        }
        Ok::<_, io::Error>(answer.starts_with(b"HTTP/1.1 200"))
    };
    timeout(SOON, asked).await.expect("an answer, or the end of the connection").unwrap_or(false)
}

#[tokio::test]
async fn silent_connections_keep_nobody_out_and_the_most_silent_one_goes() {
    let address = listener().await;
    let mut open = Vec::new();
    for _ in 0..CONNECTIONS_MAX {
        let mut stream = TcpStream::connect(address).await.unwrap();
        assert!(lives(&mut stream).await);
        open.push(stream);
    }
    assert!(lives(&mut open[0]).await, "it is the last one now that was silent");
    for _ in 0..3 {
        let mut probe = TcpStream::connect(address).await.unwrap();
        assert!(lives(&mut probe).await, "a probe is answered however many are connected");
        open.push(probe);
    }
    for (index, stream) in open.iter_mut().enumerate() {
        assert_eq!(lives(stream).await, !(1..=3).contains(&index), "{index}");
    }
}

#[tokio::test]
async fn connections_that_never_ask_keep_nobody_out_either() {
    let address = listener().await;
    let mut open = Vec::new();
    for _ in 0..3 * CONNECTIONS_MAX {
        open.push(TcpStream::connect(address).await.unwrap());
    }
    let mut probe = TcpStream::connect(address).await.unwrap();
    assert!(lives(&mut probe).await);
}

#[tokio::test]
async fn connections_that_end_make_room() {
    let address = listener().await;
    let mut first = TcpStream::connect(address).await.unwrap();
    assert!(lives(&mut first).await);
    for _ in 0..2 * CONNECTIONS_MAX {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        timeout(SOON, stream.read_to_end(&mut answer)).await.expect("an end").unwrap();
    }
    assert!(lives(&mut first).await, "nobody was in anyone's way");
}
