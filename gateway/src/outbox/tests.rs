use std::future::pending;
use std::sync::Arc;

use prometheus::Registry;
use proptest::prelude::*;
use shared::app::{App, Apps};
use shared::cluster::bus::MemoryBus;
use shared::cluster::roster::MemoryRoster;
use socket2::SockRef;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpSocket};

use super::*;
use crate::capacity::{Capacity, CapacityLimits};
use crate::config::Server;
use crate::metrics::Metrics;
use crate::transport::Transport;

/// Far more than the sockets of a [`Client`] hold.
const FLOOD_BYTES: usize = 1024 * 1024;

/// A connection and the other end of its socket, whose buffers are small.
struct Client {
    connection: Rc<Connection>,
    stream: TcpStream,
}

fn capacity() -> (Arc<Capacity>, Arc<App>) {
    let app = serde_json::from_str(r#"{"id":"app","key":"key","secret":"secret"}"#).unwrap();
    let apps = Apps::new([app]).unwrap();
    let app = apps.by_id("app").unwrap().clone();
    let metrics = Metrics::new(&Registry::new(), &apps, 10, 10);
    let roster = MemoryRoster::new(MemoryBus::new());
    let limits = CapacityLimits { connections_max: 10, sockets_max: 10, shards: 1, is_clustered: false };
    (Capacity::new(limits, &Server::default(), &apps, roster, metrics, Arc::default()), app)
}

fn socket(connection: &Connection) -> &TcpStream {
    match &connection.wire {
        Wire::Socket(stream) => stream,
        Wire::Requests(_) => panic!("it has none"),
    }
}

impl Client {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(32 * 1024).unwrap();
        let stream = socket.connect(listener.local_addr().unwrap()).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        SockRef::from(&accepted).set_send_buffer_size(32 * 1024).unwrap();
        accepted.set_nodelay(true).unwrap();
        // A fresh stream counts as full until the runtime has looked at it.
        accepted.writable().await.unwrap();
        let (capacity, app) = capacity();
        let admission = capacity.admit_over_quota(&app, Transport::WebSocket).unwrap();
        let connection = Rc::new(Connection::new(Wire::Socket(accepted), "1.1".parse().unwrap(), admission, 0));
        Self { connection, stream }
    }

    fn outbox(&self) -> &Outbox {
        &self.connection.outbox
    }

    /// Sends frames in one burst; returns what became of it, [`Flushed::All`] when nothing was said.
    fn send(&self, frames: impl IntoIterator<Item = Bytes>, now_s: u32) -> Flushed {
        let mut burst = Burst::default();
        for frame in frames {
            let frame = burst.frame(frame);
            burst.append(&self.connection, frame);
        }
        let mut result = Flushed::All;
        burst.flush(now_s, |_, flushed| result = flushed);
        result
    }

    /// Reads so many bytes, while the connection's task writes what waits.
    async fn receive(&mut self, count: usize, now_s: u32) -> Vec<u8> {
        let connection = self.connection.clone();
        let writing = async {
            loop {
                match connection.outbox.flush(socket(&connection), now_s) {
                    Flushed::All => pending().await,
                    Flushed::Some => socket(&connection).writable().await.unwrap(),
                    Flushed::Broken => panic!("the client is there"),
                }
            }
        };
        let mut received = vec![0; count];
        tokio::select! {
            result = self.stream.read_exact(&mut received) => drop(result.unwrap()),
            () = writing => {}
        }
        received
    }

    /// The client gets exactly `expected` and nothing after it.
    async fn check_receives(&mut self, expected: &[u8]) {
        let received = self.receive(expected.len(), 0).await;
        assert!(received == expected, "{} bytes differ", expected.len());
        assert_eq!((self.outbox().bytes(), self.outbox().stalled_since_s()), (0, None));
        let end = b"the end";
        self.send([Bytes::from_static(end)], 0);
        assert_eq!(self.receive(end.len(), 0).await, end, "something else came in between");
    }
}

/// A frame that tells its number and where a byte of it stands.
fn numbered(number: usize, length: usize) -> Bytes {
    (0..length).map(|index| (number * 31 + index * 7) as u8).collect()
}

#[tokio::test]
async fn a_client_that_keeps_up_is_written_to_at_once_and_its_outbox_owns_nothing() {
    let mut client = Client::new().await;
    assert_eq!(client.send([numbered(1, 10)], 5), Flushed::All);
    assert_eq!(client.send([numbered(2, 10), numbered(3, 20)], 5), Flushed::All);
    assert!(client.outbox().waiting.borrow().is_none());
    assert_eq!(client.outbox().flush(socket(&client.connection), 5), Flushed::All);
    client.check_receives(&[numbered(1, 10), numbered(2, 10), numbered(3, 20)].concat()).await;
}

