//! The HTTP transports of pusher-js, for clients behind proxies that let no WebSocket through: `xhr_streaming` and
//! `xhr_polling`.
//!
//! A session is an ordinary connection of a shard whose frames wait in its outbox until a request takes them, so limits,
//! presence, drain and slow clients are what they are for WebSockets. Source: protocol reference 6.

pub(crate) mod body;
mod collect;
mod forwarded;
mod lines;
mod name;
pub(crate) mod peer_client;
pub(crate) mod peer_server;
pub(crate) mod peers;
mod registry;
mod session;

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_MAX_AGE,
    ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue,
};
use hyper::{Method, Request, StatusCode};
use shared::protocol::CloseCode;
use shared::serve::http::{ConnectionState, RequestBody};
use shared::serve::listener::accept_policy::NETWORK_REFUSED;
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;

use crate::capacity::addresses::AddressPermit;
use crate::http::key::find_app;
use crate::http::opener::{OpenedBy, Opener};
use crate::http::upgrade;
use crate::node::Node;
use crate::reject::Farewell;
use crate::shard::Shard;
use crate::transport::Transport;

use body::{Answer, Body, Gone, Lines};
use collect::{collect, discard};

pub(crate) use collect::body_bytes_max;
pub(crate) use name::{SessionName, Target, Verb};
pub(crate) use registry::{Claim, Known, Registry};
pub(crate) use session::{Ask, FallbackSession, Response};

/// Keeps nginx and its like from holding lines back.
const UNBUFFERED: HeaderName = HeaderName::from_static("x-accel-buffering");

/// What a request is for, as metrics tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RequestKind {
    Preflight,
    Receive,
    Send,
    Unknown,
}

impl RequestKind {
    pub(crate) const ALL: [Self; 4] = [Self::Preflight, Self::Receive, Self::Send, Self::Unknown];

    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Preflight => "preflight",
            Self::Receive => "receive",
            Self::Send => "send",
            Self::Unknown => "unknown",
        }
    }
}

/// The client of a request, and the TCP connection that the request came on.
pub(crate) struct Client {
    /// Its address, as far as that can be known.
    pub(crate) address: IpAddr,
    /// The address that its connections count for.
    pub(crate) counted: Option<IpAddr>,
    /// Whether its network is allowed.
    pub(crate) is_let_in: bool,
    pub(crate) opener: Rc<Opener>,
    pub(crate) connection: Arc<ConnectionState>,
}

/// A client that ends its side behind the request that opens its session still gets the session's first lines, if they
/// come within this time.
const HALF_CLOSED_GRACE: Duration = Duration::from_millis(500);

/// Why a request for messages waits for a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// It opens the session: the first lines are due at once.
    Open,
    /// It takes lines of an open session. If its client is away they wait for the next request.
    Attach,
}

/// Answers a request below `{prefix}/pusher/app/`.
pub(crate) async fn answer(
    shard: &Rc<Shard>,
    request: Request<RequestBody>,
    target: &Target,
    client: &Client,
) -> Answer {
    let metrics = &shard.node.metrics;
    metrics.fallback_request(match (request.method(), target.verb) {
        (&Method::OPTIONS, _) => RequestKind::Preflight,
        (&Method::POST, Verb::Receive(_)) => RequestKind::Receive,
        (&Method::POST, Verb::Send) => RequestKind::Send,
        _ => RequestKind::Unknown,
    });
    match *request.method() {
        Method::OPTIONS => preflight(),
        Method::POST => match target.verb {
            Verb::Receive(transport) => receive(shard, request, target, transport, client).await,
            Verb::Send if client.is_let_in => send(shard, request, target).await,
            Verb::Send => error(StatusCode::FORBIDDEN, NETWORK_REFUSED),
            Verb::End => error(StatusCode::NOT_FOUND, "Not found"),
        },
        _ => {
            let mut answer = error(StatusCode::METHOD_NOT_ALLOWED, "This path takes POST");
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static("POST, OPTIONS"));
            answer
        }
    }
}

