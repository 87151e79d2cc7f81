//! The bodies of responses to clients.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::mpsc;

use super::disconnect::Disconnected;
use super::forwarded::ForwardedBody;

/// A response to a client.
pub(crate) type Response = hyper::Response<Body>;

/// The body of a response.
pub(crate) enum Body {
    /// A complete body.
    Whole(Full<Bytes>),
    /// The lines of a session, as they are written.
    Lines(LineStream),
    /// The body of a response from another node.
    Forwarded(ForwardedBody),
}

/// The lines of a streaming response.
pub(crate) struct LineStream {
    lines: mpsc::Receiver<Bytes>,
    /// Resolves when the client has closed its side. The response then ends.
    disconnected: Option<Disconnected>,
}

impl LineStream {
    pub(super) fn new(lines: mpsc::Receiver<Bytes>, disconnected: Disconnected) -> Self {
        Self { lines, disconnected: Some(disconnected) }
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if self.disconnected.as_mut().is_some_and(|disconnected| disconnected.as_mut().poll(context).is_ready()) {
            self.disconnected = None;
            // Lines that are already in the channel are still delivered.
            self.lines.close();
        }
        self.lines.poll_recv(context)
    }
}

impl Default for Body {
    fn default() -> Self {
        Self::Whole(Full::default())
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self::Whole(Full::new(bytes))
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut *self {
            Self::Whole(whole) => Pin::new(whole)
                .poll_frame(context)
                .map(|frame| frame.map(|frame| frame.map_err(|never| match never {}))),
            Self::Lines(lines) => lines.poll_next(context).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes)))),
            Self::Forwarded(forwarded) => Pin::new(forwarded).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(whole) => whole.is_end_stream(),
            Self::Lines(_) => false,
            Self::Forwarded(forwarded) => forwarded.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(whole) => whole.size_hint(),
            Self::Lines(_) => SizeHint::default(),
            Self::Forwarded(forwarded) => forwarded.size_hint(),
        }
    }
}
