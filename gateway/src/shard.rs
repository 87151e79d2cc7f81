//! One thread and its connections. A shard owns their sockets, their sessions and the map from channels to subscribers.
//!
//! All frames for clients go through one [`Burst`]. Frames of one turn are appended to it. At the end of the turn each
//! socket that receives any is written to once.

pub(crate) mod burst;
pub(crate) mod departure;
pub(crate) mod drain;
pub(crate) mod hub;
pub(crate) mod tracked;

mod from_client;
mod from_cluster;
pub(crate) mod partials;
mod socket;
mod sweep;
mod tasks;
mod turn;
mod write;

use std::cell::{Cell, RefCell, RefMut};
use std::convert::Infallible;
use std::future::{pending, poll_fn};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use shared::app::as_usize;
use shared::cluster::bus::Message;
use shared::cluster::envelope::Topic;
use shared::protocol::{ChannelName, ServerFrame, SocketId};
use slab::Slab;
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::capacity::{Admission, SocketPermit};
use crate::carrier::Carrier;
use crate::connection::{Connection, Wire};
use crate::inbox::{Accepted, ConnectionKey, InboxReceiver, Messages};
use crate::limits::{
    INBOX_BATCH, PARTIAL_BYTES_MAX, PARTIALS_MIN, PUBLISHES_MAX, READ_BUFFER_BYTES, TASKS_AT_ONCE, TASKS_WAITING_MAX,
};
use crate::node::Node;
use burst::Burst;
use hub::Hub;
use partials::Partials;
use tasks::Tasks;
use tracked::TrackedTask;

const TICK: Duration = Duration::from_secs(1);

/// The connections of one thread.
pub(crate) struct Shard {
    pub(crate) index: usize,
    pub(crate) node: Arc<Node>,
    hub: RefCell<Hub>,
    burst: RefCell<Burst>,
    /// New TCP connections that the shard has not served yet.
    accepted: RefCell<mpsc::UnboundedReceiver<Accepted>>,
    connections: RefCell<Slab<Rc<Connection>>>,
    read_buffer: RefCell<Box<[u8]>>,
    rng: RefCell<StdRng>,
    pub(crate) partials: Rc<Partials>,
    /// The shard's clock: seconds since it started. It is precise enough for timeouts, and reading it costs nothing.
    now_s: Cell<u32>,
    /// The bytes of all outboxes, as last added to the metric.
    outbox_bytes: Cell<i64>,
    /// The cost of fan-out since other clients were served; see [`Burst::cost`].
    spent: Cell<usize>,
    publishes: mpsc::Sender<(Message, TrackedTask)>,
    /// The number of tasks that a drain waits for.
    tracked_tasks: Cell<usize>,
    tasks: RefCell<Tasks>,
    draining: Cell<bool>,
    /// Cancelled when a drain begins.
    drain_started: CancellationToken,
    /// The deadlines of HTTP connections. Set when a drain begins.
    drain_deadlines: Cell<DrainDeadlines>,
    /// Notified when the last connection or task ends during a drain.
    drained: Notify,
}

/// The deadlines of HTTP connections during a drain.
#[derive(Clone, Copy)]
pub(crate) struct DrainDeadlines {
    /// Until when idle connections wait for a request.
    pub(crate) idle_until: Instant,
    /// When the last WebSocket is closed.
    pub(crate) window_ends: Instant,
    /// Until when requests in progress must be answered.
    pub(crate) requests_until: Instant,
}