/// A request for messages; the first one opens the session.
async fn receive(
    shard: &Rc<Shard>,
    request: Request<RequestBody>,
    target: &Target,
    transport: Transport,
    client: &Client,
) -> Answer {
    let node = &shard.node;
    let (head, body) = request.into_parts();
    if let Err(answer) = discard(body).await {
        return answer;
    }
    if !client.is_let_in {
        return turned_away(shard, &Farewell::new(CloseCode::Unauthorized, NETWORK_REFUSED), client);
    }
    if let Some(answer) = receive_here(node, &target.name, transport, &client.connection).await {
        return answer;
    }
    let app = match upgrade::judge(node, target.name.key(), &head.uri, &head.headers) {
        Ok(app) => app,
        Err(farewell) => return turned_away(shard, &farewell, client),
    };
    let over_limit = permit(node, client, transport).err();
    // The session may be another node's. One that cannot be asked for may as well be new: the client then starts again.
    if let Some(peers) = &node.peers {
        // A session that cannot be opened here is not claimed either.
        let forwarded = peers.receive(shard, &head.uri, target, over_limit.is_none());
        tokio::select! {
            answer = forwarded => if let Some(answer) = answer {
                return until_gone(answer, &client.connection);
            },
            () = client.connection.half_closed() => return heartbeat(),
        }
    }
    // Taken only now: a forwarded request counts at the node that has its session.
    let permit = over_limit.map_or_else(|| permit(node, client, transport), Err);
    let mut claim = match node.fallback.claim(node, &target.name) {
        Ok(claim) => claim,
        Err(Known::Live(session)) => return attach(&session, transport, &client.connection).await,
        Err(Known::Ended(line)) => return lines(line.into()),
    };
    let admitted = match permit {
        Ok((opened_by, address)) => {
            node.capacity.admit(app, transport).await.map(|admission| (admission, opened_by, address))
        }
        Err(farewell) => Err(farewell),
    };
    match admitted {
        Ok((admission, opened_by, address)) => {
            let (response, answer) = response(transport);
            shard.open_session(client.address, admission.counted_for(address), claim, opened_by, response);
            answer.wait(&client.connection, Purpose::Open).await
        }
        Err(farewell) => {
            claim.refuse(&lines::farewell(&farewell));
            turned_away(shard, &farewell, client)
        }
    }
}

/// Checks how many sessions the client's TCP connection and its address have.
///
/// # Errors
/// The farewell for the client, which may try again.
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
        Err(limit) => Err(upgrade::over_limit(node, limit)),
    }
}

/// Resolves when the client of a request has ended its side of the TCP connection.
fn gone(connection: &Arc<ConnectionState>, purpose: Purpose) -> Gone {
    let connection = connection.clone();
    Box::pin(async move {
        connection.half_closed().await;
        if purpose == Purpose::Open {
            sleep(HALF_CLOSED_GRACE).await;
        }
    })
}

/// Ends a forwarded response when its client has ended its side.
fn until_gone(answer: Answer, connection: &Arc<ConnectionState>) -> Answer {
    answer.map(|body| match body {
        Body::Passed(passed) => Body::Passed(passed.until(gone(connection, Purpose::Attach))),
        body => body,
    })
}

/// Answers from a session of this node, if it has it.
pub(crate) async fn receive_here(
    node: &Node,
    name: &SessionName,
    transport: Transport,
    connection: &Arc<ConnectionState>,
) -> Option<Answer> {
    match node.fallback.find(name)? {
        Known::Live(session) => Some(attach(&session, transport, connection).await),
        Known::Ended(line) => Some(lines(line.into())),
    }
}

async fn attach(session: &mpsc::Sender<Ask>, transport: Transport, connection: &Arc<ConnectionState>) -> Answer {
    let (response, answer) = response(transport);
    match session.send(Ask::Receive(response)).await {
        Ok(()) => answer.wait(connection, Purpose::Attach).await,
        // It ended just now. To a client whose session is open this says that it is lost.
        Err(_) => lines(Bytes::from_static(lines::OPEN.as_bytes()).into()),
    }
}

/// What a session's next lines come through.
enum Pending {
    Whole(oneshot::Receiver<Bytes>),
    Lines(mpsc::Receiver<Bytes>),
}

fn response(transport: Transport) -> (Response, Pending) {
    if transport == Transport::XhrStreaming {
        // One piece: what waits beyond it waits in the outbox, where it is counted.
        let (sender, receiver) = mpsc::channel(1);
        (Response::Stream(sender), Pending::Lines(receiver))
    } else {
        let (sender, receiver) = oneshot::channel();
        (Response::Poll(sender), Pending::Whole(receiver))
    }
}

