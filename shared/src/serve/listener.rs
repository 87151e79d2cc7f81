//! Listening sockets, and the handling of a connection before its first request.

pub mod accept_policy;
pub mod acceptor;
pub mod inherited;
pub mod proxy_header;

use std::io;
use std::net::SocketAddr;
use std::ops::Deref;

use tokio::net::{TcpListener, TcpSocket, TcpStream, lookup_host};

pub use accept_policy::AcceptPolicy;
pub use acceptor::Acceptor;
pub use inherited::Inherited;

/// The length of the accept queue. The limit `net.core.somaxconn` of the system applies as well.
///
/// After a restart, all clients reconnect at once. A client that finds the queue full retries only after a second.
const BACKLOG: u32 = 65_535;

/// A bound listening socket.
pub struct BoundListener {
    listener: TcpListener,
    /// Whether the process inherited the socket, so that the socket outlives the process.
    is_inherited: bool,
}

impl Deref for BoundListener {
    type Target = TcpListener;

    fn deref(&self) -> &TcpListener {
        &self.listener
    }
}

/// Listens on the first address of `host` that can be bound, or on the inherited socket.
///
/// # Errors
/// If no address can be bound: the error of the last one.
pub async fn listen(host: &str, port: u16, inherited: Option<std::net::TcpListener>) -> io::Result<BoundListener> {
    if let Some(listener) = inherited {
        listener.set_nonblocking(true)?;
        return Ok(BoundListener { listener: TcpListener::from_std(listener)?, is_inherited: true });
    }
    let mut reason = io::Error::new(io::ErrorKind::InvalidInput, "the host name has no address");
    for address in lookup_host((host, port)).await? {
        match listen_on(address) {
            Ok(listener) => return Ok(BoundListener { listener, is_inherited: false }),
            Err(error) => reason = error,
        }
    }
    Err(reason)
}

impl BoundListener {
    /// Runs `accept`, which accepts connections. On an inherited socket, stops when `draining` resolves, so that later
    /// connections wait for the next process.
    pub async fn while_accepting(&self, accept: impl Future<Output = ()>, draining: impl Future<Output = ()>) {
        if !self.is_inherited {
            return accept.await;
        }
        tokio::select! {
            biased;
            () = draining => std::future::pending().await,
            () = accept => {}
        }
    }
}

/// Closes a listener and passes the connections in its accept queue to `each`, in their order.
///
/// Without that, closing the listener would reset them. The queue of an inherited socket stays for the next process. A
/// connection that arrives after the queue was emptied is refused or reset.
pub fn close(bound: BoundListener, mut each: impl FnMut(TcpStream, SocketAddr)) {
    if bound.is_inherited {
        return;
    }
    let Ok(listener) = bound.listener.into_std() else { return };
    loop {
        match listener.accept() {
            // A connection that cannot be registered is dropped.
            Ok((stream, peer)) => {
                if let Ok(stream) = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream)) {
                    each(stream, peer);
                }
            }
            Err(error) if acceptor::is_of_the_peer(&error) => {}
            Err(_) => return,
        }
    }
}

fn listen_on(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A restarted server must not wait until the system has removed the connections of the previous process.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_host_name_and_any_free_port_can_be_bound() {
        let listener = listen("localhost", 0, None).await.expect("localhost has an address");
        let address = listener.local_addr().expect("the listener has an address");
        assert!(address.ip().is_loopback() && address.port() != 0);
        tokio::net::TcpStream::connect(address).await.expect("the listener accepts connections");
    }

    #[tokio::test]
    async fn a_taken_port_is_an_error() {
        let taken = listen("127.0.0.1", 0, None).await.expect("a free port");
        let port = taken.local_addr().expect("the listener has an address").port();
        assert_eq!(
            listen("127.0.0.1", port, None).await.err().expect("the port is taken").kind(),
            io::ErrorKind::AddrInUse
        );
    }

    #[tokio::test]
    async fn closing_a_listener_serves_the_accept_queue() {
        let listener = listen("127.0.0.1", 0, None).await.expect("a free port");
        let address = listener.local_addr().expect("the listener has an address");
        let early: Vec<TcpStream> = futures_util::future::join_all(
            (0..3).map(|_| async { TcpStream::connect(address).await.expect("there is room") }),
        )
        .await;
        let mut waiting = Vec::new();
        close(listener, |stream, peer| waiting.push((stream, peer)));
        let known = |stream: &TcpStream| stream.local_addr().expect("connected");
        assert_eq!(waiting.iter().map(|(_, peer)| *peer).collect::<Vec<_>>().len(), 3);
        assert!(early.iter().all(|stream| waiting.iter().any(|(_, peer)| *peer == known(stream))));
        assert!(TcpStream::connect(address).await.is_err());
    }

    #[tokio::test]
    async fn closing_an_inherited_socket_leaves_the_accept_queue_to_the_next_process() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = socket.local_addr().expect("the listener has an address");
        for _ in 0..2 {
            let bound = listen("unused", 1, Some(socket.try_clone().expect("a copy")))
                .await
                .expect("the listener has an address");
            assert_eq!(bound.local_addr().expect("the listener has an address"), address);
            let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
            drop(stop);
            let accept = async { drop(bound.accept().await) };
            let accepting = bound.while_accepting(accept, async { drop(stopped.await) });
            let mut early = TcpStream::connect(address).await.expect("there is room");
            assert!(tokio::time::timeout(std::time::Duration::from_millis(50), accepting).await.is_err());
            close(bound, |_, _| panic!("no connection is handed over"));
            let (mut stream, _) = socket.accept().expect("the connection is still in the queue");
            std::io::Write::write_all(&mut stream, b"x").expect("the connection is not reset");
            tokio::io::AsyncReadExt::read_u8(&mut early).await.expect("a byte");
        }
    }

    /// The standard library would give the socket a shorter queue.
    #[tokio::test]
    async fn hundreds_of_connections_fit_into_the_accept_queue() {
        let bound = std::fs::read_to_string("/proc/sys/net/core/somaxconn").expect("the system reports its limit");
        let count = bound.trim().parse::<usize>().expect("a number").min(500);
        let listener = listen("127.0.0.1", 0, None).await.expect("a free port");
        let address = listener.local_addr().expect("the listener has an address");
        let mut waiting = Vec::new();
        for _ in 0..count {
            waiting.push(tokio::net::TcpStream::connect(address).await.expect("there is room"));
        }
        for _ in 0..count {
            listener.accept().await.expect("a connection is in the queue");
        }
    }
}
