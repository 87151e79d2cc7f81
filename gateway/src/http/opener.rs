//! The fallback sessions that one TCP connection has opened.

use std::cell::{Cell, OnceCell};
use std::rc::Rc;

use tokio_util::sync::CancellationToken;

use crate::limits::SESSIONS_PER_TCP_CONNECTION;

/// One TCP connection, as far as sessions are opened through it.
#[derive(Default)]
pub(crate) struct Opener {
    sessions: Cell<usize>,
    lost: OnceCell<CancellationToken>,
}

/// A session counts for the TCP connection that opened it until this is dropped.
pub(crate) struct OpenedBy {
    opener: Rc<Opener>,
    lost: CancellationToken,
}

impl Opener {
    /// Counts one more session; `None` when the TCP connection has opened as many as it may.
    pub(crate) fn open(self: &Rc<Self>) -> Option<OpenedBy> {
        if self.sessions.get() >= SESSIONS_PER_TCP_CONNECTION {
            return None;
        }
        self.sessions.set(self.sessions.get() + 1);
        let lost = self.lost.get_or_init(CancellationToken::new).clone();
        Some(OpenedBy { opener: self.clone(), lost })
    }

    /// Says that the TCP connection broke off. Its client may not have read that its sessions are open.
    pub(crate) fn lose(&self) {
        if let Some(lost) = self.lost.get() {
            lost.cancel();
        }
    }
}

impl OpenedBy {
    /// Resolves when the TCP connection has broken off.
    pub(crate) async fn lost(&self) {
        self.lost.cancelled().await;
    }
}

impl Drop for OpenedBy {
    fn drop(&mut self) {
        self.opener.sessions.set(self.opener.sessions.get() - 1);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn a_tcp_connection_opens_as_many_sessions_as_it_may() {
        let opener = Rc::new(Opener::default());
        let mut sessions: Vec<_> = (0..SESSIONS_PER_TCP_CONNECTION).map(|_| opener.open().unwrap()).collect();
        assert!(opener.open().is_none());
        sessions.pop();
        sessions.push(opener.open().unwrap());
        assert!(opener.open().is_none());
        drop(sessions);
        assert_eq!(opener.sessions.get(), 0);
    }

    #[test]
    fn a_session_learns_that_its_tcp_connection_broke_off() {
        let opener = Rc::new(Opener::default());
        opener.lose();
        let session = opener.open().unwrap();
        assert!(session.lost().now_or_never().is_none());
        opener.lose();
        assert!(session.lost().now_or_never().is_some());
    }
}
