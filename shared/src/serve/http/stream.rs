//! The stream beneath an HTTP connection: it outlives a half-closed client and closes without a reset.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::{Instant, Sleep, sleep};

use super::write_timeout::WriteTimeout;

/// Bytes that are discarded from a client after the last response. A client that writes its whole request before it
/// reads needs this much to see the response; 16 MiB are more than any client sends in [`LINGER_TIMEOUT`] by mistake.
const LINGER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The longest time for which a closed connection still discards what arrives.
const LINGER_TIMEOUT: Duration = Duration::from_secs(5);

/// A closed connection whose client sends nothing for this long is dropped: longer than a round trip of a bad link.
const LINGER_IDLE: Duration = Duration::from_secs(1);

const _: () = assert!(LINGER_IDLE.as_millis() < LINGER_TIMEOUT.as_millis());

/// The state that the stream, the requests and the responses of one HTTP connection share.
#[derive(Debug, Default)]
pub struct ConnectionState {
    stage: AtomicU8,
    was_asked: AtomicBool,
    is_half_closed: AtomicBool,
    half_closed: Notify,
    /// Wakes the reader of a request's body.
    body_reader: AtomicWaker,
}

/// How far the current exchange is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Stage {
    /// A request is awaited.
    Idle,
    /// A request has started and its response is not complete.
    Busy,
    /// The response is complete and may still be buffered.
    Flushing,
}

impl ConnectionState {
    /// The state of a new connection.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Whether a request has arrived.
    pub fn was_asked(&self) -> bool {
        self.was_asked.load(Ordering::Relaxed)
    }

    /// Whether the client has ended its side while a request was under way.
    pub fn is_half_closed(&self) -> bool {
        self.is_half_closed.load(Ordering::Acquire)
    }

    /// Resolves when the client ends its side while a request is under way: it will send no further request on this
    /// connection, and it may be away.
    pub async fn half_closed(&self) {
        loop {
            let notified = self.half_closed.notified();
            if self.is_half_closed() {
                return;
            }
            notified.await;
        }
    }

    pub(super) fn on_request(&self) {
        self.was_asked.store(true, Ordering::Relaxed);
        self.set_stage(Stage::Busy);
    }

    /// Whether the client has ended its side; wakes the task when it does later.
    pub(super) fn poll_half_closed(&self, context: &mut Context<'_>) -> bool {
        self.body_reader.register(context.waker());
        self.is_half_closed()
    }

    pub(super) fn on_response_complete(&self) {
        self.set_stage(Stage::Flushing);
    }

    fn set_stage(&self, stage: Stage) {
        self.stage.store(stage as u8, Ordering::Release);
    }

    fn is_in(&self, stage: Stage) -> bool {
        self.stage.load(Ordering::Acquire) == stage as u8
    }

    fn on_half_close(&self) {
        self.is_half_closed.store(true, Ordering::Release);
        self.half_closed.notify_waiters();
        self.body_reader.wake();
    }
}

/// A stream for HTTP.
///
/// The end of the client's side is withheld from hyper while a request is under way, because hyper would drop the request
/// unanswered. Shutting the stream down waits until the client has seen the response: closing a socket with
/// unread bytes resets the connection, and the reset can overtake the response.
pub struct HttpStream<S> {
    stream: WriteTimeout<S>,
    state: Arc<ConnectionState>,
    linger: Option<Linger>,
}

/// A connection that is shut down and discards what still arrives.
struct Linger {
    until: Instant,
    idle: Pin<Box<Sleep>>,
    bytes: usize,
}

impl<S> HttpStream<S> {
    pub(super) fn new(stream: S, write_timeout: Duration, state: Arc<ConnectionState>) -> Self {
        Self { stream: WriteTimeout::new(stream, write_timeout), state, linger: None }
    }

