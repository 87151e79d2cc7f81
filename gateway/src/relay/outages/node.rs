//! The relay of one gateway, and the view of its clients.

use std::collections::{BTreeMap, BTreeSet};
use std::future::pending;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::LocalBoxFuture;
use serde_json::Value;
use shared::app::{App, Apps};
use shared::cluster::bus::RedisBus;
use shared::cluster::bus::redis::subscriber::Subscriber;
use shared::cluster::envelope::Topic;
use shared::cluster::redis::{Config, Link};
use shared::cluster::roster::redis::Times;
use shared::cluster::roster::{RedisRoster, Roster};
use shared::cluster::webhook::EventTypes;
use shared::protocol::{Member, UserId};
use shared::serve::telemetry::metrics::Registry;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot};
use tokio::task::LocalSet;

use super::super::Relay;
use super::DIVISOR;
use crate::inbox::{Broadcast, Room, ShardMessage, inbox};
use crate::metrics::Metrics;

/// How long members that are missing after a loss of data are retained. Subscribers reconnect within 2 s.
const RETENTION: Duration = Duration::from_secs(4);

/// The members of each channel from the view of one node's clients, and the contradictory messages.
#[derive(Default)]
pub(super) struct View {
    pub(super) members: BTreeMap<String, BTreeSet<String>>,
    /// Additions and removals: the channel, the user, and whether the user was added.
    pub(super) changes: Vec<(String, String, bool)>,
    pub(super) contradictions: Vec<String>,
}

/// Starts work on the shard's thread.
type Work = Box<dyn FnOnce() -> LocalBoxFuture<'static, ()> + Send>;

/// Resolves when the work has ended.
pub(super) type Ended = oneshot::Receiver<()>;

/// A node with its own runtime. It can be killed like a process.
pub(super) struct Node {
    runtime: Runtime,
    /// Work of the node's one shard.
    shard: mpsc::UnboundedSender<Work>,
    relay: Arc<Relay>,
    roster: Arc<RedisRoster>,
    app: App,
    view: Arc<Mutex<View>>,
}

impl Node {
    pub(super) fn start(config: &Config, app: &App) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let apps = Apps::new([app.clone()]).expect("one app is unique");
        let redis_metrics = shared::cluster::redis::metrics::Metrics::new(&Registry::new(), true);
        let link = Link::new(config, runtime.handle().clone(), redis_metrics).expect("a valid configuration");
        let bus = RedisBus::new(link.clone(), Subscriber::new(link.clone()));
        let roster = RedisRoster::with_times(link, EventTypes::new(&apps), Times::divided(DIVISOR));
        let room = Arc::new(Room::default());
        let (sender, receiver) = inbox(room.clone());
        let mut messages = receiver.messages;
        let metrics = Metrics::new(&Registry::new(), &apps, 10, 10);
        let mut relay = Relay::new(bus.clone(), roster.clone(), vec![sender], room, metrics.presence.clone());
        relay.unverified.retention = RETENTION;
        let relay = Arc::new(relay);
        bus.deliver_to(relay.clone());
        let view = Arc::new(Mutex::new(View::default()));
        {
            let view = view.clone();
            runtime.spawn(async move {
                let mut batch = Vec::new();
                while messages.receive(&mut batch, 64).await {
                    let mut view = view.lock().expect("no holder of the view panics");
                    for message in batch.drain(..) {
                        view.receive(&message);
                    }
                }
            });
        }
        let (shard, work) = mpsc::unbounded_channel();
        std::thread::spawn(move || run_shard(work));
        let node = Self { runtime, shard, relay, roster, app: app.clone(), view };
        let (roster, relay) = (node.roster.clone(), node.relay.clone());
        node.on_shard(async move || match roster.maintain(relay).await {});
        let relay = node.relay.clone();
        node.on_shard(async move || match relay.keep_synchronized().await {});
        let relay = node.relay.clone();
        node.on_shard(async move || {
            loop {
                tokio::time::sleep(Duration::from_secs(1)).await;
                relay.tick().await;
            }
        });
        node
    }

    /// Ends all work of the node at once.
    pub(super) fn kill(self) {
        self.runtime.shutdown_background();
    }

    /// Subscribes a socket of `user`; resolves when the subscription has succeeded.
    pub(super) fn join(&self, topic: &Topic, user: &str) -> Ended {
        let (relay, app, topic) = (self.relay.clone(), self.app.clone(), topic.clone());
        let member = Member { user_id: user.into(), user_info: None };
        self.on_shard(async move || {
            let topic_of_reply = topic.clone();
            let reply = move |frames: Vec<bytes::Bytes>| {
                let frame = frames[0].clone();
                ShardMessage::Broadcast(Broadcast { topic: topic_of_reply, frame, except: None, published_at_us: None })
            };
            relay.enter(&topic, &app, 0, Some(&member), pending(), reply).await.expect("the user joins");
        })
    }

    /// Ends the subscription of `user`.
    pub(super) fn leave(&self, topic: &Topic, user: &str) -> Ended {
        let (relay, app, topic) = (self.relay.clone(), self.app.clone(), topic.clone());
        let user_id = UserId::from(user);
        self.on_shard(async move || relay.exit(&topic, &app, 0, Some(&user_id)).await)
    }

    fn on_shard(&self, work: impl AsyncFnOnce() + Send + 'static) -> Ended {
        let (end, ended) = oneshot::channel();
        let work: Work = Box::new(move || {
            Box::pin(async move {
                work().await;
                // The caller may not be waiting anymore.
                let _ = end.send(());
            })
        });
        assert!(self.shard.send(work).is_ok(), "the shard runs as long as the node");
        ended
    }

    /// Returns the members of a channel in Redis.
    pub(super) async fn listed(&self, topic: &Topic) -> Option<BTreeSet<String>> {
        let (roster, topic) = (self.roster.clone(), topic.clone());
        let members =
            self.runtime.spawn(async move { roster.members(&topic).await }).await.expect("the query does not panic");
        Some(members.ok()?.iter().map(|member| member.user_id.as_str().to_owned()).collect())
    }

    pub(super) fn with_view<T>(&self, look: impl FnOnce(&mut View) -> T) -> T {
        look(&mut self.view.lock().expect("no holder of the view panics"))
    }
}

