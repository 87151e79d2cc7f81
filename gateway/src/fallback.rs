//! The fallback transports of pusher-js, `xhr_streaming` and `xhr_polling`, for clients that cannot open a WebSocket.
//!
//! A fallback session is an ordinary connection of a shard. Its frames wait in the outbox until a request reads them.
//! Limits, presence, drain and slow clients are therefore handled as for WebSockets. Source: protocol reference 6.

mod ask;
pub(crate) mod body;
mod collect;
mod disconnect;
mod forward;
mod forwarded;
mod lines;
mod local;
mod name;
mod peer_client;
pub(crate) mod peer_server;
pub(crate) mod peers;
mod proof;
pub(crate) mod registry;
mod responses;
mod session;

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use hyper::header::{ALLOW, HeaderValue};
use hyper::{Method, Request, StatusCode, Uri};
use shared::protocol::CloseCode;
use shared::serve::http::{ConnectionState, RequestBody};
use shared::serve::listener::accept_policy::NETWORK_REFUSED;

use crate::capacity::addresses::AddressPermit;
use crate::http::handshake;
use crate::http::key::find_app;
use crate::http::opener::{OpenedBy, Opener};
use crate::limits::fallback_body_bytes_max;
use crate::node::Node;
use crate::reject::Farewell;
use crate::shard::Shard;
use crate::transport::{RequestKind, Transport};

use body::{Body, Response};
use collect::{collect, discard};
use disconnect::{Purpose, disconnected};
use name::Verb;
use peer_client::PeerClient;
use registry::{Known, Registry};
use responses::{error, unknown_session};

pub(crate) use name::Target;

/// The fallback transports as one shard serves them.
pub(crate) struct Fallback {
    registry: Arc<Registry>,
    client: PeerClient,
}

/// The client of a request, and the TCP connection of the request.
pub(crate) struct Client {
    /// The address of the client, as far as it is known.
    pub(crate) address: IpAddr,
    /// The address that connections of the client are counted for.
    pub(crate) counted: Option<IpAddr>,
    /// Whether the access rules admit the client.
    pub(crate) is_allowed: bool,
    pub(crate) opener: Rc<Opener>,
    pub(crate) connection: Arc<ConnectionState>,
}

impl Fallback {
    /// `shard`: the index of the shard.
    pub(crate) fn new(registry: Arc<Registry>, shard: usize) -> Self {
        let client = peer_client::new(registry.node.capacity.clone(), shard);
        Self { registry, client }
    }

    /// Responds to a request below `{prefix}/pusher/app/`.
    pub(crate) async fn respond(
        &self,
        shard: &Rc<Shard>,
        request: Request<RequestBody>,
        target: &Target,
        client: &Client,
    ) -> Response {
        let metrics = &shard.node.metrics;
        metrics.fallback_request(match (request.method(), target.verb) {
            (&Method::OPTIONS, _) => RequestKind::Preflight,
            (&Method::POST, Verb::Receive(_)) => RequestKind::Receive,
            (&Method::POST, Verb::Send) => RequestKind::Send,
            _ => RequestKind::Unknown,
        });
        match *request.method() {
            Method::OPTIONS => responses::preflight(),
            Method::POST => match target.verb {
                Verb::Receive(transport) => self.receive(shard, request, target, transport, client).await,
                Verb::Send if client.is_allowed => self.send(shard, request, target).await,
                Verb::Send => error(StatusCode::FORBIDDEN, NETWORK_REFUSED),
                Verb::End => error(StatusCode::NOT_FOUND, "Not found"),
            },
            _ => {
                let mut response = error(StatusCode::METHOD_NOT_ALLOWED, "Method not allowed, only POST, OPTIONS");
                response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST, OPTIONS"));
                response
            }
        }
    }

