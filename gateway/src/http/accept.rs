//! Accepts TCP connections and assigns them to shards.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use shared::serve::listener::Acceptor;
use shared::serve::listener::accept_policy::Dropped;
use tokio::net::TcpListener;

use crate::inbox::Accepted;
use crate::node::Node;
use crate::relay::Relay;

/// Accepts connections forever and assigns each to the shard with the fewest.
pub(crate) async fn accept(listener: &TcpListener, node: &Arc<Node>, relay: &Relay) {
    let mut acceptor = Acceptor::new(listener, "public");
    let mut pace = node.accept_policy.pace();
    loop {
        pace.wait().await;
        let (stream, peer) = acceptor.accept().await;
        // If the client has already disconnected, the socket options cannot be set.
        if let Ok(stream) = prepare(stream) {
            assign(stream, peer, node, relay);
        }
    }
}

/// Assigns an accepted connection to a shard, or drops it if no descriptor is left for it.
pub(crate) fn assign(stream: std::net::TcpStream, peer: SocketAddr, node: &Arc<Node>, relay: &Relay) {
    if !node.capacity.has_room_for_socket() {
        node.metrics.connection_dropped(Dropped::Capacity.label());
        tracing::debug!(
            { client.address = %peer, error = %Dropped::Capacity },
            "connection dropped before its first request"
        );
        return;
    }
    let shard = node.capacity.least_loaded_shard();
    let load = node.capacity.add_socket(shard);
    relay.accept_on(shard, Accepted { stream, peer, load });
}

/// Disables Nagle's algorithm, because events are small and must not be delayed, and detaches the stream from this
/// runtime.
pub(crate) fn prepare(stream: tokio::net::TcpStream) -> io::Result<std::net::TcpStream> {
    stream.set_nodelay(true)?;
    stream.into_std()
}

#[cfg(test)]
mod tests;
