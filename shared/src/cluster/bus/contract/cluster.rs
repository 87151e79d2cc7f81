//! The nodes of a cluster under test. Each records the envelopes that it receives.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, watch};

use crate::cluster::bus::{Bus, EnvelopeSink, Message};
use crate::cluster::envelope::{Body, Envelope, Topic, unix_us};
use crate::cluster::roster::Roster;
use crate::protocol::ChannelName;

/// An implementation of [`Bus`] and [`Roster`] under test. Each test has a new, empty cluster.
pub trait Cluster {
    /// Starts another node, whose bus delivers to `sink`.
    fn start(&self, sink: Arc<dyn EnvelopeSink>) -> impl Future<Output = (Arc<dyn Bus>, Arc<dyn Roster>)> + Send;
}

/// A node and its recorder.
pub struct Node {
    /// The bus of the node.
    pub bus: Arc<dyn Bus>,
    /// The roster of the node.
    pub roster: Arc<dyn Roster>,
    recorder: Arc<Recorder>,
    deliveries: mpsc::UnboundedReceiver<Delivery>,
}

/// An envelope as delivered to a node.
pub type Delivery = (Topic, Envelope);

/// The timeout of every wait. It passes only if a test fails.
const PATIENCE: Duration = Duration::from_secs(10);

const MARKER: &str = "marker ";

struct Recorder {
    deliveries: mpsc::UnboundedSender<Delivery>,
    has_room: watch::Sender<bool>,
}

impl Node {
    /// Starts a node of `cluster` that has no subscriptions and has room.
    pub async fn start(cluster: &impl Cluster) -> Self {
        let (sender, deliveries) = mpsc::unbounded_channel();
        let recorder = Arc::new(Recorder { deliveries: sender, has_room: watch::Sender::new(true) });
        let (bus, roster) = cluster.start(recorder.clone()).await;
        Self { bus, roster, recorder, deliveries }
    }

    /// Starts a node that has subscribed to `topics`.
    pub async fn subscribed(cluster: &impl Cluster, topics: &[&Topic]) -> Self {
        let node = Self::start(cluster).await;
        for topic in topics {
            node.bus.subscribe(topic).await.expect("the bus is reachable");
        }
        node
    }

    /// Sets whether the sink has room.
    pub fn set_room(&self, has_room: bool) {
        self.recorder.has_room.send_replace(has_room);
    }

    /// Publishes messages in one call.
    pub async fn publish(&self, messages: impl IntoIterator<Item = Message>) {
        self.bus.publish(messages.into_iter().collect()).await.expect("the bus is reachable");
    }

    /// Waits for the next delivery.
    pub async fn receive(&mut self) -> Delivery {
        let delivery = tokio::time::timeout(PATIENCE, self.deliveries.recv()).await.expect("a delivery in time");
        delivery.expect("the recorder lives as long as its node")
    }

    /// Waits for the next delivery and returns its text. It must be an event.
    pub async fn receive_text(&mut self) -> String {
        text_of(&self.receive().await.1)
    }

    /// Waits for `count` deliveries and returns their texts.
    pub async fn receive_texts(&mut self, count: usize) -> Vec<String> {
        let mut texts = Vec::with_capacity(count);
        while texts.len() < count {
            texts.push(self.receive_text().await);
        }
        texts
    }

    /// Returns the deliveries so far that were not yet returned.
    pub fn delivered(&mut self) -> Vec<Delivery> {
        std::iter::from_fn(|| self.deliveries.try_recv().ok()).collect()
    }

    /// Returns all deliveries so far that were not yet returned. Publishes a marker on `topic`, to which the node must
    /// have subscribed, and waits for it. Markers of other nodes are left out.
    pub async fn received_so_far(&mut self, topic: &Topic) -> Vec<Delivery> {
        static MARKERS: AtomicU64 = AtomicU64::new(0);
        let marker = format!("{MARKER}{}", MARKERS.fetch_add(1, Ordering::Relaxed));
        self.publish([event(topic, &marker)]).await;
        let mut before = Vec::new();
        loop {
            let delivery = self.receive().await;
            match &delivery.1.body {
                Body::Event { frame, .. } if *frame == marker.as_bytes() => return before,
                Body::Event { frame, .. } if frame.starts_with(MARKER.as_bytes()) => {}
                _ => before.push(delivery),
            }
        }
    }
}

impl EnvelopeSink for Recorder {
    fn deliver(&self, topic: &Topic, envelope: Envelope) {
        // The test may have ended before the last delivery.
        let _ = self.deliveries.send((topic.clone(), envelope));
    }

    fn wait_for_room(&self) -> BoxFuture<'_, ()> {
        let mut has_room = self.has_room.subscribe();
        Box::pin(async move {
            has_room.wait_for(|has_room| *has_room).await.expect("the recorder outlives its borrow");
        })
    }
}

/// Returns a topic.
pub fn topic(app: &str, channel: &str) -> Topic {
    Topic::new(&app.into(), &ChannelName::parse(channel, 200).expect("a valid name"))
}

/// Returns an event whose frame is `text`.
pub fn event(topic: &Topic, text: &str) -> Message {
    message(topic, Body::Event { frame: Bytes::copy_from_slice(text.as_bytes()), except: None, cached: false })
}

/// Returns an event that the channel caches.
pub fn cached_event(topic: &Topic, text: &str, duration: Duration) -> Message {
    Message { cache_for: Some(duration), ..event(topic, text) }
}

/// Returns a message with any body.
pub fn message(topic: &Topic, body: Body) -> Message {
    let envelope = Envelope { published_at_us: unix_us(), position: None, body };
    Message { topic: topic.clone(), envelope, cache_for: None, webhook: None }
}

/// Returns the frame of an event as text.
pub fn text_of(envelope: &Envelope) -> String {
    match &envelope.body {
        Body::Event { frame, .. } => String::from_utf8_lossy(frame).into_owned(),
        other => panic!("an event was expected, not {other:?}"),
    }
}
