//! A TCP proxy between a node and Redis that simulates network faults.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::{POLL, ports, within};

/// The treatment of forwarded bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Forwards bytes unchanged.
    #[default]
    Pass,
    /// Holds bytes, in order, until the mode changes. No byte is lost and no connection ends.
    Stall,
    /// Delays every piece by this duration, in both directions.
    Delay(Duration),
    /// Drops bytes in both directions, including ends of connections. Connections of this mode stay broken
    /// permanently, and neither side is notified. New connections are accepted and stay silent.
    HalfOpen,
    /// Drops push messages of Redis. Subscribers receive nothing, while commands are answered.
    DropPushes,
    /// Refuses new connections. Open connections are not affected.
    Refuse,
}

/// The connections to which a mode applies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// All connections.
    #[default]
    All,
    /// Connections that have sent a subscription. The others work normally.
    Subscribers,
}

/// A running proxy. It ends, with all its connections, when dropped.
pub struct Proxy {
    /// The address on which it listens.
    pub port: u16,
    shared: Arc<Shared>,
    listening: watch::Receiver<bool>,
    acceptor: JoinHandle<()>,
}

struct Shared {
    target: Mutex<SocketAddr>,
    fault: watch::Sender<(Mode, Scope)>,
    /// The number of cuts. Connections that see it change are reset.
    cuts: watch::Sender<(u64, Scope)>,
    accepted: AtomicU64,
    open: AtomicU64,
    forwarded_bytes: AtomicU64,
    lost_bytes: AtomicU64,
}

/// One connection.
struct Passage<'a> {
    shared: &'a Shared,
    subscribes: AtomicBool,
    /// Whether packets were lost. Such a connection forwards no more bytes.
    dead: AtomicBool,
}

impl Proxy {
    /// Starts a proxy for a local port.
    pub async fn start(target: u16) -> Self {
        let shared = Arc::new(Shared {
            target: Mutex::new(ports::local(target)),
            fault: watch::Sender::default(),
            cuts: watch::Sender::default(),
            accepted: AtomicU64::new(0),
            open: AtomicU64::new(0),
            forwarded_bytes: AtomicU64::new(0),
            lost_bytes: AtomicU64::new(0),
        });
        let port = ports::free();
        let (listens, listening) = watch::channel(false);
        let acceptor = tokio::spawn(accept(shared.clone(), port, listens));
        let mut proxy = Self { port, shared, listening, acceptor };
        proxy.set(Mode::Pass).await;
        proxy
    }

    /// Sets the mode of all connections.
    pub async fn set(&mut self, mode: Mode) {
        self.set_for(Scope::All, mode).await;
    }

    /// Sets the mode of some connections. The others forward bytes unchanged.
    pub async fn set_for(&mut self, scope: Scope, mode: Mode) {
        self.shared.fault.send_replace((mode, scope));
        let listens = self.listening.wait_for(|listens| *listens == (mode != Mode::Refuse));
        within("the proxy to listen, or not", listens).await.expect("the acceptor runs as long as the proxy");
    }

    /// Forwards new connections to another local port.
    ///
    /// # Panics
    /// Never: the lock is not poisoned.
    pub fn lead_to(&self, target: u16) {
        *self.shared.target.lock().expect("the lock is not poisoned") = ports::local(target);
    }

    /// Resets all open connections.
    pub fn cut(&self) {
        self.cut_for(Scope::All);
    }

    /// Resets some of the open connections.
    pub fn cut_for(&self, scope: Scope) {
        self.shared.cuts.send_modify(|cuts| *cuts = (cuts.0 + 1, scope));
    }

    /// Returns the number of connections accepted so far.
    pub fn accepted(&self) -> u64 {
        self.shared.accepted.load(Ordering::Relaxed)
    }

    /// Returns the number of open connections.
    pub fn open(&self) -> u64 {
        self.shared.open.load(Ordering::Relaxed)
    }

    /// Returns the number of forwarded bytes in both directions.
    pub fn forwarded_bytes(&self) -> u64 {
        self.shared.forwarded_bytes.load(Ordering::Relaxed)
    }

    /// Returns the number of dropped bytes.
    pub fn lost_bytes(&self) -> u64 {
        self.shared.lost_bytes.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // The acceptor owns the connections and drops them when it ends.
        self.acceptor.abort();
    }
}

async fn accept(shared: Arc<Shared>, port: u16, listens: watch::Sender<bool>) {
    let mut faults = shared.fault.subscribe();
    let mut connections = JoinSet::new();
    loop {
        let listener = listen(port).await;
        listens.send_replace(true);
        loop {
            tokio::select! {
                accepted = listener.accept() => {
                    let Ok((stream, _)) = accepted else { continue };
                    shared.accepted.fetch_add(1, Ordering::Relaxed);
                    connections.spawn(serve(shared.clone(), stream));
                }
                _ = faults.wait_for(|(mode, _)| *mode == Mode::Refuse) => break,
            }
        }
        drop(listener);
        listens.send_replace(false);
        // The sender is part of `shared`.
        let _ = faults.wait_for(|(mode, _)| *mode != Mode::Refuse).await;
    }
}

