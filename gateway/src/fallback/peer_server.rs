//! What other nodes pass on to this one.

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

use super::body::Answer;
use super::collect::collect;
use super::peers::{PASSED_ON, Peers, answer_proof, in_time, is_proven, unix_s};
use super::{Target, Verb, body_bytes_max, end_here, error, receive_here, send_here};
use crate::capacity::SocketPermit;
use crate::http::key::find_app;
use crate::node::Node;

/// What is under way when the node has said goodbye to everyone has this long to get out.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(1);

/// Serves other nodes until `shutdown` resolves; the last answers get out.
pub(crate) async fn serve(peers: &Peers, node: &Arc<Node>, shutdown: impl Future<Output = ()>) {
    let connections = GracefulShutdown::new();
    tokio::select! {
        () = accept(peers, node, &connections) => {}
        () = shutdown => {}
    }
    let _ = timeout(LEAVE_TIMEOUT, connections.shutdown()).await;
}

async fn accept(peers: &Peers, node: &Arc<Node>, connections: &GracefulShutdown) {
    let mut acceptor = Acceptor::new(&peers.listener, "peers");
    loop {
        let (stream, peer) = acceptor.accept().await;
        // A node that is not let in finds another one, or makes the session its own; others have no business here.
        if peers.access.admits_peer(peer.ip()) && node.capacity.has_room_for_socket() {
            let load = node.capacity.add_socket(node.capacity.least_loaded_shard());
            converse(stream, peer, node.clone(), load, connections);
        }
    }
}

fn converse(stream: TcpStream, peer: SocketAddr, node: Arc<Node>, load: SocketPermit, connections: &GracefulShutdown) {
    // Lines are small, and wanted now.
    let _ = stream.set_nodelay(true);
    let state = ConnectionState::new();
    let limits = Limits { body_bytes_max: node.body_bytes_max, write_timeout: node.server.outbox_timeout };
    let connection = http::connection(stream, limits, state.clone(), {
        let state = state.clone();
        move |request| {
            let (node, state) = (node.clone(), state.clone());
            async move { answer(&node, request, &state).await }
        }
    });
    let connection = connections.watch(connection);
    tokio::spawn(async move {
        let _load = load;
        if let Some(Err(error)) = http::in_time(connection, &state).await {
            tracing::debug!(%error, %peer, "connection of another node ended");
        }
    });
}

async fn answer(node: &Node, request: Request<RequestBody>, connection: &Arc<ConnectionState>) -> Answer {
    let unknown = || error(StatusCode::NOT_FOUND, "Unknown session");
    let (head, body) = request.into_parts();
    let Some(target) = Target::parse_of_node(head.uri.path(), &node.server.path_prefix) else { return unknown() };
    let Some(app) = find_app(&node.apps, target.name.key()) else { return unknown() };
    let refused = || error(StatusCode::FORBIDDEN, "Only nodes of the cluster may send requests here");
    let proof = head.headers.get(PASSED_ON).and_then(|proof| proof.to_str().ok()).unwrap_or_default();
    if in_time(proof, unix_s()).is_none() || head.method != Method::POST {
        return refused();
    }
    let body = match collect(node, body, body_bytes_max(app)).await {
        Ok(body) => body,
        Err(answer) => return answer,
    };
    let path = head.uri.path_and_query().map_or("", |path| path.as_str());
    if !is_proven(&app.secret, path, &body, proof, unix_s()) {
        return refused();
    }
    let answer = match target.verb {
        Verb::Receive(transport) => receive_here(node, &target.name, transport, connection).await,
        Verb::Send => send_here(node, &target.name, &body).await,
        Verb::End => end_here(node, &target.name).await,
    };
    let mut answer = answer.unwrap_or_else(unknown);
    if let Ok(mark) = HeaderValue::try_from(answer_proof(&app.secret, proof)) {
        answer.headers_mut().insert(PASSED_ON, mark);
    }
    answer
}
