//! The messages that requests send to the task of a fallback session.

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

/// A request to a fallback session.
pub(crate) enum Ask {
    /// The client requests messages.
    Receive(LineSink),
    /// The client sends messages; an empty list is a heartbeat. `bytes`: the size of the request body.
    Send { messages: Vec<String>, bytes: usize },
    /// A node that forwards the session's requests is shutting down.
    End,
}

/// The response that receives the next lines of a session.
pub(crate) enum LineSink {
    /// A response that ends after one write.
    Poll(oneshot::Sender<Bytes>),
    /// A response that stays open.
    Stream(mpsc::Sender<Bytes>),
}