#[tokio::test]
async fn a_burst_shares_its_frames_and_counts_each_delivery() {
    let (mut ana, mut bo) = (Client::new().await, Client::new().await);
    let mut burst = Burst::default();
    let (shared, own) = (burst.frame(numbered(1, 100)), burst.frame(numbered(2, 10)));
    burst.append(&ana.connection, shared);
    burst.append(&bo.connection, shared);
    burst.append(&bo.connection, own);
    burst.append(&ana.connection, shared);
    assert_eq!(burst.len(), 4);
    let size = burst.flush(0, |_, flushed| panic!("{flushed:?}"));
    assert_eq!(size, BurstSize { messages: 4, bytes: 310 });
    assert_eq!(burst.len(), 0);
    assert_eq!(burst.flush(0, |_, flushed| panic!("{flushed:?}")), BurstSize::default(), "nothing is written twice");

    let again = burst.frame(numbered(3, 5));
    burst.append(&bo.connection, again);
    burst.flush(0, |_, flushed| panic!("{flushed:?}"));
    ana.check_receives(&[numbered(1, 100), numbered(1, 100)].concat()).await;
    bo.check_receives(&[numbered(1, 100), numbered(2, 10), numbered(3, 5)].concat()).await;
}

#[tokio::test]
async fn more_frames_than_one_call_takes_are_all_written_while_there_is_room() {
    for count in [WRITE_FRAMES_MAX - 1, WRITE_FRAMES_MAX, WRITE_FRAMES_MAX + 1, 5 * WRITE_FRAMES_MAX + 3] {
        let mut client = Client::new().await;
        let frames: Vec<Bytes> = (0..count).map(|number| numbered(number, number % 9 + 1)).collect();
        assert_eq!(client.send(frames.clone(), 0), Flushed::All, "{count}");
        client.check_receives(&frames.concat()).await;
    }
}

#[tokio::test]
async fn a_frame_larger_than_the_socket_is_resumed_in_its_middle() {
    let mut client = Client::new().await;
    let frame = numbered(1, FLOOD_BYTES);
    assert_eq!(client.send([frame.clone()], 0), Flushed::Some);
    let waiting = client.outbox().bytes();
    assert!(0 < waiting && waiting < FLOOD_BYTES, "{waiting} bytes wait");
    assert_eq!(client.outbox().flush(socket(&client.connection), 0), Flushed::Some, "it is still full");
    client.check_receives(&frame).await;
}

#[tokio::test]
async fn order_is_kept_while_the_socket_is_full() {
    let mut client = Client::new().await;
    let frames: Vec<Bytes> = (0..500).map(|number| numbered(number, 1 + number * 37 % 5_000)).collect();
    for burst in frames.chunks(7) {
        client.send(burst.to_vec(), 0);
    }
    assert!(client.outbox().bytes() > FLOOD_BYTES / 2, "the socket was never full");
    let all = frames.concat();
    let (first, rest) = all.split_at(all.len() / 2);
    assert!(client.receive(first.len(), 0).await == first);
    client.send([numbered(9, 99)], 0);
    client.check_receives(&[rest, &numbered(9, 99)].concat()).await;
}

#[tokio::test]
async fn what_waits_stalls_from_the_last_time_that_the_client_took_something() {
    let mut client = Client::new().await;
    assert_eq!(client.outbox().stalled_since_s(), None);
    client.send([numbered(1, FLOOD_BYTES)], 3);
    assert_eq!(client.outbox().stalled_since_s(), Some(3));
    client.send([numbered(2, 10)], 7);
    assert_eq!(client.outbox().stalled_since_s(), Some(3), "more frames are no progress");
    client.receive(FLOOD_BYTES / 2, 12).await;
    assert_eq!(client.outbox().stalled_since_s(), Some(12));
    client.receive(FLOOD_BYTES / 2 + 10, 15).await;
    assert_eq!(client.outbox().stalled_since_s(), None);
}

#[tokio::test]
async fn the_rest_of_a_begun_frame_is_kept_and_the_last_word_follows_it() {
    let mut client = Client::new().await;
    let begun = numbered(1, FLOOD_BYTES);
    client.send([begun.clone(), numbered(2, 1_000), numbered(3, 1_000)], 0);
    let before = client.outbox().bytes();
    client.outbox().keep_only_begun_frame();
    assert_eq!(client.outbox().bytes(), before - 2 * (1_000 + FRAME_OVERHEAD_BYTES));
    client.send([Bytes::from_static(b"goodbye")], 0);
    client.check_receives(&[&begun[..], b"goodbye"].concat()).await;
}

