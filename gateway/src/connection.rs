//! The state of one connection.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::task::Waker;

use shared::app::App;
use shared::protocol::{CloseCode, SocketId};
use tokio::net::TcpStream;
use tokio::sync::Notify;

use crate::capacity::Admission;
use crate::limits::CLOSING_BYTES_MAX;
use crate::outbox::Outbox;
use crate::session::Session;

/// One connection. It belongs to one shard for its whole life.
pub(crate) struct Connection {
    pub(crate) socket_id: SocketId,
    pub(crate) app: Arc<App>,
    pub(crate) wire: Wire,
    pub(crate) outbox: Outbox,
    pub(crate) session: RefCell<Session>,
    admission: Admission,
    /// The index in the shard's list of connections.
    pub(crate) slot: Cell<usize>,
    /// The shard's clock when the connection was opened, in seconds.
    pub(crate) since_s: u32,
    /// The shard's clock when the client last sent anything.
    pub(crate) received_s: Cell<u32>,
    /// The shard's clock when a ping was sent; `None` once the client has sent anything after it.
    pub(crate) pinged_s: Cell<Option<u32>>,
    stage: Cell<Stage>,
    /// The close code for the metrics; `None` if the connection broke off.
    ended_with: Cell<Option<CloseCode>>,
    /// Whether the sending side is shut down once all frames are written.
    shuts_down: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

/// The path of a connection's frames to the client.
pub(crate) enum Wire {
    /// The TCP connection of a WebSocket. Frames are written to it.
    Socket(TcpStream),
    /// The requests of a fallback session. They take frames from the outbox. The session's task is notified of new
    /// frames.
    Requests(Box<Notify>),
}

/// The stage of a connection's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Messages go both ways.
    Open,
    /// A close frame was sent. The connection ends with the client's close frame, or at this time of the shard's clock.
    ///
    /// `bytes`: the bytes that were read from the client since.
    Closing { until_s: u32, bytes: usize },
    /// The task must end.
    Over,
}

impl Connection {
    pub(crate) fn new(wire: Wire, socket_id: SocketId, admission: Admission, now_s: u32) -> Self {
        let app = admission.app.clone();
        Self {
            socket_id,
            session: RefCell::new(Session::new(socket_id, app.clone())),
            app,
            admission,
            wire,
            outbox: Outbox::default(),
            slot: Cell::new(usize::MAX),
            since_s: now_s,
            received_s: Cell::new(now_s),
            pinged_s: Cell::new(None),
            stage: Cell::new(Stage::Open),
            ended_with: Cell::new(None),
            shuts_down: Cell::new(false),
            waker: RefCell::new(None),
        }
    }

    pub(crate) fn stage(&self) -> Stage {
        self.stage.get()
    }

    /// Whether messages are still sent to the client.
    pub(crate) fn is_open(&self) -> bool {
        self.stage.get() == Stage::Open
    }

    /// Whether the task must end.
    pub(crate) fn is_over(&self) -> bool {
        self.stage.get() == Stage::Over
    }

    /// Returns the close code; `None` if the connection broke off.
    pub(crate) fn ended_with(&self) -> Option<CloseCode> {
        self.ended_with.get()
    }

    /// Ends the connection without waking its task. For use by the task itself.
    pub(crate) fn end(&self) {
        self.stage.set(Stage::Over);
    }

    /// Ends the connection without a close frame, and wakes its task.
    pub(crate) fn abandon(&self) {
        self.end();
        self.wake();
    }

    /// Stops all messages except the close frame, which the caller sends.
    ///
    /// `until_s`: the deadline of the client's close frame, by the shard's clock.
    pub(crate) fn begin_closing(&self, code: CloseCode, until_s: u32) {
        self.stage.set(Stage::Closing { until_s, bytes: 0 });
        self.ended_with.set(Some(code));
        self.admission.release_quota();
    }

    /// Shuts down the sending side as soon as the close frame is written, without waking the task.
    pub(crate) fn set_shutdown(&self) {
        self.shuts_down.set(true);
    }

    /// Shuts down the sending side as soon as the close frame is written, and wakes the connection's task.
    pub(crate) fn shut_down_after_close(&self) {
        self.set_shutdown();
        self.wake();
    }

    /// Whether the sending side must be shut down now that all frames are written. Returns `true` once.
    pub(crate) fn take_shutdown(&self) -> bool {
        self.shuts_down.take()
    }

    /// Whether the client has not answered the close frame in time.
    pub(crate) fn is_past_grace(&self, now_s: u32) -> bool {
        matches!(self.stage.get(), Stage::Closing { until_s, .. } if now_s >= until_s)
    }

    /// Records that the client sent something.
    pub(crate) fn touch(&self, now_s: u32) {
        self.received_s.set(now_s);
        self.pinged_s.set(None);
    }

    /// Counts bytes that are read after the close frame was sent. Ends the connection beyond [`CLOSING_BYTES_MAX`].
    pub(crate) fn count_closing_bytes(&self, count: usize) {
        if let Stage::Closing { until_s, bytes } = self.stage.get() {
            let bytes = bytes + count;
            self.stage.set(if bytes > CLOSING_BYTES_MAX { Stage::Over } else { Stage::Closing { until_s, bytes } });
        }
    }

    /// Wakes the connection's task, which then checks its socket and the stage.
    pub(crate) fn wake(&self) {
        if let Wire::Requests(changed) = &self.wire {
            return changed.notify_one();
        }
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    /// Sets the waker of the connection's task.
    pub(crate) fn set_waker(&self, waker: &Waker) {
        if !self.waker.borrow().as_ref().is_some_and(|current| current.will_wake(waker)) {
            *self.waker.borrow_mut() = Some(waker.clone());
        }
    }
}
