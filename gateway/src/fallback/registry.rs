//! The sessions of a node, whatever shard has them: requests come to any.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use tokio::sync::mpsc;

use super::lines;
use super::name::SessionName;
use super::session::{Ask, Response};
use crate::limits::SESSION_REQUESTS_MAX;
use crate::node::Node;

/// How long the last line of a session is kept for a client that was not there to hear it: longer than pusher-js waits
/// before it asks again.
const LAST_LINE_TTL: Duration = Duration::from_secs(30);

/// Finds sessions by name. Behind a plain lock, held for a look.
#[derive(Default)]
pub(crate) struct Registry {
    sessions: Mutex<Sessions>,
}

#[derive(Default)]
struct Sessions {
    live: HashMap<SessionName, mpsc::Sender<Ask>>,
    /// What nobody has heard yet, and until when it is kept.
    last_lines: HashMap<SessionName, (Bytes, Instant)>,
    /// Their names, oldest first.
    expiries: VecDeque<(Instant, SessionName)>,
}

/// What a name stands for.
pub(crate) enum Known {
    /// A session.
    Live(mpsc::Sender<Ask>),
    /// One that ended with these lines, which its client has not heard.
    Ended(Bytes),
}

/// A name that is taken; free again once dropped.
pub(crate) struct Claim {
    node: Arc<Node>,
    name: SessionName,
    pub(crate) asks: mpsc::Receiver<Ask>,
    /// What those hear who come too late.
    last_lines: Option<Bytes>,
    /// Whether the client is still to be told.
    is_unheard: bool,
}

impl Registry {
    /// The session of that name, if it lives.
    pub(crate) fn live(&self, name: &SessionName) -> Option<mpsc::Sender<Ask>> {
        self.lock().live.get(name).cloned()
    }

    /// The session of that name, dead or alive. What a dead one has to say is said once.
    pub(crate) fn find(&self, name: &SessionName) -> Option<Known> {
        let mut sessions = self.lock();
        if let Some(session) = sessions.live.get(name) {
            return Some(Known::Live(session.clone()));
        }
        sessions.take_last_lines(name).map(Known::Ended)
    }

    /// A place for a new one, unless the name stands for something.
    pub(crate) fn claim(&self, node: &Arc<Node>, name: &SessionName) -> Result<Claim, Known> {
        let mut sessions = self.lock();
        if let Some(lines) = sessions.take_last_lines(name) {
            return Err(Known::Ended(lines));
        }
        match sessions.live.entry(name.clone()) {
            Entry::Occupied(session) => Err(Known::Live(session.get().clone())),
            Entry::Vacant(vacant) => {
                let (sender, asks) = mpsc::channel(SESSION_REQUESTS_MAX);
                vacant.insert(sender);
                let (node, name) = (node.clone(), name.clone());
                Ok(Claim { node, name, asks, last_lines: None, is_unheard: false })
            }
        }
    }

    /// The names of all live sessions.
    pub(crate) fn names(&self) -> Vec<String> {
        self.lock().live.keys().map(|name| name.as_str().to_owned()).collect()
    }

    /// Drops last lines that nobody came for in time.
    pub(crate) fn forget_old(&self) {
        self.lock().forget_old();
    }

    fn lock(&self) -> MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sessions {
    fn take_last_lines(&mut self, name: &SessionName) -> Option<Bytes> {
        self.last_lines.remove(name).filter(|(_, until)| *until > Instant::now()).map(|(lines, _)| lines)
    }

    fn bury(&mut self, name: SessionName, lines: Bytes) {
        let until = Instant::now() + LAST_LINE_TTL;
        self.last_lines.insert(name.clone(), (lines, until));
        self.expiries.push_back((until, name));
    }

    fn forget_old(&mut self) {
        let now = Instant::now();
        while self.expiries.front().is_some_and(|(until, _)| *until <= now) {
            let Some((_, name)) = self.expiries.pop_front() else { return };
            // A name may have been buried again since.
            if self.last_lines.get(&name).is_some_and(|(_, until)| *until <= now) {
                self.last_lines.remove(&name);
            }
        }
    }
}

impl Claim {
    /// Refuses the session to all who ask for it.
    pub(crate) fn refuse(&mut self, farewell: &str) {
        self.last_lines = Some(format!("{}{farewell}", lines::OPEN).into());
    }

    /// Keeps the last lines of a session whose client was not there.
    pub(crate) fn bury(&mut self, lines: Bytes) {
        self.last_lines = Some(lines);
        self.is_unheard = true;
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut sessions = self.node.fallback.lock();
        sessions.live.remove(&self.name);
        // Those who found the session and have not asked yet are refused from here on.
        self.asks.close();
        let lines = self.last_lines.take().unwrap_or(Bytes::from_static(lines::OPEN.as_bytes()));
        while let Ok(ask) = self.asks.try_recv() {
            let is_heard = match ask {
                Ask::Receive(Response::Poll(poll)) => poll.send(lines.clone()).is_ok(),
                Ask::Receive(Response::Stream(stream)) => stream.try_send(lines.clone()).is_ok(),
                Ask::Send { .. } | Ask::End => false,
            };
            self.is_unheard &= !is_heard;
        }
        if self.is_unheard {
            sessions.bury(self.name.clone(), lines);
            if !self.node.is_draining() {
                // The client's next request may come to another node, which is to ask for the last lines here.
                return;
            }
        }
        drop(sessions);
        if let Some(peers) = &self.node.peers {
            peers.release(self.name.clone());
        }
    }
}
