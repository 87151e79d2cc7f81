//! Several nodes of one cluster, each with a recorder of what it hears.

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

/// A form of [`Bus`] and [`Roster`] under test: one cluster, empty at first and shared with no other test.
pub trait Cluster {
    /// Starts one more node. `sink` gets what its bus delivers.
    fn start(&self, sink: Arc<dyn EnvelopeSink>) -> impl Future<Output = (Arc<dyn Bus>, Arc<dyn Roster>)> + Send;
}

/// One node and its ears.
pub struct Node {
    /// Its place on the bus.
    pub bus: Arc<dyn Bus>,
    /// Its handle to the roster.
    pub roster: Arc<dyn Roster>,
    recorder: Arc<Recorder>,
    heard: mpsc::UnboundedReceiver<Delivery>,
}

/// One delivery.
pub type Delivery = (Topic, Envelope);

/// Nothing of a test takes longer; it is reached only when a promise is broken.
const PATIENCE: Duration = Duration::from_secs(10);

const MARKER: &str = "marker ";

struct Recorder {
    heard: mpsc::UnboundedSender<Delivery>,
    has_room: watch::Sender<bool>,
}

impl Node {
    /// Starts a node of `cluster` that hears nothing yet and has room.
    pub async fn start(cluster: &impl Cluster) -> Self {
        let (sender, heard) = mpsc::unbounded_channel();
        let recorder = Arc::new(Recorder { heard: sender, has_room: watch::Sender::new(true) });
        let (bus, roster) = cluster.start(recorder.clone()).await;
        Self { bus, roster, recorder, heard }
    }

    /// Starts a node that hears `topics`.
    pub async fn subscribed(cluster: &impl Cluster, topics: &[&Topic]) -> Self {
        let node = Self::start(cluster).await;
        for topic in topics {
            node.bus.subscribe(topic).await.expect("the bus is reachable");
        }
        node
    }

    /// Whether the sink has room for more.
    pub fn set_room(&self, has_room: bool) {
        self.recorder.has_room.send_replace(has_room);
    }

    /// Publishes messages in one call.
    pub async fn publish(&self, messages: impl IntoIterator<Item = Message>) {
        self.bus.publish(messages.into_iter().collect()).await.expect("the bus is reachable");
    }

    /// The next delivery, awaited.
    pub async fn receive(&mut self) -> Delivery {
        let heard = tokio::time::timeout(PATIENCE, self.heard.recv()).await.expect("something is heard in time");
        heard.expect("the recorder lives as long as its node")
    }

    /// The text of the next delivery, which must be an event.
    pub async fn receive_text(&mut self) -> String {
        text_of(&self.receive().await.1)
    }

    /// The texts of the next `count` deliveries.
    pub async fn receive_texts(&mut self, count: usize) -> Vec<String> {
        let mut texts = Vec::with_capacity(count);
        while texts.len() < count {
            texts.push(self.receive_text().await);
        }
        texts
    }

    /// What has been delivered by now and was not taken.
    pub fn delivered(&mut self) -> Vec<Delivery> {
        std::iter::from_fn(|| self.heard.try_recv().ok()).collect()
    }

    /// Everything that was heard and not yet taken, up to now: sends a marker on `topic`, which the node must hear, and
    /// waits for it. Markers of other nodes are left out.
    pub async fn received_so_far(&mut self, topic: &Topic) -> Vec<Delivery> {
        static MARKERS: AtomicU64 = AtomicU64::new(0);
        let marker = format!("{MARKER}{}", MARKERS.fetch_add(1, Ordering::Relaxed));
        self.publish([event(topic, &marker)]).await;
        let mut before = Vec::new();
        loop {
            let heard = self.receive().await;
            match &heard.1.body {
                Body::Event { frame, .. } if *frame == marker.as_bytes() => return before,
                Body::Event { frame, .. } if frame.starts_with(MARKER.as_bytes()) => {}
                _ => before.push(heard),
            }
        }
    }
}

impl EnvelopeSink for Recorder {
    fn deliver(&self, topic: &Topic, envelope: Envelope) {
        // The test may have ended before its node hears the last of it.
        let _ = self.heard.send((topic.clone(), envelope));
    }

    fn wait_for_room(&self) -> BoxFuture<'_, ()> {
        let mut has_room = self.has_room.subscribe();
        Box::pin(async move {
            has_room.wait_for(|has_room| *has_room).await.expect("the recorder outlives its borrow");
        })
    }
}

/// A topic.
pub fn topic(app: &str, channel: &str) -> Topic {
    Topic::new(&app.into(), &ChannelName::parse(channel, 200).expect("a valid name"))
}

/// An event with a text as its frame.
pub fn event(topic: &Topic, text: &str) -> Message {
    message(topic, Body::Event { frame: Bytes::copy_from_slice(text.as_bytes()), except: None, cached: false })
}

/// An event that is kept.
pub fn cached_event(topic: &Topic, text: &str, keep: Duration) -> Message {
    Message { cache_for: Some(keep), ..event(topic, text) }
}

/// A message of any body.
pub fn message(topic: &Topic, body: Body) -> Message {
    let envelope = Envelope { published_at_us: unix_us(), position: None, body };
    Message { topic: topic.clone(), envelope, cache_for: None, webhook: None }
}

/// The text of an event.
pub fn text_of(envelope: &Envelope) -> String {
    match &envelope.body {
        Body::Event { frame, .. } => String::from_utf8_lossy(frame).into_owned(),
        other => panic!("an event was expected, not {other:?}"),
    }
}