    /// Responds to a request for messages. The first request opens the session.
    async fn receive(
        &self,
        shard: &Rc<Shard>,
        request: Request<RequestBody>,
        target: &Target,
        transport: Transport,
        client: &Client,
    ) -> Response {
        let node = &shard.node;
        let (head, body) = request.into_parts();
        if let Err(response) = discard(body).await {
            return response;
        }
        if !client.is_allowed {
            return refuse(node, &Farewell::new(CloseCode::Unauthorized, NETWORK_REFUSED), client);
        }
        if let Some(response) = local::receive(&self.registry, &target.name, transport, &client.connection).await {
            return response;
        }
        let app = match handshake::check(node, target.name.key(), &head.uri, &head.headers) {
            Ok(app) => app,
            Err(farewell) => return refuse(node, &farewell, client),
        };
        let over_limit = permit(node, client, transport).err();
        if let Some(response) = self.receive_elsewhere(shard, &head.uri, target, client, over_limit.is_none()).await {
            return response;
        }
        // Acquired only now: the node that has a forwarded session already counts it.
        let permit = over_limit.map_or_else(|| permit(node, client, transport), Err);
        let mut claim = match self.registry.claim(&target.name) {
            Ok(claim) => claim,
            Err(Known::Live(session)) => return local::attach(&session, transport, &client.connection).await,
            Err(Known::Ended(lines)) => return responses::lines(lines.into()),
        };
        let admitted = match permit {
            Ok((opened_by, address)) => {
                let admitted = node.capacity.admit(app, transport).await;
                admitted.map(|admission| (admission.counted_for(address), opened_by))
            }
            Err(farewell) => Err(farewell),
        };
        match admitted {
            Ok((admission, opened_by)) => {
                let (sink, pending) = local::sink(transport);
                session::open(shard, client.address, admission, claim, opened_by, sink);
                pending.respond(&client.connection, Purpose::Open).await
            }
            Err(farewell) => {
                claim.refuse(&lines::farewell(&farewell));
                refuse(node, &farewell, client)
            }
        }
    }

    /// Forwards a request for messages to the node that has the session. Returns `None` if no other node has it or if
    /// Redis is not reachable. The session is then opened here, and a client that had one starts over.
    ///
    /// `may_claim`: whether the session may be opened on this node, and so may be registered in the directory.
    async fn receive_elsewhere(
        &self,
        shard: &Rc<Shard>,
        uri: &Uri,
        target: &Target,
        client: &Client,
        may_claim: bool,
    ) -> Option<Response> {
        let peers = self.registry.peers()?;
        tokio::select! {
            response = forward::receive(peers, &self.client, shard, uri, target, may_claim) => {
                Some(until_disconnected(response?, &client.connection))
            }
            () = client.connection.half_closed() => Some(responses::heartbeat()),
        }
    }

    /// Responds to a request with messages from the client. The body is read only if the session exists.
    async fn send(&self, shard: &Rc<Shard>, request: Request<RequestBody>, target: &Target) -> Response {
        let node = &shard.node;
        let Some(app) = find_app(&node.apps, target.name.key()) else {
            return error(StatusCode::NOT_FOUND, "Unknown app key");
        };
        let holder = match (self.registry.live(&target.name), self.registry.peers()) {
            (Some(_), _) | (None, None) => None,
            (None, Some(peers)) => peers.holder(&target.name).await,
        };
        if holder.is_none() && self.registry.live(&target.name).is_none() {
            return unknown_session();
        }
        let (head, body) = request.into_parts();
        let body = match collect(node, body, fallback_body_bytes_max(app)).await {
            Ok(body) => body,
            Err(response) => return response,
        };
        if let Some(response) = local::send(&self.registry, &target.name, &body).await {
            return response;
        }
        if let (Some(peers), Some(holder)) = (self.registry.peers(), holder)
            && let Some(response) = forward::forward(peers, &self.client, shard, &holder, &head.uri, target, body).await
        {
            return response;
        }
        unknown_session()
    }
}

/// Checks how many sessions the TCP connection and the address of the client have.
///
/// # Errors
/// The farewell for the client, after which it retries.
fn permit(
    node: &Node,
    client: &Client,
    transport: Transport,
) -> Result<(OpenedBy, Option<Box<AddressPermit>>), Farewell> {
    let Some(opened_by) = client.opener.open() else {
        node.metrics.rate_limited("fallback_sessions_per_tcp_connection");
        let text = "Too many sessions were opened through this TCP connection, try again later";
        return Err(Farewell::new(CloseCode::OverCapacity, text));
    };
    match node.capacity.addresses.admit(client.counted, transport) {
        Ok(address) => Ok((opened_by, address)),
        Err(limit) => Err(handshake::refuse_over_limit(node, limit)),
    }
}

/// Ends a forwarded response when its client has closed its side.
fn until_disconnected(response: Response, connection: &Arc<ConnectionState>) -> Response {
    response.map(|body| match body {
        Body::Forwarded(forwarded) => Body::Forwarded(forwarded.until(disconnected(connection, Purpose::Attach))),
        body => body,
    })
}

/// Refuses a client with `farewell`.
fn refuse(node: &Node, farewell: &Farewell, client: &Client) -> Response {
    handshake::record_refusal(node, farewell, client.address);
    responses::refused(farewell)
}