    /// Returns the stream itself.
    pub fn into_inner(self) -> S {
        self.stream.into_inner()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for HttpStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        let is_end = buffer.filled().len() == before && buffer.remaining() > 0;
        if is_end && !self.state.is_in(Stage::Idle) {
            self.state.on_half_close();
            // `poll_flush` wakes the reader when the response is out.
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for HttpStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// hyper calls this when its own buffer is empty.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(context))?;
        if self.state.is_in(Stage::Flushing) {
            self.state.set_stage(Stage::Idle);
            if self.state.is_half_closed() {
                context.waker().wake_by_ref();
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.linger.is_none() {
            ready!(Pin::new(&mut this.stream).poll_shutdown(context))?;
        }
        if this.state.is_half_closed() {
            return Poll::Ready(Ok(()));
        }
        this.linger.get_or_insert_with(Linger::begin).poll_end(&mut this.stream, context).map(Ok)
    }
}

impl Linger {
    fn begin() -> Self {
        Self { until: Instant::now() + LINGER_TIMEOUT, idle: Box::pin(sleep(LINGER_IDLE)), bytes: 0 }
    }

    /// Discards what arrives, until the client ends its side or the connection has lingered long enough.
    fn poll_end(&mut self, stream: &mut (impl AsyncRead + Unpin), context: &mut Context<'_>) -> Poll<()> {
        let mut scratch = [0; 4096];
        loop {
            let mut buffer = ReadBuf::new(&mut scratch);
            match Pin::new(&mut *stream).poll_read(context, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    self.bytes += buffer.filled().len();
                    let now = Instant::now();
                    if self.bytes > LINGER_BYTES_MAX || now >= self.until {
                        return Poll::Ready(());
                    }
                    self.idle.as_mut().reset(self.until.min(now + LINGER_IDLE));
                }
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return self.idle.as_mut().poll(context),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::time::timeout;

    use super::*;

    fn stream(near: tokio::io::DuplexStream) -> HttpStream<tokio::io::DuplexStream> {
        HttpStream::new(near, Duration::from_secs(10), ConnectionState::new())
    }

    #[tokio::test(start_paused = true)]
    async fn a_shutdown_lasts_until_the_client_has_ended_its_side() {
        let (near, mut far) = duplex(16);
        let mut stream = stream(near);
        stream.write_all(b"response").await.expect("room");
        let client = async {
            // More than fits the pipe: someone reads it.
            far.write_all(&[0; 64]).await.expect("the server reads");
            let mut response = String::new();
            far.read_to_string(&mut response).await.expect("a response");
            drop(far);
            response
        };
        let began = Instant::now();
        let (closed, response) = tokio::join!(stream.shutdown(), client);
        assert!(closed.is_ok() && response == "response" && began.elapsed() < LINGER_IDLE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_stays_silent_or_never_stops_is_dropped() {
        let (near, _far) = duplex(16);
        let began = Instant::now();
        stream(near).shutdown().await.expect("a stream");
        assert_eq!(began.elapsed(), LINGER_IDLE);

        let (near, mut far) = duplex(16);
        let endless = tokio::spawn(async move {
            loop {
                tokio::time::sleep(LINGER_IDLE / 2).await;
                if far.write_all(b"x").await.is_err() {
                    return;
                }
            }
        });
        let began = Instant::now();
        stream(near).shutdown().await.expect("a stream");
        let took = began.elapsed();
        assert!(took >= LINGER_TIMEOUT - LINGER_IDLE && took <= LINGER_TIMEOUT, "{took:?}");
        endless.await.expect("it ended");
    }

    #[tokio::test]
    async fn the_bytes_of_a_closed_connection_are_bounded() {
        let (near, mut far) = duplex(1024 * 1024);
        let flood = tokio::spawn(async move {
            let piece = vec![0; 1024 * 1024];
            while far.write_all(&piece).await.is_ok() {}
        });
        let mut stream = stream(near);
        stream.shutdown().await.expect("a stream");
        assert!(stream.linger.as_ref().is_some_and(|linger| linger.bytes <= LINGER_BYTES_MAX + 4096));
        drop(stream);
        flood.await.expect("it ended");
    }

    #[tokio::test(start_paused = true)]
    async fn an_end_during_a_response_is_withheld_until_the_response_is_out() {
        let (near, far) = duplex(64);
        let mut stream = stream(near);
        let state = stream.state.clone();
        state.on_request();
        drop(far);
        let mut byte = [0; 1];
        assert!(timeout(LINGER_TIMEOUT, stream.read(&mut byte)).await.is_err(), "it looks open");
        state.half_closed().await;
        state.on_response_complete();
        assert!(timeout(LINGER_TIMEOUT, stream.read(&mut byte)).await.is_err(), "the response may be buffered");
        stream.flush().await.expect("nothing is buffered");
        assert_eq!(stream.read(&mut byte).await.expect("the end"), 0);
    }
}
