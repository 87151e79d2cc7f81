//! The body of a response that another node sends to a client of this one.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use tokio::sync::oneshot;

use super::disconnect::Disconnected;
use super::lines;
use crate::reject::Farewell;

/// The body of a forwarded response.
///
/// pusher-js counts a stream that ends without a close message as a failure of the transport, and gives the transport
/// up after the second. If a stream has to end because one of the nodes is shutting down, a last line is therefore
/// added.
pub(crate) struct ForwardedBody {
    body: Incoming,
    /// Resolves when the stream must end because this node is shutting down. `None` for a body of known length, which
    /// is complete before that.
    must_end: Option<oneshot::Receiver<()>>,
    /// Resolves when the client has closed its side.
    disconnected: Option<Disconnected>,
    /// Whether the end of the last line has not been received.
    is_line_open: bool,
    is_over: bool,
}

impl ForwardedBody {
    /// `must_end`: resolves when a stream must end because this node is shutting down. It is cancelled with the body.
    pub(super) fn new(body: Incoming, must_end: impl Future<Output = ()> + 'static) -> Self {
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
        Self { body, must_end, disconnected: None, is_line_open: false, is_over: false }
    }

    /// Ends the body when `disconnected` resolves.
    pub(super) fn until(self, disconnected: Disconnected) -> Self {
        Self { disconnected: Some(disconnected), ..self }
    }

    fn end(&mut self, line: Bytes) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.is_over = true;
        Poll::Ready(Some(Ok(Frame::data(line))))
    }
}

impl HttpBody for ForwardedBody {
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
            // The other node has failed. From this line the client learns that its session is lost.
            Poll::Ready(Some(Err(_))) if can_end => {
                return self.end(Bytes::from_static(lines::OPEN.as_bytes()));
            }
            Poll::Ready(ended) => return Poll::Ready(ended),
            Poll::Pending => {}
        }
        if self.disconnected.as_mut().is_some_and(|disconnected| disconnected.as_mut().poll(context).is_ready()) {
            self.is_over = true;
            return Poll::Ready(None);
        }
        // Not while a line is open. The task is polled again when the rest of the line arrives.
        if can_end && self.must_end.as_mut().is_some_and(|must_end| Pin::new(must_end).poll(context).is_ready()) {
            return self.end(lines::farewell(&Farewell::going_away()).into());
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