impl Shard {
    /// Runs a shard on the current thread until it has been drained. `serve`: serves a TCP connection until it ends or
    /// becomes a WebSocket.
    pub(crate) async fn run<F: Future<Output = ()> + 'static>(
        index: usize,
        node: Arc<Node>,
        inbox: InboxReceiver,
        serve: impl Fn(Rc<Self>, TcpStream, SocketAddr, SocketPermit) -> F,
    ) {
        let InboxReceiver { mut messages, accepted } = inbox;
        let (publishes, queue) = mpsc::channel(PUBLISHES_MAX);
        let began = Instant::now();
        let message_bytes_max = node.apps.iter().map(|app| as_usize(app.limits.message_bytes)).max().unwrap_or(0);
        let partial_bytes_max =
            PARTIALS_MIN.saturating_mul(message_bytes_max).max(PARTIAL_BYTES_MAX / node.capacity.shards());
        let partials = Rc::new(Partials::new(partial_bytes_max));
        let tasks = Tasks::new((TASKS_WAITING_MAX / node.capacity.shards()).max(TASKS_AT_ONCE));
        let shard = Rc::new(Self {
            index,
            node,
            hub: RefCell::default(),
            burst: RefCell::default(),
            accepted: RefCell::new(accepted),
            connections: RefCell::default(),
            read_buffer: RefCell::new(vec![0; READ_BUFFER_BYTES].into()),
            rng: RefCell::new(StdRng::from_os_rng()),
            partials,
            now_s: Cell::new(0),
            outbox_bytes: Cell::new(0),
            spent: Cell::new(0),
            publishes,
            tracked_tasks: Cell::new(0),
            tasks: RefCell::new(tasks),
            draining: Cell::new(false),
            drain_started: CancellationToken::new(),
            drain_deadlines: Cell::new(DrainDeadlines { idle_until: began, window_ends: began, requests_until: began }),
            drained: Notify::new(),
        });
        tokio::task::spawn_local(from_client::publish_client_events(shard.node.clone(), queue));
        // Concurrently: a large batch of events needs many turns. Between two of them the clock advances and clients
        // connect.
        tokio::select! {
            () = shard.serve_inbox(&mut messages) => {}
            never = shard.serve_accepted(serve) => match never {},
            never = shard.keep_time() => match never {},
        }
    }

    /// Handles messages until the shard has been drained.
    async fn serve_inbox(self: &Rc<Self>, messages: &mut Messages) {
        let mut batch = Vec::with_capacity(INBOX_BATCH);
        while !(self.draining.get() && self.is_drained() && messages.is_empty()) {
            tokio::select! {
                more = messages.receive(&mut batch, INBOX_BATCH) => {
                    self.handle(&mut batch).await;
                    if !more {
                        return;
                    }
                }
                () = self.drained.notified() => {}
            }
        }
    }

    /// Serves new TCP connections. A drain waits for each of them.
    async fn serve_accepted<F: Future<Output = ()> + 'static>(
        self: &Rc<Self>,
        serve: impl Fn(Rc<Self>, TcpStream, SocketAddr, SocketPermit) -> F,
    ) -> Infallible {
        loop {
            let Some(accepted) = poll_fn(|context| self.accepted.borrow_mut().poll_recv(context)).await else {
                // The node has ended.
                pending().await
            };
            let Accepted { stream, peer, load } = accepted;
            match TcpStream::from_std(stream) {
                Ok(stream) => self.spawn_tracked(serve(self.clone(), stream, peer, load)),
                Err(error) => {
                    tracing::warn!(%error, "cannot register a new connection with the event loop; dropping it")
                }
            }
        }
    }

    /// Advances the clock and sweeps the connections, once per second.
    async fn keep_time(self: &Rc<Self>) -> Infallible {
        let started = Instant::now();
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.node.metrics.event_loop_lag.observe(tick.tick().await);
            self.now_s.set(u32::try_from(started.elapsed().as_secs()).unwrap_or(u32::MAX));
            self.sweep().await;
        }
    }

    /// Returns the seconds since the shard started.
    pub(crate) fn now_s(&self) -> u32 {
        self.now_s.get()
    }

    /// Borrows the buffer that all connections read into. A connection keeps it while it handles the bytes.
    pub(crate) fn borrow_read_buffer(&self) -> RefMut<'_, Box<[u8]>> {
        self.read_buffer.borrow_mut()
    }

    /// Returns a random public name for a connection.
    pub(crate) fn socket_id(&self) -> SocketId {
        SocketId::random(&mut *self.rng.borrow_mut())
    }

    /// Makes a WebSocket of this shard out of an upgraded stream. `client`: its address, for the log. `early`: bytes
    /// that came with the handshake.
    pub(crate) fn open(
        self: &Rc<Self>,
        stream: TcpStream,
        client: IpAddr,
        admission: Admission,
        carrier: Carrier,
        early: Vec<u8>,
    ) {
        let connection = self.establish(Wire::Socket(stream), client, admission);
        tokio::task::spawn_local(socket::run(connection, self.clone(), carrier, early));
    }

    /// Creates a connection and greets its client. It counts as opened until [`departure::Departure`] counts it as
    /// closed.
    pub(crate) fn establish(self: &Rc<Self>, wire: Wire, client: IpAddr, admission: Admission) -> Rc<Connection> {
        self.node.metrics.app(&admission.app.id).opened(admission.transport).inc();
        let connection = Rc::new(Connection::new(wire, self.socket_id(), admission, self.now_s()));
        tracing::debug!(
            target: "activity",
            { socket.id = %connection.socket_id, app.id = %connection.app.id, client.address = %client },
            "Connection opened"
        );
        connection.slot.set(self.connections.borrow_mut().insert(connection.clone()));
        let activity_timeout_s = self.node.server.activity_timeout.as_secs();
        let hello = ServerFrame::ConnectionEstablished { socket_id: connection.socket_id, activity_timeout_s };
        self.send(&connection, &hello.encode());
        if self.draining.get() {
            // Its handshake was in progress when the drain closed the other connections.
            self.close(&connection, &self.farewell());
        }
        self.flush();
        connection
    }

    /// Returns the name of a connection for other threads.
    pub(crate) fn key(&self, connection: &Connection) -> ConnectionKey {
        ConnectionKey { slot: connection.slot.get(), socket_id: connection.socket_id }
    }

    /// Returns the connection with this name if it has not ended.
    fn connection(&self, key: ConnectionKey) -> Option<Rc<Connection>> {
        let connections = self.connections.borrow();
        connections.get(key.slot).filter(|connection| connection.socket_id == key.socket_id).cloned()
    }

    /// Resolves when a drain of the shard begins. Returns the deadlines of HTTP connections.
    pub(crate) async fn drain_started(&self) -> DrainDeadlines {
        self.drain_started.cancelled().await;
        self.drain_deadlines.get()
    }

    /// Whether no connection and no task is left.
    fn is_drained(&self) -> bool {
        self.connections.borrow().is_empty()
            && self.accepted.borrow().is_empty()
            && self.tracked_tasks.get() == 0
            && self.tasks.borrow().is_empty()
    }

    /// Ends the shard if it is draining, and the last connection and task have ended.
    fn check_drained(&self) {
        if self.draining.get() && self.is_drained() {
            self.drained.notify_one();
        }
    }
}

/// Returns the topic of a user; `None` if the id cannot name a channel.
fn user_topic(connection: &Connection, user_id: &str) -> Option<Topic> {
    let channel = ChannelName::of_user(user_id, connection.app.limits.user_id_length).ok()?;
    Some(Topic::new(&connection.app.id, &channel))
}
