//! TLS in front of a shard: the shard's side is a plain socket, as its write loop wants it.
//!
//! A pair of local sockets stands between: one end is the shard's connection, the other is copied to and from TLS by a task
//! on the same thread. It costs a copy and some memory per socket, and only those who ask for it.

use std::io;
use std::os::fd::OwnedFd;

use shared::tls::Tls;
use tokio::net::{TcpStream, UnixStream};

/// Bytes that are copied at a time in each direction; most messages are smaller.
const COPY_BYTES: usize = 4096;

/// Shakes hands; returns the shard's end. The copying lasts as long as both sides.
pub(crate) async fn terminate(tls: &Tls, stream: TcpStream) -> io::Result<TcpStream> {
    let mut encrypted = tls.accept(stream).await?;
    let (near, far) = std::os::unix::net::UnixStream::pair()?;
    far.set_nonblocking(true)?;
    near.set_nonblocking(true)?;
    let mut near = UnixStream::from_std(near)?;
    tokio::task::spawn_local(async move {
        // A client that is gone shows on the shard's side as the end of its connection.
        let _ = tokio::io::copy_bidirectional_with_sizes(&mut encrypted, &mut near, COPY_BYTES, COPY_BYTES).await;
    });
    // To the system a connected stream is a connected stream.
    TcpStream::from_std(std::net::TcpStream::from(OwnedFd::from(far)))
}
