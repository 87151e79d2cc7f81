//! Bodies of requests and responses that report their progress to their connection.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Instant, timeout_at};

use super::ConnectionState;
use crate::sync::lock;

/// How long the body of a refused request may take to arrive after its head. After that, the response ends the
/// connection.
pub const DISCARD_TIMEOUT: Duration = Duration::from_secs(5);

/// The body of a request. The part that the handler does not read is discarded before the response is sent, because the
/// next request follows it on the connection.
pub struct RequestBody {
    body: Option<Incoming>,
    /// Whether the client waits for `100 Continue` before it sends the body. hyper sends it at the first poll.
    waits: bool,
    state: Arc<ConnectionState>,
    rest: Shared,
}

/// The reason why the body of a request cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The client closed its side of the connection before the end of the body.
    #[error("the body ended too early")]
    Truncated,
    /// The connection or the framing of the body is broken.
    #[error(transparent)]
    Broken(#[from] hyper::Error),
}

/// The part of a body that its reader did not read.
enum Rest {
    /// The reader has not finished, or the body is broken.
    Unknown,
    /// The reader stopped before the end.
    Unread(Incoming),
    /// The whole body has been read.
    Nothing,
}

/// [`Rest`] of one body, for its reader and for [`Discard`].
#[derive(Clone)]
struct Shared(Arc<Mutex<Rest>>);

/// Discards the unread part of the body of a request.
pub(super) struct Discard {
    rest: Shared,
    bytes_max: u64,
    until: Instant,
    state: Arc<ConnectionState>,
}

/// The body of a response.
pub struct ResponseBody<B> {
    body: B,
    state: Arc<ConnectionState>,
}

impl Shared {
    fn set(&self, rest: Rest) {
        *lock(&self.0) = rest;
    }

    fn take(&self) -> Rest {
        std::mem::replace(&mut *lock(&self.0), Rest::Unknown)
    }
}

impl RequestBody {
    /// Splits a body into the part for its handler and the part that discards the rest. The second is `None` if there
    /// is no body.
    ///
    /// `bytes_max`: the maximum size of a body that is discarded. `waits`: whether the client waits for `100 Continue`.
    pub(super) fn new(
        body: Incoming,
        state: Arc<ConnectionState>,
        bytes_max: u64,
        waits: bool,
    ) -> (Self, Option<Discard>) {
        let is_empty = body.is_end_stream();
        let rest = Shared(Arc::new(Mutex::new(Rest::Unknown)));
        let until = Instant::now() + DISCARD_TIMEOUT;
        let discard = Discard { rest: rest.clone(), bytes_max, until, state: state.clone() };
        let body = Self { body: (!is_empty).then_some(body), waits, state, rest };
        (body, (!is_empty).then_some(discard))
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        // A client that still waits for `100 Continue` does not send the body.
        if let Some(body) = self.body.take().filter(|_| !self.waits) {
            self.rest.set(Rest::Unread(body));
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        this.waits = false;
        let Some(body) = &mut this.body else { return Poll::Ready(None) };
        let polled = match Pin::new(&mut *body).poll_frame(context) {
            // hyper detects a half-closed connection only when it reads more of the body.
            Poll::Pending if this.state.poll_half_closed(context) => Poll::Ready(Some(Err(BodyError::Truncated))),
            Poll::Pending => return Poll::Pending,
            Poll::Ready(frame) => Poll::Ready(frame.map(|frame| frame.map_err(BodyError::Broken))),
        };
        if matches!(polled, Poll::Ready(Some(Err(_)))) {
            this.body = None;
        } else if matches!(polled, Poll::Ready(None)) || body.is_end_stream() {
            this.body = None;
            this.rest.set(Rest::Nothing);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Incoming::size_hint)
    }
}

impl Discard {
    /// Reads the rest of the body. Returns whether the end was reached. If not, the connection cannot serve another
    /// request.
    pub(super) async fn run(self) -> bool {
        let mut body = match self.rest.take() {
            Rest::Unknown => return false,
            Rest::Nothing => return true,
            Rest::Unread(body) => body,
        };
        if body.size_hint().lower() > self.bytes_max {
            return false;
        }
        let read = async {
            let mut bytes = 0;
            loop {
                let frame = tokio::select! {
                    biased;
                    frame = body.frame() => frame,
                    () = self.state.half_closed() => return false,
                };
                match frame {
                    None => return true,
                    Some(Ok(frame)) => bytes += frame.data_ref().map_or(0, |data| data.len() as u64),
                    Some(Err(_)) => return false,
                }
                if bytes > self.bytes_max {
                    return false;
                }
            }
        };
        timeout_at(self.until, read).await.unwrap_or(false)
    }
}

impl<B> ResponseBody<B> {
    pub(super) fn new(body: B, state: Arc<ConnectionState>) -> Self {
        Self { body, state }
    }
}

impl<B> Drop for ResponseBody<B> {
    fn drop(&mut self) {
        self.state.on_response_complete();
    }
}

impl<B: Body + Unpin> Body for ResponseBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
