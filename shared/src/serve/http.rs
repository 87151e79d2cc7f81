//! The HTTP/1.1 server of all listeners: its limits, timeouts and responses in plain text or JSON.

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

/// A response whose body is small and complete.
pub type Response = hyper::Response<Full<Bytes>>;

/// How long a connection may take to send its first request head.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connection may take to send its next request head after a response.
///
/// nginx keeps an idle connection to an upstream for 60 s. With a shorter timeout, nginx would sometimes send a request
/// on a connection that has just been closed.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(75);

/// How long a client may read nothing of a response. nginx has the same limit for its clients.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// The maximum size of a request head, in bytes. hyper requires at least 8 KiB.
pub const HEAD_BYTES_MAX: usize = 16 * 1024;

/// The maximum number of bytes that hyper buffers per connection and direction.
///
/// With its default of 408 KiB, each client that sends a body could use that much memory.
pub const BUFFER_BYTES_MAX: usize = 64 * 1024;

const _: () = assert!(HEAD_BYTES_MAX < BUFFER_BYTES_MAX);

/// The handler of the requests that are not WebSockets.
pub trait Routes: Send + Sync {
    /// Responds to one request. Errors are responses too.
    fn respond(&self, request: Request<RequestBody>) -> BoxFuture<'_, Response>;

    /// Returns the maximum size in bytes of the body of a refused request that is still read to its end. A larger body
    /// ends the connection.
    fn body_bytes_max(&self) -> u64 {
        0
    }
}

/// The limits of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The maximum size in bytes of a request body that is discarded before the response is sent.
    pub body_bytes_max: u64,
    /// How long the client may read nothing of a response.
    pub write_timeout: Duration,
}

/// An HTTP connection of hyper with the handler `H`.
pub type Connection<S, H> = http1::Connection<TokioIo<HttpStream<S>>, H>;

/// Serves HTTP/1.1 on a stream, with the settings of all listeners.
///
/// A request's body is read to its end before the response is sent. If it is larger than allowed, or does not arrive in
/// time, the response has `Connection: close`, and the connection discards further input for a short time. A client
/// that half-closes the connection after its request still gets the response.
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

/// Marks a response as the last one of its connection.
pub fn end_connection<B>(response: &mut hyper::Response<B>) {
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
}

/// Returns the HTTP/1.1 settings of every listener.
fn http1() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE_TIMEOUT)
        .max_header_size(HEAD_BYTES_MAX)
        .max_buf_size(BUFFER_BYTES_MAX)
        .max_headers(64)
        // `HttpStream` hides the end of a half-closed stream until the response is sent.
        .half_close(false);
    builder
}

/// Serves one connection without upgrades until it ends.
///
/// # Errors
/// If the client violates the protocol or breaks the connection.
pub async fn serve_connection(
    io: impl AsyncRead + AsyncWrite + Unpin,
    routes: &impl Routes,
) -> Result<(), hyper::Error> {
    let state = ConnectionState::new();
    let limits = Limits { body_bytes_max: routes.body_bytes_max(), write_timeout: WRITE_TIMEOUT };
    let connection = connection(io, limits, state.clone(), |request| routes.respond(request));
    in_time(connection, &state).await.unwrap_or(Ok(()))
}

/// Runs a connection to its end. Drops it and returns `None` if no request arrives within [`HEAD_TIMEOUT`].
pub async fn in_time<T>(connection: impl Future<Output = T>, state: &ConnectionState) -> Option<T> {
    tokio::pin!(connection);
    match timeout(HEAD_TIMEOUT, &mut connection).await {
        Ok(ended) => Some(ended),
        Err(_) if state.was_asked() => Some(connection.await),
        Err(_) => None,
    }
}

/// Returns a response with a JSON body.
pub fn json(status: StatusCode, body: impl Into<Bytes>) -> Response {
    response(status, "application/json", body)
}

/// Returns a response with a plain text body. Laravel writes the body into a log line, so it does not end with a line
/// break.
pub fn text(status: StatusCode, body: impl Into<Bytes>) -> Response {
    response(status, "text/plain; charset=utf-8", body)
}

/// The paths of health checks: that of Laravel, and the default of many load balancers.
pub const HEALTH_PATHS: [&str; 2] = ["/up", "/"];

/// Returns the response of a healthy process at [`HEALTH_PATHS`]. The body is that of Reverb.
pub fn health() -> Response {
    json(StatusCode::OK, r#"{"health":"OK"}"#)
}

/// Returns a response with a body of any type.
pub fn response(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response {
    let mut response = hyper::Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
