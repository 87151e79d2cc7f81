//! Serves one TCP connection until it ends or becomes a WebSocket.

use std::cell::RefCell;
use std::error::Error;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Body;
use hyper::{Request, Response};
use shared::serve::http::{self, ConnectionState, Limits, RequestBody};
use shared::serve::listener::accept_policy::Dropped;
use shared::serve::network::RemoteAddr;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::opener::Opener;
use super::tls;
use crate::capacity::SocketPermit;
use crate::carrier::{Carrier, Stall};
use crate::shard::Shard;

/// How long a drain waits for the first request of a connection, because the request may already be in transit.
const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(1);

/// The state that all requests of one TCP connection share.
#[derive(Clone)]
pub(crate) struct TcpClient {
    /// The remote address, from the PROXY header if there is one.
    pub(crate) peer: RemoteAddr,
    /// The connection itself. The request that becomes a WebSocket takes it.
    pub(crate) carrier: Rc<RefCell<Option<Carrier>>>,
    pub(crate) state: Arc<ConnectionState>,
    /// Counts the fallback sessions that the connection opened.
    pub(crate) opener: Rc<Opener>,
}

/// Serves one TCP connection, if the accept policy admits it. `respond` returns the response to each of its requests.
pub(crate) async fn serve<F, B>(
    shard: Rc<Shard>,
    stream: TcpStream,
    peer: SocketAddr,
    permit: SocketPermit,
    respond: impl Fn(Rc<Shard>, Request<RequestBody>, TcpClient) -> F,
) where
    F: Future<Output = Response<B>>,
    B: Body + Unpin + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let too_late = async {
        shard.drain_started().await;
        tokio::time::sleep(FIRST_REQUEST_TIMEOUT).await;
    };
    let admitted = tokio::select! {
        admitted = admit(&shard, stream, peer) => admitted,
        () = too_late => Err(Dropped::Draining),
    };
    match admitted {
        Ok((stream, peer, stall)) => {
            let client = TcpClient {
                peer,
                carrier: Rc::new(RefCell::new(Some(Carrier::new(permit, stall)))),
                state: ConnectionState::new(),
                opener: Rc::default(),
            };
            serve_requests(shard, stream, client, respond).await;
        }
        Err(dropped) => {
            shard.node.metrics.connection_dropped(dropped.label());
            let cause = dropped.source().map(ToString::to_string).unwrap_or_default();
            tracing::debug!(
                { client.address = %peer, error = %dropped, cause },
                "connection dropped before its first request"
            );
        }
    }
}

/// Applies the accept policy and terminates TLS. Returns the plaintext stream, the remote address and, with TLS, the
/// stall flag.
async fn admit(
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

/// Answers requests until the connection ends, or until a drain of the shard no longer waits for it.
async fn serve_requests<F, B>(
    shard: Rc<Shard>,
    stream: TcpStream,
    client: TcpClient,
    respond: impl Fn(Rc<Shard>, Request<RequestBody>, TcpClient) -> F,
) where
    F: Future<Output = Response<B>>,
    B: Body + Unpin + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let (state, opener, address) = (client.state.clone(), client.opener.clone(), client.peer.address);
    let limits = Limits { body_bytes_max: shard.node.body_bytes_max, write_timeout: shard.node.server.outbox_timeout };
    let until_drained = async {
        let connection =
            http::connection(stream, limits, state.clone(), |request| respond(shard.clone(), request, client.clone()));
        let connection = connection.with_upgrades();
        tokio::pin!(connection);
        let deadlines = tokio::select! {
            ended = &mut connection => return Some(ended),
            deadlines = shard.drain_started() => deadlines,
        };
        let next_request_by =
            if state.was_asked() { deadlines.idle_until } else { Instant::now() + FIRST_REQUEST_TIMEOUT };
        if let Ok(ended) = timeout_at(next_request_by.min(deadlines.requests_until), &mut connection).await {
            return Some(ended);
        }
        if !state.was_asked() {
            return None;
        }
        connection.as_mut().graceful_shutdown();
        timeout_at(deadlines.requests_until, connection).await.ok()
    };
    let ended = http::in_time(until_drained, &state).await;
    if !matches!(ended, Some(Some(Ok(())))) || state.is_half_closed() {
        opener.lose();
    }
    match ended {
        Some(Some(Ok(()))) => {}
        Some(Some(Err(error))) => tracing::debug!({ client.address = %address, %error }, "HTTP connection failed"),
        Some(None) => tracing::debug!({ client.address = %address }, "HTTP connection dropped at the end of the drain"),
        None => tracing::debug!({ client.address = %address }, "HTTP connection closed: no request within the timeout"),
    }
}
