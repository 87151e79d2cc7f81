//! Answers requests from the fallback sessions of this node.

use std::sync::Arc;

use bytes::Bytes;
use hyper::StatusCode;
use shared::serve::http::ConnectionState;
use tokio::sync::{mpsc, oneshot};

use super::ask::{Ask, LineSink};
use super::body::{Body, LineStream, Response};
use super::disconnect::{Purpose, disconnected};
use super::name::SessionName;
use super::registry::{Known, Registry};
use super::responses;
use crate::transport::Transport;

/// Returns the next messages of a session, or `None` if this node does not have it.
pub(super) async fn receive(
    registry: &Registry,
    name: &SessionName,
    transport: Transport,
    connection: &Arc<ConnectionState>,
) -> Option<Response> {
    match registry.find(name)? {
        Known::Live(session) => Some(attach(&session, transport, connection).await),
        Known::Ended(lines) => Some(responses::lines(lines.into())),
    }
}

/// Attaches a request for messages to a live session.
pub(super) async fn attach(
    session: &mpsc::Sender<Ask>,
    transport: Transport,
    connection: &Arc<ConnectionState>,
) -> Response {
    let (sink, pending) = sink(transport);
    match session.send(Ask::Receive(sink)).await {
        Ok(()) => pending.respond(connection, Purpose::Attach).await,
        // The session has just ended.
        Err(_) => responses::open(),
    }
}

/// Delivers messages to a session. Returns `None` if this node does not have it.
pub(super) async fn send(registry: &Registry, name: &SessionName, body: &[u8]) -> Option<Response> {
    let session = registry.live(name)?;
    let messages: Vec<String> = match serde_json::from_slice(body) {
        Ok(messages) => messages,
        Err(cause) => {
            registry.node.metrics.protocol_error("body");
            let text = format!("The body is not a JSON array of strings: {cause}");
            return Some(responses::error(StatusCode::BAD_REQUEST, &text));
        }
    };
    session.send(Ask::Send { messages, bytes: body.len() }).await.ok()?;
    Some(responses::no_content())
}

/// Ends a session because the node that forwards its requests is shutting down. Returns `None` if this node does not
/// have the session.
pub(super) async fn end(registry: &Registry, name: &SessionName) -> Option<Response> {
    registry.live(name)?.send(Ask::End).await.ok()?;
    Some(responses::no_content())
}

/// The receiving end of a [`LineSink`].
pub(super) enum Pending {
    Poll(oneshot::Receiver<Bytes>),
    Stream(mpsc::Receiver<Bytes>),
}

/// Returns a sink for lines and the pending response that they are sent with.
pub(super) fn sink(transport: Transport) -> (LineSink, Pending) {
    if transport == Transport::XhrStreaming {
        // One piece. Further frames stay in the outbox, where their bytes are counted.
        let (sender, receiver) = mpsc::channel(1);
        (LineSink::Stream(sender), Pending::Stream(receiver))
    } else {
        let (sender, receiver) = oneshot::channel();
        (LineSink::Poll(sender), Pending::Poll(receiver))
    }
}

impl Pending {
    /// Returns the response. A stream is returned at once, the response to a poll when the session has written lines.
    pub(super) async fn respond(self, connection: &Arc<ConnectionState>, purpose: Purpose) -> Response {
        let disconnected = disconnected(connection, purpose);
        match self {
            Self::Stream(receiver) => responses::lines(Body::Lines(LineStream::new(receiver, disconnected))),
            Self::Poll(mut receiver) => {
                let received = tokio::select! {
                    received = &mut receiver => received.ok(),
                    () = disconnected => {
                        // Lines that were sent in the meantime are not lost.
                        receiver.close();
                        receiver.try_recv().ok()
                    }
                };
                // Without lines, another request replaced this one. Its client may send the next request.
                received.map_or_else(responses::heartbeat, |bytes| responses::lines(bytes.into()))
            }
        }
    }
}
