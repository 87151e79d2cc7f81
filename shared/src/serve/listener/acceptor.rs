//! Takes connections off a listener, whatever the system says meanwhile.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};

/// How long to wait when the system has no descriptor left: someone must leave first.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(50);

/// Accepts the connections of one listener.
pub struct Acceptor<'a> {
    listener: &'a TcpListener,
    /// What the log calls it.
    name: &'static str,
    /// Whether the last attempt failed: a whole episode is one line of the log, since without a descriptor every attempt
    /// fails the same.
    is_failing: bool,
}

impl<'a> Acceptor<'a> {
    /// An acceptor for `listener`, which the log calls `name`.
    pub fn new(listener: &'a TcpListener, name: &'static str) -> Self {
        Self { listener, name, is_failing: false }
    }

    /// The next connection, however long the system has no room for one.
    ///
    /// # Cancel safety
    /// Safe: no connection is lost when the future is dropped.
    pub async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        loop {
            match self.listener.accept().await {
                Ok(accepted) => {
                    self.is_failing = false;
                    return accepted;
                }
                Err(error) if is_of_the_peer(&error) => {}
                Err(error) => {
                    if !std::mem::replace(&mut self.is_failing, true) {
                        let listener = self.name;
                        tracing::warn!(%error, listener, "cannot accept connections, trying again until it works");
                    }
                    tokio::time::sleep(EXHAUSTED_PAUSE).await;
                }
            }
        }
    }
}

/// Whether it was one peer that gave up before its turn came; others wait behind it.
pub(super) fn is_of_the_peer(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use tokio::net::TcpSocket;
    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn what_fails_is_tried_again_until_it_works() {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(([127, 0, 0, 1], 0).into()).expect("a free port");
        let address = socket.local_addr().expect("it is bound");
        // The same socket, which nobody has told to listen: it has no connection to give, and says so.
        let descriptor = socket.as_fd().try_clone_to_owned().expect("a descriptor");
        let listener = TcpListener::from_std(descriptor.into()).expect("it can be watched");
        assert!(listener.accept().await.is_err());
        let mut acceptor = Acceptor::new(&listener, "test");
        assert!(timeout(EXHAUSTED_PAUSE * 3, acceptor.accept()).await.is_err() && acceptor.is_failing);
        let _listens = socket.listen(1).expect("it listens");
        let client = TcpStream::connect(address).await.expect("there is room");
        let (_, peer) = timeout(EXHAUSTED_PAUSE * 100, acceptor.accept()).await.expect("someone waits");
        assert!(peer == client.local_addr().expect("connected") && !acceptor.is_failing);
    }
}
