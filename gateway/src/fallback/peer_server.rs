//! Serves the fallback requests that other nodes forward.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::header::HeaderValue;
use hyper::{Method, Request, StatusCode};
use hyper_util::server::graceful::GracefulShutdown;
use shared::serve::http::{self, ConnectionState, Limits, RequestBody};
use shared::serve::listener::Acceptor;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::body::Response;
use super::collect::collect;
use super::local;
use super::name::{Target, Verb};
use super::peers::Peers;
use super::proof::{self, PROOF};
use super::registry::Registry;
use super::responses::{error, unknown_session};
use crate::capacity::SocketPermit;
use crate::http::key::find_app;
use crate::limits::fallback_body_bytes_max;

/// How long requests in progress may take after the last client connection is closed.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);

/// Serves other nodes until `shutdown` resolves, then completes the requests in progress. Returns at once without a
/// cluster.
pub(crate) async fn serve(registry: &Arc<Registry>, shutdown: impl Future<Output = ()>) {
    let Some(peers) = registry.peers() else { return };
    let connections = GracefulShutdown::new();
    tokio::select! {
        () = accept(peers, registry, &connections) => {}
        () = shutdown => {}
    }
    let _ = timeout(SHUTDOWN_TIMEOUT, connections.shutdown()).await;
}

async fn accept(peers: &Peers, registry: &Arc<Registry>, connections: &GracefulShutdown) {
    let mut acceptor = Acceptor::new(&peers.listener, "peers");
    let capacity = &registry.node.capacity;
    loop {
        let (stream, peer) = acceptor.accept().await;
        // A rejected node looks for another holder or opens the session itself.
        if peers.access.admits_peer(peer.ip()) && capacity.has_room_for_socket() {
            let permit = capacity.add_socket(capacity.least_loaded_shard());
            serve_connection(stream, peer, registry.clone(), permit, connections);
        }
    }
}

fn serve_connection(
    stream: TcpStream,
    peer: SocketAddr,
    registry: Arc<Registry>,
    permit: SocketPermit,
    connections: &GracefulShutdown,
) {
    // Lines are small and must not be delayed.
    let _ = stream.set_nodelay(true);
    let state = ConnectionState::new();
    let node = &registry.node;
    let limits = Limits { body_bytes_max: node.body_bytes_max, write_timeout: node.server.outbox_timeout };
    let connection = http::connection(stream, limits, state.clone(), {
        let state = state.clone();
        move |request| {
            let (registry, state) = (registry.clone(), state.clone());
            async move { respond(&registry, request, &state).await }
        }
    });
    let connection = connections.watch(connection);
    tokio::spawn(async move {
        let _permit = permit;
        if let Some(Err(error)) = http::in_time(connection, &state).await {
            tracing::debug!({ client.address = %peer, %error }, "connection from another node failed");
        }
    });
}

async fn respond(registry: &Registry, request: Request<RequestBody>, connection: &Arc<ConnectionState>) -> Response {
    let node = &registry.node;
    let (head, body) = request.into_parts();
    let Some(target) = Target::parse_from_node(head.uri.path(), &node.server.path_prefix) else {
        return unknown_session();
    };
    let Some(app) = find_app(&node.apps, target.name.key()) else { return unknown_session() };
    let refused = || error(StatusCode::FORBIDDEN, "Only nodes of the cluster may send requests here");
    let proof = head.headers.get(PROOF).and_then(|proof| proof.to_str().ok()).unwrap_or_default();
    if !proof::is_recent(proof, proof::unix_s()) || head.method != Method::POST {
        return refused();
    }
    let body = match collect(node, body, fallback_body_bytes_max(app)).await {
        Ok(body) => body,
        Err(response) => return response,
    };
    let path = head.uri.path_and_query().map_or("", |path| path.as_str());
    if !proof::verify(&app.secret, path, &body, proof, proof::unix_s()) {
        return refused();
    }
    let response = match target.verb {
        Verb::Receive(transport) => local::receive(registry, &target.name, transport, connection).await,
        Verb::Send => local::send(registry, &target.name, &body).await,
        Verb::End => local::end(registry, &target.name).await,
    };
    let mut response = response.unwrap_or_else(unknown_session);
    if let Ok(mark) = HeaderValue::try_from(proof::sign_response(&app.secret, proof)) {
        response.headers_mut().insert(PROOF, mark);
    }
    response
}
