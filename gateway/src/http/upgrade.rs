//! From a TCP connection to a WebSocket, or to the HTTP beside it: the fallback transports, and other routes.
//!
//! Refusals of the protocol come after the upgrade: a browser tells a page nothing about a failed one, and pusher-js
//! would try again for ever.

use std::borrow::Cow;
use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hyper::header::{ALLOW, HeaderMap, HeaderValue, ORIGIN, SEC_WEBSOCKET_PROTOCOL};
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use percent_encoding::percent_decode_str;
use shared::app::App;
use shared::excerpt::{MESSAGE_MAX, NAME_MAX, excerpt, logged};
use shared::protocol::{self, CloseCode};
use shared::serve::http::{self, ConnectionState, HEALTH_PATHS, HttpStream, Limits, RequestBody};
use shared::serve::listener::accept_policy::{Dropped, NETWORK_REFUSED, forbidden, is_health_check_of_proxy};
use shared::serve::network::RemoteAddr;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::key::{self, find_app};
use super::opener::Opener;
use super::tls::{self, Stall};
use super::{origin, refuse};
use crate::capacity::addresses::OverLimit;
use crate::capacity::{Admission, SocketPermit};
use crate::fallback::body::{Answer, Body};
use crate::fallback::{self, Target};
use crate::node::Node;
use crate::reject::Farewell;
use crate::shard::Shard;
use crate::transport::Transport;
use crate::websocket::handshake::{self, InvalidHandshake};

/// Subprotocols that some clients offer: only then is one answered, since browsers refuse an answer to no offer.
const SUBPROTOCOL_PREFIX: &str = "pusher-channels-protocol-";

/// A connection that has not asked anything when the shard leaves has this long to do so: its request may be on its way.
const LAST_HEAD_TIMEOUT: Duration = Duration::from_secs(1);

/// The TCP connection beneath a WebSocket, kept as long as that.
pub(crate) struct Carrier {
    _load: SocketPermit,
    /// Set where TLS is spoken here.
    stall: Option<Stall>,
}

impl Carrier {
    /// Whether it was ended because the client took nothing.
    pub(crate) fn has_stalled(&self) -> bool {
        self.stall.as_ref().is_some_and(Stall::has_come)
    }
}

/// Serves one TCP connection until it ends or becomes a WebSocket, if it is let in.
pub(crate) async fn serve(shard: Rc<Shard>, stream: TcpStream, peer: SocketAddr, load: SocketPermit) {
    let too_late = async {
        shard.leaving().await;
        tokio::time::sleep(LAST_HEAD_TIMEOUT).await;
    };
    let admitted = tokio::select! {
        admitted = admit_connection(&shard, stream, peer) => admitted,
        () = too_late => Err(Dropped::Leaving),
    };
    match admitted {
        Ok((stream, client, stall)) => serve_admitted(shard, stream, client, Carrier { _load: load, stall }).await,
        Err(dropped) => {
            shard.node.metrics.connection_dropped(dropped.label());
            let cause = std::error::Error::source(&dropped).map(ToString::to_string).unwrap_or_default();
            tracing::debug!(%peer, error = %dropped, cause, "connection dropped");
        }
    }
}

/// Returns what is spoken HTTP over, whose connection it is, and where TLS says that its client took nothing.
async fn admit_connection(
    shard: &Rc<Shard>,
    mut stream: TcpStream,
    peer: SocketAddr,
) -> Result<(TcpStream, RemoteAddr, Option<Stall>), Dropped> {
    let accept_policy = &shard.node.accept_policy;
    let client = accept_policy.admit(&mut stream, peer).await?;
    let Some(tls) = &accept_policy.tls else { return Ok((stream, client, None)) };
    let (stream, stall) = tls::terminate(shard, tls, stream).await.map_err(Dropped::Tls)?;
    Ok((stream, client, Some(stall)))
}

