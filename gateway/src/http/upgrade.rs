//! Turns HTTP requests into WebSockets.
//!
//! A client is refused after the upgrade, with a close frame. A browser hides the response to a failed handshake from
//! the page, and pusher-js would retry forever.

use std::borrow::Cow;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use http_body_util::Full;
use hyper::header::{HeaderMap, HeaderValue, SEC_WEBSOCKET_PROTOCOL};
use hyper::upgrade::OnUpgrade;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use shared::excerpt::{NAME_MAX, excerpt, logged};
use shared::protocol::CloseCode;
use shared::serve::http::{self, HttpStream, RequestBody, Response};
use shared::serve::listener::accept_policy::{NETWORK_REFUSED, forbidden};
use shared::serve::network::RemoteAddr;
use tokio::net::TcpStream;

use super::connection::TcpClient;
use super::handshake::{check, record_refusal, refuse_over_limit};
use super::key::key_in;
use super::refuse;
use crate::capacity::Admission;
use crate::carrier::Carrier;
use crate::node::Node;
use crate::reject::Farewell;
use crate::shard::Shard;
use crate::transport::Transport;
use crate::websocket::handshake::{self, InvalidHandshake};

/// The prefix of the subprotocols that some clients offer. The response names one only if the client offered it,
/// because browsers reject a subprotocol that they did not offer.
const SUBPROTOCOL_PREFIX: &str = "pusher-channels-protocol-";

/// Responds to a request that asks for a WebSocket, or whose path is that of one.
///
/// `client`: the address of the client; `is_allowed`: whether the access rules admit it.
pub(crate) async fn respond(
    shard: &Rc<Shard>,
    mut request: Request<RequestBody>,
    client: IpAddr,
    is_allowed: bool,
    tcp: &TcpClient,
) -> Response {
    let node = &shard.node;
    if let Err(invalid) = handshake::check(&request) {
        if !is_allowed {
            return forbidden(client, &request);
        }
        record_invalid(node, invalid, client, request.uri().path());
        return invalid.response();
    }
    let verdict = if is_allowed {
        admit(node, &request, tcp.peer).await
    } else {
        Err(Farewell::new(CloseCode::Unauthorized, NETWORK_REFUSED))
    };
    upgrade(shard, &mut request, client, verdict, tcp)
}

/// Decides whether a valid handshake gets a WebSocket.
async fn admit(node: &Arc<Node>, request: &Request<RequestBody>, peer: RemoteAddr) -> Result<Admission, Farewell> {
    let path = request.uri().path();
    let Some(key) = key_in(path, &node.server.path_prefix) else {
        return Err(Farewell::new(CloseCode::PathNotFound, format!("Path {} not found", excerpt(path, NAME_MAX))));
    };
    let app = check(node, key, request.uri(), request.headers())?;
    let counted = node.accept_policy.access.counted_client(peer, request.headers());
    let address = node.capacity.addresses.admit(counted, Transport::WebSocket);
    let address = address.map_err(|limit| refuse_over_limit(node, limit))?;
    Ok(node.capacity.admit(app, Transport::WebSocket).await?.counted_for(address))
}

/// Counts and logs a request that cannot open a WebSocket.
fn record_invalid(node: &Node, invalid: InvalidHandshake, client: IpAddr, path: &str) {
    node.metrics.handshake_invalid(invalid);
    let (label, path) = (invalid.label(), logged(path, NAME_MAX));
    tracing::debug!(
        target: "activity",
        { client.address = %client, reason = label, path = %path },
        "WebSocket handshake rejected as invalid"
    );
    if invalid.is_caused_by_proxy() && node.handshake_warnings.may_warn(node.age_s()) {
        tracing::warn!(
            { client.address = %client, reason = label, path = %path, advice = %invalid },
            "a proxy breaks WebSocket handshakes; check its configuration (logged at most once a minute)"
        );
    }
}

/// Responds to the handshake. Opens or refuses the WebSocket as soon as the response is sent.
fn upgrade(
    shard: &Rc<Shard>,
    request: &mut Request<RequestBody>,
    client: IpAddr,
    verdict: Result<Admission, Farewell>,
    tcp: &TcpClient,
) -> Response {
    let subprotocol = offered_subprotocol(request.headers());
    // Taken before fastwebsockets takes it. The future of fastwebsockets would allocate a read buffer that is not used.
    let upgraded = hyper::upgrade::on(&mut *request);
    let (response, _) = match fastwebsockets::upgrade::upgrade(&mut *request) {
        Ok(accepted) => accepted,
        // `handshake::check` has passed. Only a rule that the library alone checks can fail here.
        Err(error) => return http::text(StatusCode::BAD_REQUEST, error.to_string()),
    };
    let is_refused = verdict.is_err();
    if let Err(farewell) = &verdict {
        record_refusal(&shard.node, farewell, client);
    }
    let Some(carrier) = tcp.carrier.take() else {
        return http::text(StatusCode::BAD_REQUEST, "The connection is already being upgraded");
    };
    let opening = open(shard.clone(), upgraded, client, verdict, carrier);
    if is_refused {
        // A drain does not wait for refused clients.
        tokio::task::spawn_local(opening);
    } else {
        shard.spawn_tracked(opening);
    }
    let mut response = response.map(|_| Full::default());
    if let Some(subprotocol) = subprotocol {
        response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, subprotocol);
    }
    response
}

async fn open(
    shard: Rc<Shard>,
    upgraded: OnUpgrade,
    client: IpAddr,
    verdict: Result<Admission, Farewell>,
    carrier: Carrier,
) {
    // If the client disconnected during its handshake, nothing is to do.
    let Ok(upgraded) = upgraded.await else { return };
    let parts = upgraded.downcast::<TokioIo<HttpStream<TcpStream>>>().expect("only TCP streams are served");
    let stream = parts.io.into_inner().into_inner();
    match verdict {
        Ok(admission) => shard.open(stream, client, admission, carrier, parts.read_buf.into()),
        Err(farewell) => refuse::refuse(stream, &farewell).await,
    }
}

/// Returns the first offered subprotocol that is supported.
fn offered_subprotocol(headers: &HeaderMap) -> Option<HeaderValue> {
    let offers = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().map(HeaderValue::as_bytes);
    let offers: Vec<Cow<'_, str>> = offers.map(String::from_utf8_lossy).collect();
    let version = |offer: &str| offer.strip_prefix(SUBPROTOCOL_PREFIX)?.parse::<u32>().ok();
    let mut offers = offers.iter().flat_map(|offer| offer.split(',')).map(str::trim);
    let chosen = offers.find(|offer| version(offer).is_some())?;
    HeaderValue::from_str(chosen).ok()
}

#[cfg(test)]
mod tests;
