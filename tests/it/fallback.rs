//! The HTTP transports of pusher-js, rule by rule. Source: protocol reference 6.

mod endings;
mod exchange;
mod limits;
mod liveness;
mod opening;
mod receivers;
mod refusals;
mod requests;

use tests::fallback::{HttpSession, Response, Transport};
use tests::{Server, Setup};

/// One thread. A counted request has therefore reached its session.
const ONE_SHARD: &str = "shards = 1";

async fn server() -> Server {
    Server::start(Setup::default().server(ONE_SHARD)).await
}

/// A pending request for messages. The server has counted it and started its response.
async fn pending(server: &Server, session: &HttpSession, transport: Transport) -> tests::Raw {
    const RECEIVED: &str = "carillon_fallback_requests_total{kind=\"receive\"}";
    let before = server.metric(RECEIVED).await;
    let mut raw = server.tcp().await;
    raw.send(session.request(transport).as_bytes()).await;
    server.metric_reaches(RECEIVED, before + 1.0).await;
    raw
}

/// Opens a session with a stream and subscribes it to `news`.
async fn subscribed_stream(server: &Server) -> (HttpSession, Response) {
    let session = HttpSession::new(server);
    let (mut stream, _) = session.open_stream().await;
    session.ask("news").await;
    stream.expect("pusher_internal:subscription_succeeded").await;
    (session, stream)
}

/// Opens a session with polls and subscribes it to `news`.
async fn subscribed_poll(server: &Server) -> HttpSession {
    let session = HttpSession::new(server);
    session.open_poll().await;
    session.ask("news").await;
    let lines = session.poll().await;
    let messages = tests::fallback::messages(&lines);
    assert_eq!(messages[0]["event"], "pusher_internal:subscription_succeeded", "{lines:?}");
    session
}