/// Runs until the node is dropped. Work in progress then ends.
fn run_shard(mut work: mpsc::UnboundedReceiver<Work>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    LocalSet::new().block_on(&runtime, async {
        while let Some(work) = work.recv().await {
            tokio::task::spawn_local(work());
        }
    });
}

impl View {
    fn receive(&mut self, message: &ShardMessage) {
        let ShardMessage::Broadcast(Broadcast { frame, .. }) = message else { return };
        // The JSON text is behind the WebSocket header, which may have a brace, but no quotation mark after one.
        let begin = frame.windows(2).position(|bytes| bytes == b"{\"").expect("a text");
        let message: Value = serde_json::from_slice(&frame[begin..]).expect("JSON");
        let channel = message["channel"].as_str().expect("a channel").to_owned();
        let data: Value = serde_json::from_str(message["data"].as_str().expect("data")).expect("JSON");
        let user = || data["user_id"].as_str().expect("a user").to_owned();
        match message["event"].as_str().expect("an event") {
            "pusher_internal:subscription_succeeded" => {
                let ids = data["presence"]["ids"].as_array().expect("a list").iter();
                let ids: BTreeSet<String> = ids.map(|id| id.as_str().expect("an id").to_owned()).collect();
                match self.members.get(&channel) {
                    Some(known) if *known != ids => {
                        self.contradictions.push(format!("{channel}: a new subscriber sees {ids:?}, others {known:?}"));
                    }
                    _ => {}
                }
                self.members.insert(channel, ids);
            }
            "pusher_internal:member_added" => self.change(channel, user(), true),
            "pusher_internal:member_removed" => self.change(channel, user(), false),
            other => panic!("the relay does not send {other} here"),
        }
    }

    fn change(&mut self, channel: String, user: String, is_added: bool) {
        let Some(known) = self.members.get_mut(&channel) else { return };
        let is_possible = if is_added { known.insert(user.clone()) } else { known.remove(&user) };
        if !is_possible {
            self.contradictions.push(format!("{channel}: {user} was added or removed twice ({is_added})"));
        }
        self.changes.push((channel, user, is_added));
    }
}
