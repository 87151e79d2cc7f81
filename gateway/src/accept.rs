//! Hands new sockets to the shards.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use shared::listener::front::Dropped;
use tokio::net::TcpListener;

use crate::node::Node;
use crate::relay::Relay;
use crate::shard::inbox::ShardMessage;

/// How long to wait when the system has no descriptor left: someone must leave first.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(50);

/// Accepts connections for ever, each for the shard that has the fewest.
pub(crate) async fn accept(listener: &TcpListener, node: &Arc<Node>, relay: &Relay) {
    // A whole episode is one line of the log: without a descriptor every attempt fails the same.
    let mut failing = false;
    let mut pace = node.front.pace();
    loop {
        pace.wait().await;
        match listener.accept().await.and_then(|(stream, peer)| Ok((prepare(stream)?, peer))) {
            Ok((stream, peer)) => {
                failing = false;
                hand_out(stream, peer, node, relay);
            }
            // The client gave up before its turn came.
            Err(error) if is_of_the_client(&error) => {}
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(%error, "cannot accept connections, trying again until it works");
                }
                tokio::time::sleep(EXHAUSTED_PAUSE).await;
            }
        }
    }
}

/// Hands out a connection that was accepted.
pub(crate) fn hand_out(stream: std::net::TcpStream, peer: SocketAddr, node: &Arc<Node>, relay: &Relay) {
    if !node.has_room_for_socket() {
        // Those who are in need descriptors of their own, as the node does for Redis.
        node.metrics.connection_dropped(Dropped::Capacity.label());
        tracing::debug!(%peer, "connection dropped: {}", Dropped::Capacity);
        return;
    }
    let shard = node.least_loaded_shard();
    let load = node.load(shard);
    relay.tell_shard(shard, ShardMessage::Accepted { stream, peer, load });
}

/// Events are small and must not wait for each other; the stream leaves this thread's runtime for the shard's.
pub(crate) fn prepare(stream: tokio::net::TcpStream) -> io::Result<std::net::TcpStream> {
    stream.set_nodelay(true)?;
    stream.into_std()
}

fn is_of_the_client(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::InvalidInput
    )
}

#[cfg(test)]
mod tests;
