//! What another node answers, on its way to a client of this one.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use tokio::sync::oneshot;

use super::body::Gone;
use super::lines;
use crate::shard::drain::going_away;

/// An answer that is passed on. A stream that ends without a word costs its client one of two lives, so one that has to
/// end, because this node leaves or the other one is gone, has a last line.
pub(crate) struct Passed {
    body: Incoming,
    /// Resolves when it must end since this node leaves; `None` for an answer whose length is told, which is whole by then.
    must_end: Option<oneshot::Receiver<()>>,
    /// Resolves when the client has ended its side.
    gone: Option<Gone>,
    /// Whether the last line has no end yet.
    is_line_open: bool,
    is_over: bool,
}

impl Passed {
    /// `must_end`: resolves when a stream must end since this node leaves; what it waits for may go once this is dropped.
    pub(crate) fn new(body: Incoming, must_end: impl Future<Output = ()> + 'static) -> Self {
        let is_stream = body.size_hint().exact().is_none();
        let must_end = is_stream.then(|| {
            let (mut sender, receiver) = oneshot::channel();
            tokio::task::spawn_local(async move {
                tokio::select! {
                    () = must_end => drop(sender.send(())),
                    () = sender.closed() => {}
                }
            });
            receiver
        });
        Self { body, must_end, gone: None, is_line_open: false, is_over: false }
    }

    /// The same, ended when `gone` resolves.
    pub(crate) fn until(self, gone: Gone) -> Self {
        Self { gone: Some(gone), ..self }
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
        let can_end = !self.is_line_open && self.must_end.is_some();
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
        if self.gone.as_mut().is_some_and(|gone| gone.as_mut().poll(context).is_ready()) {
            self.is_over = true;
            return Poll::Ready(None);
        }
        // Not while a line is open: the future is asked again with what completes it.
        if can_end && self.must_end.as_mut().is_some_and(|must_end| Pin::new(must_end).poll(context).is_ready()) {
            return self.end(lines::farewell(&going_away()).into());
        }
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        self.is_over || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        if self.must_end.is_some() { SizeHint::default() } else { self.body.size_hint() }
    }
}
