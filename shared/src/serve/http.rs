//! HTTP/1.1 as both roles serve it: bounded, timed, answered in plain text or JSON.

mod body;
mod path;
mod stream;
mod write_timeout;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http_body_util::Full;
use hyper::body::{Body, Incoming};
use hyper::header::{CONNECTION, CONTENT_TYPE, EXPECT, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper::{Request, StatusCode, Version};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

pub use body::{BodyError, DISCARD_TIMEOUT, RequestBody, ResponseBody};
pub use path::below;
pub use stream::{ConnectionState, HttpStream};

/// An answer; bodies are small and complete.
pub type Response = hyper::Response<Full<Bytes>>;

/// A connection must send its first request head within this time: 10 s is twice what nginx' own limit leaves a slow phone.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// And each further one within this time of the last answer: longer than the 60 s for which nginx keeps a connection to an
/// upstream, or it would now and then send a request on a connection that has just been closed.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(75);

/// A peer may take nothing of an answer for this long; as long as nginx lets its own clients.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// Largest request head, in bytes; hyper needs 8 KiB at least.
pub const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Bytes that hyper buffers of a connection in each direction. Its default of 408 KiB would let every client that sends a
/// body occupy as much.
pub const BUFFER_BYTES_MAX: usize = 64 * 1024;

const _: () = assert!(HEAD_BYTES_MAX < BUFFER_BYTES_MAX);

/// What answers requests that are not WebSockets.
pub trait Routes: Send + Sync {
    /// Answers one request; every error is an answer too.
    fn respond(&self, request: Request<RequestBody>) -> BoxFuture<'_, Response>;

    /// The largest request body that is read to its end although the request is refused, in bytes. A larger one ends
    /// its connection.
    fn body_bytes_max(&self) -> u64 {
        0
    }
}

/// The limits of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The largest request body that is discarded before a refusal is sent, in bytes.
    pub body_bytes_max: u64,
    /// How long the client may take nothing of a response.
    pub write_timeout: Duration,
}

/// A connection for hyper, with `handler` behind it.
pub type Connection<S, H> = http1::Connection<TokioIo<HttpStream<S>>, H>;

/// Serves HTTP/1.1 on a stream, in the one way of all listeners.
///
/// A request's body is read to its end before the response is sent. If it is larger than allowed, or does not arrive in
/// time, the response says `Connection: close`, and the connection discards what still arrives for a moment. A client
/// that ends its side after the request gets its response.
#[expect(clippy::type_complexity, reason = "a type with hyper's anonymous service in it cannot have a name")]
pub fn connection<S, F, B>(
    stream: S,
    limits: Limits,
    state: Arc<ConnectionState>,
    handler: impl Fn(Request<RequestBody>) -> F,
) -> Connection<
    S,
    impl Service<
        Request<Incoming>,
        Response = hyper::Response<ResponseBody<B>>,
        Error = Infallible,
        Future = impl Future<Output = Result<hyper::Response<ResponseBody<B>>, Infallible>>,
    >,
>
where
    S: AsyncRead + AsyncWrite + Unpin,
    F: Future<Output = hyper::Response<B>>,
    B: Body + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let io = TokioIo::new(HttpStream::new(stream, limits.write_timeout, state.clone()));
    let service = service_fn(move |request: Request<Incoming>| {
        state.on_request();
        let state = state.clone();
        let (head, body) = request.into_parts();
        let expects = head.headers.get(EXPECT).map(HeaderValue::as_bytes).unwrap_or_default();
        let waits = head.version > Version::HTTP_10 && expects.eq_ignore_ascii_case(b"100-continue");
        let (body, discard) = RequestBody::new(body, state.clone(), limits.body_bytes_max, waits);
        let responding = handler(Request::from_parts(head, body));
        async move {
            let mut response = responding.await;
            if let Some(discard) = discard
                && !discard.run().await
            {
                end_connection(&mut response);
            }
            Ok(response.map(|body| ResponseBody::new(body, state)))
        }
    });
    http1().serve_connection(io, service)
}

/// Makes a response the last one of its connection.
pub fn end_connection<B>(response: &mut hyper::Response<B>) {
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
}

/// The HTTP/1.1 settings of every listener.
fn http1() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE_TIMEOUT)
        .max_header_size(HEAD_BYTES_MAX)
        .max_buf_size(BUFFER_BYTES_MAX)
        .max_headers(64)
        // `HttpStream` withholds the end of a half-closed stream, and knows when to report it.
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
    let state = ConnectionState::new();
    let limits = Limits { body_bytes_max: routes.body_bytes_max(), write_timeout: WRITE_TIMEOUT };
    let connection = connection(io, limits, state.clone(), |request| routes.respond(request));
    in_time(connection, &state).await.unwrap_or(Ok(()))
}

/// Runs a connection to its end; drops it and returns `None` when nothing was asked within [`HEAD_TIMEOUT`].
pub async fn in_time<T>(connection: impl Future<Output = T>, state: &ConnectionState) -> Option<T> {
    tokio::pin!(connection);
    match timeout(HEAD_TIMEOUT, &mut connection).await {
        Ok(ended) => Some(ended),
        Err(_) if state.was_asked() => Some(connection.await),
        Err(_) => None,
    }
}

/// A JSON body.
pub fn json(status: StatusCode, body: impl Into<Bytes>) -> Response {
    response(status, "application/json", body)
}

/// A plain text body, without a line break at its end: Laravel puts it into the middle of a log line.
pub fn text(status: StatusCode, body: impl Into<Bytes>) -> Response {
    response(status, "text/plain; charset=utf-8", body)
}

/// Where load balancers check the health of a server: Laravel's path, and the default of many balancers.
pub const HEALTH_PATHS: [&str; 2] = ["/up", "/"];

/// The response of a healthy process at [`HEALTH_PATHS`]; the body is Reverb's.
pub fn health() -> Response {
    json(StatusCode::OK, r#"{"health":"OK"}"#)
}

/// Any body.
pub fn response(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response {
    let mut response = hyper::Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
