//! Bodies of a gateway's answers.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::Full;
use hyper::Response;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::mpsc;

use super::forwarded::Passed;

/// An answer with any body.
pub(crate) type Answer = Response<Body>;

/// What an answer is made of.
pub(crate) enum Body {
    /// All of it.
    Whole(Full<Bytes>),
    /// Lines as they come, for as long as their session may send.
    Lines(Lines),
    /// What another node answers.
    Passed(Passed),
}

/// Lines of a streaming response.
pub(crate) struct Lines {
    lines: mpsc::Receiver<Bytes>,
    /// Resolves when the client has ended its side, and the response with it.
    gone: Option<Gone>,
}

/// Resolves when the client of a response has ended its side.
pub(crate) type Gone = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Lines {
    pub(crate) fn new(lines: mpsc::Receiver<Bytes>, gone: Gone) -> Self {
        Self { lines, gone: Some(gone) }
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if self.gone.as_mut().is_some_and(|gone| gone.as_mut().poll(context).is_ready()) {
            self.gone = None;
            // What was sent is delivered; then the response ends.
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
            Self::Passed(passed) => Pin::new(passed).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(whole) => whole.is_end_stream(),
            Self::Lines(_) => false,
            Self::Passed(passed) => passed.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(whole) => whole.size_hint(),
            Self::Lines(_) => SizeHint::default(),
            Self::Passed(passed) => passed.size_hint(),
        }
    }
}
