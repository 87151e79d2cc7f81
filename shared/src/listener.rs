//! Sockets that clients connect to, and what stands between a connection and its first request.

pub mod front;
pub mod proxy_header;

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpSocket, lookup_host};

pub use front::Front;

/// Connections that may wait to be accepted; the system's own bound, `net.core.somaxconn`, holds as well. After a restart
/// all clients come at once, and one that finds the queue full tries again only after a second.
const BACKLOG: u32 = 65_535;

/// Listens on the first address of `host` that can be had.
///
/// # Errors
/// When there is none: the last address' reason.
pub async fn listen(host: &str, port: u16) -> io::Result<TcpListener> {
    let mut reason = io::Error::new(io::ErrorKind::InvalidInput, "the name has no address");
    for address in lookup_host((host, port)).await? {
        match listen_on(address) {
            Ok(listener) => return Ok(listener),
            Err(error) => reason = error,
        }
    }
    Err(reason)
}

fn listen_on(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A server that starts again must not wait for the connections of the one before it to be forgotten.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_and_any_free_port_will_do() {
        let listener = listen("localhost", 0).await.expect("localhost has an address");
        let address = listener.local_addr().expect("it listens");
        assert!(address.ip().is_loopback() && address.port() != 0);
        tokio::net::TcpStream::connect(address).await.expect("it takes connections");
    }

    #[tokio::test]
    async fn a_taken_port_is_an_error() {
        let taken = listen("127.0.0.1", 0).await.expect("a free port");
        let port = taken.local_addr().expect("it listens").port();
        assert_eq!(listen("127.0.0.1", port).await.expect_err("it is taken").kind(), io::ErrorKind::AddrInUse);
    }

    /// More than fit into the queue that the standard library gives a socket.
    #[tokio::test]
    async fn hundreds_may_wait() {
        let bound = std::fs::read_to_string("/proc/sys/net/core/somaxconn").expect("the system says");
        let count = bound.trim().parse::<usize>().expect("a number").min(500);
        let listener = listen("127.0.0.1", 0).await.expect("a free port");
        let address = listener.local_addr().expect("it listens");
        let mut waiting = Vec::new();
        for _ in 0..count {
            waiting.push(tokio::net::TcpStream::connect(address).await.expect("there is room"));
        }
        for _ in 0..count {
            listener.accept().await.expect("someone waits");
        }
    }
}
