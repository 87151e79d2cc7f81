//! Other nodes of the cluster, as far as requests of the HTTP transports go: one that comes here although its session is
//! there is passed on.
//!
//! Nodes talk on a listener of their own, since the public one may want TLS, a PROXY header or certain networks. Whoever
//! knows the app's secret is believed there.

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode, Uri};
use rand::Rng;
use shared::cluster::redis::Directory;
use shared::secret::{Secret, Signature, constant_time_eq};
use shared::serve::listener::BoundListener;
use shared::serve::network::Access;
use tokio::sync::OnceCell;
use tokio::time::{Instant, sleep, timeout};

use super::body::{Answer, Body};
use super::forwarded::Passed;
use super::name::{SessionName, Target, Verb, end_path};
use crate::config;
use crate::http::key::find_app;
use crate::node::Node;
use crate::shard::Shard;
use crate::transport::Transport;

/// Says when a request was passed on, and proves that a node did it: `seconds.signature`.
pub(super) const PASSED_ON: HeaderName = HeaderName::from_static("x-carillon-passed-on");

/// An answer to a poll takes as long as one heartbeat; this is longer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(40);

/// Messages from a client are answered at once.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);

/// The node that has a session is asked to end it, and then has as long again to say so in the stream.
const END_TIMEOUT: Duration = Duration::from_millis(500);

/// This node among others.
pub(crate) struct Peers {
    directory: Directory,
    pub(super) listener: BoundListener,
    /// Who may ask.
    pub(super) access: Access,
    /// Where others reach it, if that is configured.
    advertise: Option<String>,
    /// Tells this node from one that had its address before, or has the same one elsewhere.
    id: String,
    /// What it is known by, as `id@host:port`, once known.
    address: OnceCell<String>,
    runtime: tokio::runtime::Handle,
    /// Whether another node refused this one; said once.
    has_been_refused: AtomicBool,
}

impl Peers {
    /// Binds the listener for other nodes. `inherited`: the socket that the process was started with.
    ///
    /// # Errors
    /// When the address cannot be had.
    pub(crate) async fn bind(
        config: &config::Peers,
        directory: Directory,
        inherited: Option<std::net::TcpListener>,
    ) -> io::Result<Self> {
        let listener = shared::serve::listener::listen(&config.host, config.port, inherited).await?;
        let advertise = (!config.advertise.is_empty()).then(|| config.advertise.clone());
        let runtime = tokio::runtime::Handle::current();
        let has_been_refused = AtomicBool::new(false);
        let access = Access { allow: config.allow.clone(), deny: config.deny.clone(), ..Access::default() };
        let id = format!("{:016x}", rand::random::<u64>());
        Ok(Self { id, directory, listener, access, advertise, address: OnceCell::new(), runtime, has_been_refused })
    }

