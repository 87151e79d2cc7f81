//! HTTP/1.1 as both roles serve it: bounded, timed, answered in plain text or JSON.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use crate::listener::WriteTimeout;

/// An answer; bodies are small and complete.
pub type Answer = Response<Full<Bytes>>;

/// A connection must send its first request head within this time: 10 s is twice what nginx' own limit leaves a slow phone.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// And each further one within this time of the last answer: longer than the 60 s for which nginx keeps a connection to an
/// upstream, or it would now and then send a request on a connection that has just been closed.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(75);

/// A peer may take nothing of an answer for this long; as long as nginx lets its own clients.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// Largest request head, in bytes; hyper needs 8 KiB at least.
pub const HEAD_BYTES_MAX: usize = 16 * 1024;

/// What answers requests that are not WebSockets.
pub trait Routes: Send + Sync {
    /// Answers one request; every error is an answer too.
    fn answer(&self, request: Request<Incoming>) -> BoxFuture<'_, Answer>;
}

/// The HTTP/1.1 settings of every listener.
pub fn http1() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE_TIMEOUT)
        .max_header_size(HEAD_BYTES_MAX)
        .max_headers(64)
        .half_close(false);
    builder
}

/// Serves one connection until it ends. Without upgrades; the gateway serves those itself.
///
/// # Errors
/// hyper's, when the peer breaks the protocol or the connection.
pub async fn serve_connection(
    io: impl AsyncRead + AsyncWrite + Unpin,
    routes: &impl Routes,
) -> Result<(), hyper::Error> {
    let asked = AtomicBool::new(false);
    let service = service_fn(|request| {
        asked.store(true, Ordering::Relaxed);
        async { Ok::<_, Infallible>(routes.answer(request).await) }
    });
    let io = TokioIo::new(WriteTimeout::new(io, WRITE_TIMEOUT));
    in_time(http1().serve_connection(io, service), &asked).await.unwrap_or(Ok(()))
}

/// Runs a connection to its end; drops it and returns `None` when nothing was `asked` within [`HEAD_TIMEOUT`].
pub async fn in_time<T>(connection: impl Future<Output = T>, asked: &AtomicBool) -> Option<T> {
    tokio::pin!(connection);
    match timeout(HEAD_TIMEOUT, &mut connection).await {
        Ok(ended) => Some(ended),
        Err(_) if asked.load(Ordering::Relaxed) => Some(connection.await),
        Err(_) => None,
    }
}

/// What a connection of a listener's own making answers with, for hyper.
///
/// `asked`: set with the first request.
pub fn service<R: Routes + ?Sized + 'static>(
    routes: Arc<R>,
    asked: Arc<AtomicBool>,
) -> impl Service<
    Request<Incoming>,
    Response = Answer,
    Error = Infallible,
    Future = impl Future<Output = Result<Answer, Infallible>> + Send,
> {
    service_fn(move |request| {
        asked.store(true, Ordering::Relaxed);
        let routes = routes.clone();
        async move { Ok(routes.answer(request).await) }
    })
}

/// A JSON body.
pub fn json(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    answer(status, "application/json", body)
}

/// A plain text body; a line break is added, as Pusher does.
pub fn text(status: StatusCode, body: &str) -> Answer {
    answer(status, "text/plain; charset=utf-8", format!("{body}\n"))
}

/// What a process that serves answers under `/up`; the body is Reverb's.
pub fn health() -> Answer {
    json(StatusCode::OK, r#"{"health":"OK"}"#)
}

/// Any body.
pub fn answer(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}