/// The state that the requests of one TCP connection share.
#[derive(Clone)]
struct TcpClient {
    peer: RemoteAddr,
    /// Taken by the request that becomes a WebSocket.
    carrier: Rc<RefCell<Option<Carrier>>>,
    state: Arc<ConnectionState>,
    opener: Rc<Opener>,
}

async fn serve_admitted(shard: Rc<Shard>, stream: TcpStream, peer: RemoteAddr, carrier: Carrier) {
    let client = TcpClient {
        peer,
        carrier: Rc::new(RefCell::new(Some(carrier))),
        state: ConnectionState::new(),
        opener: Rc::default(),
    };
    let (state, opener) = (client.state.clone(), client.opener.clone());
    let limits = Limits { body_bytes_max: shard.node.body_bytes_max, write_timeout: shard.node.server.outbox_timeout };
    // When the shard drains, the connection ends with the response that is under way, and soon.
    let until_leaving = async {
        let connection = http::connection(stream, limits, state.clone(), |request| {
            let (shard, client) = (shard.clone(), client.clone());
            async move { answer(&shard, request, &client).await }
        });
        let connection = connection.with_upgrades();
        tokio::pin!(connection);
        let leave = tokio::select! {
            ended = &mut connection => return Some(ended),
            leave = shard.leaving() => leave,
        };
        let is_silent = !state.was_asked();
        let next_head_by = if is_silent { Instant::now() + LAST_HEAD_TIMEOUT } else { leave.idle_until };
        if let Ok(ended) = timeout_at(next_head_by.min(leave.leave_by), &mut connection).await {
            return Some(ended);
        }
        if !state.was_asked() {
            return None;
        }
        connection.as_mut().graceful_shutdown();
        timeout_at(leave.leave_by, connection).await.ok()
    };
    let ended = http::in_time(until_leaving, &state).await;
    if !matches!(ended, Some(Some(Ok(())))) || state.is_half_closed() {
        opener.lose();
    }
    match ended {
        Some(Some(Ok(()))) => {}
        Some(Some(Err(error))) => tracing::debug!({ client.address = %peer.address, %error }, "HTTP connection ended"),
        Some(None) => {
            tracing::debug!({ client.address = %peer.address }, "HTTP connection was not done at the end of the drain")
        }
        None => tracing::debug!({ client.address = %peer.address }, "HTTP connection sent no request in time"),
    }
}

async fn answer(shard: &Rc<Shard>, request: Request<RequestBody>, tcp: &TcpClient) -> Answer {
    let node = &shard.node;
    let access = &node.accept_policy.access;
    let client = access.client(tcp.peer, request.headers());
    let is_let_in = access.admits_client(client);
    let client = client.unwrap_or(tcp.peer.address);
    let path = request.uri().path();
    let prefix = &node.server.path_prefix;
    let key = key::key_in(path, prefix);
    if key.is_some() || handshake::is_attempt(&request) {
        return open_websocket(shard, request, client, is_let_in, tcp).await;
    }
    if let Some(target) = Target::parse(path, prefix) {
        let counted = access.counted_client(tcp.peer, request.headers());
        let client = fallback::Client {
            address: client,
            counted,
            is_let_in,
            opener: tcp.opener.clone(),
            connection: tcp.state.clone(),
        };
        let mut answer = fallback::answer(shard, request, &target, &client).await;
        if node.is_draining() {
            http::end_connection(&mut answer);
        }
        return answer;
    }
    if !is_let_in && !is_health_check_of_proxy(access, tcp.peer, &request) {
        return forbidden(client, &request).map(Body::Whole);
    }
    let routes = node.routes.clone();
    let mut answer = match &routes {
        Some(routes) => {
            let _request = node.begin_request();
            routes.respond(request).await
        }
        None => answer_alone(&request, prefix),
    };
    // A gateway has no other response for such a client, and needs its descriptors for others.
    if routes.is_none() || node.is_draining() {
        http::end_connection(&mut answer);
    }
    answer.map(Body::Whole)
}

