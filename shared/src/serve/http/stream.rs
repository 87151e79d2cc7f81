//! The stream below an HTTP connection. It supports half-closed clients and closes without a TCP reset.

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

/// The maximum number of bytes that are discarded after the last response.
///
/// A client that writes its whole request before it reads gets its response only if the server reads the request.
const LINGER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// How long a closed connection discards further input.
const LINGER_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the client of a closed connection may send nothing before the connection is dropped. It is longer than a
/// round trip of a slow network.
const LINGER_IDLE: Duration = Duration::from_secs(1);

const _: () = assert!(LINGER_IDLE.as_millis() < LINGER_TIMEOUT.as_millis());

/// The shared state of the stream, the requests and the responses of one HTTP connection.
#[derive(Debug, Default)]
pub struct ConnectionState {
    stage: AtomicU8,
    was_asked: AtomicBool,
    is_half_closed: AtomicBool,
    half_closed: Notify,
    /// Wakes the reader of a request's body.
    body_reader: AtomicWaker,
}

/// The stage of the current request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Stage {
    /// The connection waits for a request.
    Idle,
    /// A request has started and its response is not complete.
    Busy,
    /// The response is complete and can still be in a buffer.
    Flushing,
}

impl ConnectionState {
    /// Returns the state of a new connection.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Returns whether a request has arrived.
    pub fn was_asked(&self) -> bool {
        self.was_asked.load(Ordering::Relaxed)
    }

    /// Returns whether the client closed its side of the connection during a request.
    pub fn is_half_closed(&self) -> bool {
        self.is_half_closed.load(Ordering::Acquire)
    }

    /// Resolves when the client closes its side of the connection during a request. The client sends no further request
    /// on this connection, and it may have disconnected.
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

    /// Returns whether the client has closed its side of the connection. Otherwise, wakes the task when it does.
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
/// During a request, the stream hides from hyper that the client closed its side. hyper would drop the request without
/// a response. The shutdown of the stream waits until the client has read the response. Closing a socket with unread
/// bytes resets the connection, and the reset can destroy the response.
pub struct HttpStream<S> {
    stream: WriteTimeout<S>,
    state: Arc<ConnectionState>,
    linger: Option<Linger>,
}

/// The state of a connection that is shut down and discards further input.
struct Linger {
    until: Instant,
    idle: Pin<Box<Sleep>>,
    bytes: usize,
}

impl<S> HttpStream<S> {
    pub(super) fn new(stream: S, write_timeout: Duration, state: Arc<ConnectionState>) -> Self {
        Self { stream: WriteTimeout::new(stream, write_timeout), state, linger: None }
    }

    /// Returns the inner stream.
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
            // `poll_flush` wakes the reader when the response is written.
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

    /// Flushes the inner stream. hyper calls it when its buffer is empty.
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

    /// Discards input until the client closes its side or a limit is reached.
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
    async fn a_shutdown_waits_until_the_client_closes_its_side() {
        let (near, mut far) = duplex(16);
        let mut stream = stream(near);
        stream.write_all(b"response").await.expect("room");
        let client = async {
            // More than the pipe can buffer, so the server must read it.
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
    async fn a_silent_client_and_an_endless_sender_are_dropped() {
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
    async fn the_input_of_a_closed_connection_is_bounded() {
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
    async fn a_half_close_during_a_request_is_hidden_until_the_response_is_written() {
        let (near, far) = duplex(64);
        let mut stream = stream(near);
        let state = stream.state.clone();
        state.on_request();
        drop(far);
        let mut byte = [0; 1];
        assert!(timeout(LINGER_TIMEOUT, stream.read(&mut byte)).await.is_err(), "the stream looks open");
        state.half_closed().await;
        state.on_response_complete();
        assert!(
            timeout(LINGER_TIMEOUT, stream.read(&mut byte)).await.is_err(),
            "the response can still be in a buffer"
        );
        stream.flush().await.expect("nothing is buffered");
        assert_eq!(stream.read(&mut byte).await.expect("the end"), 0);
    }
}
