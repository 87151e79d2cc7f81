//! What other nodes pass on to this one.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::HeaderValue;
use hyper::service::service_fn;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use hyper_util::server::graceful::GracefulShutdown;
use shared::http;
use shared::listener::{Acceptor, WriteTimeout};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{PASSED_ON, Peers, Target, Verb, answer_proof, in_time, is_proven, unix_s};
use crate::body::Answer;
use crate::fallback::{body_bytes_max, collect, end_here, error, receive_here, send_here};
use crate::node::{Load, Node};

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
        if peers.access.admits_peer(peer.ip()) && node.has_room_for_socket() {
            let load = node.load(node.least_loaded_shard());
            converse(stream, peer, node.clone(), load, connections);
        }
    }
}

fn converse(stream: TcpStream, peer: SocketAddr, node: Arc<Node>, load: Load, connections: &GracefulShutdown) {
    // Lines are small, and wanted now.
    let _ = stream.set_nodelay(true);
    let asked = Arc::new(AtomicBool::new(false));
    let io = TokioIo::new(WriteTimeout::new(stream, node.server.outbox_timeout));
    let has_asked = asked.clone();
    let service = service_fn(move |request| {
        has_asked.store(true, Ordering::Relaxed);
        let node = node.clone();
        async move { Ok::<_, Infallible>(answer(&node, request).await) }
    });
    let connection = connections.watch(http::http1().serve_connection(io, service));
    tokio::spawn(async move {
        let _load = load;
        if let Some(Err(error)) = http::in_time(connection, &asked).await {
            tracing::debug!(%error, %peer, "connection of another node ended");
        }
    });
}

async fn answer(node: &Node, request: Request<Incoming>) -> Answer {
    let unknown = || error(StatusCode::NOT_FOUND, "Unknown session");
    let (head, body) = request.into_parts();
    let Some(target) = Target::parse_of_node(head.uri.path(), &node.server.path_prefix) else { return unknown() };
    let Some(app) = node.apps.by_key(&target.name.key()) else { return unknown() };
    let refused = || error(StatusCode::FORBIDDEN, "Only nodes of the cluster ask here");
    let proof = head.headers.get(PASSED_ON).and_then(|proof| proof.to_str().ok()).unwrap_or_default();
    if in_time(proof, unix_s()).is_none() || head.method != Method::POST {
        return refused();
    }
    let body = match collect(body, body_bytes_max(app)).await {
        Ok(body) => body,
        Err(answer) => return answer,
    };
    let path = head.uri.path_and_query().map_or("", |path| path.as_str());
    if !is_proven(&app.secret, path, &body, proof, unix_s()) {
        return refused();
    }
    let answer = match target.verb {
        Verb::Receive(transport) => receive_here(node, &target.name, transport).await,
        Verb::Send => send_here(node, &target.name, &body).await,
        Verb::End => end_here(node, &target.name).await,
    };
    let mut answer = answer.unwrap_or_else(unknown);
    if let Ok(mark) = HeaderValue::try_from(answer_proof(&app.secret, proof)) {
        answer.headers_mut().insert(PASSED_ON, mark);
    }
    answer
}
