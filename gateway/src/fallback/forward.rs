//! Forwards requests whose fallback session another node has.

use std::error::Error;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, StatusCode, Uri};
use rand::Rng;
use shared::secret::constant_time_eq;
use tokio::time::{Instant, sleep, timeout};

use super::body::{Body, Response};
use super::forwarded::ForwardedBody;
use super::name::{Target, Verb, end_path};
use super::peer_client::PeerClient;
use super::peers::Peers;
use super::proof::{self, PROOF};
use super::responses;
use crate::http::key::find_app;
use crate::shard::Shard;
use crate::transport::{ForwardResult, Transport};

/// The timeout of a request for messages. It is longer than a heartbeat interval, after which a poll is answered.
const RECEIVE_TIMEOUT: Duration = Duration::from_secs(40);

/// The timeout of a request with messages, which is answered at once.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);

/// The timeout of a request to end a session during a drain. The drain then waits the same time for the stream to end.
const END_TIMEOUT: Duration = Duration::from_millis(500);

/// Answers a request for messages from the node that has the session. Returns `None` if no other node has it.
///
/// `may_claim`: whether this node registers as the holder of a session that no node has.
pub(super) async fn receive(
    peers: &Arc<Peers>,
    client: &PeerClient,
    shard: &Rc<Shard>,
    uri: &Uri,
    target: &Target,
    may_claim: bool,
) -> Option<Response> {
    let own = peers.address().await?;
    let mut former: Option<String> = None;
    // Two attempts: the directory may name a node that no longer has the session.
    for _ in 0..2 {
        let holder = if may_claim {
            peers.claim(own, &target.name, former.as_deref()).await?
        } else {
            peers.holder(&target.name).await.filter(|holder| former.as_ref() != Some(holder))?
        };
        if holder == own {
            return None;
        }
        let forwarded = forward(peers, client, shard, &holder, uri, target, Bytes::new());
        let is_poll = target.verb == Verb::Receive(Transport::XhrPolling);
        let response = tokio::select! {
            response = forwarded => response,
            // The client polls again and reaches another node, where its session continues.
            () = moment_in_window(shard), if is_poll => return Some(responses::heartbeat()),
        };
        match response {
            Some(response) => return Some(response),
            None => former = Some(holder),
        }
    }
    None
}

/// Answers a request from the node that has its session. Returns `None` if that node no longer has it or does not
/// answer.
pub(super) async fn forward(
    peers: &Peers,
    client: &PeerClient,
    shard: &Rc<Shard>,
    holder: &str,
    uri: &Uri,
    target: &Target,
    body: Bytes,
) -> Option<Response> {
    let limit = if target.verb == Verb::Send { SEND_TIMEOUT } else { RECEIVE_TIMEOUT };
    let request = PeerRequest { holder, path: uri.path_and_query()?.as_str(), body, limit };
    let response = request.send(client, shard, target).await;
    let result = match &response {
        Some((response, _)) if response.status() == StatusCode::NOT_FOUND => ForwardResult::Unknown,
        Some((response, _)) if response.status() == StatusCode::FORBIDDEN => ForwardResult::Refused,
        Some((_, IsNode(true))) => ForwardResult::Answered,
        // Another program may listen at the address of a former node.
        Some((_, IsNode(false))) | None => ForwardResult::Failed,
    };
    shard.node.metrics.fallback_forwarded(result);
    if result == ForwardResult::Refused {
        peers.warn_refused(holder);
    }
    let (response, _) = response.filter(|_| result == ForwardResult::Answered)?;
    let must_end =
        end_on_drain(client.clone(), shard.clone(), holder.to_owned(), uri.path().to_owned(), target.clone());
    Some(response.map(|body| Body::Forwarded(ForwardedBody::new(body, must_end))))
}

/// Resolves when a forwarded stream must end because this node is shutting down.
///
/// Before that, at a random moment of the drain window, the node that has the session is asked to end it. The client
/// reconnects at once. If its session were not ended, the client would be connected twice.
async fn end_on_drain(client: PeerClient, shard: Rc<Shard>, holder: String, path: String, target: Target) {
    moment_in_window(&shard).await;
    if let Some(path) = end_path(&path) {
        let request = PeerRequest { holder: &holder, path: &path, body: Bytes::new(), limit: END_TIMEOUT };
        // The stream itself ends with the close message of the session. If it does not, this node ends the stream.
        request.send(&client, &shard, &target).await;
    }
    sleep(END_TIMEOUT).await;
}

/// Resolves at a random moment of the window over which a drain closes the connections of this node.
async fn moment_in_window(shard: &Shard) {
    let deadlines = shard.drain_started().await;
    let window = deadlines.window_ends.saturating_duration_since(Instant::now());
    sleep(window.mul_f64(rand::rng().random_range(0.0..1.0))).await;
}

/// A request to another node.
struct PeerRequest<'a> {
    holder: &'a str,
    path: &'a str,
    body: Bytes,
    limit: Duration,
}

/// Whether a response was signed with the app's secret, which only nodes know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct IsNode(bool);

impl PeerRequest<'_> {
    /// Sends the request. Returns the response, or `None` if there is none within the timeout.
    async fn send(
        self,
        client: &PeerClient,
        shard: &Shard,
        target: &Target,
    ) -> Option<(hyper::Response<Incoming>, IsNode)> {
        let Self { holder, path, body, limit } = self;
        let app = find_app(&shard.node.apps, target.name.key())?;
        let (_, address) = holder.split_once('@')?;
        let proof = proof::sign(&app.secret, path, &body, proof::unix_s());
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("http://{address}{path}"))
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .header(PROOF, &proof);
        let request = request.body(Full::new(body)).ok()?;
        match timeout(limit, client.request(request)).await {
            Ok(Ok(mut response)) => {
                let mark = response.headers_mut().remove(PROOF);
                let expected = proof::sign_response(&app.secret, &proof);
                let is_node = mark.is_some_and(|mark| constant_time_eq(mark.to_str().unwrap_or_default(), &expected));
                Some((response, IsNode(is_node)))
            }
            Ok(Err(error)) => {
                let cause = error.source().map(ToString::to_string).unwrap_or_default();
                tracing::debug!(%error, cause, holder, "cannot forward a request to the node that has its session");
                None
            }
            Err(_) => {
                tracing::debug!(holder, "forwarded request timed out");
                None
            }
        }
    }
}
