//! One thread and its connections: it owns their sockets, their sessions and the map from channels to subscribers.
//!
//! Everything that clients hear goes through one [`Burst`]: whatever happens in one turn is appended to it, and each
//! touched socket is written to once, at the end of the turn.

pub(crate) mod drain;
pub(crate) mod hub;
pub(crate) mod tracked;

mod from_cluster;
pub(crate) mod partials;
mod sweep;
mod tasks;
mod turn;

use std::cell::{Cell, RefCell, RefMut};
use std::convert::Infallible;
use std::future::{pending, poll_fn};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rand::SeedableRng;
use rand::rngs::StdRng;
use shared::app::as_usize;
use shared::cluster::bus::Message;
use shared::cluster::envelope::Topic;
use shared::excerpt::{MESSAGE_MAX, NAME_MAX, logged};
use shared::protocol::{ChannelName, CloseCode, ServerFrame, SocketId};
use slab::Slab;
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::capacity::Admission;
use crate::capacity::SocketPermit;
use crate::carrier::Carrier;
use crate::connection::{Connection, Wire};
use crate::inbox::{Accepted, ConnectionKey, InboxReceiver, Messages};
use crate::limits::{
    INBOX_BATCH, PARTIAL_BYTES_MAX, PARTIALS_MIN, PUBLISHES_MAX, READ_BUFFER_BYTES, TASKS_AT_ONCE, TASKS_WAITING_MAX,
};
use crate::node::Node;
use crate::outbox::{Burst, Flushed};
use crate::reject::{Farewell, Refusal};
use crate::session::subscriptions::Subscription;
use crate::websocket::writer;
use hub::Hub;
use partials::Partials;
use tasks::{Entry, Tasks};
use tracked::Chore;

/// How long a client has to answer a close frame before the TCP connection is dropped.
const CLOSE_GRACE_S: u32 = 5;

/// The same while the node leaves: a client that is there answers in a round trip, the others hold up the end.
const DRAIN_GRACE_S: u32 = 2;

const TICK: Duration = Duration::from_secs(1);

