//! The TCP connection below a WebSocket.

use std::cell::Cell;
use std::rc::Rc;

use crate::capacity::SocketPermit;

/// The TCP connection below a WebSocket. It counts as open until it is dropped.
pub(crate) struct Carrier {
    _permit: SocketPermit,
    /// Set if this gateway terminates TLS.
    stall: Option<Stall>,
}

impl Carrier {
    pub(crate) fn new(permit: SocketPermit, stall: Option<Stall>) -> Self {
        Self { _permit: permit, stall }
    }

    /// Whether the TLS task closed the connection because the client read nothing within the timeout.
    pub(crate) fn has_stalled(&self) -> bool {
        self.stall.as_ref().is_some_and(Stall::is_set)
    }
}

/// A flag that a TLS task sets when it closes a connection whose client reads nothing. The shard sees only the end of
/// the stream.
#[derive(Clone, Default)]
pub(crate) struct Stall(Rc<Cell<bool>>);

impl Stall {
    /// Whether the client read nothing within the timeout.
    pub(crate) fn is_set(&self) -> bool {
        self.0.get()
    }

    /// Sets the flag to `has_stalled`.
    pub(crate) fn set(&self, has_stalled: bool) {
        self.0.set(has_stalled);
    }
}
