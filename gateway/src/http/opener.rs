//! Counts the fallback sessions that one TCP connection opened.

use std::cell::{Cell, OnceCell};
use std::rc::Rc;

use tokio_util::sync::CancellationToken;

use crate::limits::SESSIONS_PER_TCP_CONNECTION;

/// The session counter of one TCP connection.
#[derive(Default)]
pub(crate) struct Opener {
    sessions: Cell<usize>,
    lost: OnceCell<CancellationToken>,
}

/// A permit for one session. The session counts for its TCP connection until the permit is dropped.
pub(crate) struct OpenedBy {
    opener: Rc<Opener>,
    lost: CancellationToken,
}

impl Opener {
    /// Counts one more session. Returns `None` if the TCP connection has reached the limit.
    pub(crate) fn open(self: &Rc<Self>) -> Option<OpenedBy> {
        if self.sessions.get() >= SESSIONS_PER_TCP_CONNECTION {
            return None;
        }
        self.sessions.set(self.sessions.get() + 1);
        let lost = self.lost.get_or_init(CancellationToken::new).clone();
        Some(OpenedBy { opener: self.clone(), lost })
    }

    /// Reports that the TCP connection failed. Its client may not have learned that its sessions are open.
    pub(crate) fn lose(&self) {
        if let Some(lost) = self.lost.get() {
            lost.cancel();
        }
    }
}

impl OpenedBy {
    /// Resolves when the TCP connection has failed.
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
    fn a_tcp_connection_opens_sessions_up_to_the_limit() {
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
    fn a_session_is_notified_when_its_tcp_connection_fails() {
        let opener = Rc::new(Opener::default());
        opener.lose();
        let session = opener.open().unwrap();
        assert!(session.lost().now_or_never().is_none());
        opener.lose();
        assert!(session.lost().now_or_never().is_some());
    }
}