    /// Where its listener is bound.
    pub(crate) fn bound(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers a request for messages whose session is not here, from the node that has it; `None` when no node has it.
    ///
    /// `may_open`: whether this node then becomes the one that has the session.
    pub(crate) async fn receive(
        &self,
        shard: &Rc<Shard>,
        uri: &Uri,
        target: &Target,
        may_open: bool,
    ) -> Option<Answer> {
        let own = self.address().await?;
        let mut gone: Option<String> = None;
        // Twice: a node that does not have it after all is not asked again.
        for _ in 0..2 {
            let holder = if may_open {
                let names = [target.name.as_str().to_owned()];
                match self.directory.hold(own, &names, gone.as_deref()).await {
                    Ok(holders) => holders.into_iter().next()?,
                    Err(error) => {
                        tracing::debug!(%error, "cannot look up a fallback session; it counts as new");
                        return None;
                    }
                }
            } else {
                self.holder(&target.name).await.filter(|holder| gone.as_ref() != Some(holder))?
            };
            if holder == own {
                return None;
            }
            let passed_on = self.pass_on(shard, &holder, uri, target, Bytes::new());
            let is_poll = target.verb == Verb::Receive(Transport::XhrPolling);
            let answer = tokio::select! {
                answer = passed_on => answer,
                // The client asks again, and then another node, where its session continues.
                () = moment_in_window(shard), if is_poll => return Some(super::heartbeat()),
            };
            match answer {
                Some(answer) => return Some(answer),
                None => gone = Some(holder),
            }
        }
        None
    }

    /// Returns the other node that has a session, if there is one.
    pub(crate) async fn holder(&self, name: &SessionName) -> Option<String> {
        let own = self.address().await?;
        let holder = self.directory.holder(name.as_str()).await.ok()??;
        (holder != own).then_some(holder)
    }

    /// Notes that this node does not have the session any more.
    pub(crate) fn release(&self, name: SessionName) {
        let (directory, address) = (self.directory.clone(), self.address.get().cloned());
        // A session that cannot be given back now is forgotten by itself, or when its next request comes here.
        self.runtime.spawn(async move {
            if let Some(address) = address {
                let _ = directory.release(&address, name.as_str()).await;
            }
        });
    }

    /// Keeps the node's sessions known, for as long as the node runs.
    pub(crate) async fn keep(&self, node: &Node) -> std::convert::Infallible {
        let mut interval = tokio::time::interval(shared::cluster::redis::directory::KEEP_INTERVAL);
        loop {
            interval.tick().await;
            let names = node.fallback.names();
            let Some(address) = self.address().await else {
                tracing::warn!("cannot find out this node's own address; other nodes need peers.advertise");
                continue;
            };
            if let Err(error) = self.directory.hold(address, &names, None).await {
                tracing::debug!(%error, "sessions of HTTP transports cannot be kept known now");
            }
        }
    }

    /// Where this node is reached by others; `None` while that cannot be found out.
    async fn address(&self) -> Option<&str> {
        let found = self.address.get_or_try_init(|| async {
            if let Some(advertise) = &self.advertise {
                return Ok(format!("{}@{advertise}", self.id));
            }
            let mut address = self.listener.local_addr()?;
            if address.ip().is_unspecified() {
                address.set_ip(self.directory.link().local_address().await?);
            }
            if address.ip().is_loopback() {
                tracing::info!(%address, "only gateways on this machine can reach this one; others need peers.advertise");
            }
            Ok::<_, io::Error>(format!("{}@{address}", self.id))
        });
        match found.await {
            Ok(address) => Some(address),
            Err(error) => {
                tracing::debug!(%error, "cannot find out this node's own address");
                None
            }
        }
    }

    /// Answers a request from the node that has its session; `None` when that node does not have it after all.
    pub(crate) async fn pass_on(
        &self,
        shard: &Rc<Shard>,
        holder: &str,
        uri: &Uri,
        target: &Target,
        body: Bytes,
    ) -> Option<Answer> {
        let limit = if target.verb == Verb::Send { SEND_TIMEOUT } else { ANSWER_TIMEOUT };
        let question = Question { holder, path: uri.path_and_query()?.as_str(), body, limit };
        let answer = question.ask(shard, target).await;
        let result = match &answer {
            Some((answer, _)) if answer.status() == StatusCode::NOT_FOUND => Forwarded::Unknown,
            Some((answer, _)) if answer.status() == StatusCode::FORBIDDEN => Forwarded::Refused,
            Some((_, IsNode(true))) => Forwarded::Answered,
            // Something else listens there by now.
            Some((_, IsNode(false))) | None => Forwarded::Failed,
        };
        shard.node.metrics.fallback_forwarded(result);
        if result == Forwarded::Refused && !self.has_been_refused.swap(true, Ordering::Relaxed) {
            tracing::warn!(holder, "another node does not believe this one: their secrets or their clocks differ");
        }
        let (answer, _) = answer.filter(|_| result == Forwarded::Answered)?;
        let must_end = end_on_leaving(shard.clone(), holder.to_owned(), uri.path().to_owned(), target.clone());
        Some(answer.map(|body| Body::Passed(Passed::new(body, must_end))))
    }
}

/// Resolves when a stream that is passed on must end since this node leaves. Before that the node that has the session is
/// asked to end it, at a moment of its own in the window: its client comes back at once, and one that nobody had ended
/// would be there twice.
async fn end_on_leaving(shard: Rc<Shard>, holder: String, path: String, target: Target) {
    moment_in_window(&shard).await;
    if let Some(path) = end_path(&path) {
        let question = Question { holder: &holder, path: &path, body: Bytes::new(), limit: END_TIMEOUT };
        // The answer is in the stream. Without one, this node says goodbye alone.
        question.ask(&shard, &target).await;
    }
    sleep(END_TIMEOUT).await;
}

/// Resolves at a random moment of the window over which this node closes its connections.
async fn moment_in_window(shard: &Shard) {
    let leave = shard.leaving().await;
    let window = leave.window_ends.saturating_duration_since(Instant::now());
    sleep(window.mul_f64(rand::rng().random_range(0.0..1.0))).await;
}

/// What another node is asked.
struct Question<'a> {
    holder: &'a str,
    path: &'a str,
    body: Bytes,
    limit: Duration,
}

