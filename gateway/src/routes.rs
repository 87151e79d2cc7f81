//! Decides what answers a request: the WebSocket upgrade, the fallback transports, or the HTTP API.

use std::net::SocketAddr;
use std::rc::Rc;

use hyper::header::{ALLOW, HeaderValue};
use hyper::{Method, Request, StatusCode};
use shared::serve::http::{self, HEALTH_PATHS, RequestBody};
use shared::serve::listener::accept_policy::{forbidden, is_health_check_of_proxy};
use tokio::net::TcpStream;

use crate::capacity::SocketPermit;
use crate::fallback::body::{Body, Response};
use crate::fallback::{Client, Fallback, Target};
use crate::http::connection::{self, TcpClient};
use crate::http::key::key_in;
use crate::http::upgrade;
use crate::shard::Shard;
use crate::websocket::handshake;

/// Serves one TCP connection of a shard until it ends or becomes a WebSocket.
pub(crate) async fn serve(
    fallback: Rc<Fallback>,
    shard: Rc<Shard>,
    stream: TcpStream,
    peer: SocketAddr,
    permit: SocketPermit,
) {
    let respond = |shard, request, client| {
        let fallback = fallback.clone();
        async move { respond(&fallback, &shard, request, &client).await }
    };
    connection::serve(shard, stream, peer, permit, respond).await;
}

async fn respond(fallback: &Fallback, shard: &Rc<Shard>, request: Request<RequestBody>, tcp: &TcpClient) -> Response {
    let node = &shard.node;
    let access = &node.accept_policy.access;
    let client = access.client(tcp.peer, request.headers());
    let is_allowed = access.admits_client(client);
    let client = client.unwrap_or(tcp.peer.address);
    let path = request.uri().path();
    let prefix = &node.server.path_prefix;
    if key_in(path, prefix).is_some() || handshake::is_attempt(&request) {
        return upgrade::respond(shard, request, client, is_allowed, tcp).await.map(Body::Whole);
    }
    if let Some(target) = Target::parse(path, prefix) {
        let counted = access.counted_client(tcp.peer, request.headers());
        let client =
            Client { address: client, counted, is_allowed, opener: tcp.opener.clone(), connection: tcp.state.clone() };
        let mut response = fallback.respond(shard, request, &target, &client).await;
        if node.is_draining() {
            http::end_connection(&mut response);
        }
        return response;
    }
    if !is_allowed && !is_health_check_of_proxy(access, tcp.peer, &request) {
        return forbidden(client, &request).map(Body::Whole);
    }
    let mut response = match &node.routes {
        Some(routes) => {
            let _request = node.begin_request();
            routes.respond(request).await
        }
        None => respond_without_api(&request, prefix),
    };
    // Without the HTTP API the client has no reason to send another request, and the descriptor is needed for others.
    if node.routes.is_none() || node.is_draining() {
        http::end_connection(&mut response);
    }
    response.map(Body::Whole)
}

/// Responds to a request that is neither a handshake nor a fallback request, on a gateway without the HTTP API.
fn respond_without_api(request: &Request<RequestBody>, prefix: &str) -> http::Response {
    let path = request.uri().path();
    let below = http::below(path, prefix).unwrap_or_default();
    if !HEALTH_PATHS.contains(&path) && !HEALTH_PATHS.contains(&below) {
        return http::text(StatusCode::NOT_FOUND, "Not found");
    }
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        return http::health();
    }
    let mut response = http::text(StatusCode::METHOD_NOT_ALLOWED, "Method not allowed, only GET, HEAD");
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    response
}