async fn listen(port: u16) -> TcpListener {
    let listening = async {
        loop {
            match TcpListener::bind(ports::local(port)).await {
                Ok(listener) => return listener,
                Err(_) => tokio::time::sleep(POLL).await,
            }
        }
    };
    within("the proxy's port", listening).await
}

async fn serve(shared: Arc<Shared>, mut near: TcpStream) {
    shared.open.fetch_add(1, Ordering::Relaxed);
    let _open = Open(&shared);
    let mut cuts = shared.cuts.subscribe();
    let passage = Passage { shared: &shared, subscribes: AtomicBool::new(false), dead: AtomicBool::new(false) };
    let target = *shared.target.lock().expect("the lock is not poisoned");
    let Ok(mut far) = TcpStream::connect(target).await else { return reset(&near) };
    for stream in [&near, &far] {
        // Without this option the proxy would be slower than a network.
        let _ = stream.set_nodelay(true);
    }
    let was_cut = {
        let (near_reads, near_writes) = near.split();
        let (far_reads, far_writes) = far.split();
        let carrying = async {
            tokio::join!(
                passage.carry(near_reads, far_writes, Direction::ToRedis),
                passage.carry(far_reads, near_writes, Direction::FromRedis),
            )
        };
        let cut = async {
            while cuts.changed().await.is_ok() {
                let (_, scope) = *cuts.borrow_and_update();
                if passage.is_affected(scope) {
                    return;
                }
            }
            std::future::pending().await
        };
        tokio::select! {
            _ = carrying => false,
            () = cut => true,
            never = passage.notice_death() => match never {},
        }
    };
    if was_cut {
        reset(&near);
        reset(&far);
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    ToRedis,
    FromRedis,
}

impl Passage<'_> {
    async fn carry(&self, mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, direction: Direction) {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            // A broken connection ends like a closed one.
            let count = from.read(&mut buffer).await.unwrap_or(0);
            let piece = &buffer[..count];
            if direction == Direction::ToRedis && contains(piece, b"SUBSCRIBE\r\n") {
                self.subscribes.store(true, Ordering::Relaxed);
            }
            if !self.passes(piece, direction).await {
                self.shared.lost_bytes.fetch_add(count as u64, Ordering::Relaxed);
                if count == 0 {
                    // The end of a broken connection is not forwarded.
                    return std::future::pending().await;
                }
                continue;
            }
            self.shared.forwarded_bytes.fetch_add(count as u64, Ordering::Relaxed);
            if count == 0 || to.write_all(piece).await.is_err() {
                // The other side may be closed already.
                let _ = to.shutdown().await;
                return;
            }
        }
    }

    /// Waits for as long as the mode delays the piece. Returns whether to forward it.
    async fn passes(&self, piece: &[u8], direction: Direction) -> bool {
        let mut faults = self.shared.fault.subscribe();
        loop {
            let fault = *faults.borrow_and_update();
            match self.mode(fault) {
                _ if self.dead.load(Ordering::Relaxed) => return false,
                Mode::Stall => {
                    if faults.changed().await.is_err() {
                        return false;
                    }
                }
                Mode::Delay(delay) => {
                    tokio::time::sleep(delay).await;
                    return true;
                }
                Mode::HalfOpen => self.dead.store(true, Ordering::Relaxed),
                // A reply in the same piece as a push message can be lost. A subscriber's connection has none.
                Mode::DropPushes => return direction == Direction::ToRedis || !contains(piece, b"$7\r\nmessage\r\n"),
                Mode::Pass | Mode::Refuse => return true,
            }
        }
    }

    /// A connection breaks when packets are lost, even while it is idle. The next packets of the peer arrive
    /// out of sequence.
    async fn notice_death(&self) -> std::convert::Infallible {
        let mut faults = self.shared.fault.subscribe();
        loop {
            let fault = *faults.borrow_and_update();
            if self.mode(fault) == Mode::HalfOpen {
                self.dead.store(true, Ordering::Relaxed);
            }
            if faults.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    fn mode(&self, (mode, scope): (Mode, Scope)) -> Mode {
        if self.is_affected(scope) { mode } else { Mode::Pass }
    }

    fn is_affected(&self, scope: Scope) -> bool {
        scope == Scope::All || self.subscribes.load(Ordering::Relaxed)
    }
}

struct Open<'a>(&'a Shared);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Closes the connection with a reset.
fn reset(stream: &TcpStream) {
    // A closed connection needs no reset.
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
