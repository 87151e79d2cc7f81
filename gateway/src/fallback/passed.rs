//! What another node answers, on its way to a client of this one.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::lines;
use crate::node::Load;
use crate::reject::Farewell;

/// An answer that is passed on. A stream that ends without a word costs its client one of two lives, so one that has to
/// end, because this node leaves or the other one is gone, has a last line.
pub(crate) struct Passed {
    body: Incoming,
    /// Resolves when this node leaves; `None` for an answer whose length is told, which is whole by then.
    leaving: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    /// What is said then.
    goodbye: Bytes,
    /// Whether the last line has no end yet.
    is_line_open: bool,
    is_over: bool,
    /// Counts the connection to the other node.
    _load: Load,
}

impl Passed {
    /// `leaving`: cancelled when this node leaves, with `farewell`.
    pub(crate) fn new(body: Incoming, load: Load, leaving: CancellationToken, farewell: &Farewell) -> Self {
        let is_stream = body.size_hint().exact().is_none();
        Self {
            body,
            leaving: is_stream.then(|| Box::pin(leaving.cancelled_owned())),
            goodbye: lines::farewell(farewell).into(),
            is_line_open: false,
            is_over: false,
            _load: load,
        }
    }

    fn end(&mut self, line: Bytes) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.is_over = true;
        Poll::Ready(Some(Ok(Frame::data(line))))
    }
}

impl HttpBody for Passed {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        let can_end = !self.is_line_open && self.leaving.is_some();
        match Pin::new(&mut self.body).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    self.is_line_open = data.last().map_or(self.is_line_open, |byte| *byte != b'\n');
                }
                return Poll::Ready(Some(Ok(frame)));
            }
            // The other node is gone: to a client whose session is open this says that it is lost.
            Poll::Ready(Some(Err(_))) if can_end => {
                return self.end(Bytes::from_static(lines::OPEN.as_bytes()));
            }
            Poll::Ready(ended) => return Poll::Ready(ended),
            Poll::Pending => {}
        }
        let is_leaving = self.leaving.as_mut().is_some_and(|leaving| leaving.as_mut().poll(context).is_ready());
        if can_end && is_leaving {
            let goodbye = self.goodbye.clone();
            return self.end(goodbye);
        }
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        self.is_over || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        if self.leaving.is_some() { SizeHint::default() } else { self.body.size_hint() }
    }
}
