//! Bodies of a gateway's answers.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::Full;
use hyper::Response;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::mpsc;

use crate::fallback::Passed;

/// An answer with any body.
pub(crate) type Answer = Response<Body>;

/// What an answer is made of.
pub(crate) enum Body {
    /// All of it.
    Whole(Full<Bytes>),
    /// Whatever comes, for as long as someone may send.
    Lines(mpsc::Receiver<Bytes>),
    /// What another node answers.
    Passed(Passed),
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
            Self::Lines(lines) => lines.poll_recv(context).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes)))),
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
