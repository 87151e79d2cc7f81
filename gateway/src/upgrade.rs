//! From a TCP connection to a WebSocket, or to the HTTP beside it: the fallback transports, and other routes.
//!
//! Refusals of the protocol come after the upgrade: a browser tells a page nothing about a failed one, and pusher-js
//! would try again for ever.

mod origin;
mod refuse;

use std::borrow::Cow;
use std::cell::RefCell;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fastwebsockets::upgrade as handshake;
use hyper::body::Incoming;
use hyper::header::{HeaderMap, HeaderValue, ORIGIN, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use shared::app::App;
use shared::http;
use shared::listener::WriteTimeout;
use shared::listener::front::{Dropped, end_connection, forbidden};
use shared::network::Peer;
use shared::protocol::{self, CloseCode};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use crate::body::{Answer, Body};
use crate::fallback::{self, Target};
use crate::node::{Admission, Load, Node};
use crate::reject::Farewell;
use crate::shard::Shard;
use crate::shard::chores::Chore;
use crate::tls::{self, Stall};
use crate::transport::Transport;

/// Subprotocols that some clients offer: only then is one answered, since browsers refuse an answer to no offer.
const SUBPROTOCOL_PREFIX: &str = "pusher-channels-protocol-";

/// A connection that has not asked anything when the shard leaves has this long to do so: its request may be on its way.
const LAST_HEAD_TIMEOUT: Duration = Duration::from_secs(1);

/// The TCP connection beneath a WebSocket, kept as long as that.
pub(crate) struct Carrier {
    _load: Load,
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
pub(crate) async fn serve(shard: Rc<Shard>, stream: TcpStream, peer: SocketAddr, load: Load) {
    // What is being answered is answered before the shard ends.
    let _chore = Chore::begin(&shard);
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
) -> Result<(TcpStream, Peer, Option<Stall>), Dropped> {
    let front = &shard.node.front;
    let client = front.admit(&mut stream, peer).await?;
    let Some(tls) = &front.tls else { return Ok((stream, client, None)) };
    let (stream, stall) = tls::terminate(shard, tls, stream).await.map_err(Dropped::Tls)?;
    Ok((stream, client, Some(stall)))
}

async fn serve_admitted(shard: Rc<Shard>, stream: TcpStream, peer: Peer, carrier: Carrier) {
    let carrier = Rc::new(RefCell::new(Some(carrier)));
    let asked = AtomicBool::new(false);
    let service = service_fn(|request| {
        asked.store(true, Ordering::Relaxed);
        let (shard, carrier) = (shard.clone(), carrier.clone());
        async move { Ok::<_, Infallible>(answer(&shard, request, peer, &carrier).await) }
    });
    let io = TokioIo::new(WriteTimeout::new(stream, shard.node.server.outbox_timeout));
    // When the shard leaves, the connection ends with the answer that is under way, and soon.
    let until_leaving = async {
        let connection = http::http1().serve_connection(io, service).with_upgrades();
        tokio::pin!(connection);
        let leave = tokio::select! {
            ended = &mut connection => return Some(ended),
            leave = shard.leaving() => leave,
        };
        let is_silent = !asked.load(Ordering::Relaxed);
        let next_head_by = if is_silent { Instant::now() + LAST_HEAD_TIMEOUT } else { leave.idle_until };
        if let Ok(ended) = timeout_at(next_head_by.min(leave.leave_by), &mut connection).await {
            return Some(ended);
        }
        if !asked.load(Ordering::Relaxed) {
            return None;
        }
        connection.as_mut().graceful_shutdown();
        timeout_at(leave.leave_by, connection).await.ok()
    };
    match http::in_time(until_leaving, &asked).await {
        Some(Some(Ok(()))) => {}
        Some(Some(Err(error))) => tracing::debug!(%error, peer = %peer.address, "http connection ended"),
        Some(None) => tracing::debug!(peer = %peer.address, "http connection was not done when the node left"),
        None => tracing::debug!(peer = %peer.address, "http connection asked for nothing"),
    }
}

async fn answer(
    shard: &Rc<Shard>,
    mut request: Request<Incoming>,
    peer: Peer,
    carrier: &RefCell<Option<Carrier>>,
) -> Answer {
    let node = &shard.node;
    let access = &node.front.access;
    let client = access.client(peer, request.headers());
    let is_let_in = access.admits_client(client);
    let client = client.unwrap_or(peer.address);
    let path = request.uri().path();
    let key = key_of(path, &node.server.path_prefix);
    if handshake::is_upgrade_request(&request) {
        let verdict = match key {
            _ if !is_let_in => Err(Farewell::new(CloseCode::Unauthorized, "Clients of this network are not let in")),
            Some(key) => {
                let key = percent_encoding::percent_decode_str(key).decode_utf8_lossy();
                match judge(&shard.node, &key, &request) {
                    Ok(app) => shard.node.admit(app, Transport::WebSocket).await,
                    Err(farewell) => Err(farewell),
                }
            }
            None => Err(Farewell::new(CloseCode::PathNotFound, format!("Path {path} not found"))),
        };
        return upgrade(shard, &mut request, client, verdict, carrier);
    }
    if let Some(target) = Target::parse(path, &node.server.path_prefix) {
        let mut answer = fallback::answer(shard, request, &target, client, is_let_in).await;
        if node.is_draining() {
            end_connection(&mut answer);
        }
        return answer;
    }
    if !is_let_in {
        return forbidden().map(Body::Whole);
    }
    if key.is_some() && *request.method() == Method::GET {
        let mut answer = http::text(StatusCode::UPGRADE_REQUIRED, "This path serves WebSockets");
        answer.headers_mut().insert(UPGRADE, HeaderValue::from_static("websocket"));
        end_connection(&mut answer);
        return answer.map(Body::Whole);
    }
    let routes = node.routes.clone();
    let mut answer = match &routes {
        Some(routes) => {
            let _request = node.begin_request();
            routes.answer(request).await
        }
        None if path == "/up" => http::health(),
        None => http::text(StatusCode::NOT_FOUND, "Not found."),
    };
    // A gateway has nothing more to say to who asks this, and needs its descriptors for others.
    if routes.is_none() || node.is_draining() {
        end_connection(&mut answer);
    }
    answer.map(Body::Whole)
}

/// The app key in `{prefix}/app/{key}`.
fn key_of<'a>(path: &'a str, prefix: &str) -> Option<&'a str> {
    let key = path.strip_prefix(prefix)?.strip_prefix("/app/")?;
    (!key.is_empty() && !key.contains('/')).then_some(key)
}