/// Answers what is neither a handshake nor a fallback request, on a gateway without the HTTP API.
fn answer_alone(request: &Request<RequestBody>, prefix: &str) -> http::Response {
    let path = request.uri().path();
    let below = http::below(path, prefix).unwrap_or_default();
    if !HEALTH_PATHS.contains(&path) && !HEALTH_PATHS.contains(&below) {
        return http::text(StatusCode::NOT_FOUND, "Not found");
    }
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        return http::health();
    }
    let mut answer = http::text(StatusCode::METHOD_NOT_ALLOWED, "Method not allowed, only GET, HEAD");
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    answer
}

/// Answers a request that asks for a WebSocket, or that names the path of one.
async fn open_websocket(
    shard: &Rc<Shard>,
    mut request: Request<RequestBody>,
    client: IpAddr,
    is_let_in: bool,
    tcp: &TcpClient,
) -> Answer {
    let node = &shard.node;
    if let Err(invalid) = handshake::check(&request) {
        if !is_let_in {
            return forbidden(client, &request).map(Body::Whole);
        }
        note_invalid(node, invalid, client, request.uri().path());
        return invalid.answer().map(Body::Whole);
    }
    let verdict = if is_let_in {
        admit_websocket(node, &request, tcp.peer).await
    } else {
        Err(Farewell::new(CloseCode::Unauthorized, NETWORK_REFUSED))
    };
    upgrade(shard, &mut request, client, verdict, &tcp.carrier)
}

/// Decides whether a valid handshake gets a WebSocket.
async fn admit_websocket(
    node: &Arc<Node>,
    request: &Request<RequestBody>,
    peer: RemoteAddr,
) -> Result<Admission, Farewell> {
    let path = request.uri().path();
    let Some(key) = key::key_in(path, &node.server.path_prefix) else {
        return Err(Farewell::new(CloseCode::PathNotFound, format!("Path {} not found", excerpt(path, NAME_MAX))));
    };
    let app = judge(node, key, request.uri(), request.headers())?;
    let counted = node.accept_policy.access.counted_client(peer, request.headers());
    let address =
        node.capacity.addresses.admit(counted, Transport::WebSocket).map_err(|limit| over_limit(node, limit))?;
    Ok(node.capacity.admit(app, Transport::WebSocket).await?.counted_for(address))
}

/// Counts that a client address has too many connections. Returns the farewell for the client, which may try again.
pub(crate) fn over_limit(node: &Node, limit: OverLimit) -> Farewell {
    node.metrics.rate_limited(limit.label());
    Farewell::new(CloseCode::OverCapacity, "Too many connections from this address, try again later")
}

/// Counts and logs a request that cannot open a WebSocket.
fn note_invalid(node: &Node, invalid: InvalidHandshake, client: IpAddr, path: &str) {
    node.metrics.handshake_invalid(invalid);
    let (label, path) = (invalid.label(), logged(path, NAME_MAX));
    tracing::debug!(
        target: "activity",
        { client.address = %client, reason = label, path = %path },
        "WebSocket handshake is not valid"
    );
    if invalid.is_of_a_proxy() && node.handshake_warnings.may_warn(node.age_s()) {
        tracing::warn!(
            { client.address = %client, reason = label, path = %path, advice = %invalid },
            "a proxy breaks WebSocket handshakes; this line is written once a minute at most"
        );
    }
}

/// Checks a client's handshake by any transport, as far as this node can alone. Source: protocol reference 1.
///
/// `key`: as it is in the path. A node that shuts down may have an outdated configuration, so none of its refusals is
/// final: the next node decides.
pub(crate) fn judge<'a>(node: &'a Node, key: &str, uri: &Uri, headers: &HeaderMap) -> Result<&'a Arc<App>, Farewell> {
    check_client(node, key, uri, headers)
        .map_err(|farewell| if node.is_draining() { farewell.not_final() } else { farewell })
}

