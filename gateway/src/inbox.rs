//! The inbox of a shard: messages of other threads, and new TCP connections.

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

/// One message to a shard. Clients receive the effects of messages in the order of the inbox.
pub(crate) enum ShardMessage {
    /// A frame for the subscribers of a channel.
    Broadcast(Broadcast),
    /// A subscription succeeded. The shard adds the connection to the channel and sends these frames first.
    Subscribed {
        connection: ConnectionKey,
        app: Arc<App>,
        topic: Topic,
        ticket: Ticket,
        user_id: Option<UserId>,
        frames: Vec<Bytes>,
    },
    /// The reply to a repeated subscription.
    Resubscribed { connection: ConnectionKey, channel: ChannelName, ticket: Ticket, frames: Vec<Bytes> },
    /// A sign-in succeeded. The shard adds the connection to the user's channel.
    SignedIn { connection: ConnectionKey, app: Arc<App>, topic: Topic, watched: Vec<Topic>, frames: Vec<Bytes> },
    /// Which watched users were online at the time of the query.
    Watched { connection: ConnectionKey, users: Vec<(UserId, bool)> },
    /// A user went online or offline.
    UserOnline { topic: Topic, online: bool },
    /// The connections of a user must be closed.
    Terminate { topic: Topic },
    /// All connections must be closed.
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

/// A new TCP connection.
pub(crate) struct Accepted {
    pub(crate) stream: std::net::TcpStream,
    pub(crate) peer: SocketAddr,
    pub(crate) load: SocketPermit,
}

/// A frame for the subscribers of a channel.
pub(crate) struct Broadcast {
    pub(crate) topic: Topic,
    /// One complete WebSocket frame, shared by all shards.
    pub(crate) frame: Bytes,
    pub(crate) except: Option<SocketId>,
    /// When the publisher received the event, in microseconds of Unix time; `None` for messages that are not timed.
    pub(crate) published_at_us: Option<u64>,
}

/// The name of a connection for other threads. The socket id distinguishes it from later connections in the same slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ConnectionKey {
    pub(crate) slot: usize,
    pub(crate) socket_id: SocketId,
}

/// The bytes of all broadcasts in the inboxes of a node.
#[derive(Default)]
pub(crate) struct Room {
    bytes: AtomicUsize,
    freed: Notify,
}

impl Room {
    /// Resolves when fewer than [`INBOX_BYTES_MAX`] are queued.
    pub(crate) async fn wait(&self) {
        loop {
            if self.bytes.load(Ordering::Acquire) < INBOX_BYTES_MAX {
                return;
            }
            let freed = self.freed.notified();
            tokio::pin!(freed);
            // From now on no notification is missed, and the second check decides.
            freed.as_mut().enable();
            if self.bytes.load(Ordering::Acquire) < INBOX_BYTES_MAX {
                return;
            }
            freed.await;
        }
    }

    /// Whether fewer than [`INBOX_BYTES_MAX`] are queued.
    pub(crate) fn is_left(&self) -> bool {
        self.bytes.load(Ordering::Acquire) < INBOX_BYTES_MAX
    }

    fn add(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::AcqRel);
    }

    fn remove(&self, bytes: usize) {
        if self.bytes.fetch_sub(bytes, Ordering::AcqRel) >= INBOX_BYTES_MAX {
            self.freed.notify_waiters();
        }
    }
}

/// The sending side of an inbox.
#[derive(Clone)]
pub(crate) struct Inbox {
    sender: mpsc::UnboundedSender<ShardMessage>,
    accepted: mpsc::UnboundedSender<Accepted>,
    room: Arc<Room>,
}

/// The receiving side of an inbox.
pub(crate) struct InboxReceiver {
    pub(crate) messages: Messages,
    /// New TCP connections. They do not wait behind a backlog of events. The descriptors of the process are their
    /// bound.
    pub(crate) accepted: mpsc::UnboundedReceiver<Accepted>,
}

/// The messages of an inbox.
pub(crate) struct Messages {
    receiver: mpsc::UnboundedReceiver<ShardMessage>,
    room: Arc<Room>,
}

/// Creates an inbox. The queue itself is not bounded. [`Room`] bounds the broadcasts, because publishers wait for it.
/// Replies are bounded by the channels of a connection, since each channel has one pending reply at most.
pub(crate) fn inbox(room: Arc<Room>) -> (Inbox, InboxReceiver) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let (accept, accepted) = mpsc::unbounded_channel();
    let inbox = Inbox { sender, accepted: accept, room: room.clone() };
    (inbox, InboxReceiver { messages: Messages { receiver, room }, accepted })
}

impl Inbox {
    /// Queues a message. A shard that has ended drops it, and has no clients left.
    pub(crate) fn push(&self, message: ShardMessage) {
        self.room.add(cost(&message));
        if let Err(refused) = self.sender.send(message) {
            self.room.remove(cost(&refused.0));
        }
    }

    /// Queues a connection. A shard that has ended drops it.
    pub(crate) fn accept(&self, accepted: Accepted) {
        let _ = self.accepted.send(accepted);
    }
}

impl Messages {
    /// Whether no message is queued.
    pub(crate) fn is_empty(&self) -> bool {
        self.receiver.is_empty()
    }

    /// Waits for messages and appends at most `max` of them to `batch`. Returns whether more can arrive.
    pub(crate) async fn receive(&mut self, batch: &mut Vec<ShardMessage>, max: usize) -> bool {
        let received = self.receiver.recv_many(batch, max).await;
        self.room.remove(batch.iter().map(cost).sum());
        received > 0
    }
}

fn cost(message: &ShardMessage) -> usize {
    match message {
        ShardMessage::Broadcast(broadcast) => INBOX_MESSAGE_BYTES + broadcast.frame.len(),
        _ => 0,
    }
}
