//! Hands new sockets to the shards.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use shared::serve::listener::Acceptor;
use shared::serve::listener::accept_policy::Dropped;
use tokio::net::TcpListener;

use crate::inbox::Accepted;
use crate::node::Node;
use crate::relay::Relay;

/// Accepts connections for ever, each for the shard that has the fewest.
pub(crate) async fn accept(listener: &TcpListener, node: &Arc<Node>, relay: &Relay) {
    let mut acceptor = Acceptor::new(listener, "public");
    let mut pace = node.accept_policy.pace();
    loop {
        pace.wait().await;
        let (stream, peer) = acceptor.accept().await;
        // A client that gave up before its turn came may leave nothing to prepare.
        if let Ok(stream) = prepare(stream) {
            hand_out(stream, peer, node, relay);
        }
    }
}

/// Hands out a connection that was accepted.
pub(crate) fn hand_out(stream: std::net::TcpStream, peer: SocketAddr, node: &Arc<Node>, relay: &Relay) {
    if !node.capacity.has_room_for_socket() {
        // Those who are in need descriptors of their own, as the node does for Redis.
        node.metrics.connection_dropped(Dropped::Capacity.label());
        tracing::debug!(%peer, "connection dropped: {}", Dropped::Capacity);
        return;
    }
    let shard = node.capacity.least_loaded_shard();
    let load = node.capacity.add_socket(shard);
    relay.accept_on(shard, Accepted { stream, peer, load });
}

/// Events are small and must not wait for each other; the stream leaves this thread's runtime for the shard's.
pub(crate) fn prepare(stream: tokio::net::TcpStream) -> io::Result<std::net::TcpStream> {
    stream.set_nodelay(true)?;
    stream.into_std()
}

#[cfg(test)]
mod tests;
