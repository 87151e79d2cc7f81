//! TLS in front of a shard: the shard's side is a plain socket, as its write loop wants it.
//!
//! A pair of local sockets stands between: one end is the shard's connection, the other is copied to and from TLS by a task
//! on the same thread. It costs a copy, two descriptors and some memory per socket, and only those who ask for it.

use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use shared::tls::Tls;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use crate::shard::Shard;

/// Bytes that are copied at a time in each direction; most messages are smaller.
const COPY_BYTES: usize = 4096;

/// Saying goodbye may take this long.
const GRACE: Duration = Duration::from_secs(2);

/// Shakes hands; returns the shard's end. The copying lasts hardly longer than either side.
///
/// A client that takes nothing is cut off after `server.outbox_timeout`. The shard does not end before what it said last is
/// out.
pub(crate) async fn terminate(shard: &Rc<Shard>, tls: &Tls, stream: TcpStream) -> io::Result<TcpStream> {
    let encrypted = tls.accept(stream).await?;
    let (near, far) = std::os::unix::net::UnixStream::pair()?;
    far.set_nonblocking(true)?;
    near.set_nonblocking(true)?;
    let near = UnixStream::from_std(near)?;
    shard.chore(pump(shard.clone(), encrypted, near));
    // To the system a connected stream is a connected stream.
    TcpStream::from_std(std::net::TcpStream::from(OwnedFd::from(far)))
}

async fn pump(shard: Rc<Shard>, encrypted: impl AsyncRead + AsyncWrite, near: UnixStream) {
    let stall = shard.node.server.outbox_timeout;
    let (from_client, to_client) = split(encrypted);
    let (from_shard, to_shard) = near.into_split();
    let down = copy(from_shard, to_client, stall);
    // A shard that does not read has a reason, and ends the connection when it has had enough.
    let up = copy(from_client, to_shard, Duration::MAX);
    tokio::pin!(down, up);
    let both = async {
        // Whoever is left has nobody to talk to any more, and is dropped when it does not see that by itself.
        tokio::select! {
            () = &mut down => drop(timeout(grace(&shard), up).await),
            () = &mut up => drop(timeout(grace(&shard).max(stall), down).await),
        }
    };
    // A client that takes nothing does not hold up a node that leaves.
    let too_late = async {
        let leave = shard.leaving().await;
        tokio::time::sleep_until(leave.leave_by).await;
    };
    tokio::select! {
        () = both => {}
        () = too_late => {}
    }
}

/// When one side has ended, the other has this long to do so: as long as a close frame's answer.
fn grace(shard: &Shard) -> Duration {
    Duration::from_secs(shard.close_grace_s().into())
}

/// Copies until the end of either side, which is told to the other.
async fn copy(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, stall: Duration) {
    let mut buffer = vec![0; COPY_BYTES];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        let written = timeout(stall, async {
            to.write_all(&buffer[..read]).await?;
            to.flush().await
        });
        if !matches!(written.await, Ok(Ok(()))) {
            return;
        }
    }
    // Who is gone already need not be told.
    let _ = timeout(GRACE, to.shutdown()).await;
}
