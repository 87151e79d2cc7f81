//! What other threads tell a shard.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use shared::app::App;
use shared::cluster::envelope::Topic;
use shared::protocol::{ChannelName, SocketId, UserId};
use tokio::sync::{Notify, mpsc};

use crate::capacity::SocketPermit;
use crate::limits::{INBOX_BYTES_MAX, INBOX_MESSAGE_BYTES};
use crate::session::subscriptions::Ticket;

/// One message to a shard. Order within the inbox is the order in which clients hear of it.
pub(crate) enum ShardMessage {
    /// A frame for the subscribers of a channel.
    Broadcast(Broadcast),
    /// A subscription stands; the connection is to be put into the channel and gets these frames first.
    Subscribed {
        connection: ConnectionKey,
        app: Arc<App>,
        topic: Topic,
        ticket: Ticket,
        user_id: Option<UserId>,
        frames: Vec<Bytes>,
    },
    /// The answer to a repeated request to subscribe.
    Resubscribed { connection: ConnectionKey, channel: ChannelName, ticket: Ticket, frames: Vec<Bytes> },
    /// A sign-in stands; the connection is to be put into the user's channel.
    SignedIn { connection: ConnectionKey, app: Arc<App>, topic: Topic, watched: Vec<Topic>, frames: Vec<Bytes> },
    /// Whether watched users were online when asked.
    Watched { connection: ConnectionKey, users: Vec<(UserId, bool)> },
    /// A user came or went.
    UserOnline { topic: Topic, online: bool },
    /// The user's connections are to be closed.
    Terminate { topic: Topic },
    /// All connections are to be closed.
    Drain(DrainPlan),
}

/// The times of a shutdown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DrainPlan {
    /// The time over which closes are spread. Zero closes all connections at once.
    pub(crate) window: Duration,
    /// How long requests are still expected on open HTTP connections.
    pub(crate) linger: Duration,
    /// How long after the window requests in progress are abandoned.
    pub(crate) grace: Duration,
}

/// A fresh TCP connection.
pub(crate) struct Accepted {
    pub(crate) stream: std::net::TcpStream,
    pub(crate) peer: SocketAddr,
    pub(crate) load: SocketPermit,
}

/// A frame for the subscribers of a channel.
pub(crate) struct Broadcast {
    pub(crate) topic: Topic,
    /// One whole WebSocket frame, shared by all shards.
    pub(crate) frame: Bytes,
    pub(crate) except: Option<SocketId>,
    /// The publisher's stamp, in microseconds of Unix time; `None` for messages that are not timed.
    pub(crate) published_at_us: Option<u64>,
}

/// Names a connection of a shard to other threads. The socket id tells a connection from the next one in its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ConnectionKey {
    pub(crate) slot: usize,
    pub(crate) socket_id: SocketId,
}

/// How much waits in the inboxes of a node.
#[derive(Default)]
pub(crate) struct Room {
    bytes: AtomicUsize,
    freed: Notify,
}

impl Room {
    /// Resolves once less than [`INBOX_BYTES_MAX`] wait.
    pub(crate) async fn wait(&self) {
        loop {
            if self.bytes.load(Ordering::Acquire) < INBOX_BYTES_MAX {
                return;
            }
            let freed = self.freed.notified();
            tokio::pin!(freed);
            // From here on a notification is not missed, so the second look decides.
            freed.as_mut().enable();
            if self.bytes.load(Ordering::Acquire) < INBOX_BYTES_MAX {
                return;
            }
            freed.await;
        }
    }

    /// Whether less than [`INBOX_BYTES_MAX`] wait.
    pub(crate) fn is_left(&self) -> bool {
        self.bytes.load(Ordering::Acquire) < INBOX_BYTES_MAX
    }

    fn take(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::AcqRel);
    }

    fn give_back(&self, bytes: usize) {
        if self.bytes.fetch_sub(bytes, Ordering::AcqRel) >= INBOX_BYTES_MAX {
            self.freed.notify_waiters();
        }
    }
}

/// The sending side.
#[derive(Clone)]
pub(crate) struct Inbox {
    sender: mpsc::UnboundedSender<ShardMessage>,
    accepted: mpsc::UnboundedSender<Accepted>,
    room: Arc<Room>,
}

/// The shard's side.
pub(crate) struct InboxReceiver {
    pub(crate) messages: Messages,
    /// Connections do not wait behind messages: a backlog of events is of no concern to a new client. Bounded by the
    /// descriptors of the process.
    pub(crate) accepted: mpsc::UnboundedReceiver<Accepted>,
}

/// The messages of an inbox.
pub(crate) struct Messages {
    receiver: mpsc::UnboundedReceiver<ShardMessage>,
    room: Arc<Room>,
}

/// Makes an inbox. The queue itself has no bound: broadcasts are bounded by [`Room`] at the publisher, answers by the
/// channels that a connection may have, of which each waits for one at a time.
pub(crate) fn inbox(room: Arc<Room>) -> (Inbox, InboxReceiver) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let (accept, accepted) = mpsc::unbounded_channel();
    let inbox = Inbox { sender, accepted: accept, room: room.clone() };
    (inbox, InboxReceiver { messages: Messages { receiver, room }, accepted })
}

impl Inbox {
    /// Queues a message. A shard that has ended takes none, and nobody is left to hear it.
    pub(crate) fn push(&self, message: ShardMessage) {
        self.room.take(cost(&message));
        if let Err(refused) = self.sender.send(message) {
            self.room.give_back(cost(&refused.0));
        }
    }

    /// Queues a connection. A shard that has ended drops it.
    pub(crate) fn accept(&self, accepted: Accepted) {
        let _ = self.accepted.send(accepted);
    }
}

impl Messages {
    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.receiver.is_empty()
    }

    /// Waits for messages and appends at most `max` to `batch`; returns whether more can come.
    pub(crate) async fn receive(&mut self, batch: &mut Vec<ShardMessage>, max: usize) -> bool {
        let received = self.receiver.recv_many(batch, max).await;
        self.room.give_back(batch.iter().map(cost).sum());
        received > 0
    }
}

fn cost(message: &ShardMessage) -> usize {
    match message {
        ShardMessage::Broadcast(broadcast) => INBOX_MESSAGE_BYTES + broadcast.frame.len(),
        _ => 0,
    }
}
