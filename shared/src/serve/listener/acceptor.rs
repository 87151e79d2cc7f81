//! Accepts connections, with retries after errors of the system.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};

/// How long to wait if the system has no descriptor left. Another connection must close first.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(50);

/// The accept loop of one listener.
pub struct Acceptor<'a> {
    listener: &'a TcpListener,
    /// The name of the listener in the log.
    name: &'static str,
    /// Whether the last attempt failed. Consecutive failures are logged once.
    is_failing: bool,
}

impl<'a> Acceptor<'a> {
    /// Returns an acceptor for `listener`. `name`: the name of the listener in the log.
    pub fn new(listener: &'a TcpListener, name: &'static str) -> Self {
        Self { listener, name, is_failing: false }
    }

    /// Accepts the next connection. Retries if the system cannot accept one.
    ///
    /// # Cancel safety
    /// Safe: dropping the future loses no connection.
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
                        tracing::warn!(%error, listener, "cannot accept connections; retrying");
                    }
                    tokio::time::sleep(EXHAUSTED_PAUSE).await;
                }
            }
        }
    }
}

/// Returns whether the error concerns a single connection that was closed while it was in the accept queue.
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
    async fn a_failing_accept_is_retried_until_it_succeeds() {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(([127, 0, 0, 1], 0).into()).expect("a free port");
        let address = socket.local_addr().expect("the socket is bound");
        // The socket does not listen yet, so accepting fails.
        let descriptor = socket.as_fd().try_clone_to_owned().expect("a descriptor");
        let listener = TcpListener::from_std(descriptor.into()).expect("the socket can be registered");
        assert!(listener.accept().await.is_err());
        let mut acceptor = Acceptor::new(&listener, "test");
        assert!(timeout(EXHAUSTED_PAUSE * 3, acceptor.accept()).await.is_err() && acceptor.is_failing);
        let _listens = socket.listen(1).expect("the socket listens");
        let client = TcpStream::connect(address).await.expect("there is room");
        let (_, peer) = timeout(EXHAUSTED_PAUSE * 100, acceptor.accept()).await.expect("a connection is in the queue");
        assert!(peer == client.local_addr().expect("connected") && !acceptor.is_failing);
    }
}
