//! The fallback sessions of a node, by name. All shards share the registry, because requests of a session can reach any
//! shard.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use shared::sync::lock;
use tokio::sync::mpsc;

use super::ask::{Ask, LineSink};
use super::lines;
use super::name::SessionName;
use super::peers::Peers;
use crate::limits::SESSION_REQUESTS_MAX;
use crate::node::Node;

/// How long the last lines of a session are kept for a client that has not received them. It is longer than pusher-js
/// waits before its next request.
const LAST_LINES_TTL: Duration = Duration::from_secs(30);

/// The fallback sessions of a node.
pub(crate) struct Registry {
    pub(super) node: Arc<Node>,
    peers: Option<Arc<Peers>>,
    /// The lock is never held across an `.await`.
    sessions: Mutex<Sessions>,
}

#[derive(Default)]
struct Sessions {
    live: HashMap<SessionName, mpsc::Sender<Ask>>,
    /// Last lines that no client has received, and when they expire.
    last_lines: HashMap<SessionName, (Bytes, Instant)>,
    /// The names of `last_lines`, oldest first.
    expiries: VecDeque<(Instant, SessionName)>,
}

/// A session that the registry knows.
pub(crate) enum Known {
    /// A live session.
    Live(mpsc::Sender<Ask>),
    /// A session that ended with these lines, which its client has not received.
    Ended(Bytes),
}

/// A session name that is taken until the claim is dropped.
pub(crate) struct Claim {
    registry: Arc<Registry>,
    name: SessionName,
    /// The requests to the session.
    pub(super) asks: mpsc::Receiver<Ask>,
    /// The response to requests that arrive after the end of the session.
    last_lines: Option<Bytes>,
    /// Whether the client has not received `last_lines`.
    is_unread: bool,
}

impl Registry {
    /// `peers`: set if the node is part of a cluster.
    pub(crate) fn new(node: Arc<Node>, peers: Option<Peers>) -> Arc<Self> {
        Arc::new(Self { node, peers: peers.map(Arc::new), sessions: Mutex::default() })
    }

    /// The connection to other nodes, in a cluster.
    pub(crate) fn peers(&self) -> Option<&Arc<Peers>> {
        self.peers.as_ref()
    }

    /// Returns the live session of that name.
    pub(super) fn live(&self, name: &SessionName) -> Option<mpsc::Sender<Ask>> {
        self.lock().live.get(name).cloned()
    }

    /// Returns the session of that name. The last lines of an ended session are returned once.
    pub(super) fn find(&self, name: &SessionName) -> Option<Known> {
        let mut sessions = self.lock();
        if let Some(session) = sessions.live.get(name) {
            return Some(Known::Live(session.clone()));
        }
        sessions.take_last_lines(name).map(Known::Ended)
    }

    /// Claims a name for a new session.
    ///
    /// # Errors
    /// The session that the name already refers to.
    pub(super) fn claim(self: &Arc<Self>, name: &SessionName) -> Result<Claim, Known> {
        let mut sessions = self.lock();
        if let Some(lines) = sessions.take_last_lines(name) {
            return Err(Known::Ended(lines));
        }
        match sessions.live.entry(name.clone()) {
            Entry::Occupied(session) => Err(Known::Live(session.get().clone())),
            Entry::Vacant(vacant) => {
                let (sender, asks) = mpsc::channel(SESSION_REQUESTS_MAX);
                vacant.insert(sender);
                let (registry, name) = (self.clone(), name.clone());
                Ok(Claim { registry, name, asks, last_lines: None, is_unread: false })
            }
        }
    }

    /// Renews the sessions of this node in the directory of the cluster, periodically.
    pub(crate) async fn keep_renewed(&self) -> Infallible {
        let Some(peers) = &self.peers else { return std::future::pending().await };
        let mut interval = tokio::time::interval(shared::cluster::directory::RENEW_INTERVAL);
        loop {
            interval.tick().await;
            let names: Vec<String> = self.lock().live.keys().map(|name| name.as_str().to_owned()).collect();
            peers.renew(&names).await;
        }
    }

    /// Drops last lines that have expired.
    pub(crate) fn remove_expired(&self) {
        self.lock().remove_expired();
    }

    fn lock(&self) -> MutexGuard<'_, Sessions> {
        lock(&self.sessions)
    }
}

impl Sessions {
    fn take_last_lines(&mut self, name: &SessionName) -> Option<Bytes> {
        self.last_lines.remove(name).filter(|(_, until)| *until > Instant::now()).map(|(lines, _)| lines)
    }

    fn keep_last_lines(&mut self, name: SessionName, lines: Bytes) {
        let until = Instant::now() + LAST_LINES_TTL;
        self.last_lines.insert(name.clone(), (lines, until));
        self.expiries.push_back((until, name));
    }

    fn remove_expired(&mut self) {
        let now = Instant::now();
        while self.expiries.front().is_some_and(|(until, _)| *until <= now) {
            let Some((_, name)) = self.expiries.pop_front() else { return };
            // The name may have newer last lines.
            if self.last_lines.get(&name).is_some_and(|(_, until)| *until <= now) {
                self.last_lines.remove(&name);
            }
        }
    }
}

impl Claim {
    /// Answers all requests that wait for the session with `farewell`.
    pub(super) fn refuse(&mut self, farewell: &str) {
        self.last_lines = Some(format!("{}{farewell}", lines::OPEN).into());
    }

    /// Keeps the last lines of a session for the next request of its client.
    pub(super) fn keep_last_lines(&mut self, lines: Bytes) {
        self.last_lines = Some(lines);
        self.is_unread = true;
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut sessions = self.registry.lock();
        sessions.live.remove(&self.name);
        // Requests that have found the session but not reached it are refused from now on.
        self.asks.close();
        let lines = self.last_lines.take().unwrap_or(Bytes::from_static(lines::OPEN.as_bytes()));
        while let Ok(ask) = self.asks.try_recv() {
            let is_sent = match ask {
                Ask::Receive(LineSink::Poll(poll)) => poll.send(lines.clone()).is_ok(),
                Ask::Receive(LineSink::Stream(stream)) => stream.try_send(lines.clone()).is_ok(),
                Ask::Send { .. } | Ask::End => false,
            };
            self.is_unread &= !is_sent;
        }
        if self.is_unread {
            sessions.keep_last_lines(self.name.clone(), lines);
            if !self.registry.node.is_draining() {
                // The directory entry stays. If the client's next request reaches another node, that node forwards it
                // here.
                return;
            }
        }
        drop(sessions);
        if let Some(peers) = &self.registry.peers {
            peers.release(self.name.clone());
        }
    }
}
