//! TLS in front of a shard: the shard's side is a plain socket, as its write loop wants it.
//!
//! A pair of local sockets stands between: one end is the shard's connection, the other is copied to and from TLS by a task
//! on the same thread. It costs a copy, two descriptors and some memory per socket, and only those who ask for it.

use std::cell::Cell;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use shared::serve::tls::Tls;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use crate::limits::TLS_COPY_BYTES;
use crate::shard::Shard;

/// Saying goodbye may take this long.
const GRACE: Duration = Duration::from_secs(2);

/// Whether a client was cut off for taking nothing: its shard sees no more of that than the end of the stream.
#[derive(Clone, Default)]
pub(crate) struct Stall(Rc<Cell<bool>>);

impl Stall {
    /// Whether it was.
    pub(crate) fn has_come(&self) -> bool {
        self.0.get()
    }
}

/// Shakes hands; returns the shard's end. The copying lasts hardly longer than either side.
///
/// A client that takes nothing is cut off after `server.outbox_timeout`. The shard does not end before what it said last is
/// out.
pub(crate) async fn terminate(shard: &Rc<Shard>, tls: &Tls, stream: TcpStream) -> io::Result<(TcpStream, Stall)> {
    let encrypted = tls.accept(stream).await?;
    let (near, far) = std::os::unix::net::UnixStream::pair()?;
    far.set_nonblocking(true)?;
    near.set_nonblocking(true)?;
    let near = UnixStream::from_std(near)?;
    let stall = Stall::default();
    shard.chore(pump(shard.clone(), encrypted, near, stall.clone()));
    // To the system a connected stream is a connected stream.
    Ok((TcpStream::from_std(std::net::TcpStream::from(OwnedFd::from(far)))?, stall))
}

async fn pump(shard: Rc<Shard>, encrypted: impl AsyncRead + AsyncWrite, near: UnixStream, stall: Stall) {
    let patience = shard.node.server.outbox_timeout;
    let (from_client, to_client) = split(encrypted);
    let (from_shard, to_shard) = near.into_split();
    let down = async { stall.0.set(copy(from_shard, to_client, patience).await == End::Stall) };
    // A shard that does not read has a reason, and ends the connection when it has had enough.
    let up = copy(from_client, to_shard, Duration::MAX);
    tokio::pin!(down, up);
    let both = async {
        // Whoever is left has nobody to talk to any more, and is dropped when it does not see that by itself.
        tokio::select! {
            () = &mut down => drop(timeout(grace(&shard), up).await),
            _ = &mut up => drop(timeout(grace(&shard).max(patience), down).await),
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

/// What copying ended with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The end of either side.
    Stream,
    /// `to` took nothing for too long.
    Stall,
}

/// Copies until the end of either side, which is told to the other, or until what was read waits longer than `patience`.
async fn copy(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, patience: Duration) -> End {
    let mut buffer = vec![0; TLS_COPY_BYTES];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        let written = timeout(patience, async {
            to.write_all(&buffer[..read]).await?;
            to.flush().await
        });
        match written.await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return End::Stream,
            Err(_) => return End::Stall,
        }
    }
    // Who is gone already need not be told.
    let _ = timeout(GRACE, to.shutdown()).await;
    End::Stream
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    const PATIENCE: Duration = Duration::from_millis(50);

    #[tokio::test]
    async fn a_reader_that_takes_nothing_is_told_from_one_that_is_gone() {
        let event = [b'x'; 100];
        let (to, _reader) = duplex(99);
        assert_eq!(copy(&event[..], to, PATIENCE).await, End::Stall);
        let (to, reader) = duplex(99);
        drop(reader);
        assert_eq!(copy(&event[..], to, PATIENCE).await, End::Stream);
        let (to, mut reader) = duplex(99);
        let mut taken = Vec::new();
        let (end, _) = tokio::join!(copy(&event[..], to, PATIENCE), reader.read_to_end(&mut taken));
        assert_eq!((end, taken.as_slice()), (End::Stream, &event[..]));
    }
}
