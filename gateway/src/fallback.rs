//! The HTTP transports of pusher-js, for clients behind proxies that let no WebSocket through: `xhr_streaming` and
//! `xhr_polling`.
//!
//! A session is an ordinary connection of a shard whose frames wait in its outbox until a request takes them, so limits,
//! presence, drain and slow clients are what they are for WebSockets. Source: protocol reference 6.

mod lines;
mod name;
mod passed;
pub(crate) mod peers;
mod registry;
mod session;

use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_MAX_AGE,
    ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue,
};
use hyper::{Method, Request, StatusCode};
use shared::app::{App, as_usize};
use shared::protocol::CloseCode;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::body::{Answer, Body};
use crate::limits::FALLBACK_BODY_FACTOR;
use crate::node::Node;
use crate::reject::Farewell;
use crate::shard::Shard;
use crate::transport::Transport;
use crate::upgrade;

pub(crate) use name::{SessionName, Target, Verb};
pub(crate) use passed::Passed;
pub(crate) use registry::{Claim, Known, Registry};
pub(crate) use session::{Ask, FallbackSession, Response};

/// A body must have come by then: as long as the HTTP API waits for one.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

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

/// Answers a request below `{prefix}/pusher/app/`. `client`: whose it is, as far as can be known; `is_let_in`: whether its
/// network is.
pub(crate) async fn answer(
    shard: &Rc<Shard>,
    request: Request<Incoming>,
    target: &Target,
    client: IpAddr,
    is_let_in: bool,
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
            Verb::Receive(transport) => receive(shard, request, target, transport, client, is_let_in).await,
            Verb::Send if is_let_in => send(shard, request, target).await,
            Verb::Send => error(StatusCode::FORBIDDEN, "Clients of this network are not let in"),
            Verb::End => error(StatusCode::NOT_FOUND, "Not found."),
        },
        _ => {
            let mut answer = error(StatusCode::METHOD_NOT_ALLOWED, "This path takes POST");
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static("POST, OPTIONS"));
            answer
        }
    }
}

/// A request for what the session has to tell; the first one makes the session.
async fn receive(
    shard: &Rc<Shard>,
    request: Request<Incoming>,
    target: &Target,
    transport: Transport,
    client: IpAddr,
    is_let_in: bool,
) -> Answer {
    let node = &shard.node;
    if !is_let_in {
        let text = "Clients of this network are not let in";
        return turned_away(shard, &Farewell::new(CloseCode::Unauthorized, text), client);
    }
    if let Some(answer) = receive_here(node, &target.name, transport).await {
        return answer;
    }
    let app = match upgrade::judge(node, &target.name.key(), &request) {
        Ok(app) => app,
        Err(farewell) => return turned_away(shard, &farewell, client),
    };
    // The session may be another node's. One that cannot be asked for may as well be new: the client then starts again.
    if let Some(peers) = &node.peers
        && let Some(answer) = peers.receive(shard, &request, target).await
    {
        return answer;
    }
    let mut claim = match node.fallback.claim(node, &target.name) {
        Ok(claim) => claim,
        Err(Known::Live(session)) => return attach(&session, transport).await,
        Err(Known::Ended(line)) => return lines(line.into()),
    };
    match node.admit(app, transport).await {
        Ok(admission) => {
            let (response, answer) = response(transport);
            shard.open_session(client, admission, claim, response);
            answer.wait().await
        }
        Err(farewell) => {
            claim.refuse(&lines::farewell(&farewell));
            turned_away(shard, &farewell, client)
        }
    }
}

/// Answers from a session of this node, if it has it.
pub(crate) async fn receive_here(node: &Node, name: &SessionName, transport: Transport) -> Option<Answer> {
    match node.fallback.find(name)? {
        Known::Live(session) => Some(attach(&session, transport).await),
        Known::Ended(line) => Some(lines(line.into())),
    }
}

async fn attach(session: &mpsc::Sender<Ask>, transport: Transport) -> Answer {
    let (response, answer) = response(transport);
    match session.send(Ask::Receive(response)).await {
        Ok(()) => answer.wait().await,
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
    async fn wait(self) -> Answer {
        match self {
            Self::Lines(receiver) => lines(Body::Lines(receiver)),
            // Without a line another request took its place; whoever still reads this one may ask again.
            Self::Whole(receiver) => receiver.await.map_or_else(|_| heartbeat(), |bytes| lines(bytes.into())),
        }
    }
}

/// A poll's answer that says nothing but to ask again.
fn heartbeat() -> Answer {
    lines(Bytes::from_static(lines::HEARTBEAT.as_bytes()).into())
}

/// Tells a client why it is not let in; as after an upgrade, since of any other answer it learns nothing.
fn turned_away(shard: &Shard, farewell: &Farewell, client: IpAddr) -> Answer {
    upgrade::note_refusal(shard, farewell, client);
    let mut text = lines::OPEN.to_owned();
    text.push_str(&lines::farewell(farewell));
    lines(Bytes::from(text).into())
}

/// A request with messages from the client.
async fn send(shard: &Rc<Shard>, request: Request<Incoming>, target: &Target) -> Answer {
    let node = &shard.node;
    let limit = match node.apps.by_key(&target.name.key()) {
        Some(app) => body_bytes_max(app),
        None => return error(StatusCode::NOT_FOUND, "Unknown app key"),
    };
    let (head, body) = request.into_parts();
    let body = match collect(body, limit).await {
        Ok(body) => body,
        Err(answer) => return answer,
    };
    if let Some(answer) = send_here(node, &target.name, &body).await {
        return answer;
    }
    if let Some(peers) = &node.peers
        && let Some(answer) = peers.send(shard, &head.uri, target, body).await
    {
        return answer;
    }
    error(StatusCode::NOT_FOUND, "Unknown session")
}

/// Largest body of messages.
fn body_bytes_max(app: &App) -> usize {
    as_usize(app.limits.message_bytes).saturating_mul(FALLBACK_BODY_FACTOR)
}

async fn collect(body: Incoming, limit: usize) -> Result<Bytes, Answer> {
    let too_large = || error(StatusCode::PAYLOAD_TOO_LARGE, &format!("The body may have {limit} bytes"));
    if usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX) > limit {
        return Err(too_large());
    }
    match timeout(BODY_TIMEOUT, Limited::new(body, limit).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(cause)) if cause.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(error(StatusCode::BAD_REQUEST, "The body ended too early")),
        Err(_) => Err(error(StatusCode::REQUEST_TIMEOUT, "The body took too long")),
    }
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
    let mut answer = shared::http::text(status, text).map(Body::Whole);
    allow_any_origin(&mut answer);
    answer
}

fn allow_any_origin(answer: &mut Answer) {
    answer.headers_mut().insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
}