impl Pending {
    async fn wait(self, connection: &Arc<ConnectionState>, purpose: Purpose) -> Answer {
        let gone = gone(connection, purpose);
        match self {
            Self::Lines(receiver) => lines(Body::Lines(Lines::new(receiver, gone))),
            Self::Whole(mut receiver) => {
                let received = tokio::select! {
                    received = &mut receiver => received.ok(),
                    () = gone => {
                        // What was sent at this very moment is not lost.
                        receiver.close();
                        receiver.try_recv().ok()
                    }
                };
                // Without a line another request took the place of this one, whose client may ask again.
                received.map_or_else(heartbeat, |bytes| lines(bytes.into()))
            }
        }
    }
}

/// A poll's answer that says nothing but to ask again.
fn heartbeat() -> Answer {
    lines(Bytes::from_static(lines::HEARTBEAT.as_bytes()).into())
}

/// Tells a client why it is not let in; as after an upgrade, since of any other answer it learns nothing.
fn turned_away(shard: &Shard, farewell: &Farewell, client: &Client) -> Answer {
    upgrade::note_refusal(shard, farewell, client.address);
    let mut text = lines::OPEN.to_owned();
    text.push_str(&lines::farewell(farewell));
    lines(Bytes::from(text).into())
}

/// A request with messages from the client. The body of a request whose session does not exist is not kept.
async fn send(shard: &Rc<Shard>, request: Request<RequestBody>, target: &Target) -> Answer {
    let node = &shard.node;
    let Some(app) = find_app(&node.apps, target.name.key()) else {
        return error(StatusCode::NOT_FOUND, "Unknown app key");
    };
    let unknown = || error(StatusCode::NOT_FOUND, "Unknown session");
    let holder = match (node.fallback.live(&target.name), &node.peers) {
        (Some(_), _) | (None, None) => None,
        (None, Some(peers)) => peers.holder(&target.name).await,
    };
    if holder.is_none() && node.fallback.live(&target.name).is_none() {
        return unknown();
    }
    let (head, body) = request.into_parts();
    let body = match collect(node, body, body_bytes_max(app)).await {
        Ok(body) => body,
        Err(answer) => return answer,
    };
    if let Some(answer) = send_here(node, &target.name, &body).await {
        return answer;
    }
    if let (Some(peers), Some(holder)) = (&node.peers, holder)
        && let Some(answer) = peers.pass_on(shard, &holder, &head.uri, target, body).await
    {
        return answer;
    }
    unknown()
}

/// Hands messages to a session of this node, if it has it.
pub(crate) async fn send_here(node: &Node, name: &SessionName, body: &[u8]) -> Option<Answer> {
    let session = node.fallback.live(name)?;
    let messages: Vec<String> = match serde_json::from_slice(body) {
        Ok(messages) => messages,
        Err(cause) => {
            node.metrics.protocol_error("body");
            return Some(error(StatusCode::BAD_REQUEST, &format!("The body is no JSON array of strings: {cause}")));
        }
    };
    session.send(Ask::Send { messages, bytes: body.len() }).await.ok()?;
    Some(no_content())
}

/// Ends a session of this node, if it has it, since another node that its requests came through leaves.
pub(crate) async fn end_here(node: &Node, name: &SessionName) -> Option<Answer> {
    node.fallback.live(name)?.send(Ask::End).await.ok()?;
    Some(no_content())
}

fn no_content() -> Answer {
    let mut answer = Answer::default();
    *answer.status_mut() = StatusCode::NO_CONTENT;
    allow_any_origin(&mut answer);
    answer
}

/// Whose page it is does not matter to the browser: there are no credentials, and the app's allowed origins are checked
/// here.
fn preflight() -> Answer {
    let mut answer = no_content();
    let headers = answer.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("POST, OPTIONS"));
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("content-type"));
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
    answer
}

fn lines(body: Body) -> Answer {
    let mut answer = Answer::new(body);
    allow_any_origin(&mut answer);
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/javascript; charset=UTF-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store, no-transform"));
    headers.insert(UNBUFFERED, HeaderValue::from_static("no"));
    answer
}

pub(crate) fn error(status: StatusCode, text: &str) -> Answer {
    let mut answer = shared::serve::http::text(status, text.to_owned()).map(Body::Whole);
    allow_any_origin(&mut answer);
    answer
}

fn allow_any_origin(answer: &mut Answer) {
    answer.headers_mut().insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
}