/// One thread's connections.
pub(crate) struct Shard {
    pub(crate) index: usize,
    pub(crate) node: Arc<Node>,
    hub: RefCell<Hub>,
    burst: RefCell<Burst>,
    /// Accepted connections that wait for the shard.
    accepted: RefCell<mpsc::UnboundedReceiver<Accepted>>,
    connections: RefCell<Slab<Rc<Connection>>>,
    read_buffer: RefCell<Box<[u8]>>,
    rng: RefCell<StdRng>,
    pub(crate) partials: Rc<Partials>,
    /// Seconds since the shard began; enough for timeouts, and reading it is free.
    now_s: Cell<u32>,
    outbox_bytes: Cell<i64>,
    /// The cost of fan-out since the other clients were served, as of [`Burst::cost`].
    spent: Cell<usize>,
    publishes: mpsc::Sender<(Message, Chore)>,
    /// Work in flight that must not be cut off when the node leaves.
    chores: Cell<usize>,
    tasks: RefCell<Tasks>,
    draining: Cell<bool>,
    /// Cancelled when a drain begins.
    drain_started: CancellationToken,
    /// The deadlines of HTTP connections. Set when a drain begins.
    drain_deadlines: Cell<DrainDeadlines>,
    /// Told whenever a connection or a chore ended while draining.
    settled: Notify,
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
            chores: Cell::new(0),
            tasks: RefCell::new(tasks),
            draining: Cell::new(false),
            drain_started: CancellationToken::new(),
            drain_deadlines: Cell::new(DrainDeadlines { idle_until: began, window_ends: began, requests_until: began }),
            settled: Notify::new(),
        });
        tokio::task::spawn_local(tracked::publish_client_events(shard.node.clone(), queue));
        // Side by side: many events are handled in many turns, and between two of them time goes on and clients
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
        while !(self.draining.get() && self.is_settled() && messages.is_empty()) {
            tokio::select! {
                more = messages.receive(&mut batch, INBOX_BATCH) => {
                    self.handle(&mut batch).await;
                    if !more {
                        return;
                    }
                }
                () = self.settled.notified() => {}
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
                Ok(stream) => self.chore(serve(self.clone(), stream, peer, load)),
                Err(error) => {
                    tracing::warn!(%error, "cannot register a new connection with the event loop; dropping it")
                }
            }
        }
    }

    /// Advances the clock and does what is due, once a second.
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

    /// Seconds since the shard began.
    pub(crate) fn now_s(&self) -> u32 {
        self.now_s.get()
    }

    /// The buffer that connections read into, for as long as one of them handles what it read.
    pub(crate) fn borrow_read_buffer(&self) -> RefMut<'_, Box<[u8]>> {
        self.read_buffer.borrow_mut()
    }

    /// A fresh public name.
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
        tokio::task::spawn_local(connection.run(self.clone(), carrier, early));
    }

    /// Creates a connection and greets its client. It counts as opened until [`Shard::depart`] counts it as closed.
    pub(crate) fn establish(self: &Rc<Self>, wire: Wire, client: IpAddr, admission: Admission) -> Rc<Connection> {
        self.node.metrics.app(&admission.app.id).opened(admission.transport).inc();
        let connection = Rc::new(Connection::new(wire, self.socket_id(), admission, self.now_s()));
        tracing::debug!(target: "activity", { socket.id = %connection.socket_id, app.id = %connection.app.id, client.address = %client }, "Connection opened");
        connection.slot.set(self.connections.borrow_mut().insert(connection.clone()));
        let activity_timeout_s = self.node.server.activity_timeout.as_secs();
        let hello = ServerFrame::ConnectionEstablished { socket_id: connection.socket_id, activity_timeout_s };
        self.send(&connection, &hello.encode());
        if self.draining.get() {
            // Its handshake was under way when the others were closed.
            self.close(&connection, &self.farewell());
        }
        self.flush();
        connection
    }

    /// Appends a message to the current burst.
    pub(crate) fn send(&self, connection: &Rc<Connection>, json: &str) {
        self.send_frame(connection, writer::text(json.as_bytes()));
    }

    fn send_frame(&self, connection: &Rc<Connection>, frame: Bytes) {
        if !connection.is_open() {
            return;
        }
        let mut burst = self.burst.borrow_mut();
        let frame = burst.frame(frame);
        burst.append(connection, frame);
    }

    /// Answers a ping.
    pub(crate) fn pong(&self, connection: &Rc<Connection>, payload: &[u8]) {
        self.send_frame(connection, writer::pong(payload));
    }

    /// Tells the client that what it did was refused.
    pub(crate) fn refuse(&self, connection: &Rc<Connection>, refusal: &Refusal) {
        if let Some(reason) = refusal.auth_failure() {
            self.node.metrics.auth_failure(reason);
        }
        if let Some(scope) = refusal.limit() {
            self.node.metrics.rate_limited(scope);
        }
        tracing::debug!(
            target: "activity",
            {
                socket.id = %connection.socket_id,
                reason = %logged(&refusal.chain(), MESSAGE_MAX),
            },
            "Message refused"
        );
        for message in refusal.messages() {
            self.send(connection, &message);
        }
    }

    /// Says why, sends the close frame, and takes the connection out of every channel. Its task ends when the client
    /// has answered, or after a grace time.
    pub(crate) fn close(self: &Rc<Self>, connection: &Rc<Connection>, farewell: &Farewell) {
        if !connection.is_open() {
            return;
        }
        if let Some(announcement) = farewell.announcement() {
            self.send(connection, &announcement);
        }
        self.send_frame(connection, writer::close(farewell.code, &farewell.message));
        connection.begin_closing(farewell.code, self.now_s() + self.close_grace_s());
        self.leave_all(connection);
    }

    /// Writes the current burst.
    pub(crate) fn flush(self: &Rc<Self>) {
        let limit = as_usize(self.node.server.outbox_bytes);
        loop {
            let mut slow = Vec::new();
            let size = self.burst.borrow_mut().flush(self.now_s(), |connection, flushed| match flushed {
                Flushed::All => {}
                Flushed::Broken => connection.abandon(),
                Flushed::Some => {
                    if connection.outbox.exceeds(limit) && connection.is_open() {
                        slow.push(connection.clone());
                    }
                    connection.wake();
                }
            });
            self.node.metrics.messages_sent.inc_by(size.messages as u64);
            self.node.metrics.sent_bytes.inc_by(size.bytes as u64);
            if slow.is_empty() {
                return;
            }
            for connection in slow {
                self.close_slow(&connection, "more waits for it than its outbox holds");
            }
        }
    }

    /// Gives up on a client that reads too slowly: what waits for it is dropped but for the end of a frame begun.
    fn close_slow(self: &Rc<Self>, connection: &Rc<Connection>, reason: &str) {
        self.note_slow(connection, reason);
        connection.outbox.keep_only_begun_frame();
        self.close(connection, &Farewell::new(CloseCode::OverCapacity, "The client reads too slowly"));
    }

    /// Closes connections whose incomplete messages take more memory than there is for them.
    pub(crate) fn give_up_excess_partials(self: &Rc<Self>) {
        while let Some(key) = self.partials.pop_excess() {
            self.close_mid_message(key, CloseCode::OverCapacity, "The server has no room for incomplete messages");
        }
    }

    fn close_mid_message(self: &Rc<Self>, key: ConnectionKey, code: CloseCode, reason: &str) {
        let Some(connection) = self.connection(key) else { return };
        if connection.is_open() {
            self.node.metrics.protocol_error("incomplete");
        }
        self.close(&connection, &Farewell::new(code, reason));
        // Nothing that follows can be read, and the task drops what is incomplete.
        connection.shut_down_after_close();
    }

    pub(crate) fn note_slow(&self, connection: &Connection, reason: &str) {
        self.node.metrics.slow_consumers.inc();
        tracing::debug!(target: "activity", { socket.id = %connection.socket_id, reason }, "Slow client");
    }

    /// The end of a connection's task.
    pub(crate) fn depart(self: &Rc<Self>, connection: &Rc<Connection>) {
        self.leave_all(connection);
        let slot = connection.slot.get();
        self.connections.borrow_mut().try_remove(slot);
        self.tasks.borrow_mut().connection_ended();
        let code = connection.ended_with();
        self.node.metrics.closed(code);
        tracing::debug!(
            target: "activity",
            { socket.id = %connection.socket_id, code = code.map_or(1006, CloseCode::code) },
            "Connection closed"
        );
        self.settle();
    }

    fn leave_all(self: &Rc<Self>, connection: &Rc<Connection>) {
        let subscriptions = connection.session.borrow_mut().subscriptions.take_all();
        for subscription in subscriptions {
            self.unsubscribe(connection, subscription);
        }
        self.sign_out(connection);
    }

    /// Takes the connection out of a channel that its session has forgotten. A subscription that the cluster has not
    /// answered yet is undone by its answer.
    fn unsubscribe(self: &Rc<Self>, connection: &Rc<Connection>, subscription: Subscription) {
        let Some(place) = subscription.place else { return };
        let topic = Topic::new(&connection.app.id, &subscription.channel);
        self.hub.borrow_mut().unsubscribe(&topic, place, &self.node.metrics);
        tracing::debug!(
            target: "activity",
            { socket.id = %connection.socket_id, channel.name = %logged(topic.channel.as_str(), NAME_MAX) },
            "Unsubscribed"
        );
        self.exit(Entry { app: connection.app.clone(), topic, user_id: subscription.user_id });
    }

    fn sign_out(self: &Rc<Self>, connection: &Rc<Connection>) {
        let Some(signed_in) = connection.session.borrow_mut().sign_out() else { return };
        let Some(place) = signed_in.place else { return };
        for watched in &signed_in.watched {
            let (Some(place), Some(topic)) = (watched.place, user_topic(connection, watched.user_id.as_str())) else {
                continue;
            };
            self.hub.borrow_mut().unwatch(&topic, place);
            self.node.relay.unwatch(&topic, self.index);
        }
        if let Some(topic) = user_topic(connection, signed_in.user.id.as_str()) {
            self.hub.borrow_mut().unsubscribe(&topic, place, &self.node.metrics);
            self.exit(Entry { app: connection.app.clone(), topic, user_id: None });
        }
    }

    pub(crate) fn key(&self, connection: &Connection) -> ConnectionKey {
        ConnectionKey { slot: connection.slot.get(), socket_id: connection.socket_id }
    }

    /// The connection of that name, while it lives.
    fn connection(&self, key: ConnectionKey) -> Option<Rc<Connection>> {
        let connections = self.connections.borrow();
        connections.get(key.slot).filter(|connection| connection.socket_id == key.socket_id).cloned()
    }

    /// Resolves when a drain of the shard begins. Returns the deadlines of HTTP connections.
    pub(crate) async fn drain_started(&self) -> DrainDeadlines {
        self.drain_started.cancelled().await;
        self.drain_deadlines.get()
    }

    /// How long a client that is told to go has to answer.
    pub(crate) fn close_grace_s(&self) -> u32 {
        if self.draining.get() { DRAIN_GRACE_S } else { CLOSE_GRACE_S }
    }

    fn is_settled(&self) -> bool {
        self.connections.borrow().is_empty()
            && self.accepted.borrow().is_empty()
            && self.chores.get() == 0
            && self.tasks.borrow().is_empty()
    }

    fn settle(&self) {
        if self.draining.get() && self.is_settled() {
            self.settled.notify_one();
        }
    }
}

/// The topic of a user, for ids that can name a channel.
fn user_topic(connection: &Connection, user_id: &str) -> Option<Topic> {
    let channel = ChannelName::of_user(user_id, connection.app.limits.user_id_length).ok()?;
    Some(Topic::new(&connection.app.id, &channel))
}