fn check_client<'a>(node: &'a Node, key: &str, uri: &Uri, headers: &HeaderMap) -> Result<&'a Arc<App>, Farewell> {
    let Some(app) = find_app(&node.apps, key) else {
        let key = percent_decode_str(key).decode_utf8_lossy();
        let key = excerpt(&key, NAME_MAX);
        let text = format!("App key {key} not in this cluster. Did you forget to specify the cluster?");
        return Err(Farewell::new(CloseCode::UnknownApp, text));
    };
    check_version(uri.query().unwrap_or_default())?;
    if !app.enabled {
        return Err(Farewell::new(CloseCode::AppDisabled, "The app is disabled"));
    }
    let origin = headers.get(ORIGIN).map(|origin| String::from_utf8_lossy(origin.as_bytes()));
    if !origin::is_allowed(&app.allowed_origins, origin.as_deref()) {
        return Err(Farewell::new(CloseCode::Unauthorized, "Origin not allowed"));
    }
    Ok(app)
}

fn check_version(query: &str) -> Result<(), Farewell> {
    let version = form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "protocol").map(|(_, value)| value);
    let Some(version) = version else { return Ok(()) };
    match version.parse() {
        Ok(number) if protocol::VERSIONS.contains(&number) => Ok(()),
        Ok::<u32, _>(_) => Err(Farewell::new(
            CloseCode::UnsupportedVersion,
            format!("Unsupported protocol version {}: this server speaks 7", excerpt(&version, NAME_MAX)),
        )),
        Err(_) => Err(Farewell::new(CloseCode::InvalidVersion, "Invalid protocol version: not a number")),
    }
}

/// Answers the handshake, and opens or refuses the WebSocket once the answer is out.
fn upgrade(
    shard: &Rc<Shard>,
    request: &mut Request<RequestBody>,
    client: IpAddr,
    verdict: Result<Admission, Farewell>,
    carrier: &RefCell<Option<Carrier>>,
) -> Answer {
    let subprotocol = offered_subprotocol(request.headers());
    // Taken before fastwebsockets does: its own future would allocate the read buffer that this server does without.
    let upgraded = hyper::upgrade::on(&mut *request);
    let (answer, _) = match fastwebsockets::upgrade::upgrade(&mut *request) {
        Ok(accepted) => accepted,
        // `handshake::check` has passed, so this is for a rule that only the library knows.
        Err(error) => return http::text(StatusCode::BAD_REQUEST, error.to_string()).map(Body::Whole),
    };
    let is_refused = verdict.is_err();
    if let Err(farewell) = &verdict {
        note_refusal(shard, farewell, client);
    }
    let Some(carrier) = carrier.take() else {
        return http::text(StatusCode::BAD_REQUEST, "The connection is being upgraded already").map(Body::Whole);
    };
    let opening = open(shard.clone(), upgraded, client, verdict, carrier);
    if is_refused {
        // Nobody waits for a client that is only told to go.
        tokio::task::spawn_local(opening);
    } else {
        shard.chore(opening);
    }
    let mut answer = answer.map(|_| Body::default());
    if let Some(subprotocol) = subprotocol {
        answer.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, subprotocol);
    }
    answer
}

/// Counts and logs that a client was refused.
pub(crate) fn note_refusal(shard: &Shard, farewell: &Farewell, client: IpAddr) {
    shard.node.metrics.handshake_rejected(farewell.code);
    tracing::debug!(
        target: "activity",
        {
            client.address = %client,
            code = farewell.code.code(),
            reason = %logged(&farewell.message, MESSAGE_MAX),
        },
        "Connection refused"
    );
}

async fn open(
    shard: Rc<Shard>,
    upgraded: OnUpgrade,
    client: IpAddr,
    verdict: Result<Admission, Farewell>,
    carrier: Carrier,
) {
    // A client that leaves in the middle of its handshake needs no answer.
    let Ok(upgraded) = upgraded.await else { return };
    let parts = upgraded.downcast::<TokioIo<HttpStream<TcpStream>>>().expect("only TCP streams are served");
    let stream = parts.io.into_inner().into_inner();
    match verdict {
        Ok(admission) => shard.open(stream, client, admission, carrier, parts.read_buf.into()),
        Err(farewell) => refuse::refuse(stream, &farewell).await,
    }
}

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
