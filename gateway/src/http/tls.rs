//! Terminates TLS for a shard, which writes to plain sockets.
//!
//! A pair of local sockets connects the two. One end is the connection of the shard. A task on the same thread copies
//! data between the other end and the TLS stream. This costs a copy, two descriptors and some memory for each TLS
//! connection.

use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use shared::serve::tls::Tls;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use crate::carrier::Stall;
use crate::limits::TLS_COPY_BYTES;
use crate::shard::Shard;

/// The timeout of the TLS close notification.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Performs the TLS handshake and returns the plaintext socket. A background task copies data until either side closes.
///
/// If the client reads nothing for `server.outbox_timeout`, the task closes the connection and sets the stall flag. The
/// shard does not end before the task has written the last data of the shard.
pub(crate) async fn terminate(shard: &Rc<Shard>, tls: &Tls, stream: TcpStream) -> io::Result<(TcpStream, Stall)> {
    let encrypted = tls.accept(stream).await?;
    let (near, far) = std::os::unix::net::UnixStream::pair()?;
    far.set_nonblocking(true)?;
    near.set_nonblocking(true)?;
    let near = UnixStream::from_std(near)?;
    let stall = Stall::default();
    shard.spawn_tracked(pump(shard.clone(), encrypted, near, stall.clone()));
    // The system calls for a connected stream are the same for both kinds of socket.
    Ok((TcpStream::from_std(std::net::TcpStream::from(OwnedFd::from(far)))?, stall))
}

async fn pump(shard: Rc<Shard>, encrypted: impl AsyncRead + AsyncWrite, near: UnixStream, stall: Stall) {
    let write_timeout = shard.node.server.outbox_timeout;
    let (from_client, to_client) = split(encrypted);
    let (from_shard, to_shard) = near.into_split();
    let down = async { stall.set(copy(from_shard, to_client, write_timeout).await == End::Stall) };
    // No timeout: the shard pauses reading on purpose, and closes the connection itself if needed.
    let up = copy(from_client, to_shard, Duration::MAX);
    tokio::pin!(down, up);
    let both = async {
        // When one direction ends, the other is dropped if it does not end within the grace time.
        tokio::select! {
            () = &mut down => drop(timeout(grace(&shard), up).await),
            _ = &mut up => drop(timeout(grace(&shard).max(write_timeout), down).await),
        }
    };
    // A client that reads nothing does not delay a drain.
    let too_late = async {
        let deadlines = shard.drain_started().await;
        tokio::time::sleep_until(deadlines.requests_until).await;
    };
    tokio::select! {
        () = both => {}
        () = too_late => {}
    }
}

/// Returns how long one side may take to end after the other. It equals the time to answer a close frame.
fn grace(shard: &Shard) -> Duration {
    Duration::from_secs(shard.close_grace_s().into())
}

/// How copying ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Either side ended.
    Stream,
    /// `to` accepted no data within the timeout.
    Stall,
}

/// Copies until either side ends, or until a write takes longer than `write_timeout`. Shuts `to` down if `from` ends.
async fn copy(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, write_timeout: Duration) -> End {
    let mut buffer = vec![0; TLS_COPY_BYTES];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        let written = timeout(write_timeout, async {
            to.write_all(&buffer[..read]).await?;
            to.flush().await
        });
        match written.await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return End::Stream,
            Err(_) => return End::Stall,
        }
    }
    // If the other side is already closed, this fails without consequence.
    let _ = timeout(CLOSE_TIMEOUT, to.shutdown()).await;
    End::Stream
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    const WRITE_TIMEOUT: Duration = Duration::from_millis(50);

    #[tokio::test]
    async fn a_stalled_reader_is_distinguished_from_a_closed_one() {
        let event = [b'x'; 100];
        let (to, _reader) = duplex(99);
        assert_eq!(copy(&event[..], to, WRITE_TIMEOUT).await, End::Stall);
        let (to, reader) = duplex(99);
        drop(reader);
        assert_eq!(copy(&event[..], to, WRITE_TIMEOUT).await, End::Stream);
        let (to, mut reader) = duplex(99);
        let mut received = Vec::new();
        let (end, _) = tokio::join!(copy(&event[..], to, WRITE_TIMEOUT), reader.read_to_end(&mut received));
        assert_eq!((end, received.as_slice()), (End::Stream, &event[..]));
    }
}