impl Question<'_> {
    /// Returns the answer, and whether a node gave it.
    async fn ask(self, shard: &Shard, target: &Target) -> Option<(Response<Incoming>, IsNode)> {
        let Self { holder, path, body, limit } = self;
        let app = find_app(&shard.node.apps, target.name.key())?;
        let (_, address) = holder.split_once('@')?;
        let proof = proof(&app.secret, path, &body, unix_s());
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("http://{address}{path}"))
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .header(PASSED_ON, &proof);
        let request = request.body(Full::new(body)).ok()?;
        match timeout(limit, shard.forwarder().request(request)).await {
            Ok(Ok(mut answer)) => {
                let mark = answer.headers_mut().remove(PASSED_ON);
                let expected = answer_proof(&app.secret, &proof);
                let is_node = mark.is_some_and(|mark| constant_time_eq(mark.to_str().unwrap_or_default(), &expected));
                Some((answer, IsNode(is_node)))
            }
            Ok(Err(error)) => {
                let cause = error.source().map(ToString::to_string).unwrap_or_default();
                tracing::debug!(%error, cause, holder, "a node that had a session cannot be asked");
                None
            }
            Err(_) => {
                tracing::debug!(holder, "a node that had a session did not answer in time");
                None
            }
        }
    }
}

/// Whether an answer is one of a node that knows the app's secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct IsNode(bool);

/// What becomes of a request that is passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Forwarded {
    Answered,
    /// The other node does not have the session.
    Unknown,
    /// The other node does not believe that a node asks.
    Refused,
    Failed,
}

impl Forwarded {
    pub(crate) const ALL: [Self; 4] = [Self::Answered, Self::Unknown, Self::Refused, Self::Failed];

    /// As a metric label.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Unknown => "unknown",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

pub(super) fn unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// What a node's answer to a proven request has in the same header.
pub(super) fn answer_proof(secret: &Secret, proof: &str) -> String {
    secret.sign(&[b"answered\n", proof.as_bytes()]).to_hex()
}

fn proof(secret: &Secret, path: &str, body: &[u8], now_s: u64) -> String {
    format!("{now_s}.{}", secret.sign(&proven(&now_s.to_string(), path, body)).to_hex())
}

/// How far clocks of nodes may be apart, and how long a request may take from one to the other.
const PROOF_AGE_MAX_S: u64 = 60;

pub(super) fn is_proven(secret: &Secret, path: &str, body: &[u8], proof: &str, now_s: u64) -> bool {
    let Some((at, signature)) = in_time(proof, now_s) else { return false };
    secret.verifies(&proven(at, path, body), &signature)
}

/// When a proof was made and its signature, if it is one, and of this minute: all that can be said before the body is there.
pub(super) fn in_time(proof: &str, now_s: u64) -> Option<(&str, Signature)> {
    let (at, signature) = proof.split_once('.')?;
    let at_s: u64 = at.parse().ok()?;
    (at_s.abs_diff(now_s) <= PROOF_AGE_MAX_S).then_some((at, Signature::from_hex(signature)?))
}

/// What is signed: nothing that the same secret signs elsewhere begins like this.
fn proven<'a>(at: &'a str, path: &'a str, body: &'a [u8]) -> [&'a [u8]; 6] {
    [b"passed-on\n", at.as_bytes(), b"\n", path.as_bytes(), b"\n", body]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_those_who_know_the_secret_pass_requests_on() {
        let (secret, path) = (Secret::new("secret"), "/pusher/app/KEY/1/a/xhr?n=1");
        let body = b"[]".as_slice();
        let proof = proof(&secret, path, body, 1000);
        assert!(is_proven(&secret, path, body, &proof, 1000));
        assert!(is_proven(&secret, path, body, &proof, 1060) && is_proven(&secret, path, body, &proof, 940));
        assert!(!is_proven(&secret, path, body, &proof, 1061) && !is_proven(&secret, path, body, &proof, 939));
        assert!(!is_proven(&Secret::new("other"), path, body, &proof, 1000));
        assert!(!is_proven(&secret, "/pusher/app/KEY/1/b/xhr?n=1", body, &proof, 1000));
        assert!(!is_proven(&secret, path, b"[\"\"]", &proof, 1000));
        for nonsense in ["", ".", "1000.", "1000.zz", "x.00", &proof.replace("1000", "1001")] {
            assert!(!is_proven(&secret, path, body, nonsense, 1000), "{nonsense}");
        }
    }
}