/// Judges a client's handshake, by whatever transport, as far as that needs nobody else. Source: protocol reference 1.
///
/// A node that shuts down may have an outdated configuration, so none of its refusals is final: the next node decides.
pub(crate) fn judge<'a>(node: &'a Node, key: &str, request: &Request<Incoming>) -> Result<&'a Arc<App>, Farewell> {
    check_handshake(node, key, request)
        .map_err(|farewell| if node.is_draining() { farewell.not_final() } else { farewell })
}

fn check_handshake<'a>(node: &'a Node, key: &str, request: &Request<Incoming>) -> Result<&'a Arc<App>, Farewell> {
    let Some(app) = node.apps.by_key(key) else {
        let text = format!("App key {key} not in this cluster. Did you forget to specify the cluster?");
        return Err(Farewell::new(CloseCode::UnknownApp, text));
    };
    check_version(request.uri().query().unwrap_or_default())?;
    if !app.enabled {
        return Err(Farewell::new(CloseCode::AppDisabled, "The app is disabled"));
    }
    let origin = request.headers().get(ORIGIN).map(|origin| String::from_utf8_lossy(origin.as_bytes()));
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
            format!("Unsupported protocol version {version}: this server speaks 7"),
        )),
        Err(_) => Err(Farewell::new(CloseCode::InvalidVersion, "Invalid protocol version: not a number")),
    }
}

/// Answers the handshake, and opens or refuses the WebSocket once the answer is out.
fn upgrade(
    shard: &Rc<Shard>,
    request: &mut Request<Incoming>,
    client: IpAddr,
    verdict: Result<Admission, Farewell>,
    carrier: &RefCell<Option<Carrier>>,
) -> Answer {
    let subprotocol = offered_subprotocol(request.headers());
    // Taken before fastwebsockets does: its own future would allocate the read buffer that this server does without.
    let upgraded = hyper::upgrade::on(&mut *request);
    let (answer, _) = match handshake::upgrade(&mut *request) {
        Ok(accepted) => accepted,
        Err(error) => {
            return http::text(StatusCode::BAD_REQUEST, &format!("Not a WebSocket handshake: {error}"))
                .map(Body::Whole);
        }
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

/// Counts and logs that a client was turned away.
pub(crate) fn note_refusal(shard: &Shard, farewell: &Farewell, client: IpAddr) {
    shard.node.metrics.handshake_rejected(farewell.code);
    tracing::debug!(
        target: "activity",
        { client.address = %client },
        "Connection refused ({}): {}",
        farewell.code.code(),
        farewell.message
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
    let parts = upgraded.downcast::<TokioIo<WriteTimeout<TcpStream>>>().expect("only TCP streams are served");
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