#[test]
fn frames_that_have_not_begun_are_dropped() {
    let outbox = Outbox::default();
    outbox.keep_only_begun_frame();
    assert_eq!(outbox.bytes(), 0);
    outbox.push([numbered(1, 10), numbered(2, 20)].into_iter(), 0, 4);
    assert_eq!((outbox.bytes(), outbox.stalled_since_s()), (30 + 2 * FRAME_OVERHEAD_BYTES, Some(4)));
    outbox.keep_only_begun_frame();
    assert_eq!((outbox.bytes(), outbox.stalled_since_s()), (0, None));
    outbox.push([numbered(1, 10), numbered(2, 20)].into_iter(), 9, 4);
    outbox.keep_only_begun_frame();
    assert_eq!((outbox.bytes(), outbox.stalled_since_s()), (1 + FRAME_OVERHEAD_BYTES, Some(4)));
}

#[tokio::test]
async fn a_client_that_is_gone_is_broken() {
    let mut client = Client::new().await;
    client.stream = Client::new().await.stream;
    // The first write may still be taken; its answer is a reset.
    let mut result = client.send([numbered(1, 10)], 0);
    while result == Flushed::All {
        socket(&client.connection).readable().await.unwrap();
        result = client.send([numbered(1, 10)], 0);
    }
    assert_eq!(result, Flushed::Broken);
    assert!(client.outbox().waiting.borrow().is_none());
}

proptest! {
    #[test]
    fn what_waits_is_what_was_pushed_less_what_was_taken(
        steps in prop::collection::vec((prop::collection::vec(1_usize..50, 1..5), any::<prop::sample::Index>()), 1..20),
        first_taken in any::<prop::sample::Index>(),
    ) {
        let outbox = Outbox::default();
        let mut model = Vec::new();
        for (index, (lengths, taken)) in steps.into_iter().enumerate() {
            let frames: Vec<Bytes> = lengths.into_iter().map(|length| numbered(index, length)).collect();
            let begun = if index == 0 { first_taken.index(frames[0].len()) } else { 0 };
            model.extend_from_slice(&frames.concat()[begun..]);
            outbox.push(frames.into_iter(), begun, 0);
            let mut slot = outbox.waiting.borrow_mut();
            let waiting = slot.as_mut().expect("frames wait");
            // As `flush` does, but never all of it: that would end the wait.
            let taken = taken.index(model.len());
            waiting.advance(taken);
            model.drain(..taken);
            let rest: Vec<u8> = waiting.frames.iter().flatten().copied().skip(waiting.taken).collect();
            prop_assert_eq!(waiting.bytes, model.len() + waiting.frames.len() * FRAME_OVERHEAD_BYTES);
            prop_assert_eq!(&rest, &model);
            prop_assert!(waiting.taken < waiting.frames[0].len());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn every_client_gets_its_frames_whole_and_in_order(
        bursts in prop::collection::vec(
            prop::collection::vec((prop_oneof![1_usize..200, 1_usize..40_000], 0_u8..4), 1..100), 1..6,
        ),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut clients = [Client::new().await, Client::new().await];
            let mut expected = [Vec::new(), Vec::new()];
            let mut burst = Burst::default();
            for (number, frames) in bursts.into_iter().enumerate() {
                for (length, to) in frames {
                    let bytes = numbered(number, length);
                    let frame = burst.frame(bytes.clone());
                    for (index, client) in clients.iter().enumerate() {
                        if to & (1 << index) != 0 {
                            burst.append(&client.connection, frame);
                            expected[index].extend_from_slice(&bytes);
                        }
                    }
                }
                burst.flush(0, |_, flushed| assert_eq!(flushed, Flushed::Some));
            }
            for (client, expected) in clients.iter_mut().zip(&expected) {
                client.check_receives(expected).await;
            }
        });
    }
}

#[tokio::test]
async fn a_frame_that_is_larger_than_the_limit_is_not_counted() {
    const LIMIT: usize = 100_000;
    let client = Client::new().await;
    assert!(!client.outbox().exceeds(LIMIT));
    let event = || Bytes::from(vec![b'a'; LIMIT / 4]);
    let list = Bytes::from(vec![b'l'; FLOOD_BYTES]);
    assert_eq!(client.send([list.clone(), event(), list, event(), event()], 0), Flushed::Some);
    assert!(client.outbox().bytes() > FLOOD_BYTES && !client.outbox().exceeds(LIMIT));
    assert_eq!(client.send([event()], 0), Flushed::Some);
    assert!(client.outbox().exceeds(LIMIT));
}
