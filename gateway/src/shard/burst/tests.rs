use std::future::pending;
use std::sync::Arc;

use proptest::prelude::*;
use shared::app::{App, Apps};
use shared::cluster::bus::MemoryBus;
use shared::cluster::roster::MemoryRoster;
use shared::serve::telemetry::metrics::Registry;
use socket2::SockRef;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::*;
use crate::capacity::{Capacity, CapacityLimits};
use crate::config::Server;
use crate::limits::FRAME_OVERHEAD_BYTES;
use crate::metrics::Metrics;
use crate::outbox::Outbox;
use crate::transport::Transport;

/// Far more than the socket buffers of a [`Client`].
const FLOOD_BYTES: usize = 1024 * 1024;

/// A connection and the client's end of its socket, with small buffers.
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
        Wire::Requests(_) => panic!("a fallback session has no socket"),
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
        // The runtime considers a new stream as full until it has polled it.
        accepted.writable().await.unwrap();
        let (capacity, app) = capacity();
        let admission = capacity.admit_over_quota(&app, Transport::WebSocket).unwrap();
        let connection = Rc::new(Connection::new(Wire::Socket(accepted), "1.1".parse().unwrap(), admission, 0));
        Self { connection, stream }
    }

    fn outbox(&self) -> &Outbox {
        &self.connection.outbox
    }

    /// Sends frames in one burst. Returns the result of the write.
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

    /// Reads `count` bytes while the queued frames are written.
    async fn receive(&mut self, count: usize, now_s: u32) -> Vec<u8> {
        let connection = self.connection.clone();
        let writing = async {
            loop {
                match connection.outbox.flush(socket(&connection), now_s) {
                    Flushed::All => pending().await,
                    Flushed::Some => socket(&connection).writable().await.unwrap(),
                    Flushed::Broken => panic!("the client is connected"),
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

    /// Checks that the client receives exactly `expected`.
    async fn check_receives(&mut self, expected: &[u8]) {
        let received = self.receive(expected.len(), 0).await;
        assert!(received == expected, "{} bytes differ", expected.len());
        assert_eq!((self.outbox().bytes(), self.outbox().stalled_since_s()), (0, None));
        let end = b"the end";
        self.send([Bytes::from_static(end)], 0);
        assert_eq!(self.receive(end.len(), 0).await, end, "nothing else was sent before");
    }
}

/// Returns a frame whose bytes depend on its number and on their position.
fn numbered(number: usize, length: usize) -> Bytes {
    (0..length).map(|index| (number * 31 + index * 7) as u8).collect()
}

#[tokio::test]
async fn a_client_that_keeps_up_needs_no_outbox() {
    let mut client = Client::new().await;
    assert_eq!(client.send([numbered(1, 10)], 5), Flushed::All);
    assert_eq!(client.send([numbered(2, 10), numbered(3, 20)], 5), Flushed::All);
    assert!(client.outbox().is_empty());
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
async fn more_frames_than_one_call_accepts_are_all_written() {
    for count in [WRITE_FRAMES_MAX - 1, WRITE_FRAMES_MAX, WRITE_FRAMES_MAX + 1, 5 * WRITE_FRAMES_MAX + 3] {
        let mut client = Client::new().await;
        let frames: Vec<Bytes> = (0..count).map(|number| numbered(number, number % 9 + 1)).collect();
        assert_eq!(client.send(frames.clone(), 0), Flushed::All, "{count}");
        client.check_receives(&frames.concat()).await;
    }
}

#[tokio::test]
async fn a_partly_written_frame_is_continued() {
    let mut client = Client::new().await;
    let frame = numbered(1, FLOOD_BYTES);
    assert_eq!(client.send([frame.clone()], 0), Flushed::Some);
    let waiting = client.outbox().bytes();
    assert!(0 < waiting && waiting < FLOOD_BYTES, "{waiting} bytes are queued");
    assert_eq!(client.outbox().flush(socket(&client.connection), 0), Flushed::Some, "the socket is still full");
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
async fn an_outbox_is_stalled_since_the_last_write() {
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
async fn the_rest_of_a_partly_written_frame_is_retained_and_a_close_frame_follows() {
    let mut client = Client::new().await;
    let first = numbered(1, FLOOD_BYTES);
    client.send([first.clone(), numbered(2, 1_000), numbered(3, 1_000)], 0);
    let before = client.outbox().bytes();
    client.outbox().retain_partly_written();
    assert_eq!(client.outbox().bytes(), before - 2 * (1_000 + FRAME_OVERHEAD_BYTES));
    client.send([Bytes::from_static(b"goodbye")], 0);
    client.check_receives(&[&first[..], b"goodbye"].concat()).await;
}

#[tokio::test]
async fn a_write_to_a_closed_client_reports_a_broken_connection() {
    let mut client = Client::new().await;
    client.stream = Client::new().await.stream;
    // The first write may succeed. The client then sends a reset.
    let mut result = client.send([numbered(1, 10)], 0);
    while result == Flushed::All {
        socket(&client.connection).readable().await.unwrap();
        result = client.send([numbered(1, 10)], 0);
    }
    assert_eq!(result, Flushed::Broken);
    assert!(client.outbox().is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn every_client_receives_its_frames_complete_and_in_order(
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
async fn a_frame_larger_than_the_limit_does_not_count() {
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
