//! A TCP proxy between a node and Redis that breaks what passes, in the ways in which networks do.

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

/// What happens to what passes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Nothing.
    #[default]
    Pass,
    /// It waits, in order, until the mode is another; nothing is lost and nothing ends.
    Stall,
    /// Every piece is late by this much, in both directions.
    Delay(Duration),
    /// It vanishes, in both directions, ends of connections included. Connections that have been in this mode stay dead
    /// for good, and neither side learns of it; new ones are taken and nothing comes of them.
    HalfOpen,
    /// Redis' pushes vanish, so that subscribers hear nothing while commands are answered.
    Mute,
    /// Nobody listens; connections that stand are left alone.
    Refuse,
}

/// Which connections a mode is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Whom {
    /// All of them.
    #[default]
    Everyone,
    /// Those that have asked for a subscription; the others pass.
    Subscribers,
}

/// A running proxy; it ends, with all its connections, when dropped.
pub struct Proxy {
    /// Where it listens.
    pub port: u16,
    shared: Arc<Shared>,
    listening: watch::Receiver<bool>,
    acceptor: JoinHandle<()>,
}

struct Shared {
    target: Mutex<SocketAddr>,
    fault: watch::Sender<(Mode, Whom)>,
    /// Counts the cuts; connections that see it change are reset.
    cuts: watch::Sender<(u64, Whom)>,
    accepted: AtomicU64,
    open: AtomicU64,
    forwarded_bytes: AtomicU64,
    lost_bytes: AtomicU64,
}

/// One connection.
struct Passage<'a> {
    shared: &'a Shared,
    subscribes: AtomicBool,
    /// Whether packets were lost: nothing passes any more.
    dead: AtomicBool,
}

impl Proxy {
    /// Starts a proxy for a port of this machine.
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

    /// From here on everything passes in this mode.
    pub async fn set(&mut self, mode: Mode) {
        self.set_for(Whom::Everyone, mode).await;
    }

    /// From here on some connections pass in this mode; the others pass.
    pub async fn set_for(&mut self, whom: Whom, mode: Mode) {
        self.shared.fault.send_replace((mode, whom));
        let listens = self.listening.wait_for(|listens| *listens == (mode != Mode::Refuse));
        within("the proxy to listen, or not", listens).await.expect("the acceptor lives as long as the proxy");
    }

    /// From here on new connections lead to another port of this machine.
    ///
    /// # Panics
    /// Never: nothing panics with the port.
    pub fn lead_to(&self, target: u16) {
        *self.shared.target.lock().expect("nothing panics with it") = ports::local(target);
    }

    /// Resets all connections that stand.
    pub fn cut(&self) {
        self.cut_for(Whom::Everyone);
    }

    /// Resets some of the connections that stand.
    pub fn cut_for(&self, whom: Whom) {
        self.shared.cuts.send_modify(|cuts| *cuts = (cuts.0 + 1, whom));
    }

    /// Connections that were ever taken.
    pub fn accepted(&self) -> u64 {
        self.shared.accepted.load(Ordering::Relaxed)
    }

    /// Connections that stand.
    pub fn open(&self) -> u64 {
        self.shared.open.load(Ordering::Relaxed)
    }

    /// Bytes that came through, of both directions.
    pub fn forwarded_bytes(&self) -> u64 {
        self.shared.forwarded_bytes.load(Ordering::Relaxed)
    }

    /// Bytes that vanished.
    pub fn lost_bytes(&self) -> u64 {
        self.shared.lost_bytes.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // The connections are the acceptor's, and go with it.
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
    let target = *shared.target.lock().expect("nothing panics with it");
    let Ok(mut far) = TcpStream::connect(target).await else { return reset(&near) };
    for stream in [&near, &far] {
        // Or the proxy would be slower than the network it stands for.
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
                let (_, whom) = *cuts.borrow_and_update();
                if passage.is_meant(whom) {
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
            // A broken connection ends as one that was closed.
            let count = from.read(&mut buffer).await.unwrap_or(0);
            let piece = &buffer[..count];
            if direction == Direction::ToRedis && contains(piece, b"SUBSCRIBE\r\n") {
                self.subscribes.store(true, Ordering::Relaxed);
            }
            if !self.passes(piece, direction).await {
                self.shared.lost_bytes.fetch_add(count as u64, Ordering::Relaxed);
                if count == 0 {
                    // The end of a dead connection is not heard of on the other side.
                    return std::future::pending().await;
                }
                continue;
            }
            self.shared.forwarded_bytes.fetch_add(count as u64, Ordering::Relaxed);
            if count == 0 || to.write_all(piece).await.is_err() {
                // The other side may be gone already.
                let _ = to.shutdown().await;
                return;
            }
        }
    }

    /// Waits as long as the piece must, and says whether it then goes on.
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
                // The first of what follows a push may be lost with it; nothing does on a subscriber's connection.
                Mode::Mute => return direction == Direction::ToRedis || !contains(piece, b"$7\r\nmessage\r\n"),
                Mode::Pass | Mode::Refuse => return true,
            }
        }
    }

    /// A connection dies of packets that are lost, whether it carries any just then or not: the peer's next ones come
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

    fn mode(&self, (mode, whom): (Mode, Whom)) -> Mode {
        if self.is_meant(whom) { mode } else { Mode::Pass }
    }

    fn is_meant(&self, whom: Whom) -> bool {
        whom == Whom::Everyone || self.subscribes.load(Ordering::Relaxed)
    }
}

struct Open<'a>(&'a Shared);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Makes the end of the connection a reset.
fn reset(stream: &TcpStream) {
    // A connection that is gone needs no reset.
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
